"""A service's response turned into a reply to the client, for error pages and refusals. Pure."""

from urllib.parse import urljoin

from mesh.http.codec.h1_head import Fields, ResponseHead
from mesh.http.codec.proxy_headers import response_lines
from mesh.http.local_reply import LocalReply


def reply_from(head: ResponseHead, body: bytes, base: str = "") -> LocalReply:
    """The response as a local reply. `base`: a relative Location is resolved against this URL."""
    block = Fields(response_lines(head).partition(b"\r\n")[2])
    fields = Fields(block.without(b"content-length", b"trailer")).items()
    if base:
        fields = [_with_absolute_location(field, base) for field in fields]
    return LocalReply(head.status, tuple(fields), body)


def _with_absolute_location(field: tuple[bytes, bytes], base: str) -> tuple[bytes, bytes]:
    if field[0].lower() != b"location":
        return field
    try:
        return field[0], urljoin(base, field[1].decode("latin-1")).encode("latin-1")
    except ValueError:  # it is no URL: the client gets it as it is
        return field
