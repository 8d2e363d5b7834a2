"""Heads of HTTP/1 messages, read strictly and kept as the bytes they came as. A fast path, by hand.

One regular expression says whether a whole block of fields is well formed; after that it is searched, not
taken apart: a proxy looks at six of its fields and passes the others on. What could be understood in two ways
(RFC 9112 section 11.2) is refused, never repaired: whoever stands behind us might read it the other way.

A client repeats most of its fields with each request, so a connection keeps the last `RequestFields` and
compares bytes before it reads anything anew (`RequestReader`). HTTP/2 builds the same values from its lists.
"""

import re
from dataclasses import dataclass

from mesh.http.faults import HttpFault, RequestRefused
from mesh.parsing import PORT_MAX, parse_int

LINE_MAX = 16 * 1024  # of a request line: what servers behind us take at most (8 to 16 KiB)
HEAD_MAX = 64 * 1024  # of a head: one read
KEPT_MAX = (
    4 * 1024
)  # of a block of fields that a connection remembers between requests: one for each of thousands
FIELDS_MAX = 200  # lines; each costs whoever is behind us more than us
EMPTY_LINES_MAX = 4  # before a request: RFC 9112 section 2.2 wants at least one to be ignored

CHUNKED = -1  # `length` of a body that says its own end
UNTIL_CLOSE = -2  # `length` of a response that ends with its connection

_NAME = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
_FIELDS = re.compile(rb"(?:" + _NAME + rb":[\t\x20-\x7e\x80-\xff]*+\r\n)*+")
# No fragment (RFC 9112 section 3.2), no byte outside visible ASCII.
_REQUEST_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]{1,32}) ([!\"$-~]+) HTTP/1\.([01])")
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9][0-9])(?: ([\t\x20-\x7e\x80-\xff]*+))?\r\n")
_HOST = re.compile(
    rb"(\[[0-9A-Fa-f:.]{2,45}\]|[!$%&'()*+,\-.0-9;=A-Z_a-z~]{1,255})(?::([0-9]{0,5}))?"  # RFC 3986, 3.2.2
)
_LAST_PORT = b"%d" % PORT_MAX
_ABSOLUTE = re.compile(rb"[Hh][Tt][Tt][Pp][Ss]?://([^/?@]+)([/?].*)?", re.DOTALL)
_NUMBER = re.compile(rb"[0-9]{1,18}")
LENGTH_MAX = 10**18  # bytes of a body
_VERSION = re.compile(rb"HTTP/([0-9])\.([0-9])")


_OPTIONS = {
    b"keep-alive": (b"keep-alive",),
    b"Keep-Alive": (b"keep-alive",),
    b"close": (b"close",),
    b"Upgrade": (b"upgrade",),
}


class Fields:
    """A well-formed block of field lines. `raw` ends with CRLF, or is empty."""

    __slots__ = ("lower", "raw")

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.lower = b"\n" + raw.lower()

    def has(self, name: bytes) -> bool:
        """`name` in lower case."""
        return b"\n" + name + b":" in self.lower

    def get(self, name: bytes) -> bytes | None:
        """The value of the first line of that name, without the white space around it."""
        lower = self.lower
        at = lower.find(b"\n" + name + b":")
        if at < 0:
            return None
        start = at + len(name) + 1  # `lower` has one byte more in front
        return self.raw[start : self.raw.find(b"\r", start)].strip(b" \t")

    def all(self, name: bytes) -> list[bytes]:
        """The values of all lines of that name, in order."""
        found, wanted, at = [], b"\n" + name + b":", -1
        while (at := self.lower.find(wanted, at + 1)) >= 0:
            start = at + len(name) + 1
            found.append(self.raw[start : self.raw.find(b"\r", start)].strip(b" \t"))
        return found

    def tokens(self, name: bytes) -> list[bytes]:
        """The comma-separated elements of all lines of that name, in lower case, without empty ones."""
        joined = b",".join(self.all(name)).lower()
        return [token for part in joined.split(b",") if (token := part.strip(b" \t"))]

    def options(self) -> tuple[bytes, ...]:
        """Of Connection; nearly always one word."""
        value = self.get(b"connection")
        if value is None:
            return ()
        known = _OPTIONS.get(value)
        if known is not None and self.lower.count(b"\nconnection:") == 1:
            return known
        return tuple(self.tokens(b"connection"))

    def items(self) -> list[tuple[bytes, bytes]]:
        """Name as it came and value of every line."""
        lines = self.raw.split(b"\r\n")[:-1]
        return [(name, value.strip(b" \t")) for name, _, value in (line.partition(b":") for line in lines)]

    def without(self, *names: bytes) -> bytes:
        """The block without the lines of these names (lower case)."""
        raw, lower = self.raw, self.lower
        for name in names:
            wanted = b"\n" + name + b":"
            while (at := lower.find(wanted)) >= 0:
                end = raw.find(b"\n", at) + 1
                raw = raw[:at] + raw[end:]
                lower = lower[:at] + lower[end:]
        return raw


