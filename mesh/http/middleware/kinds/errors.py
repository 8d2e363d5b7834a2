"""`errors`: in place of a response with one of some statuses, the client gets a page of another service.
Pure.

The response (a task's, or a local reply) is held back until it has ended; then the page is asked for, so the
exchange is over by then. The client gets the page with the status of the response, and with those of its
fields that a client acts upon. Without a page the client gets the response itself.
"""

from dataclasses import dataclass, replace
from urllib.parse import quote

from mesh.http import limits
from mesh.http.codec.h1_head import Fields, ResponseHead
from mesh.http.codec.proxy_headers import NOT_WITHOUT_BODY
from mesh.http.config.model import Middleware
from mesh.http.local_reply import LocalReply, changed_answer, status_answer
from mesh.http.middleware.kind import AskService, FilterContext, MiddlewareKind, add_filter, stateless
from mesh.http.middleware.options import MiddlewareOptions
from mesh.http.middleware.response_filter import ResponseFilter
from mesh.http.middleware.upstream_reply import reply_from
from mesh.internal_errors import ERRORS
from mesh.labels.values import list_of, parse_field_value, parse_path, parse_status_range
from mesh.net.isolation import run

# Fields of the client's request that the pages' service does not get: they are about the resource, and
# whether this client may see it or has it already.
_NOT_SENT = (
    *(b"authorization", b"cookie", b"range", b"if-range"),
    *(b"if-match", b"if-none-match", b"if-modified-since", b"if-unmodified-since"),
)
_WITHOUT_BODY = (204, 304)
_FIELDS_OF_RESPONSE = (b"www-authenticate", b"retry-after", b"allow", b"set-cookie")


@dataclass(frozen=True, slots=True)
class ErrorPages(Middleware):
    """`service`: as the label names it; the key of the HTTP service once references are resolved."""

    statuses: tuple[tuple[int, int], ...]  # first, last
    service: str
    query: str  # path of a page, with {status} and {url}


def _parse(options: MiddlewareOptions) -> ErrorPages:
    service: str = options.read("service", parse_field_value)
    return ErrorPages(
        options.read("status", list_of(parse_status_range)),
        service.lower().removesuffix("@swarm").removesuffix("@docker"),
        options.read("query", parse_path, "/"),
    )


def page_path(configured: ErrorPages, status: int, target: str) -> str:
    """The path of the page for this status and this target of the client's request."""
    path = configured.query.replace("{status}", str(status)).replace("{originalStatus}", str(status))
    return path.replace("{url}", quote(target, safe=""))


def page_request_fields(lines: bytes) -> bytes:
    """The field lines of the request for a page. `lines`: those of the client's request, as an endpoint would
    get them."""
    return Fields(lines).without(*NOT_WITHOUT_BODY, *_NOT_SENT)


def page_reply(held: LocalReply, page: ResponseHead, body: bytes) -> LocalReply:
    """What the client gets: the page with the status and some fields of the response that was held back."""
    found = reply_from(page, body)
    kept = [field for field in held.fields if field[0].lower() in _FIELDS_OF_RESPONSE]
    names = {name.lower() for name, _ in kept}
    others = (field for field in found.fields if field[0].lower() not in names)
    return LocalReply(held.status, (*kept, *others), found.body)


class ErrorPageFilter(ResponseFilter):
    """Holds back one response, and asks for a page in its place."""

    __slots__ = ("_ask", "_configured", "_context", "_head", "_held", "_size")

    def __init__(self, context: FilterContext, configured: ErrorPages, ask: AskService | None) -> None:
        """`ask`: the service that has the pages; None: there is none, and responses stay as they are."""
        super().__init__(context.client)
        self._context = context
        self._configured = configured
        self._ask = ask
        self._head: ResponseHead | None = None  # of the response that is held back
        self._held: list[bytes] = []
        self._size = 0

    def respond(self, head: ResponseHead, length: int) -> None:
        if self._is_replaced(head.status):
            self._head = head
        else:
            self.client.respond(head, length)

    def whole(self, head: ResponseHead, body: bytes) -> None:
        if self._is_replaced(head.status):
            self._send_page(reply_from(head, body))
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
            self._context.dismiss()
            self._send_page(self._reply_without_body(head))
        return True

    def end(self, trailers: bytes) -> None:
        head = self._head
        if head is None:
            self.client.end(trailers)
        elif self._size > limits.ASIDE_BODY_MAX:
            self._send_page(self._reply_without_body(head))
        else:
            self._send_page(reply_from(head, b"".join(self._held)))

    def cut(self) -> None:
        if self._head is None:
            self.client.cut()
        else:
            self._send_page(self._reply_without_body(self._head))

    def answer(self, answer: LocalReply) -> None:
        if self._is_replaced(answer.status):
            self._send_page(answer)
        else:
            self.client.answer(answer)

    def _is_replaced(self, status: int) -> bool:
        if self._ask is None or status in _WITHOUT_BODY:
            return False
        return any(low <= status <= high for low, high in self._configured.statuses)

    def _reply_without_body(self, head: ResponseHead) -> LocalReply:
        """In place of a response whose body is too large or not complete, if there is no page either."""
        answer = status_answer(head.status, self.request_id)
        kept = [field for field in reply_from(head, b"").fields if field[0].lower() in _FIELDS_OF_RESPONSE]
        return replace(answer, fields=(*answer.fields, *kept))

    def _send_page(self, held: LocalReply) -> None:
        context = self._context
        assert self._ask is not None

        def on_page(page: ResponseHead | None, body: bytes) -> None:
            answer = held
            try:
                if page is not None:
                    answer = changed_answer(page_reply(held, page, body), context.response_fields)
                self.client.answer(answer)
            except Exception as error:  # noqa: BLE001 - the boundary of a page: its client is answered all the same
                ERRORS.report("page for an error", error)
                run(self.client.cut)

        self._held.clear()
        self.client.hold_body(True)
        path = page_path(self._configured, held.status, context.head.target.decode("latin-1"))
        self._ask(path.encode(), page_request_fields(self.client.forwarded(context.head)), on_page)


def _build_filter(configured: ErrorPages, context: FilterContext) -> ErrorPageFilter:
    return ErrorPageFilter(context, configured, context.find_service(configured.service))


KIND = MiddlewareKind(("errors",), ErrorPages, _parse, stateless(add_filter), _build_filter)
