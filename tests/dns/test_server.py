"""Real sockets on loopback."""

import asyncio
import logging
import socket
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from dnslib import EDNS0, DNSRecord

from mesh.catalog.model import Asker, Service, ServiceNetwork
from mesh.catalog.snapshot import Change
from mesh.dns.config import TCP_CONNECTIONS_MAX, DnsConfig
from mesh.dns.query_log import QueryLog
from mesh.dns.resolver import Resolver
from mesh.dns.scope import Scope
from mesh.dns.server import Endpoint, ScopeSource
from mesh.net.tasks import Tasks
from tests.dns.fakes import LIMIT, closed_port, over_udp, question, rcode, say, shown, silence, upstream
from tests.dns.world import BACK, BOTH, FRONT, FRONTEND, SERVICES, WEB, snapshot, task

BIG = Service(
    "big",
    "big",
    networks=(ServiceNetwork("n1"),),
    tasks=tuple(task(f"big.{n}.x", FRONTEND, f"10.1.1.{n}") for n in range(60)),
)


class Serving:
    """A resolver behind one endpoint on loopback."""

    def __init__(self, scope: Scope | ScopeSource | None, *upstreams: str) -> None:
        self.failures: list[str] = []
        self.tasks = Tasks(lambda name, error: self.failures.append(f"{name}: {error!r}"))
        config = DnsConfig(upstreams=upstreams or (f"127.0.0.1:{closed_port()}",))
        self.resolver = Resolver(config, self.tasks, snapshot((*SERVICES, BIG)))
        udp, tcp, self.port = bound()
        self.endpoint = Endpoint(self.resolver, udp, tcp, scope or self.resolver.scope_by_source)

    async def shown(self, name: str) -> list[str]:
        return shown(await over_udp(self.port, question(name)))

    def publish(self, change: Change) -> None:
        old = self.resolver.snapshot
        self.resolver.update(old, old.apply(change), change)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)


def bound() -> tuple[socket.socket, socket.socket, int]:
    """A UDP and a listening TCP socket on the same port, as the process would hand them over."""
    tcp = socket.create_server(("127.0.0.1", 0))
    port = tcp.getsockname()[1]
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(("127.0.0.1", port))
    for made in (udp, tcp):
        made.setblocking(False)
    return udp, tcp, port


class Starter:
    def __init__(self) -> None:
        self.started: list[Serving] = []

    async def __call__(self, scope: Scope | ScopeSource | None = BOTH, *upstreams: object) -> Serving:
        serving = Serving(scope, *map(str, upstreams))
        self.started.append(serving)
        await serving.endpoint.start()
        return serving


@pytest.fixture
async def start() -> AsyncIterator[Starter]:
    starter = Starter()
    yield starter
    for serving in starter.started:
        serving.endpoint.close()
        await serving.tasks.close()
        assert serving.failures == []


def framed(*queries: bytes) -> bytes:
    return b"".join(len(query).to_bytes(2) + query for query in queries)


