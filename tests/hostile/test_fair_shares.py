"""Clients and tasks that take more than their share of HTTP: others beside them are answered throughout."""

import asyncio
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import pytest
from hpack import Encoder
from hyperframe.frame import WindowUpdateFrame

from mesh.balance.policies import Endpoint
from mesh.http import limits
from mesh.http.downstream.published_port import HttpPort
from tests.http.conftest import LIMIT, Conversation, Stand, serving
from tests.http.h2_peer import H2Tasks, Heard, Peer, h2_client, h2_serving
from tests.support import grpc_crowd, http_attacks
from tests.support.waiting import until

DOWNLOAD = 2_000_000


class Side:
    """A port in front of tasks, and clients that are closed at the end."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack
        self.stand = Stand(stack)

    async def h2_port(self, handler: object) -> tuple[HttpPort, H2Tasks]:
        """In front of a task that is asked in HTTP/2."""
        tasks = await self._stack.enter_async_context(h2_serving(handler))  # type: ignore[arg-type]
        port = await self.stand.port(tasks.endpoint)
        port.target.h2 = True
        return port, tasks

    async def h1_port(self, handler: object) -> HttpPort:
        tasks = await self._stack.enter_async_context(serving(handler))  # type: ignore[arg-type]
        return await self.stand.port(tasks.endpoint)

    async def h2(self, port: HttpPort, window: int | None = None) -> Peer:
        peer = await h2_client(port.address, window)
        self._stack.push_async_callback(peer.close)
        return peer

    async def h1(self, port: HttpPort) -> Conversation:
        return await self.stand.client(port)


@pytest.fixture
async def side() -> AsyncIterator[Side]:
    async with AsyncExitStack() as stack:
        yield Side(stack)


async def answered(client: Conversation, body: bytes = b"hi") -> None:
    """A good client's request."""
    await client.request()
    assert (await client.response())[::2] == (200, body)


# --- HTTP/2 to tasks ---


