"""What is remembered of blocks is what the library would say: conversations with many repetitions."""

from hpack import Decoder, Encoder, NeverIndexedHeaderTuple
from hypothesis import given
from hypothesis import strategies as st

from mesh.http.codec.hpack import KNOWN_MAX, Decoding, Encoding

_FIELD = st.builds(
    lambda name, value, secret: (NeverIndexedHeaderTuple if name == b"cookie" else _pair)(name, value),
    st.sampled_from([b":path", b":method", b"cookie", b"x-a", b"date"]),
    st.sampled_from([b"/", b"GET", b"", b"1", b"x" * 100, b"y" * 5000]),
    st.booleans(),
)


def _pair(name: bytes, value: bytes) -> tuple[bytes, bytes]:
    return name, value


_LISTS = st.lists(st.lists(_FIELD, max_size=4), min_size=1, max_size=5).flatmap(
    lambda some: st.lists(st.sampled_from(some), max_size=40)
)


@given(_LISTS, st.lists(st.sampled_from([0, 50, 200, 4096]), max_size=3))
def test_the_library_decodes_encoded_blocks(lists: list[list[tuple[bytes, bytes]]], sizes: list[int]) -> None:
    ours, theirs = Encoding(), Decoder()
    for at, fields in enumerate(lists):
        if at % 5 == 4 and sizes:
            ours.limit(sizes[at % len(sizes)])
        assert list(theirs.decode(ours.encode(fields), raw=True)) == fields


@given(_LISTS, st.lists(st.sampled_from([0, 50, 200, 4096]), max_size=3))
def test_blocks_of_the_library_are_decoded(lists: list[list[tuple[bytes, bytes]]], sizes: list[int]) -> None:
    ours, theirs = Decoding(65536), Encoder()
    for at, fields in enumerate(lists):
        if at % 5 == 4 and sizes:
            theirs.header_table_size = sizes[at % len(sizes)]
        assert list(ours.decode(theirs.encode(fields, huffman=bool(at % 2)))) == fields


def test_a_repeated_block_is_decoded_once() -> None:
    ours, theirs = Decoding(65536), Encoder()
    fields = [(b":method", b"GET"), (b"x-a", b"1")]
    first, second, third = (theirs.encode(fields) for _ in range(3))
    assert first != second == third  # the first puts a field into the table
    ours.decode(first)
    ours.decode(second)  # the table is as it was from here on
    assert ours.decode(third) is ours.decode(third)


def test_the_memory_of_blocks_is_limited() -> None:
    ours = Encoding()
    for number in range(10 * KNOWN_MAX):
        ours.encode([NeverIndexedHeaderTuple(b"cookie", b"%d" % number)])
        assert len(ours._known) <= KNOWN_MAX