async def frame(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(LIMIT):
        return await reader.readexactly(int.from_bytes(await reader.readexactly(2)))


# --- UDP ----------------------------------------------------------------------------------------------------


async def test_a_name_over_udp_again_and_again(start: Starter) -> None:
    serving = await start()
    assert [await serving.shown("web") for _ in range(5)] == [["10.1.0.2"]] * 5
    sources = {key[3]: count for key, count in serving.resolver.requests.items()}
    assert sources == {"local": 1, "cache": 4}
    assert sum(serving.resolver.stats.durations["cache"].counts) == 4


async def test_rotation_is_even(start: Starter) -> None:
    serving = await start()
    first = Counter([(await serving.shown("tasks.web"))[0] for _ in range(100)])
    assert first == {"10.1.0.3": 50, "10.1.0.4": 50}


async def test_many_clients_at_once(start: Starter) -> None:
    serving = await start()
    names = ["web", "shop", "db", "tasks.web"] * 50
    replies = await asyncio.gather(*(over_udp(serving.port, question(name)) for name in names))
    assert all(shown(reply) for reply in replies)


async def test_a_change_reaches_the_next_query(start: Starter) -> None:
    serving = await start()
    assert len(await serving.shown("tasks.web")) == 2
    serving.publish(Change(services={"s1": replace(WEB, tasks=WEB.tasks[1:])}))
    assert await serving.shown("tasks.web") == ["10.1.0.4"]


async def test_another_scope_from_the_next_query_on(start: Starter) -> None:
    serving = await start(FRONT)
    assert rcode(await over_udp(serving.port, question("db"))) == 2
    serving.endpoint.scope = BACK
    assert await serving.shown("db") == ["10.2.0.2"]


async def test_garbage_is_survived(start: Starter) -> None:
    serving = await start()
    for garbage in (b"", b"x", b"\0" * 12, question("web")[:-1], b"\xff" * 1500):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.sendto(garbage, ("127.0.0.1", serving.port))
    assert rcode(await over_udp(serving.port, question("web")[:-1])) == 1
    assert await serving.shown("web") == ["10.1.0.2"]
    assert serving.resolver.stats.dropped["not a query"] >= 3


async def test_too_many_tasks_for_udp_are_truncated_and_complete_over_tcp(start: Starter) -> None:
    serving = await start()
    short = DNSRecord.parse(await over_udp(serving.port, question("tasks.big")))
    assert (short.header.tc, len(short.rr)) == (1, 30)
    edns = DNSRecord.question("tasks.big")
    edns.add_ar(EDNS0(udp_len=4096))
    assert len(shown(await over_udp(serving.port, bytes(edns.pack())))) == 60
    reader, writer = await serving.connect()
    writer.write(framed(question("tasks.big")))
    full = DNSRecord.parse(await frame(reader))
    assert (full.header.tc, len(full.rr)) == (0, 60)
    writer.close()


async def test_a_client_that_has_gone_does_not_disturb_the_others(start: Starter) -> None:
    serving = await start()
    for _ in range(5):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.sendto(question("web"), ("127.0.0.1", serving.port))  # its port is closed when we reply
    assert await serving.shown("web") == ["10.1.0.2"]


# --- who is answered ----------------------------------------------------------------------------------------


async def test_strangers_get_no_reply(start: Starter) -> None:
    serving = await start(None)
    serving.publish(Change(askers=(Asker("one", "127.0.0.1/32", ("n1",)),)))
    assert await serving.shown("web") == ["10.1.0.2"]
    with pytest.raises(TimeoutError):
        await over_udp(serving.port, question("web"), source="127.0.0.2", limit=0.1)
    assert serving.resolver.stats.dropped == {"stranger": 1}


async def test_askers_may_change(start: Starter) -> None:
    serving = await start(None)
    serving.publish(Change(askers=(Asker("one", "127.0.0.0/8", ("n1",)),)))
    assert await serving.shown("web") == ["10.1.0.2"]
    serving.publish(Change(askers=(Asker("one", "127.0.0.0/8", ("n2",)),)))
    assert rcode(await over_udp(serving.port, question("web"))) == 2
    serving.publish(Change(askers=()))
    with pytest.raises(TimeoutError):
        await over_udp(serving.port, question("web"), limit=0.1)


async def test_strangers_are_not_served_over_tcp_either(start: Starter) -> None:
    serving = await start(None)
    reader, writer = await serving.connect()
    writer.write(framed(question("web")))
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await frame(reader)
    writer.close()


# --- upstreams ----------------------------------------------------------------------------------------------


async def test_what_was_forwarded_serves_both_transports(start: Starter) -> None:
    async with upstream(say("192.0.2.9")) as server:
        serving = await start(BOTH, server)
        assert await serving.shown("www.example") == ["192.0.2.9"]
        reader, writer = await serving.connect()
        writer.write(framed(question("www.example")))
        assert shown(await frame(reader)) == ["192.0.2.9"]
        writer.close()
    assert len(server.queries) == 1


async def test_no_upstream_is_servfail(start: Starter) -> None:
    serving = await start()
    assert rcode(await over_udp(serving.port, question("www.example"))) == 2


async def test_names_of_ours_do_not_wait_for_an_upstream(start: Starter) -> None:
    async with upstream(silence) as server:
        serving = await start(BOTH, server)
        waiting = asyncio.ensure_future(over_udp(serving.port, question("www.example")))
        assert await serving.shown("web") == ["10.1.0.2"]
        assert not waiting.done()
        waiting.cancel()


# --- TCP ----------------------------------------------------------------------------------------------------


async def test_pipelined_queries_in_one_write_and_byte_by_byte(start: Starter) -> None:
    serving = await start()
    reader, writer = await serving.connect()
    data = framed(question("web"), question("shop"), question("web"))
    writer.write(data)
    for at in range(len(data)):
        writer.write(data[at : at + 1])
        await writer.drain()
    replies = [shown(await frame(reader)) for _ in range(6)]
    assert [len(reply) for reply in replies] == [1, 2, 1] * 2
    writer.close()


async def test_a_slow_upstream_does_not_hold_up_later_queries_of_a_connection(start: Starter) -> None:
    async with upstream(say("192.0.2.9")) as server:
        gate = asyncio.Event()
        slow = await asyncio.start_server(lambda r, w: hold(gate, server.serve_tcp, r, w), "127.0.0.1", 0)
        serving = await start(BOTH, f"127.0.0.1:{slow.sockets[0].getsockname()[1]}")
        reader, writer = await serving.connect()
        writer.write(framed(question("www.example"), question("web")))
        assert shown(await frame(reader)) == ["10.1.0.2"]
        gate.set()
        assert shown(await frame(reader)) == ["192.0.2.9"]
        writer.close()
        slow.close()


async def hold(gate, serve, reader, writer) -> None:  # type: ignore[no-untyped-def]
    await gate.wait()
    await serve(reader, writer)


async def test_replies_are_complete_after_the_client_has_finished_writing(start: Starter) -> None:
    serving = await start()
    reader, writer = await serving.connect()
    writer.write(framed(*[question("tasks.big")] * 50))
    writer.write_eof()
    assert [len(shown(await frame(reader))) for _ in range(50)] == [60] * 50
    assert await reader.read() == b""


@pytest.mark.parametrize("sent", [b"\xff\xff", b"\0\x05ab", b"\0\0", b"\0\x0cshort-header"])
async def test_broken_frames_end_the_connection_or_get_nothing(start: Starter, sent: bytes) -> None:
    serving = await start()
    _, writer = await serving.connect()
    writer.write(sent)
    await writer.drain()
    writer.close()
    assert await serving.shown("web") == ["10.1.0.2"]


async def test_connections_are_bounded(start: Starter) -> None:
    serving = await start()
    open_ones = [await serving.connect() for _ in range(TCP_CONNECTIONS_MAX)]
    for reader, writer in open_ones:
        writer.write(framed(question("web")))
        await frame(reader)
    reader, writer = await serving.connect()
    writer.write(framed(question("web")))
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await frame(reader)
    for _, other in [*open_ones, (reader, writer)]:
        other.close()
    assert serving.resolver.stats.dropped["too many connections"] == 1


# --- closing ------------------------------------------------------------------------------------------------


async def test_closing_is_immediate_and_may_be_repeated(start: Starter) -> None:
    async with upstream(silence) as server:
        serving = await start(BOTH, server)
        reader, writer = await serving.connect()
        writer.write(framed(question("web"), question("www.example")))
        await frame(reader)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.sendto(question("www.example"), ("127.0.0.1", serving.port))
        serving.endpoint.close()
        serving.endpoint.close()
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await frame(reader)
        writer.close()
    with pytest.raises((TimeoutError, ConnectionError)):
        await over_udp(serving.port, question("web"), limit=0.1)


async def test_an_endpoint_that_was_never_started_closes_its_sockets() -> None:
    udp, tcp, _ = bound()
    tasks = Tasks(lambda name, error: None)
    endpoint = Endpoint(Resolver(DnsConfig(), tasks), udp, tcp, BOTH)
    endpoint.close()
    assert (udp.fileno(), tcp.fileno()) == (-1, -1)
    await endpoint.start()  # a container that ended before its endpoint's task had begun


async def test_closing_while_it_starts() -> None:
    udp, tcp, port = bound()
    tasks = Tasks(lambda name, error: None)
    endpoint = Endpoint(Resolver(DnsConfig(), tasks), udp, tcp, BOTH)
    starting = asyncio.ensure_future(endpoint.start())
    await asyncio.sleep(0)
    endpoint.close()
    await starting
    with pytest.raises(ConnectionError):
        await asyncio.open_connection("127.0.0.1", port)


async def test_the_query_log_has_its_share_of_hits_and_of_the_rest(
    start: Starter, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    serving = await start(BOTH)
    serving.resolver.log = QueryLog(0.5, serving.resolver.clock)
    for _ in range(5):
        await serving.shown("web")
    logged = [record.__dict__["fields"] for record in caplog.records]
    assert [(line["name"], line["source"]) for line in logged] == [
        ("web.", "local"),
        ("web.", "cache"),
        ("web.", "cache"),
    ]
