"""What is kept, for how long, and what makes it go."""

from collections import Counter

from dnslib import QTYPE, RR, A, DNSHeader, DNSQuestion, DNSRecord

from mesh.dns.cache import Entry, ReplyCache, View
from mesh.dns.forwarded import Aging, Forwarded
from mesh.dns.wire import parse_reply

WEB = frozenset({"web"})


def forwarded(ttl: int, now: float = 0.0, rcode: int = 0) -> Aging | None:
    record = DNSRecord(DNSHeader(qr=1, rcode=rcode), q=DNSQuestion("x"))
    record.add_answer(RR("x", QTYPE.A, ttl=ttl, rdata=A("10.0.0.1")))
    message = bytes(record.pack())
    return Aging.of(message, parse_reply(message), now)


def put(
    cache: ReplyCache, view: View, query: bytes, *tails: bytes, names: frozenset[str] = WEB
) -> Entry | None:
    return cache.put(view, query, list(tails or (b"reply",)), names, [0])


def test_views_are_apart_and_shared_by_key() -> None:
    cache = ReplyCache(10)
    one, other = cache.view("a"), cache.view("b")
    put(cache, one, b"q")
    assert b"q" in cache.view("a")
    assert b"q" not in other


def test_a_view_that_nobody_holds_and_nothing_is_in_goes_by_itself() -> None:
    cache = ReplyCache(10)
    put(cache, cache.view("a"), b"q")
    assert b"q" in cache.view("a")  # its entry keeps it
    cache.invalidate(["web"])
    assert len(cache._views) == 0


def test_replies_are_handed_out_in_turn() -> None:
    cache = ReplyCache(10)
    entry = put(cache, cache.view("a"), b"q", b"1", b"2", b"3")
    assert entry is not None
    assert Counter(next(entry.replies) for _ in range(300)) == {b"1": 100, b"2": 100, b"3": 100}


def test_a_change_drops_what_depends_on_it_and_nothing_else() -> None:
    cache = ReplyCache(10)
    view = cache.view("a")
    put(cache, view, b"web", names=frozenset({"web", "web.net"}))
    put(cache, view, b"db", names=frozenset({"db"}))
    assert cache.invalidate(["web.net", "web", "unheard-of"]) == 1
    assert list(view) == [b"db"]
    assert (len(cache), cache.replies) == (1, 1)


def test_the_capacity_counts_replies_and_the_oldest_go_first() -> None:
    cache = ReplyCache(4)
    view = cache.view("a")
    put(cache, view, b"1", b"x", b"y")
    put(cache, view, b"2")
    put(cache, view, b"3", b"x", b"y")
    assert list(view) == [b"2", b"3"]
    assert cache.replies == 3
    assert put(cache, view, b"4", *[b"x"] * 5) is None


def test_the_same_query_again_replaces_its_entry() -> None:
    cache = ReplyCache(4)
    view = cache.view("a")
    put(cache, view, b"1", b"x", b"y")
    put(cache, view, b"1", b"z")
    assert (len(cache), cache.replies) == (1, 1)


def test_large_replies_are_not_kept_nor_anything_without_capacity() -> None:
    assert put(ReplyCache(10), ReplyCache(10).view("a"), b"q", b"x" * 5000) is None
    none = ReplyCache(0)
    assert put(none, none.view("a"), b"q") is None


def test_a_forwarded_reply_grows_older_and_ends() -> None:
    cache = ReplyCache(10)
    view, aging = cache.view("a"), forwarded(ttl=30)
    assert aging is not None
    cache.put_forwarded(view, b"q", aging, WEB, [0], 0.5)
    entry = view[b"q"]
    assert entry.valid_until == 1.0
    assert cache.renew(entry, 10.2)
    assert DNSRecord.parse(b"\0\0" + next(entry.replies)).rr[0].ttl == 20
    assert entry.valid_until == 11.0
    assert not cache.renew(entry, 30.0)
    assert b"q" not in view


def test_what_may_be_kept_of_upstreams() -> None:
    kept = forwarded(ttl=1_000_000)
    assert kept is not None
    assert kept.expires == 3600
    assert forwarded(ttl=0) is None
    assert forwarded(ttl=60, rcode=2) is None


def test_forwarded_replies_are_bounded_and_end() -> None:
    memory, aging = Forwarded(2), forwarded(ttl=30)
    assert aging is not None
    for key in "abc":
        memory.put(key, aging)
    assert memory.get("a", 0) is None
    assert memory.get("c", 29.9) is aging
    assert memory.get("c", 30.0) is None
    assert len(memory) == 1
