"""Steps carried out for an exchange: what they have to wait for, and what they put around its client."""

from collections.abc import Sequence

from mesh.http import limits
from mesh.http.compress import Compressing, Room, understands_gzip
from mesh.http.core import Core
from mesh.http.exchange import Exchange
from mesh.http.faults import Fault
from mesh.http.model import Compress
from mesh.http.steps import Asked, Step, Treatment, Unverified, go_on


class Treating:
    def __init__(self, core: Core) -> None:
        self._core = core
        self._compressing = Room(limits.COMPRESSING_MAX)

    def treat(self, steps: Sequence[Step], asked: Asked, treatment: Treatment, exchange: Exchange) -> None:
        """All steps; one that has to compare a password waits for that in a thread."""
        try:
            go_on(steps, asked, treatment)
        except Unverified as unverified:

            def then() -> None:
                if exchange.waiting:  # the client is still there
                    self.treat(steps, asked, treatment, exchange)

            if self._core.in_thread(unverified.verify, then):
                exchange.waiting = True
                return
            treatment.refuse(Fault.OVERLOADED, asked.request_id)
        for one in treatment.around:
            self._put_around(one, asked, treatment, exchange)
        exchange.go_on()

    def _put_around(self, one: Compress, asked: Asked, treatment: Treatment, exchange: Exchange) -> None:
        wanted = understands_gzip(asked.request.header("accept-encoding"))
        head_only = exchange.method == b"HEAD"
        around = Compressing(exchange.client, one, wanted, head_only, self._compressing)
        treatment.at_end.append(around.ended)
        exchange.client = around
