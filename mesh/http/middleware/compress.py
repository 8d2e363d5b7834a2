"""Responses compressed on their way to clients that understand it (RFC 9110, sections 8.4 and 12.5.3).

What is all there is compressed at once. What comes in pieces goes out in pieces: where nobody knows how much
will come, all that was read goes on at once (events wait for nothing), else as the coder gives it. One that
says no length is looked at as long as nobody waits for it: if it turns out to be small it stays as it is.

Compressed, it is another representation: a strong ETag becomes weak, ranges are not offered, and Vary tells
caches. gzip is all: whoever reads br or zstd reads gzip, and those would be two more libraries.
"""

import re
import zlib
from collections.abc import Sequence
from functools import lru_cache

from mesh.http.codec.h1_head import CHUNKED, Fields, ResponseHead
from mesh.http.config.model import Compress
from mesh.http.interfaces import Downstream
from mesh.http.middleware.response_filter import ResponseFilter
from mesh.net.limits.semaphore import Semaphore
from mesh.parsing import parse_float

LEVEL = 4  # 6 takes twice the time for a twentieth less
GZIP = 31  # `wbits`: the largest window, in gzip's format
_KNOWN_MAX = 256  # different Accept-Encoding values that are remembered: browsers have few

_GAINS = re.compile(
    rb"text/.*|.*\+(?:json|xml)|image/(?:svg\+xml|bmp|x-icon|vnd\.microsoft\.icon)|font/(?:ttf|otf|collection)"
    rb"|application/(?:json|javascript|x-javascript|ecmascript|xml|wasm|x-ndjson|graphql|yaml|x-yaml|toml|sql"
    rb"|rtf|vnd\.ms-fontobject|x-font-ttf|x-font-otf|x-www-form-urlencoded)"
)
_QUALITY = re.compile(rb"q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)")
_NEVER_STATUS = (204, 206, 304)


def understands_gzip(values: Sequence[str]) -> bool:
    """Of Accept-Encoding, all lines."""
    return _understands(",".join(values))


@lru_cache(_KNOWN_MAX)
def _understands(value: str) -> bool:
    others = False
    for part in value.lower().encode("latin-1", "replace").split(b","):
        coding, _, parameter = part.partition(b";")
        coding = coding.strip()
        quality = _QUALITY.fullmatch(parameter.strip())
        wanted = parse_float(quality[1].rstrip(b"."), 0, 1) > 0 if quality else not parameter
        if coding in (b"gzip", b"x-gzip"):
            return wanted
        if coding == b"*":
            others = wanted
    return others


def gains(one: Compress, head: ResponseHead) -> bool:
    """May this response be compressed, and is it worth it? Whatever the client understands."""
    fields = head.fields
    lower = fields.lower
    if (
        head.status in _NEVER_STATUS
        or 0 <= head.length < one.minimum
        or b"\ncontent-encoding:" in lower
        or b"\ncontent-range:" in lower
        or b"digest:" in lower  # of the bytes as they are
        or b"\ncontent-md5:" in lower
        or (b"no-transform" in lower and b"no-transform" in fields.tokens(b"cache-control"))
    ):
        return False
    kind = (fields.get(b"content-type") or b"").partition(b";")[0].strip().lower()
    if not kind or kind.startswith(b"application/grpc"):
        return False
    shown = kind.decode("latin-1")
    if one.included:
        return shown in one.included
    return shown not in one.excluded and _GAINS.fullmatch(kind) is not None


def varying(head: ResponseHead) -> ResponseHead:
    """The response as it is, for caches: it would be another for another client."""
    return _changed(head, head.fields.raw)


def coded(head: ResponseHead, length: int | None) -> ResponseHead:
    """The head of the compressed response; `length` of that, if it is known."""
    block = head.fields.without(b"content-length", b"transfer-encoding", b"accept-ranges")
    block += b"Content-Encoding: gzip\r\n"
    if length is not None:
        block += b"Content-Length: %d\r\n" % length
    return _changed(head, _weak(block))


