"""Chunked bodies: parsed strictly, and encoded anew so that both sides agree where they end. Pure.

Chunk extensions are dropped (RFC 9112 section 7.1.1 allows it). Trailers are passed on if they are well
formed and cannot change what the head has said.
"""

import re

from mesh.http.codec.h1_head import Fields, checked_fields
from mesh.http.codec.protected_fields import as_trailers
from mesh.http.faults import HttpFault, RequestRefused
from mesh.parsing import parse_hex

SIZE_LINE_MAX = 512  # bytes of a chunk's first line: the size, and extensions, which are hardly ever used
CHUNK_MAX = 16**15 - 1  # bytes of a chunk: fifteen hexadecimal digits
EXTENSIONS_MAX = 16 * 1024  # bytes of extensions in one body, which could go on without an end
TRAILERS_MAX = 16 * 1024

_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[\t ]*;([\t\x20-\x7e\x80-\xff]*))?\r\n")
LAST_CHUNK = b"0\r\n"  # then trailers, then an empty line
END_OF_CHUNKS = b"0\r\n\r\n"


def chunk(payload: bytes) -> bytes:
    """One chunk. `payload` is not empty: an empty chunk is the last one."""
    return b"%x\r\n%b\r\n" % (len(payload), payload)


class ChunkedReader:
    """Decodes a chunked body from bytes as they come. `done` once it has ended; `rest` is what follows it."""

    __slots__ = ("_expects", "_extensions", "_fault", "_left", "_line", "done", "rest", "trailers")

    def __init__(self, fault: HttpFault) -> None:
        """`fault`: of a malformed body: BAD_BODY in a request, BAD_RESPONSE in a response."""
        self._fault = fault
        self._left = 0  # of the chunk's payload, and of the CRLF after it
        self._line = b""  # an incomplete line
        self._expects = self._size_line
        self._extensions = 0
        self.done = False
        self.rest = b""
        self.trailers = b""  # field lines, each with its CRLF

    def feed(self, data: bytes) -> bytes:
        """The payload in these bytes. Raises RequestRefused."""
        payload: list[bytes] = []
        at = 0
        if self._line:
            data, self._line = self._line + data, b""
        while not self.done and at < len(data):
            at = self._expects(data, at, payload)
        if self.done:
            self.rest = data[at:]
        return payload[0] if len(payload) == 1 else b"".join(payload)

    def _size_line(self, data: bytes, at: int, payload: list[bytes]) -> int:
        found = _SIZE_LINE.match(data, at)
        if found is None:
            return self._incomplete(data, at, SIZE_LINE_MAX, "a chunk's size is malformed")
        if found.end() - at > SIZE_LINE_MAX:
            raise RequestRefused(self._fault, "a chunk's first line is too long")
        if found[2] is not None:
            self._extensions += len(found[2])
            if self._extensions > EXTENSIONS_MAX:
                raise RequestRefused(self._fault, "too many chunk extensions")
        self._left = parse_hex(found[1], CHUNK_MAX) + 2
        self._expects = self._payload if self._left > 2 else self._trailer
        return found.end()

    def _payload(self, data: bytes, at: int, payload: list[bytes]) -> int:
        wanted = self._left - 2
        if wanted > 0:
            piece = data[at : at + wanted]
            payload.append(piece)
            self._left -= len(piece)
            return at + len(piece)
        end = data[at : at + self._left]
        if end != b"\r\n"[2 - self._left :][: len(end)]:
            raise RequestRefused(self._fault, "a chunk is longer than its size")
        self._left -= len(end)
        if not self._left:
            self._expects = self._size_line
        return at + len(end)

    def _trailer(self, data: bytes, at: int, payload: list[bytes]) -> int:
        if data.startswith(b"\r\n", at):
            self.done = True
            return at + 2
        end = data.find(b"\r\n\r\n", at)
        if end < 0:
            return self._incomplete(data, at, TRAILERS_MAX, "the trailers are malformed")
        if end - at > TRAILERS_MAX:
            raise RequestRefused(self._fault, "the trailers are too long")
        try:
            fields = checked_fields(data[at : end + 2])
        except RequestRefused as refused:
            raise RequestRefused(self._fault, str(refused)) from refused
        self.trailers = allowed_trailers(fields)
        self.done = True
        return end + 4

    def _incomplete(self, data: bytes, at: int, most: int, message: str) -> int:
        """Keeps an incomplete line of at most `most` bytes. Raises RequestRefused for one that can never
        become complete."""
        line = data[at:]
        if (b"\n" in line and self._expects == self._size_line) or line.count(b"\n") != line.count(b"\r\n"):
            raise RequestRefused(self._fault, message)
        if len(line) > most:
            raise RequestRefused(self._fault, message)
        self._line = line
        return len(data)


def allowed_trailers(fields: Fields) -> bytes:
    """The trailers that neither change what the head has said nor say who the client is, as field lines."""
    return as_trailers(fields.raw)
