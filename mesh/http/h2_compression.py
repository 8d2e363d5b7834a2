"""HPACK (RFC 7541) by the library hpack, which need not do the same block twice. A fast path.

A block that adds nothing to the table means the same until something else does. Calls of gRPC, and whoever
asks for one thing again and again, repeat theirs to the byte; so do the responses of a busy second.
"""

from collections.abc import Sequence

from hpack import Decoder, Encoder
from hpack.table import HeaderTable

Fields = Sequence[tuple[bytes, bytes]]

KNOWN_MAX = 64  # blocks, each of at most `BLOCK_MAX` bytes
BLOCK_MAX = 1024


class _Unchanged:
    """Is a table still as it was?"""

    __slots__ = ("_newest", "_size", "_table")

    def __init__(self, table: HeaderTable) -> None:
        self._table = table
        self._newest: object = None
        self._size = -1

    def note(self) -> bool:
        """Since this was last asked."""
        table = self._table
        newest = table.dynamic_entries[0] if table.dynamic_entries else None
        if newest is self._newest and table.maxsize == self._size and not table.resized:
            return True
        self._newest, self._size = newest, table.maxsize
        return False


class Decoding:
    """Of what one peer sends."""

    def __init__(self, most: int) -> None:
        """`most`: bytes of a decoded list."""
        self._decoder = Decoder(most)
        self._unchanged = _Unchanged(self._decoder.header_table)
        self._known: dict[bytes, Fields] = {}

    def decode(self, block: bytes) -> Fields:
        """Raises HPACKError."""
        known = self._known.get(block)
        if known is not None:
            return known
        fields: Fields = self._decoder.decode(block, raw=True)  # type: ignore[assignment]
        if not self._unchanged.note() or len(self._known) >= KNOWN_MAX:
            self._known.clear()
        elif len(block) <= BLOCK_MAX:
            self._known[block] = fields
        return fields


class Encoding:
    """Of what one peer is sent."""

    def __init__(self) -> None:
        self._encoder = Encoder()
        self._unchanged = _Unchanged(self._encoder.header_table)
        self._known: dict[Fields, bytes] = {}

    def limit(self, size: int) -> None:
        """Bytes that the peer's table has."""
        self._encoder.header_table_size = size
        self._known.clear()

    def encode(self, fields: list[tuple[bytes, bytes]]) -> bytes:
        key = tuple(fields)
        known = self._known.get(key)
        if known is not None:
            return known
        # Huffman's code would spare the network some bytes and cost us more than all the rest of a request.
        block = self._encoder.encode(fields, huffman=False)
        if not self._unchanged.note() or len(self._known) >= KNOWN_MAX:
            self._known.clear()
        elif len(block) <= BLOCK_MAX:
            self._known[key] = block
        return block