def still_valid(head: ResponseHead) -> ResponseHead:
    """304 is about what the client has: that has the weak ETag."""
    return _changed(head, _weak(head.fields.raw))


def _weak(block: bytes) -> bytes:
    fields = Fields(block)
    tag = fields.get(b"etag")
    if tag is None or tag.startswith(b"W/"):
        return block
    return fields.without(b"etag") + b"ETag: W/%b\r\n" % tag


def _changed(head: ResponseHead, block: bytes) -> ResponseHead:
    known = Fields(block).tokens(b"vary")
    if b"*" not in known and b"accept-encoding" not in known:
        block += b"Vary: Accept-Encoding\r\n"
    return ResponseHead(head.status, head.reason, head.minor, Fields(block))


class CompressFilter(ResponseFilter):
    """Around one response. `ended` when the request is over."""

    __slots__ = ("_coder", "_first", "_head", "_head_only", "_one", "_room", "_stream", "_unsaid", "_wanted")

    def __init__(
        self, client: Downstream, one: Compress, wanted: bool, head_only: bool, room: Semaphore
    ) -> None:
        """`wanted`: the client understands it; `head_only`: the request was HEAD."""
        super().__init__(client)
        self._one = one
        self._wanted = wanted
        self._head_only = head_only
        self._room = room
        self._coder: zlib._Compress | None = None
        self._head: ResponseHead | None = None  # held back with `_first`: it may turn out to be small
        self._first = b""
        self._stream = False  # nobody knows how much will come
        self._unsaid = False  # the coder may hold something

    def whole(self, head: ResponseHead, body: bytes) -> None:
        if not body:
            self.client.whole(self._bodiless(head), body)
        elif not gains(self._one, head):
            self.client.whole(head, body)
        elif not self._wanted:
            self.client.whole(varying(head), body)
        else:
            packed = zlib.compress(body, LEVEL, GZIP)
            self.client.whole(coded(head, len(packed)), packed)

    def respond(self, head: ResponseHead, length: int) -> None:
        if length == 0:
            self.client.respond(self._bodiless(head), 0)
        elif not gains(self._one, head):
            self.client.respond(head, length)
        elif not self._wanted or not self._room.take():
            self.client.respond(varying(head), length)
        else:
            self._coder = zlib.compressobj(LEVEL, zlib.DEFLATED, GZIP)
            self._stream = length < 0
            if self._stream:
                self._head = head
            else:
                self.client.respond(coded(head, None), CHUNKED)

    def write(self, data: bytes) -> None:
        if self._coder is None:
            self.client.write(data)
        elif self._head is not None:
            self._first += data
            if len(self._first) >= self._one.minimum:
                self._begin(self._head)
        else:
            self._code(self._coder.compress(data))
            self._unsaid = True

    def flush(self) -> bool:
        if self._coder is not None:
            if self._head is not None:
                self._begin(self._head)
            if self._stream and self._unsaid:
                self._code(self._coder.flush(zlib.Z_SYNC_FLUSH))
                self._unsaid = False
        return self.client.flush()

    def end(self, trailers: bytes) -> None:
        if self._coder is not None:
            if self._head is not None:
                self.client.respond(varying(self._head), self._head.length)
                self._code(self._first)
            else:
                self._code(self._coder.flush())
        self.client.end(trailers)

    def ended(self) -> None:
        if self._coder is not None:
            self._coder = None
            self._room.give_back()

    def _begin(self, head: ResponseHead) -> None:
        assert self._coder is not None
        self.client.respond(coded(head, None), CHUNKED)
        self._head = None
        if self._first:
            self._code(self._coder.compress(self._first))
            self._first = b""
            self._unsaid = True

    def _code(self, data: bytes) -> None:
        if data:
            self.client.write(data)

    def _bodiless(self, head: ResponseHead) -> ResponseHead:
        if head.status == 304:
            return still_valid(head) if self._wanted else varying(head)
        if not self._head_only or not gains(self._one, head):
            return head
        # As it would be for GET, but for its length, which nobody knows.
        return coded(head, None) if self._wanted else varying(head)
