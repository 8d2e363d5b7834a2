"""Names in upstreams' replies: each must come to an end, wherever it stands."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.dns.forward.reply_parser import parse_reply
from mesh.dns.wire import POINTERS_MAX, RECORD, Names, QType, skip_name
from mesh.errors import WireError

HEAD = struct.pack("!HHHHHH", 1, 0x8180, 1, 1, 0, 0)
QUESTION = b"\x01a\x07example\x00" + struct.pack("!HH", 1, 1)
OWNER = len(HEAD + QUESTION)  # where the first record begins


def reply(owner: bytes = b"\xc0\x0c", rtype: int = QType.A, data: bytes = b"\x7f\0\0\1") -> bytes:
    return HEAD + QUESTION + owner + RECORD.pack(rtype, 1, 60, len(data)) + data


def pointer(at: int) -> bytes:
    return struct.pack("!H", 0xC000 | at)


DATA = OWNER + 2 + RECORD.size  # where a record's data begins


@pytest.mark.parametrize(
    "message",
    [
        reply(owner=pointer(OWNER)),
        reply(owner=pointer(OWNER + 2)),
        reply(owner=pointer(0x3FFF)),
        reply(owner=pointer(0)),
        reply(owner=b"\x01b" + pointer(OWNER)),
        reply(owner=b"\x01b" + pointer(OWNER + 2)),
        HEAD + pointer(12) + struct.pack("!HH", 1, 1) + reply()[OWNER:],
        reply(rtype=QType.CNAME, data=pointer(DATA)),
        reply(rtype=QType.CNAME, data=b"\x01b" + pointer(DATA)),
        reply(rtype=QType.CNAME, data=pointer(DATA + 2) + pointer(DATA)),
        reply(rtype=QType.CNAME, data=b"\x01b\0more"),
        reply(rtype=QType.CNAME, data=b"\x40" + b"b" * 64 + b"\0"),
        reply(rtype=QType.NS, data=pointer(DATA)),
        reply(rtype=QType.PTR, data=pointer(DATA)),
        reply(rtype=39, data=pointer(DATA)),
        reply(rtype=QType.MX, data=b"\0\1" + pointer(DATA + 2)),
        reply(rtype=QType.SRV, data=b"\0" * 6 + pointer(DATA + 6)),
        reply(rtype=QType.SOA, data=b"\x01b\0" + pointer(DATA + 3) + b"\0" * 20),
        reply(rtype=QType.SOA, data=pointer(12) + pointer(12) + b"\0" * 19),
        reply(owner=(b"\x3f" + b"b" * 63) * 4 + b"\0"),
        reply(owner=(b"\x3f" + b"b" * 63) * 3 + b"\x39" + b"b" * 57 + pointer(12)),
    ],
)
def test_a_name_without_an_end_is_refused(message: bytes) -> None:
    with pytest.raises(WireError):
        parse_reply(message)


@pytest.mark.parametrize(
    "message",
    [
        reply(),
        reply(owner=b"\0"),
        reply(owner=b"\x01b" + pointer(14)),
        reply(owner=b"\x03www" + pointer(12)),
        reply(rtype=QType.CNAME, data=b"\x01b" + pointer(14)),
        reply(rtype=QType.MX, data=b"\0\1" + pointer(12)),
        reply(rtype=QType.SRV, data=b"\0" * 6 + b"\x01b\0"),
        reply(rtype=QType.SOA, data=b"\x01b" + pointer(12) + pointer(DATA) + b"\0" * 20),
        reply(rtype=QType.TXT, data=pointer(DATA)),
        reply(owner=(b"\x3f" + b"b" * 63) * 3 + b"\x33" + b"b" * 51 + pointer(12)),
    ],
)
def test_a_name_that_ends_is_taken(message: bytes) -> None:
    assert parse_reply(message).end == len(message)


def test_a_name_has_no_more_pointers_than_labels() -> None:
    chain = b"\0" + b"".join(pointer(12 if not n else 13 + 2 * (n - 1)) for n in range(POINTERS_MAX + 1))
    message = HEAD + chain
    assert skip_name(message, 13 + 2 * (POINTERS_MAX - 1)) == len(message) - 2
    with pytest.raises(WireError):
        skip_name(message, len(message) - 2)
    known: Names = {}
    for number in range(POINTERS_MAX):
        skip_name(message, 13 + 2 * number, known)
    with pytest.raises(WireError):
        skip_name(message, len(message) - 2, known)


@given(st.binary(max_size=60), st.integers(0, 60))
def test_it_says_the_same_whatever_was_read_before(data: bytes, at: int) -> None:
    message = HEAD + QUESTION + data
    known: Names = {}
    for start in range(12, len(message)):
        try:
            alone: int | None = skip_name(message, start, None, 12)
        except WireError:
            alone = None
        try:
            assert skip_name(message, start, known, 12) == alone
        except WireError:
            assert alone is None
