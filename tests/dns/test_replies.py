"""An answer's replies: what is in them, and who comes first how often."""

from collections import Counter
from random import Random

import pytest
from dnslib import DNSRecord
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.dns.answers import Record
from mesh.dns.config import ROTATIONS
from mesh.dns.policy import Order
from mesh.dns.replies import replies
from mesh.dns.wire import QType, parse_query
from tests.dns.fakes import question

QUERY = parse_query(question("tasks.web"))
PLENTY = 65_535


def records(count: int, *, v6: int = 0) -> tuple[Record, ...]:
    four = (Record(QType.A, f"10.0.{n // 250}.{n % 250 + 1}") for n in range(count))
    six = (Record(QType.AAAA, f"fd00::{n + 1:x}") for n in range(v6))
    return (*four, *six)


def made(
    wanted: tuple[Record, ...], order: Order = Order.ROTATE, limit: int = PLENTY, keep: int = PLENTY
) -> list[DNSRecord]:
    shuffle = Random(1).shuffle
    tails = replies(QUERY, wanted, 5, limit=limit, keep=keep, order=order, shuffle=shuffle)
    assert all(len(tail) + 2 <= limit for tail in tails)
    return [DNSRecord.parse(b"id" + tail) for tail in tails]


def data(reply: DNSRecord) -> list[str]:
    return [str(rr.rdata) for rr in reply.rr]


def firsts(found: list[DNSRecord]) -> Counter[str]:
    return Counter(data(reply)[0] for reply in found)


@pytest.mark.parametrize("order", Order)
@settings(deadline=None)  # parsing a hundred replies takes its time on a busy machine
@given(four=st.integers(0, 40), six=st.integers(0, 3))
def test_every_reply_has_all_records_and_each_comes_first_equally_often(
    order: Order, four: int, six: int
) -> None:
    wanted = records(four, v6=six)
    found = made(wanted, order)
    assert {frozenset(data(reply)) for reply in found} == {frozenset(r.data for r in wanted)}
    assert {len(reply.rr) for reply in found} == {len(wanted)}
    if wanted:
        assert set(firsts(found)) == {r.data for r in wanted}
        assert len(set(firsts(found).values())) == 1


@pytest.mark.parametrize(("limit", "fit"), [(512, 30), (1232, 75), (PLENTY, 200)])
def test_a_large_set_is_cut_where_it_must_be_and_says_so(limit: int, fit: int) -> None:
    found = made(records(200), limit=limit)
    assert len(found) == 200
    assert {len(reply.rr) for reply in found} == {fit}
    assert {reply.header.tc for reply in found} == {int(fit < 200)}
    assert set(firsts(found).values()) == {1}


def test_a_set_beyond_all_rotations_has_its_first_records_spread_evenly() -> None:
    found = made(records(1000), limit=1232)
    assert len(found) == len(firsts(found)) == ROTATIONS


def test_orders_other_than_the_first_are_random_when_shuffled() -> None:
    seconds = {data(reply)[1] for reply in made(records(20), Order.SHUFFLE) if data(reply)[0] == "10.0.0.1"}
    assert len(seconds) > 1
    assert len({tuple(data(reply)) for reply in made(records(4), Order.SHUFFLE)}) > 10


def test_one_reply_is_enough_where_none_is_kept() -> None:
    assert len(made(records(9), keep=0)) == 1
    assert len(made(records(9), keep=100)) == 1


def test_a_pointer_that_dns_cannot_say_is_left_out() -> None:
    assert data(made((Record(QType.PTR, "x" * 64 + ".net."),))[0]) == []
