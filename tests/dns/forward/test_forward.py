"""What is forwarded and kept: stale replies, refreshes, shares and loops. Real sockets, time by hand."""

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest
from dnslib import EDNS0, DNSRecord, EDNSOption

from mesh.dns.config import FAILURE_TTL, FORWARDS_PER_ASKER, STALE_MAX_AGE, STALE_RECHECK, DnsConfig
from mesh.dns.forward.forward import ContainerPaths, Later
from mesh.dns.forward.route import host_socket
from mesh.dns.node_listener import NODE
from mesh.dns.resolver import Resolver
from mesh.dns.scope import Scope
from mesh.dns.udp_server import DnsEndpoint
from mesh.net.tasks import Tasks
from tests.dns.fakes import (
    LIMIT,
    Upstream,
    closed_port,
    over_udp,
    question,
    rcode,
    say,
    shown,
    silence,
    upstream,
)
from tests.dns.world import BACK, BOTH, FRONT, snapshot

PATIENCE = 0.05  # seconds until a stale reply is given


class Clock:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Asking:
    """A resolver with impatient askers, and its replies awaited."""

    def __init__(self, *upstreams: object, **config: object) -> None:
        self.failures: list[str] = []
        self.tasks = Tasks(lambda name, error: self.failures.append(f"{name}: {error!r}"))
        self.clock = Clock()
        texts = tuple(map(str, upstreams)) or (f"127.0.0.1:{closed_port()}",)
        made = DnsConfig(
            upstreams=texts,
            try_timeout=0.2,
            deadline=1.0,
            **{"stale_answer_after": PATIENCE, **config},  # type: ignore[arg-type]
        )
        self.resolver = Resolver(made, self.tasks, snapshot(), clock=self.clock)

    def begin(
        self, query: bytes, scope: Scope = FRONT, *, tcp: bool = False, paths: ContainerPaths | None = None
    ) -> asyncio.Future[bytes]:
        """As a socket does: the cache first, then the resolver."""
        replied: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        view = self.resolver.view(scope, tcp)
        reply = self.resolver.reply(
            query, scope, view, replied.set_result, paths or ContainerPaths(), tcp=tcp
        )
        assert reply is not None
        if reply is not Later.PENDING:
            replied.set_result(reply)
        return replied

    async def ask(self, name: str = "www.example", scope: Scope = FRONT, *, tcp: bool = False) -> bytes:
        return await self.begin(question(name), scope, tcp=tcp)

    async def shown(self, name: str = "www.example") -> list[str]:
        return shown(await self.ask(name))

    async def idle(self) -> None:
        """Until nothing is under way."""
        async with asyncio.timeout(5):
            while len(self.tasks):
                await asyncio.sleep(0.001)

    @property
    def sources(self) -> Counter[str]:
        counts: Counter[str] = Counter()
        for (_, _, _, source), count in self.resolver.requests.items():
            counts[source] += count
        return counts


def listening() -> socket.socket:
    """A UDP socket of loopback, as an endpoint wants it."""
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    made.bind(("127.0.0.1", 0))
    return made


Start = Callable[..., Asking]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    made: list[Asking] = []

    def begin(*upstreams: object, **config: object) -> Asking:
        made.append(Asking(*upstreams, **config))
        return made[-1]

    yield begin
    for asking in made:
        await asking.tasks.close()
        assert asking.failures == []


def asked(server: Upstream) -> int:
    """How often about a name of the tests, probes left out."""
    return sum(b"example" in query.lower() for query in server.queries)


def ttl(reply: bytes) -> int:
    return int(DNSRecord.parse(reply).rr[0].ttl)


# --- what is shared -----------------------------------------------------------------------------------------


