"""What is kept, for how long, and what makes it go."""

from collections import Counter
from itertools import islice

from dnslib import QTYPE, RR, A, DNSHeader, DNSQuestion, DNSRecord

from mesh.dns.config import UDP_SLOT
from mesh.dns.forward.reply_parser import parse_reply
from mesh.dns.forward.upstream_cache import Aging
from mesh.dns.reply_cache import RUN_OF_MANY, CacheEntry, ReplyCache, View

WEB = frozenset({"web"})


def forwarded(ttl: int, now: float = 0.0, rcode: int = 0) -> Aging | None:
    record = DNSRecord(DNSHeader(qr=1, rcode=rcode), q=DNSQuestion("x"))
    record.add_answer(RR("x", QTYPE.A, ttl=ttl, rdata=A("10.0.0.1")))
    message = bytes(record.pack())
    return Aging.of(message, parse_reply(message), now)


def put(
    cache: ReplyCache, view: View, query: bytes, *tails: bytes, names: frozenset[str] = WEB
) -> CacheEntry | None:
    return cache.put(view, query, list(tails or (b"reply",)), names, [0])


def test_views_are_apart_and_shared_by_key() -> None:
    cache = ReplyCache(10)
    one, other = cache.view("a", False), cache.view("b", False)
    put(cache, one, b"q")
    assert b"q" in cache.view("a", False)
    assert b"q" not in other


def test_a_view_that_nobody_holds_and_nothing_is_in_goes_by_itself() -> None:
    cache = ReplyCache(10)
    put(cache, cache.view("a", False), b"q")
    assert b"q" in cache.view("a", False)  # its entry keeps it
    cache.invalidate(["web"])
    assert len(cache._views) == 0


def taken(view: View, query: bytes, count: int) -> list[bytes]:
    """As a socket's loop does, up to the end of the run."""
    return list(islice(view[query], count))


def test_replies_are_handed_out_in_turn_and_the_run_is_wound_up_again() -> None:
    cache, cell = ReplyCache(10), [0]
    view = cache.view("a", False)
    cache.put(view, b"q", [b"1", b"2", b"3"], WEB, cell)
    seen = Counter[bytes | None]()
    for _ in range(3 * RUN_OF_MANY):
        seen[next(view[b"q"], None) or cache.next_reply(view, b"q", 0.0)] += 1
    assert seen == dict.fromkeys((b"1", b"2", b"3"), RUN_OF_MANY)
    cache.settle()
    assert cell == [3 * RUN_OF_MANY]


def test_hits_are_counted_however_an_entry_ends() -> None:
    cache, cells = ReplyCache(2), [[0], [0], [0]]
    view = cache.view("a", False)
    for query, cell in zip((b"1", b"2", b"3"), cells, strict=True):
        cache.put(view, query, [b"reply"], frozenset({query.decode()}), cell)
        taken(view, query, 5)
    assert cells[0] == [5], "it had to make room"
    cache.invalidate(["2"])
    assert cells[1] == [5]
    assert cells[2] == [0]
    cache.settle()
    cache.settle()
    assert cells[2] == [5], "and each hit once"


def test_a_change_drops_what_depends_on_it_and_nothing_else() -> None:
    cache = ReplyCache(10)
    view = cache.view("a", False)
    put(cache, view, b"web", names=frozenset({"web", "web.net"}))
    put(cache, view, b"db", names=frozenset({"db"}))
    assert cache.invalidate(["web.net", "web", "unheard-of"]) == 1
    assert list(view) == [b"db"]
    assert (len(cache), cache.replies) == (1, 1)


def test_the_capacity_counts_replies_and_the_oldest_go_first() -> None:
    cache = ReplyCache(4)
    view = cache.view("a", False)
    put(cache, view, b"1", b"x", b"y")
    put(cache, view, b"2")
    put(cache, view, b"3", b"x", b"y")
    assert list(view) == [b"2", b"3"]
    assert cache.replies == 3
    assert put(cache, view, b"4", *[b"x"] * 5) is None


def test_the_same_query_again_replaces_its_entry() -> None:
    cache = ReplyCache(4)
    view = cache.view("a", False)
    put(cache, view, b"1", b"x", b"y")
    put(cache, view, b"1", b"z")
    assert (len(cache), cache.replies) == (1, 1)


def test_large_replies_are_not_kept_nor_anything_without_capacity() -> None:
    assert put(ReplyCache(10), ReplyCache(10).view("a", False), b"q", b"x" * 5000) is None
    none = ReplyCache(0)
    assert put(none, none.view("a", False), b"q") is None


def ttl(reply: bytes | None) -> int | None:
    return None if reply is None else int(DNSRecord.parse(b"\0\0" + reply).rr[0].ttl)


def test_a_forwarded_reply_grows_older_and_ends() -> None:
    cache, cell = ReplyCache(10), [0]
    view, aging = cache.view("a", False), forwarded(ttl=30)
    assert aging is not None
    cache.put_forwarded(view, b"q", aging, WEB, cell)
    assert b"q" not in view, "its age is looked at before it is given"
    assert ttl(cache.next_reply(view, b"q", 0.5)) == 30
    assert ttl(next(view[b"q"])) == 30
    cache.tick(10.2)
    assert b"q" not in view, "the second is over"
    assert ttl(cache.next_reply(view, b"q", 10.3)) == 20
    assert ttl(cache.next_reply(view, b"q", 29.5)) == 1
    assert b"q" not in view, "it will not live for another second"
    assert cache.next_reply(view, b"q", 30.0) is None
    assert len(cache) == 0
    assert cell == [4]


def test_a_forwarded_reply_that_is_still_wanted_near_its_end_is_fetched_anew_once() -> None:
    cache, fetched = ReplyCache(10), []
    view, aging = cache.view("a", False), forwarded(ttl=30)
    assert aging is not None
    cache.put_forwarded(view, b"q", aging, WEB, [0], lambda: fetched.append(True))
    cache.next_reply(view, b"q", 26.0)
    assert not fetched
    for now in (27.5, 28.5, 29.5):
        assert cache.next_reply(view, b"q", now) is not None
    assert fetched == [True]


def test_what_does_not_fit_into_a_datagrams_room_is_kept_for_tcp_only() -> None:
    cache = ReplyCache(10)
    assert put(cache, cache.view("a", False), b"q", b"x" * UDP_SLOT) is None
    assert put(cache, cache.view("a", True), b"q", b"x" * UDP_SLOT) is not None
