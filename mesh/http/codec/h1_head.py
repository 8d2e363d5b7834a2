"""Heads of HTTP/1 messages, parsed strictly and passed on as the bytes that came. Pure. A fast path.

One regular expression decides whether a block of fields is well formed. The block is then searched, not taken
apart: a proxy looks at six fields and passes the others on. What can be understood in two ways (RFC 9112
section 11.2) is refused, never repaired: the endpoint might understand it the other way.

A client repeats most of its fields with each request, so a connection keeps the last `RequestFields` and
compares bytes before it parses again (`RequestReader`). HTTP/2 builds the same values from its lists.
"""

import re
from dataclasses import dataclass

from mesh.http.faults import HttpFault, RequestRefused
from mesh.parsing import PORT_MAX, parse_int

LINE_MAX = 16 * 1024  # bytes of a request line: servers accept 8 to 16 KiB
HEAD_MAX = 64 * 1024  # bytes of a head: one read
KEPT_MAX = 4 * 1024  # bytes of a block of fields that a connection, one of thousands, keeps between requests
FIELDS_MAX = 200  # field lines; each costs the endpoint more than the proxy
EMPTY_LINES_MAX = 4  # before a request: RFC 9112 section 2.2 wants at least one to be ignored

CHUNKED = -1  # the `length` of a body whose end is marked in the body
UNTIL_CLOSE = -2  # the `length` of a response that ends with its connection

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
    """A well-formed block of field lines. `raw` ends with CRLF, or is empty. `lower` is the block in lower
    case with a line end in front, so that b"\\nname:" finds a field."""

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
        """The elements of Connection, in lower case; nearly always one."""
        value = self.get(b"connection")
        if value is None:
            return ()
        known = _OPTIONS.get(value)
        if known is not None and self.lower.count(b"\nconnection:") == 1:
            return known
        return tuple(self.tokens(b"connection"))

    def items(self) -> list[tuple[bytes, bytes]]:
        """The name, as it came, and the value of every line."""
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
    """A block that is well formed. Raises RequestRefused (400, 431)."""
    if _FIELDS.fullmatch(block) is None:
        raise RequestRefused(HttpFault.BAD_HEAD, "a header field is malformed")
    if block.count(b"\n") > FIELDS_MAX:
        raise RequestRefused(HttpFault.HEAD_TOO_LARGE, f"more than {FIELDS_MAX} header fields")
    return Fields(block)


class RequestFields:
    """A request's fields, and what the proxy reads from them."""

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
        """Raises RequestRefused. What differs in HTTP/1.0 is decided by RequestReader."""
        self.fields = fields
        self.authority, self.host = _host(fields.all(b"host"))
        self.length = _length(fields, HttpFault.BAD_HEAD)
        self.options: tuple[bytes, ...] = fields.options()
        self.close = b"close" in self.options
        self.keep_alive = b"keep-alive" in self.options
        self.upgrade = b""
        # With a body: some servers take it for the next request, so the Upgrade is left out, which RFC 9110
        # section 7.8 allows. To HTTP/2: the tunnel would carry requests that were not checked.
        if self.length == 0 and b"upgrade" in self.options and b"h2c" not in fields.tokens(b"upgrade"):
            self.upgrade = fields.get(b"upgrade") or b""
        self.expects = fields.has(b"expect")
        if self.expects and fields.tokens(b"expect") != [b"100-continue"]:
            raise RequestRefused(HttpFault.EXPECTATION, "the only expectation known is 100-continue")


@dataclass(slots=True)
class RequestHead:
    """A request's head. `target` is in origin form ("/path?query"), or "*"."""

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
        """The client expects the connection to persist (RFC 9112 section 9.3)."""
        about = self.about
        return not about.close and (self.minor == 1 or about.keep_alive)