async def test_scopes_spellings_transports_and_edns_share_a_reply(start: Start) -> None:
    async with upstream(say("192.0.2.9")) as server:
        asking = start(server)
        edns = DNSRecord.question("WwW.example")
        edns.add_ar(EDNS0(udp_len=4096, opts=[EDNSOption(10, b"cookie12")]))
        first = await asking.ask()
        others = [
            await asking.ask("WWW.EXAMPLE", BOTH),
            await asking.ask(tcp=True),
            await asking.begin(bytes(edns.pack())),
        ]
    assert [shown(reply) for reply in (first, *others)] == [["192.0.2.9"]] * 4
    assert DNSRecord.parse(others[2]).ar[0].rtype == 41
    assert DNSRecord.parse(first).ar == []
    assert asked(server) == 1
    assert asking.sources == {"forward": 1, "cache": 3}


async def test_what_a_reply_says_besides_is_not_believed_of_other_names(start: Start) -> None:
    """The record out of bailiwick reaches the asker, and is no answer to anybody's question."""

    def gossip(query: bytes) -> list[bytes]:
        reply = DNSRecord.parse(say("192.0.2.1")(query)[0])
        if b"bank" not in query.lower():
            reply.add_ar(*DNSRecord.parse(say("203.0.113.66")(question("bank.example"))[0]).rr)
        return [bytes(reply.pack())]

    async with upstream(gossip) as server:
        asking = start(server)
        first = DNSRecord.parse(await asking.ask())
        assert [str(rr.rdata) for rr in first.ar] == ["203.0.113.66"]
        assert await asking.shown("bank.example") == ["192.0.2.1"]


async def test_without_a_cache_everything_is_asked(start: Start) -> None:
    async with upstream(say()) as server:
        asking = start(server, cache=0)
        for _ in range(2):
            assert await asking.shown() == ["192.0.2.1"]
    assert asked(server) == 2


# --- stale replies ------------------------------------------------------------------------------------------


async def kept_and_run_out(asking: Asking, age: float = 61) -> None:
    assert await asking.shown() == ["192.0.2.1"]
    asking.clock.now += age


async def test_when_upstreams_fail_the_old_reply_is_given(start: Start) -> None:
    async with upstream(say()) as server:
        asking = start(server)
        await kept_and_run_out(asking)
        server.behave = say(rcode=2)
        reply = await asking.ask()
    assert (shown(reply), ttl(reply)) == (["192.0.2.1"], 30)
    assert asking.sources == {"forward": 1, "stale": 1}


async def test_an_asker_does_not_wait_long_for_a_better_one_which_is_kept_all_the_same(start: Start) -> None:
    async with upstream(say()) as server:
        asking = start(server)
        await kept_and_run_out(asking)
        server.behave, server.hold = say("192.0.2.2"), asyncio.Event()
        assert await asking.shown() == ["192.0.2.1"]
        server.hold.set()
        await asking.idle()
        asking.clock.now += 1.5  # the stale one is good for a second
        assert await asking.shown() == ["192.0.2.2"]
    assert asking.sources == {"forward": 1, "stale": 1, "cache": 1}


async def test_stale_replies_are_hits_for_a_second_and_upstreams_are_asked_again_after_five(
    start: Start,
) -> None:
    async with upstream(say()) as server:
        asking = start(server)
        await kept_and_run_out(asking)
        server.behave = say(rcode=2)
        for _ in range(3):
            assert await asking.shown() == ["192.0.2.1"]
        before = asked(server)
        asking.clock.now += STALE_RECHECK - 0.1
        assert await asking.shown() == ["192.0.2.1"]
        assert asked(server) == before
        asking.clock.now += 1.1
        server.behave = say("192.0.2.2")
        assert await asking.shown() == ["192.0.2.2"]
    assert asking.sources == {"forward": 2, "stale": 4}


async def test_while_no_server_is_well_nobody_waits_for_one(start: Start) -> None:
    async with upstream(say()) as server:
        asking = start(server, stale_answer_after=LIMIT)
        await kept_and_run_out(asking)
        server.behave = silence
        assert await asking.shown() == ["192.0.2.1"]  # after the deadline: now it is known
        asking.clock.now += STALE_RECHECK + 1
        began = asyncio.get_running_loop().time()
        assert await asking.shown() == ["192.0.2.1"]
        assert asyncio.get_running_loop().time() - began < 0.4  # two tries take longer


