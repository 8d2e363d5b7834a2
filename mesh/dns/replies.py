"""An answer as bytes: the replies, without their ids, in which each record comes first in turn.

Few clients look beyond the first record, so each must be first equally often; and since they start anywhere
in the circle, many scopes that each ask once do not all get the same. Sets larger than `ROTATIONS` get that
many replies, their first records spread evenly over a circle that is drawn anew with every change: what a
query costs does not grow with the set.
"""

from collections.abc import Callable, Iterator
from typing import TypeAlias

from mesh.dns.answers import Record
from mesh.dns.config import ROTATIONS, SHUFFLES
from mesh.dns.policy import Order
from mesh.dns.wire import (
    HEADER,
    QType,
    Query,
    Rcode,
    address_record,
    pointer_record,
    reply_tail,
    soa_record,
)
from mesh.errors import WireError

Shuffle: TypeAlias = Callable[[list[bytes]], None]  # in place


def replies(
    query: Query,
    records: tuple[Record, ...],
    ttl: int,
    *,
    limit: int,
    keep: int,
    order: Order,
    shuffle: Shuffle,
) -> list[bytes]:
    """Replies to be given in turn, each good for any client.

    `limit`: bytes that a reply may have. `keep`: bytes of a reply that is worth keeping ready; there is only
    one where it is larger, or none is to be kept (0).
    """
    encoded = list(_encoded(records, ttl))
    if not encoded:
        return [reply_tail(query, Rcode.NOERROR, authority=soa_record(ttl), limit=limit)]
    shuffle(encoded)
    first = reply_tail(query, Rcode.NOERROR, encoded, limit=limit)
    if len(encoded) == 1 or len(first) > keep:
        return [first]
    if order is Order.ROTATE and len(set(map(len, encoded))) == 1:
        return list(_slices(query, first, encoded))
    orders = _rotated(encoded) if order is Order.ROTATE else _shuffled(encoded, shuffle)
    return [reply_tail(query, Rcode.NOERROR, one, limit=limit) for one in orders]


def _slices(query: Query, unturned: bytes, records: list[bytes]) -> Iterator[bytes]:
    """The rotations of records of one length: all have as many, so each is a slice of the same bytes.

    A tenth of the time that putting each together takes.
    """
    start = HEADER.size - 2 + len(query.question.wire)
    size = len(records[0])
    kept = int.from_bytes(unturned[4:6]) * size  # bytes of the records that there is room for
    before, circle, after = unturned[:start], b"".join(records + records), unturned[start + kept :]
    for first in _firsts(len(records)):
        yield before + circle[first * size : first * size + kept] + after


def _rotated(records: list[bytes]) -> Iterator[list[bytes]]:
    twice = records + records
    for first in _firsts(len(records)):
        yield twice[first : first + len(records)]


def _shuffled(records: list[bytes], shuffle: Shuffle) -> Iterator[list[bytes]]:
    """Each first equally often, the others at random: whoever is next does not inherit all of its load."""
    for _ in range(max(1, SHUFFLES // len(records))):
        shuffle(records)
        for first in _firsts(len(records)):
            rest = records[:first] + records[first + 1 :]
            shuffle(rest)
            yield [records[first], *rest]


def _firsts(count: int) -> Iterator[int]:
    turns = min(count, ROTATIONS)
    return (turn * count // turns for turn in range(turns))


def _encoded(records: tuple[Record, ...], ttl: int) -> Iterator[bytes]:
    """Records → bytes. What cannot be said in DNS (a label over 63 octets in a PTR) is left out."""
    for record in records:
        try:
            yield _encode(record, ttl)
        except (WireError, ValueError):
            continue


def _encode(record: Record, ttl: int) -> bytes:
    if record.qtype == QType.PTR:
        return pointer_record(record.data, ttl)
    return address_record(record.data, ttl)
