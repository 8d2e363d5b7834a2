"""A page in place of a response whose status says that something went wrong: another service has it.

The response, or our own answer, is held back, and the page is asked for when it has ended; so the exchange is
over by then. The client gets the page with the status of the response, and of its fields those that a client
acts upon. Where there is no page it gets what was held back.
"""

from dataclasses import replace
from urllib.parse import quote

from mesh.http import limits
from mesh.http.codec.h1_head import Fields, ResponseHead
from mesh.http.codec.proxy_headers import NOT_WITHOUT_BODY
from mesh.http.config.model import ErrorPages
from mesh.http.exchange import Exchange
from mesh.http.local_reply import LocalReply, changed_answer, status_answer
from mesh.http.middleware.forward_auth import answered
from mesh.http.middleware.response_filter import ResponseFilter
from mesh.http.upstream.service import UpstreamService
from mesh.http.upstream.subrequest import Subrequest
from mesh.internal_errors import ERRORS
from mesh.net.isolation import run
from mesh.net.limits.semaphore import Places
from mesh.net.timers import Deadlines

# Not the page's business: whether the client may see something else, or has it already.
_NOT_ASKED = (
    *(b"authorization", b"cookie", b"range", b"if-range"),
    *(b"if-match", b"if-none-match", b"if-modified-since", b"if-unmodified-since"),
)
_WITHOUT_BODY = (204, 304)
_KEPT = (b"www-authenticate", b"retry-after", b"allow", b"set-cookie")


def page_path(one: ErrorPages, status: int, target: str) -> str:
    path = one.query.replace("{status}", str(status)).replace("{originalStatus}", str(status))
    return path.replace("{url}", quote(target, safe=""))


def question(lines: bytes) -> bytes:
    """`lines`: those of the request, as an endpoint would get them."""
    return Fields(lines).without(*NOT_WITHOUT_BODY, *_NOT_ASKED)


def page(held: LocalReply, got: ResponseHead, body: bytes) -> LocalReply:
    """What the client gets."""
    found = answered(got, body)
    kept = [one for one in held.fields if one[0].lower() in _KEPT]
    named = {name.lower() for name, _ in kept}
    return LocalReply(
        held.status, (*kept, *(one for one in found.fields if one[0].lower() not in named)), found.body
    )


class ErrorPageFilter(ResponseFilter):
    """Around the client of one exchange."""

    __slots__ = (
        "_deadlines",
        "_exchange",
        "_head",
        "_held",
        "_one",
        "_room",
        "_size",
        "_target",
    )

    def __init__(
        self,
        exchange: Exchange,
        one: ErrorPages,
        target: UpstreamService | None,
        deadlines: Deadlines,
        room: Places,
    ) -> None:
        """`target`: who has the pages, if there is anybody."""
        super().__init__(exchange.client)
        self._exchange = exchange
        self._one = one
        self._target = target
        self._deadlines = deadlines
        self._room = room
        self._head: ResponseHead | None = None  # of a response that is held back
        self._held: list[bytes] = []
        self._size = 0

    def respond(self, head: ResponseHead, length: int) -> None:
        if self._concerns(head.status):
            self._head = head
        else:
            self.client.respond(head, length)

    def whole(self, head: ResponseHead, body: bytes) -> None:
        if self._concerns(head.status):
            self._instead(answered(head, body))
        else:
            self.client.whole(head, body)

    def write(self, data: bytes) -> None:
        if self._head is None:
            self.client.write(data)
            return
        self._size += len(data)
        if self._size <= limits.ASIDE_BODY_MAX:
            self._held.append(data)

    def flush(self) -> bool:
        if self._head is None:
            return self.client.flush()
        if self._size > limits.ASIDE_BODY_MAX:
            head = self._head
            self._exchange.dismiss()
            self._instead(self._left_of(head))
        return True

    def end(self, trailers: bytes) -> None:
        head = self._head
        if head is None:
            self.client.end(trailers)
        elif self._size > limits.ASIDE_BODY_MAX:
            self._instead(self._left_of(head))
        else:
            self._instead(answered(head, b"".join(self._held)))

    def cut(self) -> None:
        if self._head is None:
            self.client.cut()
        else:
            self._instead(self._left_of(self._head))

    def answer(self, answer: LocalReply) -> None:
        if self._concerns(answer.status):
            self._instead(answer)
        else:
            self.client.answer(answer)

    def _concerns(self, status: int) -> bool:
        if self._target is None or status in _WITHOUT_BODY:
            return False
        return any(low <= status <= high for low, high in self._one.statuses)

    def _left_of(self, head: ResponseHead) -> LocalReply:
        """Of a response whose body is not here."""
        answer = status_answer(head.status, self.request_id)
        kept = [one for one in answered(head, b"").fields if one[0].lower() in _KEPT]
        return replace(answer, fields=(*answer.fields, *kept))

    def _instead(self, held: LocalReply) -> None:
        exchange, target = self._exchange, self._target
        assert target is not None

        def told(aside: Subrequest) -> None:
            answer = held
            try:
                if aside.head is not None:
                    answer = changed_answer(page(held, aside.head, aside.body), exchange.response_fields)
                self.client.answer(answer)
            except Exception as error:  # noqa: BLE001 - the boundary of a page: its client is told all the same
                ERRORS.report("page for an error", error)
                run(self.client.cut)

        self._held.clear()
        self.client.hold_body(True)
        aside = Subrequest(self._deadlines, self._room, self.edge, self.request_id, told)
        exchange.afterwards = aside.drop
        path = page_path(self._one, held.status, exchange.head.target.decode("latin-1"))
        aside.ask(target, b"GET", path.encode(), question(self.client.forwarded(exchange.head)))