async def test_a_search_lists_wrong_guess_stays_wrong_while_upstreams_fail(start: Start) -> None:
    async with upstream(say(rcode=3)) as server:
        asking = start(server)
        assert rcode(await asking.ask()) == 3
        asking.clock.now += 61
        server.behave = say(rcode=2)
        assert rcode(await asking.ask()) == 3


async def test_nobody_is_given_what_is_older_than_a_day(start: Start) -> None:
    async with upstream(say()) as server:
        asking = start(server)
        await kept_and_run_out(asking, age=61 + STALE_MAX_AGE)
        server.behave = say(rcode=2)
        assert rcode(await asking.ask()) == 2


async def test_a_failure_is_remembered_for_a_second(start: Start) -> None:
    async with upstream(say(rcode=2)) as server:
        asking = start(server)
        for _ in range(3):
            assert rcode(await asking.ask()) == 2
        assert asked(server) == 1
        asking.clock.now += FAILURE_TTL
        server.behave = say()
        assert await asking.shown() == ["192.0.2.1"]


# --- refreshes ----------------------------------------------------------------------------------------------


async def test_a_popular_name_is_fetched_ahead_of_time_and_nobody_waits(start: Start) -> None:
    async with upstream(say("192.0.2.1")) as server:
        asking = start(server)
        await asking.shown()
        server.behave, server.hold = say("192.0.2.2"), asyncio.Event()
        for age in (53, 55, 56, 57):  # of 60; the last tenth begins at 54
            asking.clock.now = 1000.0 + age
            assert await asking.shown() == ["192.0.2.1"]
        await server.asked(2)
        server.hold.set()
        await asking.idle()
        asking.clock.now = 1060.0
        assert await asking.shown() == ["192.0.2.2"]
    assert asked(server) == 2
    assert asking.sources == {"forward": 1, "cache": 5}
    assert asking.resolver.stats.refreshes == {"prefetch": 1}


async def test_an_unpopular_one_is_not(start: Start) -> None:
    async with upstream(say()) as server:
        asking = start(server)
        await asking.shown()
        asking.clock.now += 50
        await asking.shown()
        await asking.idle()
    assert asked(server) == 1


async def test_a_refresh_that_fails_leaves_the_reply_to_its_end(start: Start) -> None:
    async with upstream(say()) as server:
        asking = start(server)
        await asking.shown()
        server.behave = say(rcode=2)
        asking.clock.now += 55
        assert await asking.shown() == ["192.0.2.1"]
        await asking.idle()
        asking.clock.now += 1.5
        assert await asking.shown() == ["192.0.2.1"]
        await asking.idle()
    assert asked(server) == 2  # not again within a few seconds
    assert asking.sources == {"forward": 1, "cache": 2}


# --- shares -------------------------------------------------------------------------------------------------


async def test_one_container_cannot_take_all(start: Start) -> None:
    async with upstream(silence) as server:
        asking = start(server)
        greedy, modest = replace(FRONT, container="greedy"), replace(FRONT, container="modest")
        waiting = [asking.begin(question(f"n{n}.example"), greedy) for n in range(FORWARDS_PER_ASKER + 1)]
        assert rcode(await waiting[-1]) == 5
        assert not asking.begin(question("www.example"), modest).done()
        assert asking.resolver.stats.refused == {"share": 1}


async def test_beyond_its_share_a_container_still_gets_stale_replies(start: Start) -> None:
    async with upstream(say()) as server:
        asking = start(server)
        await kept_and_run_out(asking)
        server.behave = silence
        for number in range(FORWARDS_PER_ASKER):
            asking.begin(question(f"n{number}.example"))
        assert await asking.shown() == ["192.0.2.1"]


# --- replies that fit, and those that do not ----------------------------------------------------------------


def large(query: bytes) -> list[bytes]:
    reply = DNSRecord.parse(say()(query)[0])
    reply.rr = reply.rr * 60
    return [bytes(reply.pack())]