def checked_fields(block: bytes) -> Fields:
    """Raises Refused (400, 431)."""
    if _FIELDS.fullmatch(block) is None:
        raise RequestRefused(HttpFault.BAD_HEAD, "a header field is malformed")
    if block.count(b"\n") > FIELDS_MAX:
        raise RequestRefused(HttpFault.HEAD_TOO_LARGE, f"more than {FIELDS_MAX} header fields")
    return Fields(block)


class RequestFields:
    """A request's fields and what they say to us."""

    __slots__ = (
        "authority",
        "close",
        "expects",
        "fields",
        "host",
        "keep_alive",
        "length",
        "options",
        "upgrade",
    )

    def __init__(self, fields: Fields) -> None:
        """Raises Refused. Of the version only HTTP/1.0 makes a difference: see RequestReader."""
        self.fields = fields
        self.authority, self.host = _host(fields.all(b"host"))
        self.length = _length(fields, HttpFault.BAD_HEAD)
        self.options: tuple[bytes, ...] = fields.options()
        self.close = b"close" in self.options
        self.keep_alive = b"keep-alive" in self.options
        self.upgrade = b""
        # Some servers read what follows an Upgrade as no body, and then as the next request. To leave the
        # Upgrade out is allowed: RFC 9110 section 7.8. And not to HTTP/2: what then went through the tunnel
        # would be requests that nobody has looked at.
        if self.length == 0 and b"upgrade" in self.options and b"h2c" not in fields.tokens(b"upgrade"):
            self.upgrade = fields.get(b"upgrade") or b""
        self.expects = fields.has(b"expect")
        if self.expects and fields.tokens(b"expect") != [b"100-continue"]:
            raise RequestRefused(HttpFault.EXPECTATION, "the only expectation known is 100-continue")


@dataclass(slots=True)
class RequestHead:
    """A request as it came: `target` in origin form ("/path?query"), or "*"."""

    method: bytes
    target: bytes
    minor: int  # of HTTP/1: 0 or 1
    about: RequestFields
    host: str  # lower case, without port and final dot; "" when HTTP/1.0 names none

    @property
    def fields(self) -> Fields:
        return self.about.fields

    @property
    def length(self) -> int:
        """Of the body, in bytes, or CHUNKED."""
        return self.about.length

    @property
    def persistent(self) -> bool:
        """May the connection go on afterwards (RFC 9112 section 9.3)?"""
        about = self.about
        return not about.close and (self.minor == 1 or about.keep_alive)


