"""Converts heads between the lists of HTTP/2 and the bytes of HTTP/1, in which they are kept. Pure.

RFC 9113 section 8. Lists are checked as strictly as a head of HTTP/1: a line end or a colon in a list would
become a line, or another field, in the endpoint's request.
"""

import re
from collections.abc import Iterable

from hpack import NeverIndexedHeaderTuple

from mesh.http.codec.h1_body import allowed_trailers
from mesh.http.codec.h1_head import (
    CHUNKED,
    KEPT_MAX,
    LINE_MAX,
    Fields,
    RequestFields,
    RequestHead,
    ResponseHead,
    checked_fields,
)
from mesh.http.faults import HttpFault, RequestRefused
from mesh.http.local_reply import LocalReply, reason_phrase
from mesh.parsing import parse_int

List = Iterable[tuple[bytes, bytes]]

_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]++")
_VALUE = re.compile(rb"(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?")
_METHOD = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,32}")
_TARGET = re.compile(rb"/[!\"$-~]*")
_STATUS = re.compile(rb"[1-5][0-9][0-9]")
# RFC 9113 section 8.2.2
_OF_CONNECTIONS = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade")
)
_WITH_BODY = (b"POST", b"PUT", b"PATCH")
_SECRET = frozenset((b"authorization", b"cookie", b"set-cookie", b"proxy-authorization"))


class RequestLists:
    """Reads one connection's requests. Most of a client's fields are the same each time: the last are
    kept."""

    __slots__ = ("_about", "_known")

    def __init__(self) -> None:
        self._known: object = None
        self._about: RequestFields | None = None

    def read(self, fields: List, ended: bool) -> RequestHead:
        """`ended`: no body follows. Raises RequestRefused."""
        pseudo: dict[bytes, bytes] = {}
        rest: list[tuple[bytes, bytes]] = []
        for one in fields:
            name = one[0]
            if name[:1] != b":":
                rest.append(one)
            elif rest or name in pseudo:
                raise RequestRefused(HttpFault.BAD_HEAD, "a pseudo-header field in the wrong place")
            else:
                pseudo[name] = one[1]
        method, target = pseudo.get(b":method", b""), pseudo.get(b":path", b"")
        authority = pseudo.get(b":authority")
        if not pseudo.keys() <= {b":method", b":scheme", b":path", b":authority"}:
            raise RequestRefused(HttpFault.BAD_HEAD, "an unknown pseudo-header field")
        if _METHOD.fullmatch(method) is None:
            raise RequestRefused(HttpFault.BAD_HEAD, "the method is malformed")
        if method == b"CONNECT":
            raise RequestRefused(HttpFault.METHOD, "CONNECT: this is not a forward proxy")
        if len(target) > LINE_MAX:
            raise RequestRefused(HttpFault.TARGET_TOO_LONG, f"a path longer than {LINE_MAX} bytes")
        if _TARGET.fullmatch(target) is None and not (target == b"*" and method == b"OPTIONS"):
            raise RequestRefused(HttpFault.BAD_HEAD, "the path is malformed")
        if pseudo.get(b":scheme") not in (b"http", b"https"):
            raise RequestRefused(HttpFault.BAD_HEAD, "the scheme is neither http nor https")
        known = (authority, ended, ended and method in _WITH_BODY, rest)
        about = self._about
        if about is None or known != self._known:
            about = _about(rest, authority, ended, method)
            if len(about.fields.raw) <= KEPT_MAX:
                self._known, self._about = known, about
        return RequestHead(method, target, 1, about, about.host)


