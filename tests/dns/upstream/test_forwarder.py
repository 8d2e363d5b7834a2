"""Asking the world outside, on loopback."""

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from mesh.dns.config import FORWARDS_MAX
from mesh.dns.stats import DnsStats
from mesh.dns.upstream.forwarder import Forwarder
from mesh.dns.upstream.servers import Route, Server
from mesh.errors import NamespaceGone
from mesh.net.tasks import Tasks
from tests.dns.fakes import Behaviour, closed_port, question, rcode, say, shown, silence, upstream


class Asking:
    """A forwarder, and its answers awaited."""

    def __init__(self) -> None:
        self.failures: list[str] = []
        self.tasks = Tasks(lambda name, error: self.failures.append(f"{name}: {error!r}"))
        self.stats = DnsStats()
        self.forwarder = Forwarder(self.tasks, self.stats, try_timeout=0.1)

    def begin(
        self, key: object, query: bytes, route: Route, tcp: bool = False
    ) -> asyncio.Future[bytes | None]:
        result: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        assert self.forwarder.ask(key, query, route, tcp, result.set_result)
        return result

    async def ask(self, *ports: int, tcp: bool = False, name: str = "x.example") -> bytes | None:
        return await self.begin(name, question(name), route(*ports), tcp)

    @property
    def results(self) -> list[str]:
        return [result for (_, result), count in self.stats.upstream_requests.items() for _ in range(count)]


def route(*ports: int) -> Route:
    return Route("host", tuple(Server("127.0.0.1", port) for port in ports))


@pytest.fixture
async def asking() -> AsyncIterator[Asking]:
    made = Asking()
    yield made
    await made.tasks.close()
    assert made.failures == []


@pytest.mark.parametrize("tcp", [False, True])
async def test_over_the_transport_of_the_client(asking: Asking, tcp: bool) -> None:
    async with upstream(say("192.0.2.9")) as server:
        reply = await asking.ask(server.port, tcp=tcp)
    assert reply is not None
    assert shown(reply) == ["192.0.2.9"]
    assert asking.stats.upstream_requests == {(f"127.0.0.1:{server.port}", "NOERROR"): 1}


@pytest.mark.parametrize(
    ("first", "result"), [(say(rcode=2), "SERVFAIL"), (say(rcode=5), "REFUSED"), (silence, "TIMEOUT")]
)
async def test_failure_leads_to_the_next_server(asking: Asking, first: Behaviour, result: str) -> None:
    async with upstream(first) as bad, upstream(say()) as good:
        reply = await asking.ask(bad.port, good.port)
    assert reply is not None
    assert shown(reply) == ["192.0.2.1"]
    assert asking.results == [result, "NOERROR"]


async def test_any_other_error_is_the_answer(asking: Asking) -> None:
    async with upstream(say(rcode=3)) as first, upstream(say()) as second:
        reply = await asking.ask(first.port, second.port)
    assert reply is not None
    assert rcode(reply) == 3
    assert second.queries == []


async def test_a_port_where_nobody_listens_fails_at_once(asking: Asking) -> None:
    assert await asking.ask(closed_port()) is None
    assert asking.results == ["ERROR"]


async def test_silence_is_asked_again_and_a_refusal_is_not(asking: Asking) -> None:
    async with upstream(silence) as quiet, upstream(say(rcode=5)) as unwilling:
        assert await asking.ask(quiet.port, unwilling.port) is None
    assert (len(quiet.queries), len(unwilling.queries)) == (2, 1)


async def test_a_server_that_failed_comes_last_for_a_while(asking: Asking) -> None:
    async with upstream(silence) as bad, upstream(say()) as good:
        await asking.ask(bad.port, good.port)
        await asking.ask(bad.port, good.port, name="y.example")
    assert (len(bad.queries), len(good.queries)) == (1, 2)


async def test_replies_that_do_not_match_are_passed_over(asking: Asking) -> None:
    def spoof(query: bytes) -> list[bytes]:
        [good] = say("192.0.2.1")(query)
        [evil] = say("203.0.113.66")(query)
        other_id = bytes((evil[0] ^ 1,)) + evil[1:]
        other_question = evil.replace(b"\x07example", b"\x07exbmple")
        return [other_id, other_question, evil[:20], b"", query, good]

    async with upstream(spoof) as server:
        reply = await asking.ask(server.port)
    assert reply is not None
    assert shown(reply) == ["192.0.2.1"]


async def test_a_reply_from_another_address_does_not_arrive(asking: Asking) -> None:
    """The socket is connected: the kernel lets in what comes from the server's address and port only."""
    heard: list[bytes] = []

    def answer_from_elsewhere(query: bytes) -> list[bytes]:
        heard.append(query)
        return []

    made: list[socket.socket] = []

    def factory(family: int, kind: int) -> socket.socket:
        made.append(socket.socket(family, kind | socket.SOCK_NONBLOCK))
        return made[-1]

    async with upstream(answer_from_elsewhere) as server:
        to = Route("host", (Server("127.0.0.1", server.port),), sockets=factory)
        waiting = asking.begin("k", question("x.example"), to)
        while not heard:
            await asyncio.sleep(0)
        [evil] = say("203.0.113.66")(heard[0])
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as spoofer:
            spoofer.sendto(evil, made[0].getsockname())
        assert await waiting is None


async def test_ids_and_ports_differ_from_query_to_query(asking: Asking) -> None:
    async with upstream(say()) as server:
        for number in range(8):
            await asking.ask(server.port, name=f"n{number}.example")
    assert len({query[:2] for query in server.queries}) > 4


async def test_the_same_question_is_asked_once_at_a_time(asking: Asking) -> None:
    async with upstream(say()) as server:
        server.hold = asyncio.Event()
        waiting = [asking.begin("same", question("x.example"), route(server.port)) for _ in range(5)]
        while not server.queries:
            await asyncio.sleep(0)
        server.hold.set()
        replies = await asyncio.gather(*waiting)
    assert len(server.queries) == 1
    assert len(set(replies)) == 1


async def test_what_is_under_way_is_bounded(asking: Asking) -> None:
    to = route(closed_port())
    accepted = [
        asking.forwarder.ask(n, question("x"), to, False, lambda _: None) for n in range(FORWARDS_MAX + 5)
    ]
    assert accepted.count(True) == FORWARDS_MAX
    assert asking.forwarder.ask(0, question("x"), to, False, lambda _: None)  # the same may still wait along


async def test_a_namespace_that_is_gone_is_a_failed_server(asking: Asking) -> None:
    def gone(_family: int, _kind: int) -> socket.socket:
        raise NamespaceGone("its container ended")

    to = Route("container", (Server("10.0.0.1"),), "c1", gone)
    assert await asking.begin("k", question("x"), to) is None


@pytest.mark.parametrize("garbage", [b"", b"\0\1x", b"\xff\xff"])
async def test_broken_tcp_replies_are_failures(asking: Asking, garbage: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(garbage)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    assert await asking.ask(server.sockets[0].getsockname()[1], tcp=True) is None
    server.close()