class RequestReader:
    """Reads the requests of one connection."""

    __slots__ = ("_about", "_block")

    def __init__(self) -> None:
        self._block = b""
        self._about: RequestFields | None = None

    def read(self, head: bytes) -> RequestHead:
        """`head` up to and with its empty line. Raises Refused."""
        end = head.find(b"\r\n")
        line = _REQUEST_LINE.fullmatch(head, 0, end)
        if line is None or end > LINE_MAX:
            raise _bad_line(head[:end])
        method, target, minor = line.groups()
        block = head[end + 2 : -2]
        about = self._about
        if about is None or block != self._block:
            about = RequestFields(checked_fields(block))
            if len(block) <= KEPT_MAX:
                self._block, self._about = block, about
        host = about.host
        if target[0] != 0x2F:  # "/"
            target, named = _other_form(method, target)
            if named:
                if about.authority is None and minor == b"1":
                    raise RequestRefused(HttpFault.BAD_HEAD, "no Host")
                # RFC 9112 section 3.2.2: what the target says counts, not the field.
                about = _with_host(about, named)
                host = about.host
        if minor == b"1":
            if about.authority is None:
                raise RequestRefused(HttpFault.BAD_HEAD, "no Host")
        elif about.length == CHUNKED:
            raise RequestRefused(HttpFault.BAD_HEAD, "Transfer-Encoding in HTTP/1.0")
        elif about.upgrade:
            about = RequestFields(about.fields)
            about.upgrade = b""  # RFC 9110 section 7.8: of HTTP/1.0 it is no wish for another protocol
        return RequestHead(method, target, 1 if minor == b"1" else 0, about, host)


class ResponseHead:
    """A response as an endpoint sent it."""

    __slots__ = ("close", "fields", "forwarded", "length", "minor", "options", "reason", "status")

    def __init__(self, status: int, reason: bytes, minor: int, fields: Fields) -> None:
        """`length`: as the fields say it; what the request makes of it: `body_length`. Raises Refused."""
        self.status = status
        self.reason = reason
        self.minor = minor
        self.fields = fields
        self.forwarded = b""  # the lines for the client, once they have been made
        lower = fields.lower
        self.length = UNTIL_CLOSE
        if b"\ncontent-length:" in lower or b"\ntransfer-encoding:" in lower:
            self.length = _length(fields, HttpFault.BAD_RESPONSE)
            if self.length == CHUNKED and not minor:
                raise RequestRefused(HttpFault.BAD_RESPONSE, "Transfer-Encoding in HTTP/1.0")
        self.options: tuple[bytes, ...] = ()
        self.close = not minor
        if b"\nconnection:" in lower:
            self.options = fields.options()
            self.close = b"close" in self.options or (not minor and b"keep-alive" not in self.options)

    def body_length(self, method: bytes) -> int:
        """RFC 9112 section 6.3."""
        status = self.status
        if status == 200 and method != b"HEAD":
            return self.length
        if status < 200 or status == 204 or status == 304 or method == b"HEAD":
            return 0
        return self.length


class ResponseReader:
    """Reads the responses of one endpoint. When it is busy many of their heads are the same to the byte, for
    as long as the second in Date lasts."""

    __slots__ = ("_head", "_read")

    def __init__(self) -> None:
        self._read = b""
        self._head: ResponseHead | None = None

    def read(self, head: bytes) -> ResponseHead:
        """`head` up to and with its empty line. Raises Refused (502)."""
        known = self._head
        if known is not None and head == self._read:
            return known
        known = read_response(head)
        self._read, self._head = head, known
        return known


def read_response(head: bytes) -> ResponseHead:
    """`head` up to and with its empty line. Raises Refused (502)."""
    line = _STATUS_LINE.match(head)
    if line is None:
        raise RequestRefused(HttpFault.BAD_RESPONSE, "the status line is malformed")
    minor, status, reason = line.groups()
    block = head[line.end() : -2]
    if _FIELDS.fullmatch(block) is None:
        raise RequestRefused(HttpFault.BAD_RESPONSE, "a header field of the response is malformed")
    return ResponseHead(parse_int(status, 0, 999), reason or b"", 1 if minor == b"1" else 0, Fields(block))


