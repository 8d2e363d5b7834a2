"""HPACK (RFC 7541) by the library hpack, with a memory of recent blocks. A fast path.

A block that adds nothing to the dynamic table means the same as long as the table does not change. gRPC calls
and clients that repeat a request send the same block to the byte; so do the responses of one second.
"""

from collections.abc import Sequence, Sized

from hpack import Decoder, Encoder
from hpack.table import HeaderTable

Fields = Sequence[tuple[bytes, bytes]]

KNOWN_MAX = 64  # blocks, each of at most `BLOCK_MAX` bytes and `FIELDS_MAX` fields
BLOCK_MAX = 1024
FIELDS_MAX = 64  # in memory a field takes a hundred times the byte that can stand for it
KNOWN_BYTES_MAX = 32 * 1024  # for each direction of a connection, one of thousands
_FIELD_BYTES = 128  # what a field takes in memory beside what stands in the block


class _Unchanged:
    """Notices changes of a dynamic table."""

    __slots__ = ("_newest", "_size", "_table")

    def __init__(self, table: HeaderTable) -> None:
        self._table = table
        self._newest: object = None
        self._size = -1

    def note(self) -> bool:
        """True: the table has not changed since the last call."""
        table = self._table
        newest = table.dynamic_entries[0] if table.dynamic_entries else None
        if newest is self._newest and table.maxsize == self._size and not table.resized:
            return True
        self._newest, self._size = newest, table.maxsize
        return False


class Decoding:
    """Decodes the blocks that one peer sends."""

    def __init__(self, most: int) -> None:
        """`most`: bytes of a decoded list; a longer one raises OversizedHeaderListError."""
        self._decoder = Decoder(most)
        self._unchanged = _Unchanged(self._decoder.header_table)
        self._known: dict[bytes, tuple[Fields, int]] = {}
        self._size = 0
        self.decoded = 0  # bytes of the names and values of the last block

    def decode(self, block: bytes) -> Fields:
        """Raises HPACKError."""
        known = self._known.get(block)
        if known is not None:
            self.decoded = known[1]
            return known[0]
        fields: Fields = self._decoder.decode(block, raw=True)  # type: ignore[assignment]
        self.decoded = sum([len(name) + len(value) for name, value in fields])
        size = 2 * len(block) + _FIELD_BYTES * len(fields)
        if not self._unchanged.note() or not _fits(self._known, self._size + size):
            self._known.clear()
            self._size = 0
        elif len(block) <= BLOCK_MAX and len(fields) <= FIELDS_MAX:
            self._known[block] = fields, self.decoded
            self._size += size
        return fields


class Encoding:
    """Encodes the blocks that are sent to one peer."""

    def __init__(self) -> None:
        self._encoder = Encoder()
        self._unchanged = _Unchanged(self._encoder.header_table)
        self._known: dict[Fields, bytes] = {}
        self._size = 0

    def limit(self, size: int) -> None:
        """Sets the size of the peer's dynamic table, in bytes."""
        self._encoder.header_table_size = size
        self._known.clear()
        self._size = 0

    def encode(self, fields: list[tuple[bytes, bytes]]) -> bytes:
        key = tuple(fields)
        known = self._known.get(key)
        if known is not None:
            return known
        # Huffman coding would save some bytes and cost more CPU time than the rest of the request.
        block = self._encoder.encode(fields, huffman=False)
        size = 2 * len(block) + _FIELD_BYTES * len(fields)
        if not self._unchanged.note() or not _fits(self._known, self._size + size):
            self._known.clear()
            self._size = 0
        elif len(block) <= BLOCK_MAX and len(fields) <= FIELDS_MAX:
            self._known[key] = block
            self._size += size
        return block


def _fits(known: Sized, size: int) -> bool:
    return len(known) < KNOWN_MAX and size <= KNOWN_BYTES_MAX
