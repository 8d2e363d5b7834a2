"""Asking the world outside, on loopback: who is asked, how often, and on whose account."""

import asyncio
import errno
import socket
from functools import partial
from random import Random

import pytest

from mesh.dns.config import (
    FORWARDS_MAX,
    FORWARDS_PER_ASKER,
    REFRESHES_MAX,
    REPETITIONS_MAX,
    UPSTREAM_OUTSTANDING_MAX,
)
from mesh.dns.forward import dispatcher as forwarder_module
from mesh.dns.forward.dispatcher import REFRESH
from mesh.dns.forward.route import DnsServer, UpstreamRoute
from mesh.errors import NamespaceGone
from tests.dns.fakes import LIMIT, Behaviour, closed_port, say, silence, upstream
from tests.dns.forward.asking import Asking, data, route, wanted


@pytest.mark.parametrize("tcp", [False, True])
async def test_over_the_transport_of_the_client(asking: Asking, tcp: bool) -> None:
    async with upstream(say("192.0.2.9")) as server:
        assert data(await asking.ask(server.port, tcp=tcp)) == ["192.0.2.9"]
    assert asking.stats.upstream_requests == {(f"127.0.0.1:{server.port}", "NOERROR"): 1}
    assert server.over_tcp == tcp


async def test_always_over_tcp_where_resolv_conf_says_so(asking: Asking) -> None:
    async with upstream(say()) as server:
        assert await asking.begin(route(server.port, tcp=True))
    assert server.over_tcp == 1


@pytest.mark.parametrize(
    ("first", "result"), [(say(rcode=2), "SERVFAIL"), (say(rcode=5), "REFUSED"), (silence, "TIMEOUT")]
)
async def test_failure_leads_to_the_next_server(asking: Asking, first: Behaviour, result: str) -> None:
    async with upstream(first) as bad, upstream(say()) as good:
        assert data(await asking.ask(bad.port, good.port)) == ["192.0.2.1"]
        async with asyncio.timeout(LIMIT):
            while result not in asking.results:  # tries that were silent end with the question
                await asyncio.sleep(0)
    assert "NOERROR" in asking.results


async def test_a_reply_that_takes_longer_than_a_try_is_better_than_none(asking: Asking) -> None:
    async with upstream(say()) as server:
        server.hold = asyncio.Event()
        waiting = asking.begin(route(server.port))
        await server.asked(3)  # the third try begins when the first has been silent for a whole one
        server.hold.set()
        assert data(await waiting) == ["192.0.2.1"]
    assert not asking.forwarder.servers.health(
        route(server.port), DnsServer("127.0.0.1", server.port)
    ).failing


async def test_any_other_error_is_the_answer(asking: Asking) -> None:
    async with upstream(say(rcode=3)) as first, upstream(say()) as second:
        received = await asking.ask(first.port, second.port)
    assert received is not None
    assert received.reply.rcode == 3
    assert second.queries == []


async def test_a_port_where_nobody_listens_fails_at_once(asking: Asking) -> None:
    assert await asking.ask(closed_port()) is None
    assert asking.results == ["ERROR"]


async def test_silence_is_asked_again_and_a_refusal_is_not(asking: Asking) -> None:
    async with upstream(silence) as quiet, upstream(say(rcode=5)) as unwilling:
        assert await asking.ask(quiet.port, unwilling.port) is None
        assert len(asked(quiet.queries)) > 1
        assert len(asked(unwilling.queries)) == 1


def asked(queries: list[bytes]) -> list[bytes]:
    """Without the probes of servers that seem to have failed."""
    return [query for query in queries if b"example" in query.lower()]


async def test_a_server_that_failed_comes_last(asking: Asking) -> None:
    async with upstream(silence) as bad, upstream(say()) as good:
        await asking.ask(bad.port, good.port)
        before = len(asked(bad.queries))
        await asking.ask(bad.port, good.port, name="y.example")
    assert (len(asked(bad.queries)), len(asked(good.queries))) == (before, 2)