async def test_what_does_not_fit_is_truncated_and_comes_whole_over_tcp_without_asking_again(
    start: Start,
) -> None:
    async with upstream(large) as server:
        asking = start(server)
        short, whole = DNSRecord.parse(await asking.ask()), DNSRecord.parse(await asking.ask(tcp=True))
    assert (short.header.tc, whole.header.tc) == (1, 0)
    assert 0 < len(short.rr) < len(whole.rr) == 60
    assert asked(server) == 1


async def test_over_tcp_a_truncated_reply_is_no_answer(start: Start) -> None:
    def always_truncated(query: bytes) -> list[bytes]:
        [reply] = say()(query)
        return [reply[:2] + bytes((reply[2] | 2,)) + reply[3:]]

    async with upstream(always_truncated) as server:
        asking = start(server)
        assert DNSRecord.parse(await asking.ask()).header.tc == 1
        assert rcode(await asking.ask(tcp=True)) == 2


# --- loops --------------------------------------------------------------------------------------------------


async def test_an_upstream_that_is_ourselves_is_found_out_at_once_and_left_out(start: Start) -> None:
    """resolv.conf names the address on which our explicit resolver listens."""
    async with upstream(say("192.0.2.9")) as server:
        with listening() as udp:
            asking = start(f"127.0.0.1:{udp.getsockname()[1]}", server, listen=(udp.getsockname(),))
            endpoint = DnsEndpoint(asking.resolver, udp, None, NODE)
            await endpoint.start()
            try:
                assert shown(await over_udp(udp.getsockname()[1], question("database.example"))) == [
                    "192.0.2.9"
                ]
                assert shown(await over_udp(udp.getsockname()[1], question("other.example"))) == ["192.0.2.9"]
            finally:
                endpoint.close()
    assert asking.resolver.stats.refused == {"loop": 1}
    assert "this resolver itself" in next(iter(asking.resolver.stats.faults.values()))


async def test_a_loop_by_way_of_another_resolver_ends_at_once(start: Start) -> None:
    """We ask B, and B asks us: seen by the spelling, wherever it comes from."""
    replies: list[bytes] = []

    async with upstream(silence) as other:
        asking = start(other)
        first = asking.begin(question("database.example"))
        await other.asked()
        replies.append(await asking.begin(other.queries[0], NODE))
    assert rcode(replies[0]) == 5
    assert asking.resolver.stats.refused == {"loop": 1}
    assert rcode(await first) == 2


async def test_a_container_whose_own_server_is_ourselves_gets_the_hosts(start: Start) -> None:
    """`--dns` with the address of the explicit resolver, where the container is known by its address."""
    async with upstream(say("192.0.2.9")) as server:
        with listening() as udp:
            address = f"127.0.0.1:{udp.getsockname()[1]}"
            scope = replace(FRONT, container="c1", servers=(address,))
            asking = start(server, listen=(udp.getsockname(),))
            endpoint = DnsEndpoint(asking.resolver, udp, None, scope)
            await endpoint.start()
            try:
                for name in ("database.example", "other.example"):
                    reply = await asking.begin(question(name), scope, paths=ContainerPaths(host_socket))
                    assert shown(reply) == ["192.0.2.9"]
            finally:
                endpoint.close()


async def test_an_internal_container_whose_own_server_is_ourselves_gets_nobodys(start: Start) -> None:
    async with upstream(say("192.0.2.9")) as server:
        with listening() as udp:
            address = f"127.0.0.1:{udp.getsockname()[1]}"
            scope = replace(BACK, container="c1", servers=(address,))
            asking = start(server, listen=(udp.getsockname(),))
            endpoint = DnsEndpoint(asking.resolver, udp, None, scope)
            await endpoint.start()
            try:
                reply = await asking.begin(
                    question("database.example"), scope, paths=ContainerPaths(host_socket)
                )
            finally:
                endpoint.close()
    assert rcode(reply) == 2
    assert server.queries == []
