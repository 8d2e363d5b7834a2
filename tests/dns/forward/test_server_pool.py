"""Health of servers as they are asked: hedges, rest, probes and what people are told. Real sockets."""

import asyncio
import logging
from time import monotonic

import pytest

from mesh.dns.config import SERVERS_KNOWN_MAX
from mesh.dns.forward.route import DnsServer, Manner, UpstreamRoute
from mesh.dns.forward.server_health import ServerHealth
from tests.dns.fakes import say, silence, upstream
from tests.dns.forward.asking import Asking, data, route
from tests.support.waiting import until

PROBE = b"\0\0\x02\0\x01"  # the root, NS, IN


def probes(queries: list[bytes]) -> int:
    return sum(query[12:17] == PROBE for query in queries)


def health(asking: Asking, to: UpstreamRoute, number: int = 0) -> ServerHealth:
    return asking.forwarder.servers.health(to, to.servers[number])


async def test_a_lost_query_is_made_good_by_the_same_server(asking: Asking) -> None:
    """Listed servers: the second may not know what the first does, so it is not asked for a lost datagram."""
    async with upstream(say()) as first, upstream(say()) as second:
        to = route(first.port, second.port)
        await asking.begin(to)
        first.behave = lambda query: say()(query) if len(first.queries) > 2 else []
        assert data(await asking.begin(to, "other.example")) == ["192.0.2.1"]
    assert (len(first.queries), second.queries) == (3, [])
    assert not health(asking, to).failing


async def test_equals_make_good_for_each_other(asking: Asking) -> None:
    async with upstream(silence) as fast, upstream(say("192.0.2.2")) as slow:
        to = route(fast.port, slow.port, alike=True, rounds=1)  # a busy machine begins no second round
        for _ in range(20):
            health(asking, to, 0).replied(0.001)
            health(asking, to, 1).replied(0.1)
        assert data(await asking.begin(to)) == ["192.0.2.2"]
        overtaken = f"127.0.0.1:{fast.port}", "OVERTAKEN"
        await until(lambda: asking.stats.upstream_requests.get(overtaken) == 1)
    asked = len(fast.queries) - probes(fast.queries)  # who let it wait is probed from then on
    assert (asked, len(slow.queries)) == (1, 1)


async def test_equals_are_asked_fastest_first(asking: Asking) -> None:
    async with upstream(say()) as one, upstream(say()) as other:
        to = route(one.port, other.port, alike=True)
        health(asking, to, 0).replied(0.1)
        health(asking, to, 1).replied(0.001)
        await asking.begin(to)
    assert (one.queries, len(other.queries)) == ([], 1)


async def test_latency_is_learnt(asking: Asking) -> None:
    async with upstream(say()) as server:
        to = route(server.port)
        assert health(asking, to).latency is None
        await asking.begin(to)
    assert 0 < (health(asking, to).latency or 0) < 1
    assert health(asking, to).outstanding == 0


async def test_a_silent_name_does_not_condemn_its_server(asking: Asking) -> None:
    """The server does not answer about one name, and does about everything else: a probe tells."""
    async with upstream(lambda q: silence(q) if b"dead" in q.lower() else say()(q)) as server:
        to = route(server.port, rounds=1)
        assert await asking.begin(to, "dead.example") is None
        await until(lambda: not health(asking, to).failing)
        assert probes(server.queries) >= 1
    assert asking.stats.faults == {}


async def test_a_dead_server_is_said_to_be_and_probed_until_it_is_back(
    asking: Asking, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with upstream(silence) as server:
        to = route(server.port, rounds=1)
        assert await asking.begin(to) is None
        await until(lambda: bool(asking.stats.faults))
        assert "does not answer" in next(iter(asking.stats.faults.values()))
        assert f"127.0.0.1:{server.port}" in next(iter(asking.stats.faults))
        server.behave = say(rcode=5)  # any reply shows that it is there
        await until(lambda: not health(asking, to).failing)
    assert asking.stats.faults == {}
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


async def test_a_server_that_nobody_needs_is_not_probed(asking: Asking) -> None:
    async with upstream(silence) as server:
        to = route(server.port)
        servers = asking.forwarder.servers
        servers.health(to, to.servers[0]).used_at = monotonic() - 3600
        servers.failed(to, to.servers[0])
        async with asyncio.timeout(5):
            while len(asking.tasks):
                await asyncio.sleep(0)
    assert server.queries == []


async def test_what_one_container_cannot_reach_another_may(asking: Asking) -> None:
    one, other = (
        UpstreamRoute("container", (DnsServer("10.9.9.9"),), id_, manner=Manner()) for id_ in ("c1", "c2")
    )
    asking.forwarder.servers.failed(one, one.servers[0])
    assert health(asking, one).failing
    assert not health(asking, other).failing


async def test_health_is_remembered_of_so_many_servers_and_no_more(asking: Asking) -> None:
    places = [
        UpstreamRoute("container", (DnsServer("10.9.9.9"),), f"c{n}") for n in range(SERVERS_KNOWN_MAX + 3)
    ]
    health(asking, places[0]).outstanding = 1
    for number, place in enumerate(places):
        health(asking, place).used_at = number
    assert len(asking.forwarder.servers._health) == SERVERS_KNOWN_MAX
    assert health(asking, places[0]).outstanding == 1  # in use: kept
