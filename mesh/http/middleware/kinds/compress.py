"""`compress`: compresses responses with gzip for clients that accept it (RFC 9110, sections 8.4 and 12.5.3).

A response that is complete is compressed at once. A response that comes in pieces is sent in pieces: without
a known length each piece is flushed, so that an event stream is not delayed; with a known length the
compressor decides when to send. The beginning of a response without a length is held while more arrives: if
the whole turns out to be smaller than the minimum it is sent uncompressed.

The compressed response is another representation: a strong ETag becomes weak, ranges are not offered, and
`Vary: Accept-Encoding` tells caches. Only gzip is supported: clients that accept br or zstd accept gzip too,
and each of those would need one more library.
"""

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from mesh.http.codec.h1_head import CHUNKED, Fields, ResponseHead
from mesh.http.config.model import Middleware
from mesh.http.interfaces import Downstream
from mesh.http.middleware.kind import FilterContext, MiddlewareKind, add_filter, stateless
from mesh.http.middleware.options import LabelError, MiddlewareOptions
from mesh.http.middleware.response_filter import ResponseFilter
from mesh.http.request_plan import RequestContext, RequestPlan
from mesh.labels.values import parse_count, parse_field_value, parse_list
from mesh.net.limits.semaphore import Semaphore
from mesh.parsing import parse_float

LEVEL = 4  # 6 takes twice the time to save 5 % more
GZIP = 31  # `wbits`: the largest window, in gzip's format
_KNOWN_MAX = 256  # different Accept-Encoding values that are remembered: browsers have few

_COMPRESSIBLE = re.compile(
    rb"text/.*|.*\+(?:json|xml)|image/(?:svg\+xml|bmp|x-icon|vnd\.microsoft\.icon)|font/(?:ttf|otf|collection)"
    rb"|application/(?:json|javascript|x-javascript|ecmascript|xml|wasm|x-ndjson|graphql|yaml|x-yaml|toml|sql"
    rb"|rtf|vnd\.ms-fontobject|x-font-ttf|x-font-otf|x-www-form-urlencoded)"
)
_QUALITY = re.compile(rb"q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)")
_NEVER_COMPRESSED = (204, 206, 304)  # statuses


@dataclass(frozen=True, slots=True)
class Compress(Middleware):
    """`included`, `excluded`: media types. Without either: those in _COMPRESSIBLE."""

    minimum: int = 1024  # bytes of a body
    included: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()


def _parse(options: MiddlewareOptions) -> Compress:
    options.read("", parse_field_value, "true")
    included = options.read("includedcontenttypes", _parse_media_types, ())
    excluded = options.read("excludedcontenttypes", _parse_media_types, ())
    if included and excluded:
        raise LabelError("includedcontenttypes", "excludes excludedcontenttypes")
    return Compress(options.read("minresponsebodybytes", parse_count, 1024), included, excluded)


def _parse_media_types(text: str) -> tuple[str, ...]:
    """Media types without their parameters."""
    return tuple(one.partition(";")[0].strip().lower() for one in parse_list(text))


def _handle(configured: Compress, context: RequestContext, plan: RequestPlan) -> None:
    # A client may forbid changes of the body (RFC 9111 section 5.2.1.6).
    if "no-transform" not in ",".join(context.request.header("cache-control")).lower():
        add_filter(configured, context, plan)


def accepts_gzip(values: Sequence[str]) -> bool:
    """Does a client with these Accept-Encoding lines accept gzip?"""
    return _accepts_gzip(",".join(values))


@lru_cache(_KNOWN_MAX)
def _accepts_gzip(value: str) -> bool:
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


def is_compressible(configured: Compress, head: ResponseHead) -> bool:
    """May this response be compressed, and is it worth it? What the client accepts is not looked at."""
    fields = head.fields
    lower = fields.lower
    if (
        head.status in _NEVER_COMPRESSED
        or 0 <= head.length < configured.minimum
        or b"\ncontent-encoding:" in lower
        or b"\ncontent-range:" in lower
        or b"digest:" in lower  # of the uncompressed bytes
        or b"\ncontent-md5:" in lower
        or (b"no-transform" in lower and b"no-transform" in fields.tokens(b"cache-control"))
    ):
        return False
    media_type = (fields.get(b"content-type") or b"").partition(b";")[0].strip().lower()
    if not media_type or media_type.startswith(b"application/grpc"):
        return False
    written = media_type.decode("latin-1")
    if configured.included:
        return written in configured.included
    return written not in configured.excluded and _COMPRESSIBLE.fullmatch(media_type) is not None


def with_vary(head: ResponseHead) -> ResponseHead:
    """The head of an uncompressed response that another client would get compressed."""
    return _with_block(head, head.fields.raw)


def compressed_head(head: ResponseHead, length: int | None) -> ResponseHead:
    """The head of the compressed response. `length`: of the compressed body, None if it is not known."""
    block = head.fields.without(b"content-length", b"transfer-encoding", b"accept-ranges")
    block += b"Content-Encoding: gzip\r\n"
    if length is not None:
        block += b"Content-Length: %d\r\n" % length
    return _with_block(head, _with_weak_etag(block))


