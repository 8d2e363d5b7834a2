"""An answer's replies: what is in them, and who comes first how often."""

from collections import Counter
from random import Random

import pytest
from dnslib import DNSRecord
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.dns.config import ROTATIONS
from mesh.dns.lookup import Record
from mesh.dns.name_policy import Order
from mesh.dns.reply_builder import replies
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


# --- records that need others -------------------------------------------------------------------------------


def services(
    count: int, name: str = "web.{}.abcdefghijklmnopqrstuvwxy.mystack_default."
) -> tuple[Record, ...]:
    return tuple(
        Record(QType.SRV, f"0 1 8080 {name.format(n)}", (f"10.0.{n // 250}.{n % 250 + 1}",))
        for n in range(count)
    )


def glue(reply: DNSRecord) -> dict[str, str]:
    return {str(rr.rname): str(rr.rdata) for rr in reply.ar}


@given(count=st.integers(1, 8))
def test_every_target_comes_with_its_address(count: int) -> None:
    found = made(services(count))
    assert len(found) == count
    assert set(firsts(found).values()) == {1}
    for reply in found:
        assert glue(reply) == {r.data.split(" ")[3]: r.glue[0] for r in services(count)}
        assert reply.header.tc == 0


def test_a_target_of_several_records_is_told_once_with_all_its_addresses() -> None:
    both = ("10.0.0.1", "fd00::1")
    (reply, _) = made(tuple(Record(QType.SRV, f"0 1 {port} web.net.", both) for port in (80, 443)))
    assert [(str(rr.rname), str(rr.rdata)) for rr in reply.ar] == [("web.net.", a) for a in both]


def test_glue_is_left_out_first_and_without_a_word() -> None:
    """RFC 2181 9. A record here has 67 bytes, its glue 16, header and question 27: 7 of them have 496."""
    for count, kept, glued, truncated in ((5, 5, 5, 0), (6, 6, 5, 0), (7, 7, 1, 0), (8, 7, 0, 1)):
        for reply in made(services(count), limit=512):
            assert (len(reply.rr), len(reply.ar), reply.header.tc) == (kept, glued, truncated)


def test_glue_beyond_the_reach_of_pointers_is_written_out() -> None:
    wanted = services(300)
    (reply,) = made(wanted, keep=0)
    assert len(reply.pack()) > 0x4000
    assert glue(reply) == {r.data.split(" ")[3]: r.glue[0] for r in wanted}


def test_glue_that_is_no_address_is_left_out() -> None:
    (reply,) = made((Record(QType.SRV, "0 0 80 web.net.", ("nonsense",)),))
    assert (len(reply.rr), reply.ar) == (1, [])


def test_a_target_that_dns_cannot_say_is_left_out() -> None:
    assert data(made((Record(QType.SRV, f"0 0 80 {'x' * 64}.net.", ("10.0.0.1",)),))[0]) == []


def test_a_pointer_that_dns_cannot_say_is_left_out() -> None:
    assert data(made((Record(QType.PTR, "x" * 64 + ".net."),))[0]) == []
