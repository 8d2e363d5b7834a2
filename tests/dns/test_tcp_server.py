"""Real connections on loopback: what peers want, and what hostile ones try."""

import asyncio
import os
import resource
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest

from mesh.dns.config import TCP_PIPELINE_MAX, DnsConfig
from mesh.dns.connection_limiter import ConnectionLimits
from mesh.dns.forward.forward import NO_PATHS, ContainerPaths, Later, Respond
from mesh.dns.reply_cache import View
from mesh.dns.resolver import Resolver
from mesh.dns.scope import Scope
from mesh.dns.tcp_server import ACCEPT_PAUSE, QUERIES_AT_ONCE, DnsTcpListener
from mesh.net.tasks import Tasks
from tests.dns.fakes import LIMIT, question, rcode, shown
from tests.dns.serving import BIG, framed
from tests.dns.world import BOTH, SERVICES, snapshot

HURRIED = ConnectionLimits(idle=0.4, idle_crowded=0.4)
ENDED = b""  # what a client reads at the end
RESET = struct.pack("ii", 1, 0)


class SlowResolver(Resolver):
    """What begins with "slow" waits until the test says `answer_all`, as if for an upstream."""

    def __init__(self) -> None:
        super().__init__(DnsConfig(), Tasks(lambda name, error: None), snapshot((*SERVICES, BIG)))
        self.slow: list[tuple[bytes, Respond]] = []

    def reply(
        self,
        data: bytes,
        scope: Scope,
        view: View,
        respond: Respond,
        paths: ContainerPaths,
        *,
        tcp: bool = False,
    ) -> bytes | Later | None:
        if b"\4slow" not in data:
            return super().reply(data, scope, view, respond, paths, tcp=tcp)
        self.slow.append((data, respond))
        return Later.PENDING

    def answer_all(self) -> None:
        waiting, self.slow = self.slow, []
        for data, respond in waiting:
            respond(data[:2] + b"\x81\x80" + data[4:])