def not_modified_head(head: ResponseHead) -> ResponseHead:
    """The head of a 304: the client has the compressed response, whose ETag is weak."""
    return _with_block(head, _with_weak_etag(head.fields.raw))


def _with_weak_etag(block: bytes) -> bytes:
    fields = Fields(block)
    tag = fields.get(b"etag")
    if tag is None or tag.startswith(b"W/"):
        return block
    return fields.without(b"etag") + b"ETag: W/%b\r\n" % tag


def _with_block(head: ResponseHead, block: bytes) -> ResponseHead:
    """The head with these field lines, and Accept-Encoding in Vary."""
    known = Fields(block).tokens(b"vary")
    if b"*" not in known and b"accept-encoding" not in known:
        block += b"Vary: Accept-Encoding\r\n"
    return ResponseHead(head.status, head.reason, head.minor, Fields(block))


class CompressFilter(ResponseFilter):
    """Compresses one response. `on_end` has to be called when the request is over."""

    __slots__ = (
        *("_accepted", "_compressor", "_compressors", "_configured", "_head", "_held", "_is_head"),
        *("_stream", "_unflushed"),
    )

    def __init__(
        self, client: Downstream, configured: Compress, accepted: bool, is_head: bool, compressors: Semaphore
    ) -> None:
        """`accepted`: the client accepts gzip; `is_head`: the request was HEAD."""
        super().__init__(client)
        self._configured = configured
        self._accepted = accepted
        self._is_head = is_head
        self._compressors = compressors
        self._compressor: zlib._Compress | None = None
        self._head: ResponseHead | None = None  # held back with `_first`: it may turn out to be small
        self._held = b""
        self._stream = False  # the length is not known
        self._unflushed = False  # the compressor may hold something

    def whole(self, head: ResponseHead, body: bytes) -> None:
        if not body:
            self.client.whole(self._head_without_body(head), body)
        elif not is_compressible(self._configured, head):
            self.client.whole(head, body)
        elif not self._accepted:
            self.client.whole(with_vary(head), body)
        else:
            packed = zlib.compress(body, LEVEL, GZIP)
            self.client.whole(compressed_head(head, len(packed)), packed)

    def respond(self, head: ResponseHead, length: int) -> None:
        if length == 0:
            self.client.respond(self._head_without_body(head), 0)
        elif not is_compressible(self._configured, head):
            self.client.respond(head, length)
        elif not self._accepted or not self._compressors.take():
            self.client.respond(with_vary(head), length)
        else:
            self._compressor = zlib.compressobj(LEVEL, zlib.DEFLATED, GZIP)
            self._stream = length < 0
            if self._stream:
                self._head = head
            else:
                self.client.respond(compressed_head(head, None), CHUNKED)

    def write(self, data: bytes) -> None:
        if self._compressor is None:
            self.client.write(data)
        elif self._head is not None:
            self._held += data
            if len(self._held) >= self._configured.minimum:
                self._start(self._head)
        else:
            self._send(self._compressor.compress(data))
            self._unflushed = True

    def flush(self) -> bool:
        if self._compressor is not None:
            if self._head is not None:
                self._start(self._head)
            if self._stream and self._unflushed:
                self._send(self._compressor.flush(zlib.Z_SYNC_FLUSH))
                self._unflushed = False
        return self.client.flush()

    def end(self, trailers: bytes) -> None:
        if self._compressor is not None:
            if self._head is not None:
                self.client.respond(with_vary(self._head), self._head.length)
                self._send(self._held)
            else:
                self._send(self._compressor.flush())
        self.client.end(trailers)

    def on_end(self) -> None:
        if self._compressor is not None:
            self._compressor = None
            self._compressors.give_back()

    def _start(self, head: ResponseHead) -> None:
        assert self._compressor is not None
        self.client.respond(compressed_head(head, None), CHUNKED)
        self._head = None
        if self._held:
            self._send(self._compressor.compress(self._held))
            self._held = b""
            self._unflushed = True

    def _send(self, data: bytes) -> None:
        if data:
            self.client.write(data)

    def _head_without_body(self, head: ResponseHead) -> ResponseHead:
        if head.status == 304:
            return not_modified_head(head) if self._accepted else with_vary(head)
        if not self._is_head or not is_compressible(self._configured, head):
            return head
        # As for GET, but without the length, which is not known.
        return compressed_head(head, None) if self._accepted else with_vary(head)


def _build_filter(configured: Compress, context: FilterContext) -> CompressFilter:
    accepted = accepts_gzip(context.request.header("accept-encoding"))
    is_head = context.head.method == b"HEAD"
    compress = CompressFilter(context.client, configured, accepted, is_head, context.compressors)
    context.on_end.append(compress.on_end)
    return compress


KIND = MiddlewareKind(("compress",), Compress, _parse, stateless(_handle), _build_filter)