async def files(peer: Peer, heard: Heard) -> None:
    await peer.until(lambda: heard.ended)
    peer.respond(heard.id)
    size = {"/large": DOWNLOAD, "/huge": 4 * DOWNLOAD}.get(heard.get(":path"), 2)
    await peer.send(heard.id, b"hi" * (size // 2), end=True)


class TestOneLinkForMany:
    @pytest.mark.parametrize("streams", [4, 20, 100])
    async def test_downloads_that_nobody_takes(self, side: Side, streams: int) -> None:
        port, tasks = await side.h2_port(files)
        good = await side.h1(port)
        await answered(good)
        enemy = await side.h2(port, window=0)
        for _ in range(streams):
            enemy.ask(path="/large")
        await tasks.asked(streams + 1)
        for _ in range(20):
            await answered(good)
        other = await side.h2(port)
        assert (await other.whole(other.ask(path="/large"))).ended
        assert not tasks.faults

    async def test_five_slow_downloads_without_malice(self, side: Side) -> None:
        """Of HTTP/1: they take a little, nothing for a while, and then the rest."""
        port, tasks = await side.h2_port(files)
        good = await side.h1(port)
        slow = [await side.h1(port) for _ in range(5)]
        for one in slow:
            await one.request(first="GET /huge HTTP/1.1")
            assert await one.head()
        for _ in range(20):
            await answered(good)
        taken = sum([len(await one.chunks()) for one in slow])
        assert taken == 5 * 4 * DOWNLOAD
        assert not tasks.faults

    async def test_who_paused_goes_on_where_it_was(self, side: Side) -> None:
        port, tasks = await side.h2_port(files)
        late = await side.h2(port, window=0)
        asked = [late.ask(path="/large") for _ in range(30)]
        await tasks.asked(30)
        late.h2.update_settings({4: 2**20})
        late.push()
        for one in asked:
            assert (await late.whole(one)).ended
            assert len(one.body) == DOWNLOAD

    async def test_uploads_that_the_task_does_not_take(self, side: Side) -> None:
        """They keep the window of the connection to it. Others get another connection, bodies and all."""

        async def endpoint(peer: Peer, heard: Heard) -> None:
            if heard.get(":path") == "/deaf":
                peer.taking = False
                return
            await peer.until(lambda: heard.ended)
            peer.respond(heard.id, ("content-length", "2"))
            await peer.send(heard.id, b"hi", end=True)

        port, tasks = await side.h2_port(endpoint)
        good = await side.h1(port)
        enemy = await side.h2(port)
        deaf = [enemy.ask(path="/deaf", method="POST", end=False) for _ in range(6)]
        await tasks.asked(6)
        sending = [asyncio.create_task(enemy.send(one.id, bytes(DOWNLOAD))) for one in deaf]
        server = next(iter(port.target.backend.servers.values()))
        await until(lambda: server.links[0].stalled)  # type: ignore[attr-defined]
        for _ in range(20):
            await answered(good)
            await good.request("Content-Length: 30000", first="POST / HTTP/1.1", body=bytes(30_000))
            assert (await good.response())[2] == b"hi"
        assert tasks.connections == 2
        for one in sending:
            one.cancel()
        await asyncio.gather(*sending, return_exceptions=True)


# --- HTTP/2 from clients ---


class TestOneConnectionForMany:
    @pytest.mark.parametrize("to", ["h1", "h2"])
    async def test_bodies_are_credited_before_they_are_answered(self, side: Side, to: str) -> None:
        """Six POSTs of 200 kB wait for their answers; a small one beside them does not."""
        release = asyncio.Event()

        async def h1_endpoint(one: Conversation) -> None:
            while head := await one.head():
                size = int(head.lower().split("content-length: ")[1].split("\r")[0])
                await one.read(size)
                if "/slow" in head:
                    await release.wait()
                await one.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")

        async def h2_endpoint(peer: Peer, heard: Heard) -> None:
            await peer.until(lambda: heard.ended)
            if heard.get(":path") == "/slow":
                await release.wait()
            peer.respond(heard.id)
            await peer.send(heard.id, b"hi", end=True)

        port = await side.h1_port(h1_endpoint) if to == "h1" else (await side.h2_port(h2_endpoint))[0]
        peer = await side.h2(port)
        slow = []
        for _ in range(6):
            heard = peer.ask(("content-length", "200000"), path="/slow", method="POST", end=False)
            async with asyncio.timeout(LIMIT):
                await peer.send(heard.id, bytes(200_000), end=True)
            slow.append(heard)
        for _ in range(10):
            heard = peer.ask(("content-length", "1000"), method="POST", end=False)
            await peer.send(heard.id, bytes(1000), end=True)
            assert (await peer.whole(heard)).body == b"hi"
        assert not any(one.ended for one in slow)
        release.set()
        for one in slow:
            assert (await peer.whole(one)).status == 200

    async def test_bodies_that_a_task_does_not_take_hold_up_no_others(self, side: Side) -> None:
        """It reads nothing of some: these wait, as far as their windows go, on the same connection."""

        async def endpoint(one: Conversation) -> None:
            while head := await one.head():
                if "/deaf" in head:
                    await asyncio.Event().wait()
                await one.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")

        port = await side.h1_port(endpoint)
        peer = await side.h2(port)
        deaf = [peer.ask(path="/deaf", method="POST", end=False) for _ in range(40)]
        sending = [asyncio.create_task(peer.send(one.id, bytes(DOWNLOAD))) for one in deaf]
        for _ in range(20):
            assert (await peer.whole(peer.ask())).body == b"hi"
        for one in sending:
            one.cancel()
        await asyncio.gather(*sending, return_exceptions=True)

    async def test_three_hundred_calls_of_grpc_at_once(self, side: Side) -> None:
        """20 kB up, 30 kB down, by grpcio on both sides: in some rounds they once waited for each other."""
        script = str(Path(grpc_crowd.__file__))

        async def run(*words: str) -> asyncio.subprocess.Process:
            return await asyncio.create_subprocess_exec(
                sys.executable, script, *words, stdout=asyncio.subprocess.PIPE
            )

        server = await run("serve")
        assert server.stdout is not None
        try:
            port = await side.stand.port(Endpoint("127.0.0.1", int(await server.stdout.readline())))
            port.target.h2 = True
            for _ in range(4):
                client = await run("call", str(port.address[1]), "300")
                assert (await client.communicate())[0].strip() == b"300"
        finally:
            server.kill()
            await server.wait()


# --- who takes his time ---


async def eager(one: Conversation) -> None:
    """Takes whatever comes, and answers at the end of it."""
    while head := await one.head():
        if "/large" in head:
            await one.say(b"HTTP/1.1 200 OK\r\nContent-Length: 20000000\r\n\r\n")
            await one.say(bytes(20_000_000))
            continue
        if "chunked" in head:
            await one.chunks()
        elif "content-length: " in head.lower():
            await one.read(int(head.lower().split("content-length: ")[1].split("\r")[0]))
        await one.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")


class TestTrickles:
    @pytest.fixture(autouse=True)
    def short(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(limits, "BODY_SECONDS", 0.4)  # 96 bytes at least

    @staticmethod
    async def trickle(say: Callable[[], Awaitable[None]], over: Callable[[], bool]) -> int:
        """A byte now and then, more often than the limit asks for one. How many it came to."""
        async with asyncio.timeout(LIMIT):
            count = 0
            while not over():
                await say()
                count += 1
                await asyncio.sleep(0.1)
        return count

    async def test_a_body_of_http_1(self, side: Side) -> None:
        port = await side.h1_port(eager)
        good, enemy = await side.h1(port), await side.h1(port)
        await enemy.request("Content-Length: 1000", first="POST / HTTP/1.1")
        answer = asyncio.create_task(enemy.response())

        async def say() -> None:
            await enemy.say("x")
            await answered(good)

        await self.trickle(say, answer.done)
        assert answer.result()[0] == 408
        assert port.stats.errors["body_timeout"] == 1

    async def test_a_body_of_http_2(self, side: Side) -> None:
        port = await side.h1_port(eager)
        good, enemy = await side.h1(port), await side.h2(port)
        heard = enemy.ask(("content-length", "1000"), method="POST", end=False)

        async def say() -> None:
            if heard.reset is None:
                await enemy.send(heard.id, b"x")
            await answered(good)

        await self.trickle(say, lambda: bool(heard.fields))
        assert heard.status == 408

    async def test_a_body_that_keeps_up(self, side: Side) -> None:
        """Slowly, for several times the limit."""
        port = await side.h1_port(eager)
        client = await side.h1(port)
        await client.request("Content-Length: 1600", first="POST / HTTP/1.1")
        for _ in range(16):
            await client.say("x" * 100)
            await asyncio.sleep(0.1)
        assert (await client.response())[0] == 200

    async def test_rare_messages_of_unknown_length(self, side: Side, monkeypatch: pytest.MonkeyPatch) -> None:
        """An address has so many of them; what is more is held to the rate."""
        monkeypatch.setattr(side.stand.core.bytes.slow, "most", 1)
        port = await side.h1_port(eager)
        clients = [await side.h1(port) for _ in range(2)]
        for one in clients:
            await one.request("Transfer-Encoding: chunked", first="POST / HTTP/1.1")
        answers = [asyncio.create_task(one.response()) for one in clients]

        async def say() -> None:
            for one, answer in zip(clients, answers, strict=True):
                if not answer.done():
                    await one.say("1\r\nx\r\n")

        await self.trickle(say, lambda: any(one.done() for one in answers))
        (cut,) = (one for one in answers if one.done())
        assert cut.result()[0] == 408
        stays = answers.index(next(one for one in answers if one is not cut))
        for _ in range(10):
            await clients[stays].say("1\r\nx\r\n")
            await asyncio.sleep(0.1)
        await clients[stays].say("0\r\n\r\n")
        assert (await answers[stays])[0] == 200

    async def test_a_quiet_stream_of_grpc_goes_on(self, side: Side) -> None:
        async def endpoint(peer: Peer, heard: Heard) -> None:
            await peer.until(lambda: heard.ended)
            peer.respond(heard.id, ("content-type", "application/grpc"))
            await peer.send(heard.id, bytes(heard.body), end=True)

        port, _ = await side.h2_port(endpoint)
        client = await side.h2(port)
        heard = client.ask(("content-type", "application/grpc"), method="POST", end=False)
        for message in (b"first", b"second"):
            await client.send(heard.id, message)
            await asyncio.sleep(1.0)
        await client.send(heard.id, b"", end=True)
        assert (await client.whole(heard)).body == b"firstsecond"

    @pytest.mark.parametrize("version", [1, 2])
    async def test_who_reads_a_byte_at_a_time(self, side: Side, version: int) -> None:
        port = await side.h1_port(eager)
        good = await side.h1(port)
        loop = asyncio.get_running_loop()
        with socket.socket() as enemy:
            enemy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            enemy.connect(port.address)
            enemy.setblocking(False)
            asks = b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n"
            if version == 2:
                opened = http_attacks.greeting(INITIAL_WINDOW_SIZE=2**30)
                opened += WindowUpdateFrame(0, 2**30).serialize()
                asks = opened + http_attacks.request(Encoder(), 1, "/large")
            await loop.sock_sendall(enemy, asks)
            await until(lambda: port.stats.active == 2)

            async def take() -> None:
                with suppress(OSError):
                    enemy.recv(1)
                await answered(good)

            await self.trickle(take, lambda: port.target.stats.faults["client_gone"] == 1)
