"""Our own answers: who failed and the request's id, nothing of what stands behind us."""

from http import HTTPStatus

from mesh.http.faults import Fault, Side

_WHO = {
    Side.CLIENT: "The request was not accepted.",
    Side.ROUTE: "Nothing here serves this request.",
    Side.ENDPOINT: "The application did not answer as it should.",
    Side.US: "The proxy cannot take this request now.",
}


def error_page(fault: Fault, request_id: bytes, *, keep: bool, head_only: bool) -> bytes:
    """The whole response."""
    status = fault.status
    reason = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else "Error"
    shown = request_id.decode("latin-1")
    body = f"{status} {reason}\n{_WHO[fault.side]} ({fault.reason})\nrequest {shown}\n".encode()
    lines = [
        f"HTTP/1.1 {status} {reason}",
        "Content-Type: text/plain; charset=utf-8",
        f"Content-Length: {len(body)}",
        "Cache-Control: no-store",
        "Connection: close" if not keep else "",
        f"X-Request-Id: {shown}" if shown else "",
    ]
    head = "\r\n".join(line for line in lines if line).encode("latin-1") + b"\r\n\r\n"
    return head if head_only else head + body