class RequestReader:
    """Parses the heads of one connection's requests."""

    __slots__ = ("_about", "_block")

    def __init__(self) -> None:
        self._block = b""
        self._about: RequestFields | None = None

    def read(self, head: bytes) -> RequestHead:
        """`head`: up to and including its empty line. Raises RequestRefused."""
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
                # RFC 9112 section 3.2.2: the authority of the target replaces Host.
                about = _with_host(about, named)
                host = about.host
        if minor == b"1":
            if about.authority is None:
                raise RequestRefused(HttpFault.BAD_HEAD, "no Host")
        elif about.length == CHUNKED:
            raise RequestRefused(HttpFault.BAD_HEAD, "Transfer-Encoding in HTTP/1.0")
        elif about.upgrade:
            about = RequestFields(about.fields)
            about.upgrade = b""  # RFC 9110 section 7.8: Upgrade in HTTP/1.0 is ignored
        return RequestHead(method, target, 1 if minor == b"1" else 0, about, host)


class ResponseHead:
    """The head of an endpoint's response."""

    __slots__ = ("close", "fields", "forwarded", "length", "minor", "options", "reason", "status")

    def __init__(self, status: int, reason: bytes, minor: int, fields: Fields) -> None:
        """`length` is what the fields say; `body_length` also considers the request. Raises
        RequestRefused."""
        self.status = status
        self.reason = reason
        self.minor = minor
        self.fields = fields
        self.forwarded = (
            b""  # status line and field lines for the client, once `response_lines` has made them
        )
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
        """Of the response to such a request, in bytes; or CHUNKED, UNTIL_CLOSE. RFC 9112 section 6.3."""
        status = self.status
        if status == 200 and method != b"HEAD":
            return self.length
        if status < 200 or status == 204 or status == 304 or method == b"HEAD":
            return 0
        return self.length


class ResponseReader:
    """Parses the heads of one endpoint's responses. Under load many of them are the same to the byte, until
    the second in Date changes: the last one is kept."""

    __slots__ = ("_head", "_read")

    def __init__(self) -> None:
        self._read = b""
        self._head: ResponseHead | None = None

    def read(self, head: bytes) -> ResponseHead:
        """`head`: up to and including its empty line. Raises RequestRefused (502)."""
        known = self._head
        if known is not None and head == self._read:
            return known
        known = read_response(head)
        self._read, self._head = head, known
        return known


def read_response(head: bytes) -> ResponseHead:
    """`head`: up to and including its empty line. Raises RequestRefused (502)."""
    line = _STATUS_LINE.match(head)
    if line is None:
        raise RequestRefused(HttpFault.BAD_RESPONSE, "the status line is malformed")
    minor, status, reason = line.groups()
    block = head[line.end() : -2]
    if _FIELDS.fullmatch(block) is None:
        raise RequestRefused(HttpFault.BAD_RESPONSE, "a header field of the response is malformed")
    return ResponseHead(parse_int(status, 0, 999), reason or b"", 1 if minor == b"1" else 0, Fields(block))


def check_beginning(data: bytes, known: int, end: int) -> None:
    """Raises RequestRefused for bytes that can never become a head. `known`: so many of them were checked
    before; `end`: where the empty line ends, if there is one."""
    if len(data) > LINE_MAX >= known and data.find(b"\r\n", 0, LINE_MAX + 2) < 0:
        raise RequestRefused(HttpFault.TARGET_TOO_LONG, f"a request line longer than {LINE_MAX} bytes")
    if end > HEAD_MAX or len(data) > HEAD_MAX:
        raise RequestRefused(HttpFault.HEAD_TOO_LARGE, f"a head larger than {HEAD_MAX} bytes")
    if hopeless(data, known):
        raise RequestRefused(HttpFault.BAD_HEAD, "a line that does not end with CRLF")


def hopeless(beginning: bytes, known: int = 0) -> bool:
    """These bytes can never become a head, because a line ends without CR. `known`: so many of them were
    checked before."""
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
    """Of the body: bytes, CHUNKED, or 0 when the fields say nothing. RFC 9112 section 6.3, without the
    repairs that it allows."""
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
    """A target that is not in origin form → its origin form, and the authority that it names."""
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
