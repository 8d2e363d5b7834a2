"""Connections that ask for nothing, to the metrics port and a manager's feed. Others are answered beside."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import pytest

from mesh.net.limits.connection_guard import GuardLimits
from mesh.peers.feed import server as feed_server
from sidecar.admin import api
from sidecar.admin.api import SurfaceServer, metrics_app
from sidecar.config import Address
from tests.discovery.test_feed import CA, Manager, Worker
from tests.sidecar.conftest import FakeState
from tests.support.waiting import running, until


class Silent:
    """Sockets that connect, each from an address of its own if need be."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.sockets: list[socket.socket] = []

    async def connect(self, to: tuple[str, int], count: int, first: bytes = b"", addresses: int = 1) -> None:
        loop = asyncio.get_running_loop()
        for number in range(count):
            one = self._stack.enter_context(socket.socket())
            one.setblocking(False)
            one.bind((f"127.0.1.{1 + number % addresses}", 0))
            with suppress(OSError):  # it may be closed at once
                await loop.sock_connect(one, to)
                await loop.sock_sendall(one, first)
            self.sockets.append(one)

    async def ended(self) -> int:
        """How many the other side has closed."""
        loop, count = asyncio.get_running_loop(), 0
        for one in self.sockets:
            try:
                async with asyncio.timeout(0):
                    count += not await loop.sock_recv(one, 4096)
            except TimeoutError:
                continue
            except OSError:
                count += 1
        return count


@pytest.fixture
def silent() -> Iterator[Silent]:
    with ExitStack() as stack:
        yield Silent(stack)


# --- 9180 ---


@asynccontextmanager
async def metrics() -> AsyncIterator[Address]:
    server = SurfaceServer(metrics_app(FakeState()), Address("127.0.0.1", 0))
    bound = await server.start()
    assert isinstance(bound, Address)
    try:
        yield bound
    finally:
        await server.stop()


async def scraped(at: Address) -> None:
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(10)) as session,
        session.get(f"http://{at}/healthz") as response,
    ):
        assert await response.text() == "ok\n"


@pytest.mark.parametrize("first", [b"", b"GET /metrics HTT"])
async def test_silent_connections_to_the_metrics_port(silent: Silent, first: bytes) -> None:
    async with metrics() as at:
        await silent.connect((at.host, at.port), 3 * api.LIMITS.per_address, first)
        await scraped(at)
        await silent.connect((at.host, at.port), 2 * api.LIMITS.connections, first, addresses=20)
        await scraped(at)
        closed = len(silent.sockets) - api.LIMITS.connections
        seen = 0
        async with asyncio.timeout(10):
            while seen < closed:
                seen = await silent.ended()
                await asyncio.sleep(0)


@pytest.mark.parametrize("first", [b"", b"GET /metrics HTT", b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"])
async def test_they_end_by_themselves(silent: Silent, first: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "LIMITS", GuardLimits(256, 32, first=0.1, next=0.1))
    async with metrics() as at:
        await silent.connect((at.host, at.port), 20, first)
        ended = 0
        async with asyncio.timeout(10):
            while ended < 20:
                ended = await silent.ended()
                await asyncio.sleep(0)
        await scraped(at)


async def test_one_whose_request_is_answered_does_not_give_way(
    silent: Silent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "LIMITS", GuardLimits(4, 4, first=0.1, next=0.1))
    go_on = asyncio.Event()

    class Slow(FakeState):
        async def reading(self):  # type: ignore[no-untyped-def]
            await go_on.wait()
            return await super().reading()

    server = SurfaceServer(metrics_app(Slow()), Address("127.0.0.1", 0))
    bound = await server.start()
    assert isinstance(bound, Address)
    async with aiohttp.ClientSession() as session, session.get(f"http://{bound}/healthz") as warm:
        assert warm.status == 200
        asked = asyncio.create_task(session.get(f"http://{bound}/metrics"))
        await until(lambda: len(asyncio.all_tasks()) > 1)
        await asyncio.sleep(0)
        for _ in range(3):
            await silent.connect((bound.host, bound.port), 20)
            await scraped(bound)
        go_on.set()
        response = await asked
        assert response.status == 200
        assert b"mesh_" in await response.read()
        response.release()
    await server.stop()


# --- 9182 ---


@asynccontextmanager
async def feed(folder: Path) -> AsyncIterator[Manager]:
    manager = Manager(CA.node(folder / "manager", "m1", "swarm-manager"))
    async with running(manager.server.run()):
        await until(lambda: manager.server.serving, "the feed is open")
        yield manager


@pytest.mark.parametrize("first", [b"", b"\x16\x03\x01"])
async def test_silent_handshakes_with_the_feed(tmp_path: Path, silent: Silent, first: bytes) -> None:
    async with feed(tmp_path) as manager:
        server = manager.server
        to = ("127.0.0.1", manager.port)
        limits = feed_server.HANDSHAKES
        await silent.connect(to, 3 * limits.per_address, first)
        await until(lambda: server.refused["silent"] >= 2 * limits.per_address)
        one = Worker(CA.node(tmp_path / "worker", "w1"), manager.port)
        async with running(one.client.run()):
            await until(lambda: one.views, "a view came")
            await silent.connect(to, 2 * limits.places, first, addresses=30)
            assert server._listener is not None
            assert server._listener.handshakes <= limits.places
            two = Worker(CA.node(tmp_path / "worker2", "w1"), manager.port)
            async with running(two.client.run()):
                await until(lambda: two.views, "a second one's view came")
                assert one.client.following