async def test_ids_spellings_and_ports_differ_from_query_to_query(asking: Asking) -> None:
    async with upstream(say()) as server:
        for number in range(8):
            await asking.ask(server.port, name=f"abcdefgh{number}.example")
    assert len({query[:2] for query in server.queries}) > 4
    assert len({query[13:21] for query in server.queries}) > 4
    assert len(set(server.ports)) > 4


async def test_the_same_question_is_asked_once_at_a_time(asking: Asking) -> None:
    async with upstream(say()) as server:
        server.hold = asyncio.Event()
        to = route(server.port)
        waiting = [asking.begin(to, asker=f"c{n}") for n in range(5)]
        await server.asked()
        server.hold.set()
        replies = await asyncio.gather(*waiting)
    assert len(asked(server.queries)) == 1
    assert len({id(reply) for reply in replies}) == 1


# --- shares -------------------------------------------------------------------------------------------------


def flood(asking: Asking, to: UpstreamRoute, count: int, asker: str) -> int:
    """How many of that many questions are let through."""
    query = wanted("x")
    tell = asking.forwarder.ask
    return sum(tell((asker, n), query, to, asker, lambda _: None, tcp=False) for n in range(count))


async def test_one_asker_cannot_have_it_all(asking: Asking) -> None:
    to = route(closed_port())
    assert flood(asking, to, FORWARDS_PER_ASKER + 5, "greedy") == FORWARDS_PER_ASKER
    assert flood(asking, to, 5, "modest") == 5
    assert asking.stats.refused == {"share": 5}


async def test_a_question_that_an_asker_repeats_is_one_entry(asking: Asking) -> None:
    query, to = wanted("x"), route(closed_port())
    gone: list[int] = []
    for number in range(REPETITIONS_MAX + 3):
        assert asking.forwarder.ask(
            "same", query, to, "c1", lambda _: None, partial(gone.append, number), tcp=False
        )
    assert gone == [0, 1, 2]  # whoever waits longest has given up, or asked again
    assert asking.forwarder.ask("same", query, to, "c2", lambda _: None, tcp=False)
    assert flood(asking, to, FORWARDS_PER_ASKER, "c1") == FORWARDS_PER_ASKER - REPETITIONS_MAX


async def test_all_together_are_bounded_and_whoever_has_the_most_gives_way(asking: Asking) -> None:
    to = route(closed_port())
    for asker in "abcd":
        assert flood(asking, to, FORWARDS_PER_ASKER, asker) == FORWARDS_MAX // 4
    assert flood(asking, to, 3, "e") == 3
    assert asking.stats.refused["displaced"] == 3
    assert flood(asking, to, 3, "a") == 0  # nobody has more than it
    assert asking.forwarder._waiters == FORWARDS_MAX


async def test_nobody_gives_way_to_one_who_has_as_much(
    asking: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking.forwarder._shares, "places", 4)
    to = route(closed_port())
    assert [flood(asking, to, 1, asker) for asker in "abcde"] == [1, 1, 1, 1, 0]
    assert asking.stats.refused == {"total": 1}


async def test_whoever_gives_way_is_told_and_its_question_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwarder_module, "getrlimit", lambda _: (20, 1000))
    few = Asking()
    gone: list[str] = []
    async with upstream(silence) as server, upstream(say()) as good:
        to = route(server.port)
        for number in range(10):
            told = partial(gone.append, f"x{number}")
            assert few.forwarder.ask(("c1", number), wanted("x"), to, "c1", lambda _: None, told, tcp=False)
        assert data(await few.begin(route(good.port), asker="c2")) == ["192.0.2.1"]
        assert gone == ["x0"]
        assert few.stats.refused == {"displaced": 1}
        assert few.forwarder._tries == 9
    await few.tasks.close()


async def test_what_nobody_waits_for_has_a_small_share(asking: Asking) -> None:
    assert flood(asking, route(closed_port()), REFRESHES_MAX + 1, REFRESH) == REFRESHES_MAX
    assert asking.stats.refused == {}


