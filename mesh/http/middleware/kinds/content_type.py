"""`contenttype`: gives a response without Content-Type the media type that its first bytes show. Pure.

Without this middleware a response keeps the Content-Type that it has, or none: a proxy does not guess, and
Traefik v3 does not either. The signatures are those of the MIME Sniffing standard (sections 6 and 7).
"""

import re
from dataclasses import dataclass

from mesh.http.codec.h1_head import Fields, ResponseHead
from mesh.http.config.model import Middleware
from mesh.http.middleware.kind import FilterContext, MiddlewareKind, add_filter, stateless
from mesh.http.middleware.options import MiddlewareOptions
from mesh.http.middleware.response_filter import ResponseFilter
from mesh.labels.values import parse_field_value, parse_strict_flag

SNIFF_MAX = 512  # bytes that are looked at, as many as Traefik does

_SPACE = rb"[\t\n\f\r ]*"
_TAGS = b"!DOCTYPE HTML|HTML|HEAD|SCRIPT|IFRAME|H1|DIV|FONT|TABLE|A|STYLE|TITLE|B|BODY|BR|P|!--"
# Pattern of the first bytes, media type. The first that matches counts.
_SIGNATURES = tuple(
    (re.compile(pattern, re.DOTALL), media_type)
    for pattern, media_type in (
        (b"(?i:%b<(?:%b)[ >])" % (_SPACE, _TAGS), b"text/html; charset=utf-8"),
        (rb"%b<\?xml" % _SPACE, b"text/xml; charset=utf-8"),
        (rb"%PDF-", b"application/pdf"),
        (rb"%!PS-Adobe-", b"application/postscript"),
        (rb"\xfe\xff", b"text/plain; charset=utf-16be"),
        (rb"\xff\xfe", b"text/plain; charset=utf-16le"),
        (rb"\xef\xbb\xbf", b"text/plain; charset=utf-8"),
        (rb"\x00\x00[\x01\x02]\x00", b"image/x-icon"),
        (rb"BM", b"image/bmp"),
        (rb"GIF8[79]a", b"image/gif"),
        (rb"RIFF....WEBPVP", b"image/webp"),
        (rb"\x89PNG\r\n\x1a\n", b"image/png"),
        (rb"\xff\xd8\xff", b"image/jpeg"),
        (rb"FORM....AIFF", b"audio/aiff"),
        (rb"ID3", b"audio/mpeg"),
        (rb"OggS\x00", b"application/ogg"),
        (rb"MThd\x00\x00\x00\x06", b"audio/midi"),
        (rb"RIFF....AVI ", b"video/avi"),
        (rb"RIFF....WAVE", b"audio/wave"),
        (rb"....ftyp(?:mp4|.{8}(?:.{4}){0,30}?mp4)", b"video/mp4"),
        (rb"\x1a\x45\xdf\xa3", b"video/webm"),
        (rb"\x00\x01\x00\x00", b"font/ttf"),
        (rb"OTTO", b"font/otf"),
        (rb"ttcf", b"font/collection"),
        (rb"wOFF", b"font/woff"),
        (rb"wOF2", b"font/woff2"),
        (rb"\x1f\x8b\x08", b"application/x-gzip"),
        (rb"PK\x03\x04", b"application/zip"),
        (rb"Rar!\x1a\x07(?:\x00|\x01\x00)", b"application/x-rar-compressed"),
        (rb"\x00asm", b"application/wasm"),
    )
)
_BINARY = re.compile(rb"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f]")  # bytes that no text has
_WITHOUT_BODY = (204, 304)


@dataclass(frozen=True, slots=True)
class ContentType(Middleware):
    """Detect the media type of responses that do not say it."""


def _parse(options: MiddlewareOptions) -> ContentType | None:
    """None: with `autodetect=false`, which Traefik deprecates, nothing is detected."""
    options.read("", parse_field_value, "true")
    return ContentType() if options.read("autodetect", parse_strict_flag, True) else None


def detect_media_type(body: bytes) -> bytes:
    """The value of Content-Type for a body that begins so."""
    start = body[:SNIFF_MAX]
    for pattern, media_type in _SIGNATURES:
        if pattern.match(start):
            return media_type
    return b"application/octet-stream" if _BINARY.search(start) else b"text/plain; charset=utf-8"


def is_untyped(head: ResponseHead) -> bool:
    """May the type be detected? The first bytes of an encoded body show its encoding, not its type."""
    lower = head.fields.lower
    return (
        b"\ncontent-type:" not in lower
        and b"\ncontent-encoding:" not in lower
        and head.status not in _WITHOUT_BODY
    )


class ContentTypeFilter(ResponseFilter):
    """Holds back the head of a response without a type until the first bytes of the body are there."""

    __slots__ = ("_head", "_length")

    def __init__(self, context: FilterContext) -> None:
        super().__init__(context.client)
        self._head: ResponseHead | None = None  # that is held back
        self._length = 0

    def respond(self, head: ResponseHead, length: int) -> None:
        if length != 0 and is_untyped(head):
            self._head, self._length = head, length
        else:
            self.client.respond(head, length)

    def whole(self, head: ResponseHead, body: bytes) -> None:
        if body and is_untyped(head):
            head = _with_type(head, body)
        self.client.whole(head, body)

    def write(self, data: bytes) -> None:
        if self._head is not None and data:
            self.client.respond(_with_type(self._head, data), self._length)
            self._head = None
        self.client.write(data)

    def flush(self) -> bool:
        return True if self._head is not None else self.client.flush()

    def end(self, trailers: bytes) -> None:
        if self._head is not None:  # there was no body
            self.client.respond(self._head, self._length)
            self._head = None
        self.client.end(trailers)


def _with_type(head: ResponseHead, body: bytes) -> ResponseHead:
    block = head.fields.raw + b"Content-Type: %b\r\n" % detect_media_type(body)
    return ResponseHead(head.status, head.reason, head.minor, Fields(block))


def _build_filter(_configured: ContentType, context: FilterContext) -> ContentTypeFilter:
    return ContentTypeFilter(context)


KIND = MiddlewareKind(("contenttype",), ContentType, _parse, stateless(add_filter), _build_filter)
