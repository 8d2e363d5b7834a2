"""Questions of ours that come back to us: an upstream, or an upstream's upstream, is this resolver. Pure.

Every question leaves in a random spelling (0x20) that nobody else can know. One that arrives in exactly the
spelling of one that is under way has therefore come back, by whatever way and from whatever address. Names of
few letters, and servers that do not keep the case, escape this; their question then waits for itself, as the
equal of one under way, and ends at the deadline: a loop never multiplies.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from mesh.dns.config import LOOP_LETTERS
from mesh.dns.forward.route import DnsServer, UpstreamRoute


class InFlightSpellings:
    """The questions under way, as they were spelled, and whom they were sent to."""

    def __init__(self) -> None:
        self._out: dict[bytes, tuple[UpstreamRoute, DnsServer]] = {}

    @contextmanager
    def out(self, question: bytes, case: int, route: UpstreamRoute, server: DnsServer) -> Iterator[None]:
        """While it is under way. `case` 0: in no spelling of ours."""
        if not case or not _unmistakable(question):
            yield
            return
        self._out[question] = (route, server)
        try:
            yield
        finally:
            self._out.pop(question, None)

    def sent_to(self, question: bytes) -> tuple[UpstreamRoute, DnsServer] | None:
        """Whom a question that came to us in these very bytes was sent to by us; None: it is not ours."""
        return self._out.get(question)


def _unmistakable(question: bytes) -> bool:
    name = question[:-4]
    letters = name.translate(None, delete=_NO_LETTERS)
    return len(letters) >= LOOP_LETTERS and not letters.islower() and not letters.isupper()


_NO_LETTERS = bytes(byte for byte in range(256) if not chr(byte).isalpha() or byte > 0x7F)