def _about(
    rest: list[tuple[bytes, bytes]], authority: bytes | None, ended: bool, method: bytes
) -> RequestFields:
    lines, cookies, sized = [], [], False
    for name, value in rest:
        _check(name, value, HttpFault.BAD_HEAD)
        if name == b"cookie":
            cookies.append(value)
        elif name == b"host":
            if authority is not None and value.lower() != authority.lower():
                raise RequestRefused(HttpFault.BAD_HEAD, "Host is not the authority")
            authority = value if authority is None else authority
        else:
            if name == b"te" and value.lower() != b"trailers":
                raise RequestRefused(HttpFault.BAD_HEAD, "TE is not trailers")
            sized = sized or name == b"content-length"
            lines.append(b"%b: %b\r\n" % (name, value))
    if authority is None:
        raise RequestRefused(HttpFault.BAD_HEAD, "no authority")
    _check(b"host", authority, HttpFault.BAD_HEAD)
    if cookies:  # section 8.2.3
        lines.append(b"cookie: %b\r\n" % b"; ".join(cookies))
    if ended and not sized and method in _WITH_BODY:
        lines.append(b"content-length: 0\r\n")  # RFC 9110 section 8.6; some servers answer 411 otherwise
    about = RequestFields(checked_fields(b"host: %b\r\n%b" % (authority, b"".join(lines))))
    if ended and about.length:
        raise RequestRefused(HttpFault.BAD_HEAD, "a Content-Length, but no content")
    if not ended and not sized:
        about.length = CHUNKED
    return about


def _check(name: bytes, value: bytes, fault: HttpFault) -> None:
    if _NAME.fullmatch(name) is None or _VALUE.fullmatch(value) is None:
        raise RequestRefused(fault, "a header field is malformed")
    if name in _OF_CONNECTIONS:
        raise RequestRefused(fault, "a header field of HTTP/1's connections")


def read_response(fields: List) -> ResponseHead:
    """The head of a final or interim response. Raises RequestRefused (502)."""
    status = b""
    lines: list[bytes] = []
    for name, value in fields:
        if name == b":status" and not status and not lines:
            status = value
            continue
        _check(name, value, HttpFault.BAD_RESPONSE)
        lines.append(b"%b: %b\r\n" % (name, value))
    if _STATUS.fullmatch(status) is None or status == b"101":
        raise RequestRefused(HttpFault.BAD_RESPONSE, "the status is malformed")
    code = parse_int(status, 100, 599)
    head = ResponseHead(code, reason_phrase(code).encode(), 1, Fields(b"".join(lines)))
    if b"\ncontent-length:" not in head.fields.lower:
        head.length = CHUNKED
    return head


def read_trailers(fields: List, fault: HttpFault) -> bytes:
    """Trailers as field lines, each with its CRLF. Raises RequestRefused with this fault."""
    lines = []
    for name, value in fields:
        _check(name, value, fault)
        lines.append(b"%b: %b\r\n" % (name, value))
    try:
        return allowed_trailers(checked_fields(b"".join(lines)))
    except RequestRefused as refused:
        raise RequestRefused(fault, str(refused)) from refused


def request_list(head: RequestHead, target: bytes, lines: bytes, scheme: bytes) -> list[tuple[bytes, bytes]]:
    """A request for an endpoint. `lines`: its field lines as in HTTP/1."""
    listed = [(b":method", head.method), (b":scheme", scheme), (b":path", target)]
    rest = []
    for name, value in Fields(lines).items():
        name = name.lower()
        if name == b"host":
            listed.append((b":authority", value))
        elif name not in _OF_CONNECTIONS:
            rest.append(_coded(name, value))
    return listed + rest


def response_list(head: ResponseHead) -> list[tuple[bytes, bytes]]:
    """A response for a client."""
    options = head.options
    listed = [(b":status", b"%d" % head.status)]
    for name, value in head.fields.items():
        name = name.lower()
        if name not in _OF_CONNECTIONS and (name not in options or name == b"set-cookie"):
            listed.append(_coded(name, value))
    return listed


def answer_list(answer: LocalReply) -> list[tuple[bytes, bytes]]:
    """The head of a local reply for a client."""
    listed = [(b":status", b"%d" % answer.status)]
    listed += [(name.lower(), value) for name, value in answer.fields]
    if answer.status not in (204, 304):
        listed.append((b"content-length", b"%d" % len(answer.body)))
    return listed


def trailer_list(trailers: bytes) -> list[tuple[bytes, bytes]]:
    """Trailers from field lines."""
    return [_coded(name.lower(), value) for name, value in Fields(trailers).items()]


def _coded(name: bytes, value: bytes) -> tuple[bytes, bytes]:
    """Secret fields are not put into the dynamic table: RFC 7541 section 7.1."""
    return NeverIndexedHeaderTuple(name, value) if name in _SECRET else (name, value)
