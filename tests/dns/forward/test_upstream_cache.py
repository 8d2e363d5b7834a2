"""Upstreams' replies: how long they are kept, how they grow older, and what makes room."""

import pytest
from dnslib import QTYPE, RR, SOA, A, DNSHeader, DNSQuestion, DNSRecord
from hypothesis import given
from hypothesis import strategies as st

from mesh.dns.config import (
    CACHED_NEGATIVE_TTL_MAX,
    CACHED_REPLY_MAX,
    CACHED_TTL_MAX,
    FAILURE_TTL,
    FAILURES_MAX,
    STALE_MAX_AGE,
    STALE_RECHECK,
)
from mesh.dns.forward.query_builder import Received
from mesh.dns.forward.reply_parser import parse_reply
from mesh.dns.forward.upstream_cache import KEY_COST, Aging, UpstreamCache, lifetime


def reply(ttl: int = 60, rcode: int = 0, count: int = 1, tc: int = 0) -> Received:
    record = DNSRecord(DNSHeader(qr=1, rcode=rcode, tc=tc), q=DNSQuestion("x"))
    for number in range(count if rcode == 0 else 0):
        record.add_answer(RR("x", QTYPE.A, ttl=ttl + number, rdata=A("10.0.0.1")))
    if rcode == 3:
        record.add_auth(RR(".", QTYPE.SOA, ttl=ttl, rdata=SOA("a.", "b.", (1, 2, 3, 4, ttl))))
    message = bytes(record.pack())
    return Received(message, parse_reply(message))


def ttls(received: Received) -> list[int]:
    return [rr.ttl for rr in DNSRecord.parse(received.message).rr]


@pytest.mark.parametrize(
    ("received", "seconds"),
    [
        (reply(ttl=0), 0),
        (reply(ttl=60, rcode=2), 0),
        (reply(ttl=60, tc=1), 0),
        (reply(ttl=60), 60),
        (reply(ttl=1_000_000), CACHED_TTL_MAX),
        (reply(ttl=30, rcode=3), 30),
        (reply(ttl=1_000_000, rcode=3), CACHED_NEGATIVE_TTL_MAX),
    ],
)
def test_how_long_a_reply_is_good_for(received: Received, seconds: int) -> None:
    assert lifetime(received.reply) == seconds
    assert (Aging.of(received.message, received.reply, 0.0) is not None) == (seconds > 0)


@given(st.integers(1, 100_000), st.floats(0, 200_000), st.floats(0, 1000))
def test_a_reply_grows_older_by_the_second_and_is_fresh_no_longer_than_its_ttl(
    ttl: int, age: float, began: float
) -> None:
    memory, now = UpstreamCache(1), began + age
    made = memory.put("k", reply(ttl), began)
    assert made is not None
    kept = memory.get("k", now)
    if kept is None:
        assert age >= ttl or age >= CACHED_TTL_MAX + STALE_MAX_AGE
        return
    if kept.fresh(now):
        assert age <= min(ttl, CACHED_TTL_MAX)
        assert ttls(kept.at(now)) == [ttl - int(now - began)]
        assert kept.due(now) == (now >= kept.expires - 0.1 * (kept.expires - began))
    assert ttls(kept.stale()) == [30]
    assert ttls(kept.received) == [ttl]


def test_it_stays_for_a_day_and_no_longer() -> None:
    memory = UpstreamCache(1)
    memory.put("k", reply(60), 0.0)
    assert memory.get("k", 60.0 + STALE_MAX_AGE - 1) is not None
    assert memory.get("k", 60.0 + STALE_MAX_AGE) is None
    assert (len(memory), memory.bytes) == (0, 0)


def test_what_was_used_longest_ago_makes_room() -> None:
    memory = UpstreamCache(2)
    memory.put("a", reply(), 0.0)
    memory.put("b", reply(), 0.0)
    memory.get("a", 1.0)
    memory.put("c", reply(), 2.0)
    assert [key for key in "abc" if memory.get(key, 3.0)] == ["a", "c"]


SIZES = [reply(count=count) for count in (1, 30, 90, 200)]


@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from(SIZES)), max_size=60))
def test_bytes_are_counted_and_bounded(puts: list[tuple[int, Received]]) -> None:
    limit = 6000
    memory = UpstreamCache(8, limit)
    for now, (key, received) in enumerate(puts):
        memory.put(key, received, float(now))
        assert memory.bytes <= limit
        assert len(memory) <= 8
        kept = [memory._kept[k] for k in memory._kept]
        assert memory.bytes == sum(KEY_COST + one.received.cost for one in kept)


def test_what_is_too_large_or_without_room_is_not_kept() -> None:
    large = reply(count=CACHED_REPLY_MAX // 16)
    assert UpstreamCache(9).put("k", large, 0.0) is None
    assert UpstreamCache(0).put("k", reply(), 0.0) is None


def test_a_reply_that_may_not_be_kept_takes_the_older_one_away_but_a_truncated_one_does_not() -> None:
    memory = UpstreamCache(9)
    memory.put("k", reply(), 0.0)
    memory.put("k", reply(tc=1), 1.0)
    assert memory.get("k", 1.0) is not None
    memory.put("k", reply(ttl=0), 2.0)
    assert memory.get("k", 2.0) is None


def test_the_same_reply_is_kept_once() -> None:
    memory, received = UpstreamCache(9), reply()
    first = memory.put("k", received, 0.0)
    assert memory.put("k", received, 5.0) is first


def test_a_failure_is_remembered_shortly_and_a_little_longer_where_there_is_a_stale_reply() -> None:
    memory = UpstreamCache(9)
    memory.put("old", reply(1), 0.0)
    memory.failed("old", 10.0)
    memory.failed("new", 10.0)
    assert memory.has_just_failed("new", 10.0 + FAILURE_TTL - 0.1)
    assert not memory.has_just_failed("new", 10.0 + FAILURE_TTL)
    assert memory.has_just_failed("old", 10.0 + STALE_RECHECK - 0.1)
    memory.put("old", reply(), 11.0)
    assert not memory.has_just_failed("old", 11.0)


def test_failures_are_bounded() -> None:
    memory = UpstreamCache(9)
    for number in range(FAILURES_MAX + 1):
        memory.failed(number, 0.0)
    assert not memory.has_just_failed(0, 0.0)
    assert memory.has_just_failed(FAILURES_MAX, 0.0)


def test_a_failed_refresh_may_be_tried_again() -> None:
    memory = UpstreamCache(9)
    kept = memory.put("k", reply(100), 0.0)
    assert kept is not None
    assert (kept.due(89.9), kept.due(90.0)) == (False, True)
    kept.refreshing = True
    assert not kept.due(95.0)
    memory.failed("k", 95.0)
    assert kept.due(95.0)
