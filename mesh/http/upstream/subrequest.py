"""A request of our own while a client's waits: somebody is asked who may come in, or for a page.

It is an exchange like any other, with endpoints, connections, repetitions and time limits. This is its
client's side: it takes the response as a whole, if that is not too large and comes in time.
"""

from collections.abc import Callable

from mesh.http import limits
from mesh.http.byte_budget import ByteBudget, HeldBytes
from mesh.http.codec.h1_head import Fields, RequestFields, RequestHead, ResponseHead
from mesh.http.codec.proxy_headers import ClientInfo
from mesh.http.exchange import Exchange
from mesh.http.faults import HttpFault
from mesh.http.local_reply import LocalReply
from mesh.http.upstream.service import UpstreamService
from mesh.net.isolation import run
from mesh.net.limits.semaphore import Places
from mesh.net.timers import Deadlines


class Subrequest:
    """Told once, perhaps at once; never after `drop`."""

    def __init__(
        self,
        deadlines: Deadlines,
        room: Places,
        edge: ClientInfo,
        request_id: bytes,
        told: Callable[["Subrequest"], None],
        seconds: float = limits.ASIDE_SECONDS,
    ) -> None:
        """`edge`: of the client for whose sake it is."""
        self.edge = edge
        self.request_id = request_id
        self.head: ResponseHead | None = None  # of a response that is whole
        self.body = b""
        self.done = False
        self.fault: HttpFault | None = None  # without a response; None: it took too long, or was too large
        self._seconds = seconds
        self._deadlines = deadlines
        self._room = room
        self._told = told
        self._exchange: Exchange | None = None
        self._coming: ResponseHead | None = None
        self._pieces: list[bytes] = []
        self._too_large = False  # or more than is still held for this client
        self._held = HeldBytes(edge.account or ByteBudget().account(edge.client))
        self._entry = 0.0

    def ask(
        self, target: UpstreamService, method: bytes, path: bytes, lines: bytes, body: bytes = b""
    ) -> None:
        """`lines`: all field lines, Host too. Raises Refused if they cannot be a request's."""
        head = RequestHead(method, path, 1, RequestFields(Fields(lines)), "")
        if not self._room.take():
            self._ended(None)
            return
        self._entry = self._deadlines.add(self, self._seconds)
        self._exchange = exchange = Exchange(self, head, target, target.on_close)
        run(exchange.begin, body, True)

    def drop(self) -> None:
        """Nobody wants to know any more."""
        if not self.done:
            self._told = _nobody
            self._give_up()

    def on_due(self) -> None:
        self._give_up()

    def on_fault(self) -> None:
        """Something of ours has failed in it: there is no answer."""
        self._give_up()

    # --- the client's side of the exchange ---

    def forwarded(self, head: RequestHead) -> bytes:
        return head.fields.raw

    def whole(self, head: ResponseHead, body: bytes) -> None:
        self._coming = head
        self.write(body)
        self._complete()

    def respond(self, head: ResponseHead, length: int) -> None:
        self._coming = head

    def write(self, data: bytes) -> None:
        size = self._held.size + len(data)
        self._too_large = self._too_large or size > limits.ASIDE_BODY_MAX or self._held.set(size) is not None
        if not self._too_large:
            self._pieces.append(data)

    def flush(self) -> bool:
        if self._too_large:
            self._give_up()
        return True

    def end(self, trailers: bytes) -> None:
        self._complete()

    def answer(self, answer: LocalReply) -> None:
        if self._exchange is not None:
            self.fault = self._exchange.fault
        self._ended(None)

    def cut(self) -> None:
        self._ended(None)

    def interim(self, head: ResponseHead) -> None:
        """Nobody has asked for anything that takes long to send."""

    def switch(self, head: ResponseHead) -> None:
        """It is never asked for."""

    def hold_body(self, hold: bool) -> None:
        """There is none."""

    # --- the end ---

    def _complete(self) -> None:
        self._ended(None if self._too_large else self._coming)

    def _give_up(self) -> None:
        exchange, self._exchange = self._exchange, None
        self._ended(None)
        if exchange is not None:
            run(exchange.gone)

    def _ended(self, head: ResponseHead | None) -> None:
        if self.done:
            return
        self.done = True
        if self._entry:
            self._deadlines.drop(self, self._entry)
            self._room.give_back()
        self.head = head
        self.body = b"".join(self._pieces) if head is not None else b""
        self._pieces.clear()
        self._held.set(0)
        run(self._told, self)


def _nobody(_: Subrequest) -> None:
    """Wants to know."""