def check_beginning(data: bytes, known: int, end: int) -> None:
    """Raises Refused when this can never become a head. `known`: so many of its bytes were looked at before;
    `end`: where its empty line ends, if it has one."""
    if len(data) > LINE_MAX >= known and data.find(b"\r\n", 0, LINE_MAX + 2) < 0:
        raise RequestRefused(HttpFault.TARGET_TOO_LONG, f"a request line longer than {LINE_MAX} bytes")
    if end > HEAD_MAX or len(data) > HEAD_MAX:
        raise RequestRefused(HttpFault.HEAD_TOO_LARGE, f"a head larger than {HEAD_MAX} bytes")
    if hopeless(data, known):
        raise RequestRefused(HttpFault.BAD_HEAD, "a line that does not end with CRLF")


def hopeless(beginning: bytes, known: int = 0) -> bool:
    """Can this never become a head, so that waiting for its end is in vain? Lines end with CRLF, no less.
    `known`: so many of its bytes were looked at before."""
    return beginning.count(b"\n", known) != beginning.count(b"\r\n", max(known - 1, 0))


def _host(values: list[bytes]) -> tuple[bytes | None, str]:
    if not values:
        return None, ""
    if len(values) > 1:
        raise RequestRefused(HttpFault.BAD_HEAD, "more than one Host")
    value = values[0]
    if not value:
        return value, ""
    found = _HOST.fullmatch(value)
    # Of five digits the greater number is the greater text.
    if found is None or (found[2] is not None and len(found[2]) == 5 and found[2] > _LAST_PORT):
        raise RequestRefused(HttpFault.BAD_HEAD, "Host is malformed")
    return value, found[1].decode().lower().removesuffix(".")


def _length(fields: Fields, fault: HttpFault) -> int:
    """0 when nothing is said. RFC 9112 section 6.3, without the repairs that it allows."""
    lower = fields.lower
    coded, sized = lower.count(b"\ntransfer-encoding:"), lower.count(b"\ncontent-length:")
    if sized and not coded:
        value = fields.get(b"content-length") or b""
        if sized > 1 or _NUMBER.fullmatch(value) is None:
            raise RequestRefused(fault, "Content-Length is not one number")
        return parse_int(value, 0, LENGTH_MAX)
    if not coded:
        return 0
    if sized:
        raise RequestRefused(fault, "both Content-Length and Transfer-Encoding")
    if coded == 1 and (fields.get(b"transfer-encoding") or b"").lower() == b"chunked":
        return CHUNKED
    codings = fields.tokens(b"transfer-encoding")
    if fault is HttpFault.BAD_HEAD and codings.count(b"chunked") == 1 and codings[-1] == b"chunked":
        raise RequestRefused(HttpFault.UNKNOWN_CODING, "a transfer coding besides chunked")
    raise RequestRefused(fault, "Transfer-Encoding is not chunked alone")


def _other_form(method: bytes, target: bytes) -> tuple[bytes, bytes]:
    """A target that is not a path: in origin form, and the authority that it names."""
    if target == b"*" and method == b"OPTIONS":
        return target, b""
    if method == b"CONNECT":
        raise RequestRefused(HttpFault.METHOD, "CONNECT: this is not a forward proxy")
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None:
        raise RequestRefused(HttpFault.BAD_HEAD, "the request target is malformed")
    authority, rest = absolute.groups()
    rest = rest or b"/"
    return (rest if rest[:1] == b"/" else b"/" + rest), authority


def _with_host(about: RequestFields, authority: bytes) -> RequestFields:
    return RequestFields(Fields(b"Host: " + authority + b"\r\n" + about.fields.without(b"host")))


def _bad_line(line: bytes) -> RequestRefused:
    if len(line) > LINE_MAX:
        return RequestRefused(HttpFault.TARGET_TOO_LONG, f"a request line longer than {LINE_MAX} bytes")
    version = _VERSION.fullmatch(line.rpartition(b" ")[2])
    if version is not None and version[1] != b"1":
        return RequestRefused(HttpFault.VERSION, "not HTTP/1")
    return RequestRefused(HttpFault.BAD_HEAD, "the request line is malformed")