class Port:
    """A listener on loopback and its clients."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self.resolver = SlowResolver()
        self.asker: Scope | None = BOTH
        listening = socket.create_server(("127.0.0.1", 0))
        listening.setblocking(False)
        self.address = listening.getsockname()
        self.listener = DnsTcpListener(self.resolver, listening, lambda _: self.asker, NO_PATHS, limits)
        self.listener.start()
        self.clients: list[Client] = []

    @property
    def dropped(self) -> dict[str, int]:
        return self.resolver.stats.dropped

    async def connect(self, source: str = "127.0.0.1") -> "Client":
        client = Client(source)
        self.clients.append(client)
        await client.connect(self.address)
        return client

    async def web(self, client: "Client") -> None:
        """A round trip, so the listener knows the client."""
        await client.send(framed(question("web")))
        assert shown(await client.frame()) == ["10.1.0.2"]

    async def until(self, what: Callable[[], bool]) -> None:
        """Wait for something that the loop is going to do, and that nobody is told of."""
        async with asyncio.timeout(LIMIT):
            while not what():
                await asyncio.sleep(0.001)

    def close(self) -> None:
        for client in self.clients:
            client.close()
        self.listener.close()


class Client:
    """A raw socket: half-closes, resets and does not read on demand."""

    def __init__(self, source: str = "127.0.0.1") -> None:
        self._loop = asyncio.get_running_loop()
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self.socket.bind((source, 0))

    async def connect(self, address: tuple[str, int]) -> None:
        async with asyncio.timeout(LIMIT):
            await self._loop.sock_connect(self.socket, address)

    async def send(self, data: bytes) -> None:
        async with asyncio.timeout(LIMIT):
            await self._loop.sock_sendall(self.socket, data)

    async def some(self, size: int = 65536) -> bytes:
        async with asyncio.timeout(LIMIT):
            return await self._loop.sock_recv(self.socket, size)

    async def frame(self) -> bytes:
        return await self._exactly(int.from_bytes(await self._exactly(2)))

    async def _exactly(self, size: int) -> bytes:
        got = b""
        while len(got) < size:
            part = await self.some(size - len(got))
            if not part:
                raise EOFError
            got += part
        return got

    def end(self) -> None:
        self.socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.close()

    def close(self) -> None:
        self.socket.close()


@pytest.fixture
async def listen() -> AsyncIterator[Callable[..., Port]]:
    with ExitStack() as ports:

        def listen_with(limits: ConnectionLimits | None = None) -> Port:
            port = Port(limits or ConnectionLimits())
            ports.callback(port.close)
            return port

        yield listen_with


Listen = Callable[..., Port]


# --- what peers want ----------------------------------------------------------------------------------------


async def test_queries_in_one_write_and_byte_by_byte(listen: Listen) -> None:
    port = listen()
    client = await port.connect()
    data = framed(question("web"), question("shop"), question("web"))
    await client.send(data)
    for at in range(len(data)):
        await client.send(data[at : at + 1])
    assert [len(shown(await client.frame())) for _ in range(6)] == [1, 2, 1] * 2


async def test_a_slow_upstream_does_not_hold_up_later_queries(listen: Listen) -> None:
    port = listen()
    client = await port.connect()
    await client.send(framed(question("slow.example"), question("web")))
    assert shown(await client.frame()) == ["10.1.0.2"]
    port.resolver.answer_all()
    assert rcode(await client.frame()) == 0


async def test_replies_are_complete_after_the_peer_has_finished_asking(listen: Listen) -> None:
    port = listen()
    client = await port.connect()
    await client.send(framed(*[question("tasks.big")] * 50, question("slow.example")))
    client.end()
    assert [len(shown(await client.frame())) for _ in range(50)] == [60] * 50
    port.resolver.answer_all()
    assert rcode(await client.frame()) == 0
    assert await client.some() == ENDED
    assert len(port.listener) == 0


async def test_more_queries_at_once_than_have_a_turn(listen: Listen) -> None:
    port = listen()
    client = await port.connect()
    many = 10 * QUERIES_AT_ONCE
    await client.send(framed(*[question("web")] * many))
    client.end()
    assert [shown(await client.frame()) for _ in range(many)] == [["10.1.0.2"]] * many
    assert await client.some() == ENDED


async def test_only_so_many_queries_wait_for_upstreams(listen: Listen) -> None:
    port = listen()
    client = await port.connect()
    await client.send(framed(*[question("slow.example")] * (2 * TCP_PIPELINE_MAX + 1)))
    client.end()
    for waiting in (TCP_PIPELINE_MAX, TCP_PIPELINE_MAX, 1):
        await port.until(lambda waiting=waiting: len(port.resolver.slow) == waiting)  # type: ignore[misc]
        port.resolver.answer_all()
        for _ in range(waiting):
            await client.frame()
    assert await client.some() == ENDED


async def test_an_idle_connection_ends_and_nothing_is_lost(listen: Listen) -> None:
    port = listen(HURRIED)
    client = await port.connect()
    await port.web(client)
    assert await client.some() == ENDED
    assert port.dropped == {}


async def test_waiting_for_an_upstream_is_not_idleness(listen: Listen) -> None:
    port = listen(ConnectionLimits(idle=0.5))
    client, idle = await port.connect(), await port.connect()
    await client.send(framed(question("slow.example")))
    await port.until(lambda: bool(port.resolver.slow))
    assert await idle.some() == ENDED
    port.resolver.answer_all()
    assert rcode(await client.frame()) == 0


async def test_closing_while_queries_wait(listen: Listen) -> None:
    port = listen()
    client = await port.connect()
    await client.send(framed(question("slow.example")))
    await port.until(lambda: bool(port.resolver.slow))
    port.listener.close()
    port.listener.close()
    port.resolver.answer_all()  # too late
    assert await client.some() == ENDED


# --- bad framing --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"\xff\xff", "overlong"),
        (b"\x10\x01" + bytes(100), "overlong"),
        (b"\0\0", "not a query"),
        (b"\0\x0bshort-header"[:13], "not a query"),
        (b"\0\x15ab", "incomplete"),
        (b"\0", "incomplete"),
    ],
)
async def test_broken_frames_end_the_connection_after_the_replies_so_far(
    listen: Listen, sent: bytes, reason: str
) -> None:
    port = listen()
    client = await port.connect()
    await client.send(framed(question("web"), question("slow.example")) + sent)
    if reason == "incomplete":
        client.end()
    assert shown(await client.frame()) == ["10.1.0.2"]
    await port.until(lambda: bool(port.resolver.slow))
    port.resolver.answer_all()
    assert rcode(await client.frame()) == 0
    with _reset_or_end():
        assert await client.some() == ENDED
    assert port.dropped == {reason: 1}
    await port.web(await port.connect())


@contextmanager
def _reset_or_end() -> Iterator[None]:
    """A close with unread input is a reset; the replies before it have been read."""
    try:
        yield
    except ConnectionResetError:
        return


async def test_a_query_that_never_completes(listen: Listen) -> None:
    port = listen(HURRIED)
    client = await port.connect()
    await client.send(framed(question("web"))[:-1])
    assert await client.some() == ENDED
    assert port.dropped == {"incomplete": 1}


async def test_byte_by_byte_is_no_sign_of_life(listen: Listen) -> None:
    port = listen(HURRIED)
    client = await port.connect()
    dripping = asyncio.ensure_future(_drip(client))
    with _reset_or_end():
        assert await client.some() == ENDED
    with pytest.raises(ConnectionError):
        await dripping
    assert port.dropped == {"incomplete": 1}


async def _drip(client: Client) -> None:
    await client.send(b"\x0f\xff")
    while True:
        await client.send(b"x")
        await asyncio.sleep(HURRIED.idle / 10)


# --- peers that do not read ---------------------------------------------------------------------------------


async def test_a_peer_that_does_not_take_its_replies(listen: Listen) -> None:
    port = listen(HURRIED)
    client = await port.connect()
    queries = framed(*[question("tasks.big")] * 100)

    async def ask_without_end() -> None:
        while True:
            await asyncio.get_running_loop().sock_sendall(client.socket, queries)

    asking = asyncio.ensure_future(ask_without_end())
    await port.until(lambda: "not taken" in port.dropped)
    with pytest.raises(ConnectionError):
        await asyncio.wait_for(asking, LIMIT)
    assert port.dropped == {"not taken": 1}
    assert len(port.listener) == 0
    answered = sum(port.resolver.requests.values())
    assert answered < 4_000  # of about 1 KB: reading stopped when the kernel took no more replies
    await port.web(await port.connect())


async def test_replies_that_come_late_to_a_peer_that_reads_nothing_are_bounded(listen: Listen) -> None:
    port = listen()
    client = await port.connect()
    await client.send(framed(*[question("slow.example")] * TCP_PIPELINE_MAX))
    await port.until(lambda: len(port.resolver.slow) == TCP_PIPELINE_MAX)
    for data, respond in port.resolver.slow:
        respond(data.ljust(65_535, b"\0"))
    assert port.dropped == {"not taken": 1}
    assert len(port.listener) == 0


# --- crowds -------------------------------------------------------------------------------------------------


async def test_at_the_limit_the_longest_idle_gives_way(listen: Listen) -> None:
    port = listen(ConnectionLimits(connections=4, per_asker=4))
    first, second, *_ = clients = [await port.connect() for _ in range(4)]
    for client in (second, *clients):  # so `first` was idle for less long than nobody, but for those after it
        await port.web(client)
    await port.web(first)  # now it is `second`
    newcomer = await port.connect()
    await port.web(newcomer)
    assert await second.some() == ENDED
    await port.web(first)
    assert port.dropped == {"gave way": 1}
    assert len(port.listener) == 4


async def test_whoever_waits_for_an_answer_stays(
    listen: Listen,
) -> None:
    port = listen(ConnectionLimits(connections=3, per_asker=3))
    asking = [await port.connect() for _ in range(2)]
    for client in asking:
        await client.send(framed(question("slow.example")))
    await port.until(lambda: len(port.resolver.slow) == 2)
    for _ in range(3):  # each gives way to the next
        await port.web(await port.connect())
    last = port.clients[-1]
    await last.send(framed(question("slow.example")))
    await port.until(lambda: len(port.resolver.slow) == 3)
    with _reset_or_end():
        refused = await port.connect()
        assert await refused.some() == ENDED
    assert port.dropped == {"gave way": 2, "too many connections": 1}
    port.resolver.answer_all()
    for client in (*asking, last):
        assert rcode(await client.frame()) == 0


async def test_one_asker_cannot_take_the_places_of_others(listen: Listen) -> None:
    port = listen(ConnectionLimits(connections=8, per_asker=3))
    quiet = await port.connect("127.0.0.2")
    await port.web(quiet)
    greedy = [await port.connect("127.0.0.3") for _ in range(20)]
    await port.web(greedy[-1])
    assert len(port.listener) == 4
    assert port.dropped == {"gave way": 17}
    await port.web(quiet)


async def test_a_crowd_makes_idleness_shorter(listen: Listen) -> None:
    port = listen(ConnectionLimits(connections=4, idle=2 * LIMIT, idle_crowded=0.1))
    few = [await port.connect() for _ in range(3)]
    for client in few:
        await port.web(client)
    last = await port.connect()  # the fourth of four
    await port.web(last)
    assert await few[0].some() == ENDED  # well before `idle`
    await port.web(few[1])  # three are no crowd


async def test_thousands_of_idle_connections_and_newcomers_among_them(listen: Listen) -> None:
    port = listen()
    for n in range(3000):
        client = await port.connect()
        if n % 100 == 99:
            await port.web(client)
    assert len(port.listener) == ConnectionLimits().connections
    assert port.dropped["gave way"] == 3000 - ConnectionLimits().connections


async def test_a_storm_of_resets(listen: Listen) -> None:
    port = listen()
    before = _descriptors()
    for n in range(500):
        client = await port.connect()
        await client.send(framed(question("tasks.big"), question("slow.example"))[: n % 60])
        client.reset()
    await port.web(survivor := await port.connect())
    port.resolver.answer_all()  # to nobody
    survivor.end()
    assert await survivor.some() == ENDED
    survivor.close()
    await port.until(lambda: len(port.listener) == 0)
    assert _descriptors() == before


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"))


# --- strangers ----------------------------------------------------------------------------------------------


async def test_strangers_are_reset(listen: Listen) -> None:
    port = listen()
    port.asker = None
    with _reset_or_end():
        client = await port.connect()
        assert await client.some() == ENDED
    assert port.dropped == {"stranger": 1}


async def test_who_becomes_a_stranger_is_answered_no_more(listen: Listen) -> None:
    port = listen()
    client = await port.connect()
    await client.send(framed(question("slow.example")))
    await port.until(lambda: bool(port.resolver.slow))
    port.asker = None
    await client.send(framed(question("web")))
    await port.until(lambda: bool(port.dropped))
    port.resolver.answer_all()
    assert rcode(await client.frame()) == 0  # it could ask this when it did
    with _reset_or_end():
        assert await client.some() == ENDED
    assert port.dropped == {"stranger": 1}


# --- out of descriptors -------------------------------------------------------------------------------------


@contextmanager
def no_descriptors_left() -> Iterator[None]:
    """None can be opened in here, but for those that are closed in here."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ExitStack() as fillers:
        null = os.open(os.devnull, os.O_RDONLY)
        fillers.callback(os.close, null)
        highest = max(int(name) for name in os.listdir("/proc/self/fd"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
        with suppress(OSError):
            while True:
                fillers.callback(os.close, os.dup(null))
        fillers.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        yield


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts descriptors in /proc")
async def test_accepting_pauses_while_there_are_no_descriptors(listen: Listen) -> None:
    port = listen()
    client = Client()
    port.clients.append(client)
    loop = asyncio.get_running_loop()
    with no_descriptors_left():
        started = loop.time()
        await client.connect(port.address)
        await client.send(framed(question("web")))
        await port.until(lambda: loop.time() > started + 3 * ACCEPT_PAUSE)
        assert 1 <= port.dropped["not accepted"] <= 5  # and not as often as the loop turns
    assert shown(await client.frame()) == ["10.1.0.2"]


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts descriptors in /proc")
async def test_an_idle_connection_gives_its_descriptor_to_a_newcomer(listen: Listen) -> None:
    port = listen()
    idle = await port.connect()
    await port.web(idle)
    client = Client()
    port.clients.append(client)
    with no_descriptors_left():
        await client.connect(port.address)
        await client.send(framed(question("web")))
        assert shown(await client.frame()) == ["10.1.0.2"]
    assert await idle.some() == ENDED
