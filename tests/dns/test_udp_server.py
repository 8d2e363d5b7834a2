"""Real sockets on loopback."""

import asyncio
import logging
import socket
from collections import Counter
from dataclasses import replace

import pytest
from dnslib import EDNS0, DNSRecord

from mesh.catalog.model import Asker
from mesh.catalog.snapshot import Change
from mesh.dns import mmsg
from mesh.dns.config import UDP_BATCH, UDP_BATCH_SLOW, DnsConfig
from mesh.dns.connection_limiter import TCP_ASKER_MAX
from mesh.dns.query_log import QueryLog
from mesh.dns.resolver import Resolver
from mesh.dns.udp_server import DnsEndpoint
from mesh.net.tasks import Tasks
from tests.dns.fakes import over_udp, question, rcode, say, shown, silence, upstream
from tests.dns.serving import Serving, Starter, bound, frame, framed
from tests.dns.world import BACK, BOTH, FRONT, WEB

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


@pytest.mark.skipif(not mmsg.available(), reason="needs recvmmsg")
async def test_after_a_batch_of_hard_queries_the_next_one_is_smaller(start: Starter) -> None:
    serving = await start()
    await serving.shown("web")  # in the cache from now on
    assert taken(serving, b"rubbish") == [UDP_BATCH, UDP_BATCH_SLOW, UDP_BATCH_SLOW]
    assert taken(serving, question("web")) == [UDP_BATCH_SLOW, UDP_BATCH, UDP_BATCH_SLOW]


def taken(serving: Serving, message: bytes) -> list[int]:
    """How many of some messages that have all arrived are taken at each wake-up."""
    stats = serving.resolver.stats
    count, turns = UDP_BATCH + 2 * UDP_BATCH_SLOW, []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect(("127.0.0.1", serving.port))
        for _ in range(count):
            client.send(message)
        while sum(turns) < count:
            before = Counter(stats.dropped)["not a query"] + sum(stats.durations["cache"].counts)
            serving.endpoint._drain_batch()
            after = Counter(stats.dropped)["not a query"] + sum(stats.durations["cache"].counts)
            turns.append(after - before)
    return turns


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

    async def ask() -> bytes:
        reader, _ = await serving.connect()
        return await frame(reader)

    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await ask()
    assert serving.resolver.stats.dropped == {"stranger": 1}


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


async def test_both_transports_have_the_same_names(start: Starter) -> None:
    serving = await start(FRONT)
    reader, writer = await serving.connect()
    writer.write(framed(question("web"), question("db")))
    assert shown(await frame(reader)) == await serving.shown("web") == ["10.1.0.2"]
    assert rcode(await frame(reader)) == rcode(await over_udp(serving.port, question("db"))) == 2
    writer.close()


async def test_askers_of_one_port_have_a_share_of_its_connections(start: Starter) -> None:
    serving = await start(None)
    serving.publish(Change(askers=(Asker("all", "127.0.0.0/8", ("n1",)),)))
    open_ones = [await serving.connect() for _ in range(TCP_ASKER_MAX + 1)]
    reader, writer = open_ones[-1]
    writer.write(framed(question("web")))
    assert shown(await frame(reader)) == ["10.1.0.2"]
    assert await open_ones[0][0].read() == b""
    assert serving.resolver.stats.dropped == {"gave way": 1}
    for _, writer in open_ones:
        writer.transport.abort()


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
    endpoint = DnsEndpoint(Resolver(DnsConfig(), tasks), udp, tcp, BOTH)
    endpoint.close()
    assert (udp.fileno(), tcp.fileno()) == (-1, -1)
    await endpoint.start()  # a container that ended before its endpoint's task had begun


async def test_closing_while_it_starts() -> None:
    udp, tcp, port = bound()
    tasks = Tasks(lambda name, error: None)
    endpoint = DnsEndpoint(Resolver(DnsConfig(), tasks), udp, tcp, BOTH)
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


@pytest.mark.parametrize("batches", [True, False])
async def test_a_socket_that_has_had_an_error_is_read_on(
    start: Starter, batches: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connected socket is told that its peer refused a datagram. On uvloop it was never read again."""
    if not batches:
        monkeypatch.setattr(mmsg, "available", lambda: False)
    serving = await start()
    peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    peer.bind(("127.0.0.1", 0))
    address = peer.getsockname()
    peer.close()
    server = serving.endpoint._udp
    server.connect(address)
    server.send(b"to nobody")
    for _ in range(3):
        await asyncio.sleep(0)  # a turn of the loop, in which it sees the error
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        asker.bind(address)
        asker.settimeout(20)
        asker.connect(("127.0.0.1", serving.port))
        asker.send(question("web"))
        reply = await asyncio.to_thread(asker.recv, 512)
    assert shown(reply) == ["10.1.0.2"]
