"""A transaction as the kernel reads it: one nfnetlink batch (linux/netfilter/nf_tables.h). Pure.

The bytes are those that libnftables sends for the same text, without what it asks the kernel before: so both
leave the same table behind, and either can go on from the other. A batch takes effect as a whole: the kernel
commits at its end, and drops all of it after the first message that it refuses.
"""

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from ipaddress import IPv4Address

from mesh.balance.hash_slots import SlotDraw
from mesh.kernel.netfilter.transaction import (
    HASH_SEED,
    Add,
    Delete,
    Drawn,
    Elements,
    Empty,
    Lead,
    Operation,
    OperationKind,
    Put,
    SetOperation,
    Take,
    Transaction,
    What,
)
from mesh.net.netlink import F_ACK, F_REQUEST, NESTED, attribute, message

SUBSYSTEM = 10 << 8  # NFNL_SUBSYS_NFTABLES
BATCH_BEGIN, BATCH_END = 16, 17
NEW_CHAIN, DELETE_CHAIN = SUBSYSTEM | 3, SUBSYSTEM | 5
NEW_RULE, DELETE_RULE = SUBSYSTEM | 6, SUBSYSTEM | 8
NEW_SET, DELETE_SET = SUBSYSTEM | 9, SUBSYSTEM | 11
NEW_ELEMENT, DELETE_ELEMENT = SUBSYSTEM | 12, SUBSYSTEM | 14
F_CREATE, F_APPEND = 0x400, 0x800

IPV4 = 2  # NFPROTO_IPV4
ELEMENTS_AT_ONCE = 512  # in one message: an attribute holds 64 KiB, and an element here at most 80 bytes
PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17, "sctp": 132}
VERDICTS = {"jump": -3, "goto": -4}  # NFT_JUMP, NFT_GOTO


def batch(transaction: Transaction) -> bytes:
    """All of it as one message for the kernel, which answers once: to the last operation.

    Message n (from 1) is operation `owners(transaction)[n - 1]`'s; 0 and the last frame the batch.
    """
    parts = [part for operation in transaction for part in _parts(operation)]
    last = len(parts)
    packed = (
        message(kind, F_REQUEST | flags | (F_ACK if number == last else 0), number, generic(IPV4, 0) + body)
        for number, (kind, flags, body) in enumerate(parts, 1)
    )
    return framed(packed, last + 1)


def owners(transaction: Transaction) -> list[Operation]:
    """Whose message is which."""
    return [operation for operation in transaction for _ in _parts(operation)]


def framed(messages: Iterable[bytes], last: int) -> bytes:
    """Between the marks of a batch. `last`: the end's number."""
    frame = generic(0, 10)  # the subsystem stands here as well
    begin, end = message(BATCH_BEGIN, F_REQUEST, 0, frame), message(BATCH_END, F_REQUEST, last, frame)
    return b"".join((begin, *messages, end))


def generic(family: int, resource: int) -> bytes:
    """struct nfgenmsg."""
    return struct.pack("!BBH", family, 0, resource)


# --- operations ---------------------------------------------------------------------------------------------

_Part = tuple[int, int, bytes]  # kind of message, flags, attributes


def _parts(operation: Operation) -> Iterator[_Part]:
    match operation:
        case Add(What.CHAIN, table, name):
            yield NEW_CHAIN, F_CREATE, _name(1, table) + _name(3, name)
        case Add(What.SLOTS, table, name):
            yield NEW_SET, F_CREATE, _name(1, table) + _name(2, name) + _SLOTS
        case Delete(What.CHAIN, table, name):
            yield DELETE_CHAIN, 0, _name(1, table) + _name(3, name)
        case Delete(What.SLOTS, table, name):
            yield DELETE_SET, 0, _name(1, table) + _name(2, name)
        case Empty(table, chain):
            yield DELETE_RULE, 0, _name(1, table) + _name(2, chain)
        case Lead(table, chain, to, way):
            yield _rule(table, chain, _leading(to, way))
        case Put(into, elements):
            yield from ((NEW_ELEMENT, F_CREATE, body) for body in _elements(into, elements))
        case Take(out_of, keys):
            without_values = [(key, "") for key in keys]
            yield from ((DELETE_ELEMENT, 0, body) for body in _elements(out_of, without_values))


# --- sets and maps ------------------------------------------------------------------------------------------

# How nft is to list a map of slots that it has not declared itself: the bytes in which libnftables notes that
# it is `typeof numgen inc mod 2 : ip daddr`. They mean nothing to the kernel.
_TYPEOF_SLOTS = bytes.fromhex(
    "000401000000"  # keys in host byte order
    "010402000000"  # values in network byte order
    "031a" "000417000000" "0112" "000400000000" "010402000000" "020400000000"  # numgen, inc, mod 2, offset 0
    "0414" "000407000000" "010c" "00040c000000" "01040c000000"  # a header's field: of IPv4, daddr
    "060400000000"  # values are no intervals
)  # fmt: skip


def _elements(of: Elements, elements: Sequence[tuple[str, str]]) -> Iterator[bytes]:
    """The bodies of as many messages as it takes."""
    where = _name(1, of.table) + _name(2, of.name)
    for at in range(0, len(elements), ELEMENTS_AT_ONCE):
        some = elements[at : at + ELEMENTS_AT_ONCE]
        yield where + _nested(3, b"".join(_element(of, key, value) for key, value in some))


