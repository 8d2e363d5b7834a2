"""A query's way through the resolver, without sockets of its own."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from random import Random

import pytest
from dnslib import EDNS0, DNSRecord, EDNSOption
from hypothesis import given
from hypothesis import strategies as st

from mesh.catalog.model import Port, Service, ServiceNetwork
from mesh.catalog.snapshot import Change, Snapshot
from mesh.dns.config import DnsConfig
from mesh.dns.explain import ShownRecord, ShownReply
from mesh.dns.forward import DnsServer, host_socket
from mesh.dns.forward.forward import ContainerPaths, Later
from mesh.dns.forward.route import parse_server
from mesh.dns.name_policy import DOCKERS, OURS, NamePolicy
from mesh.dns.resolver import Resolver
from mesh.dns.scope import Scope
from mesh.dns.wire import QType
from mesh.net.tasks import Tasks
from tests.dns.fakes import closed_port, question, rcode, say, shown, upstream
from tests.dns.world import BACK, BOTH, DB, FRONT, FRONTEND, WEB, of_stack, snapshot, task


class Clock:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Asking:
    """A resolver, and its replies awaited."""

    def __init__(self, world: Snapshot, *upstreams: str, names: NamePolicy = OURS) -> None:
        self.failures: list[str] = []
        self.tasks = Tasks(lambda name, error: self.failures.append(f"{name}: {error!r}"))
        self.clock = Clock()
        config = DnsConfig(upstreams=upstreams or (f"127.0.0.1:{closed_port()}",), names=names)
        self.resolver = Resolver(config, self.tasks, world, Random(1), self.clock)

    async def ask(
        self, query: bytes, scope: Scope = BOTH, tcp: bool = False, paths: ContainerPaths | None = None
    ) -> bytes | None:
        """As a socket does: the cache first, then the resolver."""
        later: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        view = self.resolver.view(scope, tcp)
        reply = self.resolver.reply(query, scope, view, later.set_result, paths or ContainerPaths(), tcp=tcp)
        return await later if reply is Later.PENDING else reply

    async def shown(self, name: str, qtype: str = "A", scope: Scope = BOTH) -> list[str]:
        reply = await self.ask(question(name, qtype), scope)
        assert reply is not None
        return shown(reply)

    def publish(self, change: Change) -> None:
        old = self.resolver.snapshot
        self.resolver.update(old, old.apply(change), change)

    def sources(self) -> Counter[str]:
        counts: Counter[str] = Counter()
        for (_, _, _, source), count in self.resolver.requests.items():
            counts[source] += count
        return counts


Start = Callable[..., Asking]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    made: list[Asking] = []

    def begin(*upstreams: object, world: Snapshot | None = None, names: NamePolicy = OURS) -> Asking:
        made.append(Asking(world or snapshot(), *map(str, upstreams), names=names))
        return made[-1]

    yield begin
    for asking in made:
        await asking.tasks.close()
        assert asking.failures == []


# --- names of ours ------------------------------------------------------------------------------------------


async def test_a_name_of_ours_and_its_repetition_from_the_cache(start: Start) -> None:
    asking = start()
    assert [await asking.shown("web") for _ in range(3)] == [["10.1.0.2"]] * 3
    assert asking.resolver.requests == {
        ("frontend", "A", "NOERROR", "local"): 1,
        ("frontend", "A", "NOERROR", "cache"): 2,
    }
    assert asking.resolver.cache_entries == 1


async def test_every_task_comes_first_equally_often(start: Start) -> None:
    asking = start()
    first = Counter([(await asking.shown("tasks.web"))[0] for _ in range(200)])
    assert first == {"10.1.0.3": 100, "10.1.0.4": 100}


async def test_a_large_set_is_ready_in_the_cache_and_each_comes_first_equally_often(start: Start) -> None:
    tasks = tuple(task(f"big.{n}.x", FRONTEND, f"10.1.1.{n}") for n in range(100))
    asking = start(world=snapshot([Service("big", "big", networks=(ServiceNetwork("n1"),), tasks=tasks)]))
    first = Counter([(await asking.shown("tasks.big"))[0] for _ in range(300)])
    assert set(first.values()) == {3}
    assert asking.sources() == {"local": 1, "cache": 299}


@pytest.mark.parametrize(
    ("size", "tcp", "count", "truncated"),
    [
        (None, False, 30, 1),
        (512, False, 29, 1),
        (900, False, 53, 1),
        (4096, False, 74, 1),
        (1232, True, 200, 0),
    ],
)
async def test_a_large_set_is_as_large_as_its_client_can_take(
    size: int | None, tcp: bool, count: int, truncated: int, start: Start
) -> None:
    tasks = tuple(task(f"big.{n}.x", FRONTEND, f"10.1.1.{n}") for n in range(200))
    asking = start(world=snapshot([Service("big", "big", networks=(ServiceNetwork("n1"),), tasks=tasks)]))
    query = DNSRecord.question("tasks.big")
    query.header.cd = 1
    if size is not None:
        query.add_ar(EDNS0(flags="do", udp_len=size))
    seen: set[str] = set()
    for _ in range(200):
        reply = await asking.ask(bytes(query.pack()), tcp=tcp)
        parsed = DNSRecord.parse(reply or b"")
        assert (len(parsed.rr), parsed.header.tc, parsed.header.cd) == (count, truncated, 1)
        assert [(rr.edns_len, rr.edns_do) for rr in parsed.ar] == ([] if size is None else [(1232, 1)])
        seen.update(shown(reply or b""))
    assert len(seen) == 200


async def test_the_ttl_is_the_shortest_that_a_contributor_wants(start: Start) -> None:
    slow, quick = (
        replace(of_stack(stack, FRONTEND, n), labels={"mesh.dns.ttl": ttl})
        for n, (stack, ttl) in enumerate((("a", "10m"), ("b", "2")), start=1)
    )
    asking = start(world=snapshot([slow, quick, replace(of_stack("c", FRONTEND, 3), labels={})]))
    for name, qtype, ttl in (
        ("a_web", "A", 600),
        ("b_web", "A", 2),
        ("web", "A", 2),
        ("c_web", "A", 5),
        ("a_web", "AAAA", 600),
        ("10.0.1.10.in-addr.arpa", "PTR", 600),
    ):
        reply = await asking.ask(question(name, qtype))
        parsed = DNSRecord.parse(reply or b"")
        assert {rr.ttl for rr in (*parsed.rr, *parsed.auth)} == {ttl}, name


async def test_a_port_by_its_name_over_udp_and_tcp(start: Start) -> None:
    tasks = tuple(task(f"big.{n}.x", FRONTEND, f"10.1.1.{n}") for n in range(60))
    big = Service("big", "big", networks=(ServiceNetwork("n1"),), ports=(Port(80, 8080),), tasks=tasks)
    asking = start(world=snapshot([big]))
    query = question("_http._tcp.tasks.big", "SRV")
    short, full = await asking.ask(query), await asking.ask(query, tcp=True)
    assert DNSRecord.parse(short or b"").header.tc == 1
    parsed = DNSRecord.parse(full or b"")
    assert (parsed.header.tc, len(parsed.rr), len(parsed.ar)) == (0, 60, 60)
    asking.publish(Change(services={"big": replace(big, ports=(Port(81, 81),))}))
    assert await asking.shown("_http._tcp.tasks.big", "SRV") == []


async def test_names_as_docker_has_them(start: Start) -> None:
    async with upstream(say(rcode=3)) as server:
        asking = start(server, world=snapshot([replace(WEB, tasks=()), DB]), names=DOCKERS)
        for name, qtype in (("web", "A"), ("db", "TXT"), ("2.0.2.10.in-addr.arpa", "PTR")):
            reply = await asking.ask(question(name, qtype))
            assert reply is not None
            assert rcode(reply) == 3
        assert await asking.shown("db") == ["10.2.0.2"]
        assert (await asking.resolver.resolve(BOTH, "db", QType.TXT)).rule.endswith("is forwarded")
        asking.publish(Change(services={"s1": WEB}))
        assert await asking.shown("web") == ["10.1.0.2"]


async def test_a_change_is_answered_from_the_next_query_on_and_spares_the_rest(start: Start) -> None:
    asking = start()
    await asking.shown("tasks.web")
    await asking.shown("shop")
    asking.publish(Change(services={"s1": replace(WEB, tasks=WEB.tasks[:1])}))
    assert await asking.shown("tasks.web") == ["10.1.0.3"]
    assert asking.sources() == {"local": 3}
    await asking.shown("shop")
    assert asking.sources() == {"local": 3, "cache": 1}


async def test_scopes_do_not_see_each_others_replies(start: Start) -> None:
    asking = start()
    assert await asking.shown("db", scope=BACK) == ["10.2.0.2"]
    reply = await asking.ask(question("db"), FRONT)
    assert reply is not None
    assert rcode(reply) == 2  # unknown there: forwarded, and nobody is upstream


async def test_nodata_says_how_long_it_holds(start: Start) -> None:
    reply = await start().ask(question("web", "AAAA"))
    assert reply is not None
    parsed = DNSRecord.parse(reply)
    assert (parsed.header.rcode, parsed.rr, parsed.auth[0].rdata.times[4]) == (0, [], 5)


async def test_queries_with_cookies_are_answered_and_not_kept(start: Start) -> None:
    asking = start()
    query = DNSRecord.question("web")
    query.add_ar(EDNS0(opts=[EDNSOption(10, b"cookie12")]))
    reply = await asking.ask(bytes(query.pack()))
    assert reply is not None
    assert shown(reply) == ["10.1.0.2"]
    assert asking.resolver.cache_entries == 0


async def test_a_pointer_that_dns_cannot_express_is_nodata(start: Start) -> None:
    monster = replace(WEB, tasks=(task("x" * 70, FRONTEND, "10.1.0.3"),))
    reply = await start(world=snapshot([monster])).ask(question("3.0.1.10.in-addr.arpa", "PTR"))
    assert reply is not None
    assert (rcode(reply), shown(reply)) == (0, [])


# --- names of others ----------------------------------------------------------------------------------------


async def test_an_unknown_name_is_forwarded_and_kept(start: Start) -> None:
    async with upstream(say("192.0.2.9", ttl=30)) as server:
        asking = start(server)
        assert [await asking.shown("www.example") for _ in range(3)] == [["192.0.2.9"]] * 3
        assert asking.sources() == {"forward": 1, "cache": 2}
        asking.clock.now += 10
        reply = await asking.ask(question("www.example"))
        assert reply is not None
        assert DNSRecord.parse(reply).rr[0].ttl == 20
        asking.clock.now += 20
        await asking.shown("www.example")
    assert len(server.queries) == 2


async def test_scopes_and_spellings_share_what_was_forwarded(start: Start) -> None:
    async with upstream(say()) as server:
        asking = start(server)
        await asking.shown("www.example", scope=FRONT)
        reply = await asking.ask(question("WWW.Example"), BOTH)
    assert reply is not None
    assert str(DNSRecord.parse(reply).q.qname) == "WWW.Example."
    assert len(server.queries) == 1


async def test_a_single_label_is_forwarded_too(start: Start) -> None:
    async with upstream(say(rcode=3)) as server:
        reply = await start(server).ask(question("nothing"))
    assert reply is not None
    assert rcode(reply) == 3


async def test_a_name_that_becomes_ours_is_ours_at_once(start: Start) -> None:
    async with upstream(say(rcode=3)) as server:
        asking = start(server, world=snapshot([]))
        assert await asking.shown("web") == []
        asking.publish(Change(services={"s1": WEB}))
        assert await asking.shown("web") == ["10.1.0.2"]


async def test_a_reply_that_comes_after_the_name_became_ours_is_not_kept(start: Start) -> None:
    async with upstream(say()) as server:
        server.hold = asyncio.Event()
        asking = start(server, world=snapshot([]))
        waiting = asyncio.ensure_future(asking.ask(question("web")))
        while not server.queries:
            await asyncio.sleep(0)
        asking.publish(Change(services={"s1": WEB}))
        server.hold.set()
        await waiting
        assert await asking.shown("web") == ["10.1.0.2"]


async def test_no_upstream_answers(start: Start) -> None:
    reply = await start().ask(question("www.example"))
    assert reply is not None
    assert rcode(reply) == 2


async def test_nothing_leaves_from_internal_networks(start: Start) -> None:
    async with upstream(say()) as server:
        reply = await start(server).ask(question("www.example"), BACK)
    assert reply is not None
    assert (rcode(reply), server.queries) == (2, [])


async def test_a_containers_own_servers_are_asked_from_inside_it(start: Start) -> None:
    made: list[int] = []

    def inside(family: int, kind: int) -> object:
        made.append(kind)
        return host_socket(family, kind)

    async with upstream(say("192.0.2.1")) as host, upstream(say("192.0.2.2")) as own:
        asking = start(host)
        scope = replace(BACK, container="c1", servers=(str(own),))
        reply = await asking.ask(question("x.example"), scope, paths=ContainerPaths(inside))  # type: ignore[arg-type]
        assert reply is not None
        assert (shown(reply), len(made)) == (["192.0.2.2"], 1)
        without = await asking.ask(question("y.example"), scope)
    assert without is not None
    assert rcode(without) == 2  # internal, and no way into the container
    assert host.queries == []


async def test_a_service_left_to_docker_is_dockers_to_answer(start: Start) -> None:
    world = snapshot([replace(WEB, labels={"mesh.enable": "false"})])
    async with upstream(say("192.0.2.1")) as host, upstream(say("10.1.0.2")) as docker:
        asking = start(host, world=world)
        paths = ContainerPaths(host_socket, DnsServer("127.0.0.1", docker.port, label="docker"))
        replies = [await asking.ask(question("web"), BACK_AND_FRONT, paths=paths) for _ in range(2)]
        assert [shown(reply or b"") for reply in replies] == [["10.1.0.2"]] * 2
        assert len(docker.queries) == 2  # Docker's 600 seconds outlive its tasks: never kept
        assert await asking.shown("web") == ["192.0.2.1"]  # no way to Docker's: as any other name


BACK_AND_FRONT = replace(BOTH, container="c1")


async def test_a_forwarded_reply_too_large_for_its_asker_is_truncated(start: Start) -> None:
    def large(query: bytes) -> list[bytes]:
        reply = DNSRecord.parse(say()(query)[0])
        reply.rr = reply.rr * 60
        return [bytes(reply.pack())]

    async with upstream(large) as server:
        asking = start(server)
        short = await asking.ask(question("x.example"))
        full = await asking.ask(question("x.example"), tcp=True)
    assert short is not None
    assert full is not None
    assert DNSRecord.parse(short).header.tc == 1
    assert len(DNSRecord.parse(full).rr) == 60


# --- anything at all ----------------------------------------------------------------------------------------


WEB_QUESTION = question("web")


@given(st.binary(max_size=300) | st.binary(max_size=80).map(lambda tail: WEB_QUESTION[:-5] + tail))
def test_any_bytes_get_a_reply_or_none_and_never_an_error(data: bytes) -> None:
    tasks = Tasks(lambda name, error: None)
    resolver = Resolver(DnsConfig(resolv_conf="/nowhere"), tasks, snapshot())
    for tcp in (False, True):
        reply = resolver.handle(data, BOTH, tcp=tcp, respond=lambda _: None)
        assert reply is None or (isinstance(reply, bytes) and reply[:2] == data[:2] and len(reply) >= 12)


async def test_types_are_counted_under_a_bounded_set_of_labels(start: Start) -> None:
    asking = start()
    for qtype in range(1000, 1050):
        query = question("web")
        await asking.ask(query[:-4] + qtype.to_bytes(2) + b"\0\1")
    assert asking.resolver.requests == {("frontend", "other", "NOERROR", "local"): 50}


# --- for people ---------------------------------------------------------------------------------------------


async def test_explaining_a_name_of_ours(start: Start) -> None:
    told = start().resolver.explain(BOTH, "db.backend.")
    assert (told.source, told.network) == ("local", "backend")
    assert told.tried == ("db.backend on frontend", "db.backend on backend", "db on backend")
    assert told.rule == "'db' is known on network backend"


async def test_explaining_what_would_be_forwarded_and_what_not(start: Start) -> None:
    resolver = start("192.0.2.53").resolver
    told = resolver.explain(FRONT, "www.example")
    assert (told.source, told.servers) == ("forward", ("192.0.2.53",))
    assert "internal" in resolver.explain(BACK, "www.example").rule


async def test_resolving_shows_what_is_on_the_wire(start: Start) -> None:
    async with upstream(say("192.0.2.9", ttl=77)) as server:
        told = await start(server).resolver.resolve(FRONT, "www.example", QType.A)
    assert told.reply == ShownReply("NOERROR", (ShownRecord("www.example.", 77, "A", "192.0.2.9"),))
    told = await start().resolver.resolve(FRONT, "web")
    assert told.reply == ShownReply("NOERROR", (ShownRecord("web.", 5, "A", "10.1.0.2"),))
    assert told.docker is None
    told = await start().resolver.resolve(BACK, "www.example")
    assert told.reply == ShownReply("SERVFAIL"), "an internal network"


async def test_resolving_shows_what_docker_would_have_said(start: Start) -> None:
    async with upstream(say("10.1.0.77", ttl=600)) as docker:
        paths = ContainerPaths(host_socket, parse_server(f"127.0.0.1:{docker.port}"))
        told = await start().resolver.resolve(FRONT, "web", QType.A, paths)
    assert told.docker == ShownReply("NOERROR", (ShownRecord("web.", 600, "A", "10.1.0.77"),))
    assert told.reply is not None
    assert [record.data for record in told.reply.records] == ["10.1.0.2"]


async def test_a_short_name_of_somebody_who_searches_is_nothing_and_not_forwarded(start: Start) -> None:
    async with upstream(say("192.0.2.9")) as server:
        asking = start(server)
        reply = await asking.ask(question("nosuch"), replace(BOTH, ndots=True))
        assert not server.queries
    assert reply is not None
    read = DNSRecord.parse(reply)
    assert (read.header.rcode, read.rr, read.auth) == (0, [], [])


async def test_a_network_that_is_no_more_is_not_counted_any_more(start: Start) -> None:
    asking = start()
    await asking.ask(question("db"), BOTH)
    await asking.ask(question("web"), BOTH)
    networks = {key[0] for key in asking.resolver.requests}
    assert networks >= {"frontend", "backend"}
    asking.publish(Change(networks={"n2": None}))
    assert {key[0] for key in asking.resolver.requests} == networks - {"backend"}
