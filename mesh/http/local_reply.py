"""Our own answers: who failed and the request's id, nothing of what stands behind us. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus

from mesh.http.faults import FaultSide, HttpFault

_WHO = {
    FaultSide.CLIENT: "The request was not accepted.",
    FaultSide.ROUTE: "Nothing here serves this request.",
    FaultSide.ENDPOINT: "The application did not answer as it should.",
    FaultSide.US: "The proxy cannot take this request now.",
}
_OWN = {499: "Client Closed Request"}


@dataclass(frozen=True, slots=True)
class LocalReply:
    """A response that no task gives."""

    status: int
    fields: tuple[tuple[bytes, bytes], ...] = ()  # besides Content-Length
    body: bytes = b""


def reason_phrase(status: int) -> str:
    known = HTTPStatus._value2member_map_
    return _OWN.get(status) or (HTTPStatus(status).phrase if status in known else "Unknown")


def error_answer(fault: HttpFault, request_id: bytes) -> LocalReply:
    shown = request_id.decode("latin-1")
    title = f"{fault.status} {reason_phrase(fault.status)}"
    text = f"{title}\n{_WHO[fault.side]} ({fault.reason})\nrequest {shown}\n"
    fields = [(b"Content-Type", b"text/plain; charset=utf-8"), (b"Cache-Control", b"no-store")]
    if request_id:
        fields.append((b"X-Request-Id", request_id))
    return LocalReply(fault.status, tuple(fields), text.encode())


def status_answer(status: int, request_id: bytes) -> LocalReply:
    """In place of a response of which the status is all that is left."""
    text = f"{status} {reason_phrase(status)}\nrequest {request_id.decode('latin-1')}\n"
    return LocalReply(status, ((b"Content-Type", b"text/plain; charset=utf-8"),), text.encode())


def changed_answer(answer: LocalReply, fields: Sequence[tuple[str, str | None]]) -> LocalReply:
    """With these set, or taken away (None)."""
    named = {name.lower().encode() for name, _ in fields}
    kept = [one for one in answer.fields if one[0].lower() not in named]
    new = [(name.encode(), value.encode("latin-1")) for name, value in fields if value is not None]
    return replace(answer, fields=(*kept, *new))


def as_http1(answer: LocalReply, *, keep: bool, head_only: bool) -> bytes:
    """The whole response. `keep`: the connection goes on; `head_only`: the request was HEAD."""
    lines = [b"HTTP/1.1 %d %b\r\n" % (answer.status, reason_phrase(answer.status).encode())]
    lines += [b"%b: %b\r\n" % field for field in answer.fields]
    if answer.status not in (204, 304):
        lines.append(b"Content-Length: %d\r\n" % len(answer.body))
    if not keep:
        lines.append(b"Connection: close\r\n")
    return b"".join(lines) + b"\r\n" + (b"" if head_only else answer.body)
