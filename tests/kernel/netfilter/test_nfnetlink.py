"""How transactions are packed: frame, numbers, acknowledgement, and the bytes of every kind of key."""

import struct

import pytest

from mesh.kernel.netfilter.nfnetlink import (
    DELETE_ELEMENT,
    ELEMENTS_AT_ONCE,
    NEW_CHAIN,
    NEW_ELEMENT,
    batch,
    owners,
)
from mesh.kernel.netfilter.transaction import (
    Add,
    Elements,
    Operation,
    OperationKind,
    Put,
    Take,
    Transaction,
    What,
)
from mesh.net.netlink import F_ACK, HEADER, attributes, messages

SLOTS = Elements("mesh", "tcp_80", OperationKind.SLOT, OperationKind.ADDRESS)


def headers(packed: bytes) -> list[tuple[int, int, int]]:
    """(kind, flags, number) of each message."""
    found, at = [], 0
    while at < len(packed):
        length, kind, flags, number, _ = HEADER.unpack_from(packed, at)
        found.append((kind, flags, number))
        at += length
    assert at == len(packed)
    return found


def many(count: int) -> Put:
    return Put(SLOTS, tuple((str(index), "10.0.0.7") for index in range(count)))


def test_a_batch_is_framed_numbered_and_acknowledged_once() -> None:
    found = headers(batch((Add(What.CHAIN, "mesh", "c"), Take(SLOTS, ("1",)), many(2))))
    assert [kind for kind, _, _ in found] == [16, NEW_CHAIN, DELETE_ELEMENT, NEW_ELEMENT, 17]
    assert [number for _, _, number in found] == [0, 1, 2, 3, 4]
    assert [number for _, flags, number in found if flags & F_ACK] == [3]


def test_many_elements_are_several_messages_of_one_operation() -> None:
    transaction: Transaction = (many(ELEMENTS_AT_ONCE + 1), Take(SLOTS, ("0",)))
    kinds = [kind for kind, _, _ in headers(batch(transaction))]
    assert kinds == [16, NEW_ELEMENT, NEW_ELEMENT, DELETE_ELEMENT, 17]
    assert owners(transaction) == [transaction[0], transaction[0], transaction[1]]


@pytest.mark.parametrize(
    ("kind", "key", "packed"),
    [
        (OperationKind.ADDRESS, "10.0.0.7", b"\x0a\0\0\x07"),
        (OperationKind.SLOT, "258", struct.pack("=I", 258)),
        (OperationKind.MARK, "0x6d650007", struct.pack("=I", 0x6D650007)),
        (OperationKind.PORT, "258", b"\x01\x02"),
        (OperationKind.PROTOCOL, "sctp", b"\x84"),
        (OperationKind.PROTOCOL_PORT, "udp . 258", b"\x11\0\0\0\x01\x02\0\0"),
        (OperationKind.MAC, "02:42:0a:00:00:07", b"\x02\x42\x0a\0\0\x07"),
    ],
)
def test_keys(kind: OperationKind, key: str, packed: bytes) -> None:
    assert key_of(Take(Elements("mesh", "set", kind), (key,))) == packed


def key_of(operation: Operation) -> bytes:
    """Of its only element: list → element → key → value."""
    _, (_, body), _ = messages(batch((operation,)))
    data = attributes(body[4:])[3]
    for kind in (1, 1, 1):
        data = attributes(data)[kind]
    return data