def _element(of: Elements, key: str, value: str) -> bytes:
    packed = _nested(1, attribute(1, _PACK[of.key](key)))
    if value and of.value is OperationKind.VERDICT:
        packed += _nested(2, _verdict(value))
    elif value and of.value is not None:
        packed += _nested(2, attribute(1, _PACK[of.value](value)))
    return _nested(1, packed)


def _verdict(text: str) -> bytes:
    verdict, chain = text.split()
    return _nested(2, attribute(1, struct.pack("!i", VERDICTS[verdict])) + _name(2, chain))


def _host(text: str) -> bytes:
    """As the kernel's own registers hold it: marks, and what numgen and jhash draw."""
    return struct.pack("=I", int(text, 0))


def _port(text: str) -> bytes:
    return struct.pack("!H", int(text))


def _protocol_port(text: str) -> bytes:
    """Each part of a concatenation fills whole registers of four bytes."""
    protocol, port = text.split(" . ")
    return struct.pack("!BxxxHxx", PROTOCOLS[protocol], int(port))


_PACK: dict[OperationKind, Callable[[str], bytes]] = {
    OperationKind.ADDRESS: lambda text: IPv4Address(text).packed,
    OperationKind.SLOT: _host,
    OperationKind.PROTOCOL: lambda text: bytes([PROTOCOLS[text]]),
    OperationKind.PORT: _port,
    OperationKind.PROTOCOL_PORT: _protocol_port,
    OperationKind.MAC: lambda text: bytes.fromhex(text.replace(":", "")),
    OperationKind.MARK: _host,
}


# --- rules --------------------------------------------------------------------------------------------------


def _rule(table: str, chain: str, expressions: Iterable[bytes]) -> _Part:
    body = _name(1, table) + _name(2, chain) + _nested(4, b"".join(expressions))
    return NEW_RULE, F_CREATE | F_APPEND, body


def _leading(to: str | Drawn, way: SetOperation) -> Iterator[bytes]:
    """Register 1 takes the protocol, the mark and the address, one after the other; 2 the port."""
    if way.protocol:
        yield _payload(1, offset=9, length=1)
        same = _number(1, 1) + _number(2, 0) + _data(3, bytes([PROTOCOLS[way.protocol]]))
        yield _expression("cmp", same)
    if way.mark is not None:
        yield _immediate(1, struct.pack("=I", way.mark))
        yield _expression("ct", _number(2, 3) + _number(4, 1))  # the mark, from register 1
    if isinstance(to, Drawn):
        yield from _draw(to)
        yield _expression("lookup", _name(1, to.among) + _number(2, 1) + _number(3, 1))
    else:
        yield _immediate(1, IPv4Address(to).packed)
    rewritten = _number(1, 1) + _number(2, IPV4) + _number(3, 1)  # destination, of IPv4, from register 1
    if way.port is not None:
        yield _immediate(2, struct.pack("!H", way.port))
        rewritten += _number(5, 2) + _number(7, 2)  # port from register 2, NF_NAT_RANGE_PROTO_SPECIFIED
    yield _expression("nat", rewritten)


def _draw(drawn: Drawn) -> Iterator[bytes]:
    """A slot into register 1."""
    if drawn.draw is SlotDraw.HASH:
        yield _payload(2, offset=12, length=4)  # the source address
        hashed = _number(1, 2) + _number(2, 1) + _number(3, 4) + _number(4, drawn.slots)
        yield _expression("hash", hashed + _number(5, HASH_SEED) + _number(6, 0) + _number(7, 0))
    else:
        kind = 1 if drawn.draw is SlotDraw.RANDOM else 0
        yield _expression(
            "numgen", _number(1, 1) + _number(2, drawn.slots) + _number(3, kind) + _number(4, 0)
        )


def _payload(register: int, *, offset: int, length: int) -> bytes:
    """Of the network header."""
    return _expression(
        "payload", _number(1, register) + _number(2, 1) + _number(3, offset) + _number(4, length)
    )


def _immediate(register: int, data: bytes) -> bytes:
    return _expression("immediate", _number(1, register) + _data(2, data))


def _expression(name: str, body: bytes) -> bytes:
    return _nested(1, _name(1, name) + _nested(2, body))


# --- attributes ---------------------------------------------------------------------------------------------


def _nested(kind: int, body: bytes) -> bytes:
    return attribute(kind | NESTED, body)


def _data(kind: int, value: bytes) -> bytes:
    return _nested(kind, attribute(1, value))


def _name(kind: int, name: str) -> bytes:
    return attribute(kind, name.encode() + b"\0")


def _number(kind: int, number: int) -> bytes:
    return attribute(kind, struct.pack("!I", number))


_SLOTS = (
    _number(3, 8)  # NFT_SET_MAP
    + _number(4, 4)  # key: an integer …
    + _number(5, 4)  # … of four bytes
    + _number(6, 7)  # value: an IPv4 address …
    + _number(7, 4)  # … of four bytes
    + _number(10, 1)  # the kernel asks for an id, by which nothing here refers to it
    + attribute(13, _TYPEOF_SLOTS)
)