async def test_a_share_is_free_again_when_the_questions_have_ended(asking: Asking) -> None:
    to = route(closed_port())
    flood(asking, to, FORWARDS_PER_ASKER, "c1")
    assert await asking.begin(to, asker="c2") is None
    assert flood(asking, to, 1, "c1") == 1


async def test_a_server_is_asked_so_much_at_a_time_and_no_more(asking: Asking) -> None:
    async with upstream(silence) as server, upstream(say()) as other:
        to = route(server.port, other.port)
        asking.forwarder.servers.health(to, to.servers[0]).outstanding = UPSTREAM_OUTSTANDING_MAX
        assert data(await asking.begin(to)) == ["192.0.2.1"]
        assert asked(server.queries) == []
        asking.forwarder.servers.health(to, to.servers[1]).outstanding = UPSTREAM_OUTSTANDING_MAX
        assert flood(asking, to, 3, "c1") == 0
    assert asking.stats.refused == {"upstream": 3}


async def test_questions_leave_descriptors_for_everything_else(
    asking: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forwarder_module, "getrlimit", lambda _: (20, 1000))
    few = Asking()
    async with upstream(silence) as server:
        assert flood(few, route(server.port), 30, "c1") == 10
        assert few.stats.refused == {"descriptors": 20}
    await few.tasks.close()


# --- faults that are not the server's -----------------------------------------------------------------------


async def test_a_namespace_that_is_gone_is_a_failed_server(asking: Asking) -> None:
    def gone(_family: int, _kind: int) -> socket.socket:
        raise NamespaceGone("its container ended")

    assert await asking.begin(UpstreamRoute("container", (DnsServer("10.0.0.1"),), "c1", gone)) is None
    await until_no_tasks(asking)
    assert asking.stats.faults == {}


async def test_a_lack_of_descriptors_is_not_the_servers_fault(asking: Asking) -> None:
    def short(_family: int, _kind: int) -> socket.socket:
        raise OSError(errno.EMFILE, "Too many open files")

    to = UpstreamRoute("host", (DnsServer("10.0.0.1"),), sockets=short)
    assert await asking.begin(to) is None
    assert not asking.forwarder.servers.health(to, to.servers[0]).failing


# --- whatever servers do ------------------------------------------------------------------------------------


def erratic(rng: Random) -> Behaviour:
    """Silent, garbled, forged, failing, truncating, changing the case, knowing no EDNS: each now and then."""

    def behave(query: bytes) -> list[bytes]:
        [good] = say()(query)
        return rng.choice(
            [
                [],
                [rng.randbytes(30)],
                [good[:-3]],
                [good[:2] + bytes((good[2] | 2,)) + good[3:]],
                say()(query[:12] + query[12:].swapcase()),
                say(rcode=1)(query),
                say(rcode=2)(query),
                [good],
                [good, good],
            ]
        )

    return behave


@pytest.mark.parametrize("alike", [False, True])
async def test_every_question_ends_and_nothing_is_left_behind(asking: Asking, alike: bool) -> None:
    one, other = erratic(Random(1)), erratic(Random(2))
    async with upstream(one) as first, upstream(other) as second:
        to = route(first.port, second.port, alike=alike)
        names = [f"name{n}.example" for n in range(60)]
        asked = [asking.begin(to, n, tcp=len(n) % 2 == 0, asker=n) for n in names]
        replies = await asyncio.gather(*asked)
        known = asking.forwarder.servers._health.values()
        async with asyncio.timeout(LIMIT):
            while any(health.outstanding for health in known):  # the tries that lost are ending
                await asyncio.sleep(0)
    assert any(replies)
    forwarder = asking.forwarder
    assert (forwarder._waiting, forwarder._waiters, dict(forwarder._by_asker)) == ({}, 0, {})
    assert forwarder._spellings._out == {}


async def until_no_tasks(asking: Asking) -> None:
    while len(asking.tasks):
        await asyncio.sleep(0.005)
