"""Clients of HTTP/2 that mean harm: counted and cut off; what they hold is bounded, and others are served."""

import asyncio
import gc
import os
import socket
import tracemalloc
from collections.abc import AsyncIterator, Callable

import pytest
from hpack import Encoder, NeverIndexedHeaderTuple
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from mesh.http import h2_transport, limits
from mesh.http.codec.h2_protocol import PREFACE
from mesh.http.downstream.h2_connection import H2Client
from mesh.http.downstream.published_port import HttpPort
from tests.http.conftest import LIMIT, Conversation, Stand

GREETING = SettingsFrame(0).serialize()
SIZE = 5_000_000  # of a response that some do not take


async def endpoint(to: Conversation) -> None:
    while head := await to.head():
        if "/never" in head:
            await to.rest()
            return
        size = SIZE if "/large" in head else 2
        await to.say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (size, bytes(size)))


@pytest.fixture
async def port(stand: Stand) -> AsyncIterator[HttpPort]:
    port = await stand.port((await stand.endpoint(endpoint)).endpoint)
    others = await stand.client(port)
    yield port
    # Whatever was done to it: another client is served, on the connection that it had.
    await others.request()
    assert (await others.response())[0] == 200
    others.close()


class Enemy:
    """Speaks bytes, and reads only when told to."""

    def __init__(self, port: HttpPort) -> None:
        self.sock = socket.socket()
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # or megabytes fit in it
        self.sock.connect(port.address)
        self.sock.setblocking(False)
        self.encoder = Encoder()
        self._loop = asyncio.get_running_loop()

    async def say(self, data: bytes) -> None:
        async with asyncio.timeout(LIMIT):
            await self._loop.sock_sendall(self.sock, data)

    async def greet(self, **settings: int) -> None:
        named = {getattr(SettingsFrame, name): value for name, value in settings.items()}
        await self.say(PREFACE + SettingsFrame(0, named).serialize())

    def headers(self, id_: int, path: str = "/", *, end: bool = True, padding: int = 0) -> bytes:
        fields = [(":method", "GET"), (":scheme", "http"), (":path", path), (":authority", "a")]
        if padding:
            fields.append(NeverIndexedHeaderTuple("x-padding", "y" * padding))
        ends = ["END_STREAM"] * end
        return HeadersFrame(id_, self.encoder.encode(fields), flags=["END_HEADERS", *ends]).serialize()

    async def rest(self) -> bytes:
        got = b""
        async with asyncio.timeout(LIMIT):
            while data := await self._loop.sock_recv(self.sock, 65536):
                got += data
        return got

    def close(self) -> None:
        self.sock.close()


@pytest.fixture
async def enemy(port: HttpPort) -> AsyncIterator[Enemy]:
    one = Enemy(port)
    yield one
    one.close()


async def none_left(port: HttpPort, count: int = 1) -> None:
    """All but so many connections are gone."""
    async with asyncio.timeout(LIMIT):
        while port.stats.active > count:
            await asyncio.sleep(0)


def rapid_reset(enemy: Enemy) -> bytes:
    ids = range(1, 4001, 2)
    return b"".join(enemy.headers(id_, "/never") + RstStreamFrame(id_, 8).serialize() for id_ in ids)


def empty_data(enemy: Enemy) -> bytes:
    return enemy.headers(1, "/never", end=False) + DataFrame(1).serialize() * 2000


def bomb(_: Enemy) -> bytes:
    """A byte for each time that a field of 4 KB comes again."""
    block = Encoder().encode([("x", "y" * 4000)], huffman=False) + b"\xbe" * 8000
    return HeadersFrame(1, block, flags=["END_HEADERS"]).serialize()


FLOODS: dict[str, Callable[[Enemy], bytes]] = {
    "rapid reset": rapid_reset,
    "ping": lambda _: PingFrame(0, bytes(8)).serialize() * 2000,
    "settings": lambda _: SettingsFrame(0, {SettingsFrame.INITIAL_WINDOW_SIZE: 5}).serialize() * 2000,
    "empty data": empty_data,
    "continuation": lambda _: HeadersFrame(1, b"").serialize() + ContinuationFrame(1, b"").serialize() * 2000,
    "a head without an end": lambda _: (
        HeadersFrame(1, bytes(16_000)).serialize() + ContinuationFrame(1, bytes(16_000)).serialize() * 20
    ),
    "a bomb of fields": bomb,
    "unknown frames": lambda _: b"\0\0\0\xfa\0\0\0\0\0" * 2000,
}


@pytest.mark.parametrize("kind", FLOODS)
async def test_a_flood_ends_the_connection_with_enhance_your_calm(
    port: HttpPort, enemy: Enemy, kind: str
) -> None:
    await enemy.greet()
    await enemy.say(FLOODS[kind](enemy))
    enemy.sock.shutdown(socket.SHUT_WR)
    got = await enemy.rest()
    goaway = got.rfind(b"\0\0\x08\x07\0\0\0\0\0")
    assert got[goaway + 13 : goaway + 17] == b"\0\0\0\x0b"  # ENHANCE_YOUR_CALM
    assert port.stats.errors["h2_flood"] == 1
    await none_left(port)
    assert port.target.backend.servers.popitem()[1].active == 0


async def test_a_client_that_does_not_read_is_not_read_from(port: HttpPort, enemy: Enemy) -> None:
    """Answers would pile up here; so no more is read, and the enemy's own side fills up. Or it has asked for
    so many that it is told to be calm."""
    await enemy.greet()
    for turn in range(1000):
        first = 200 * turn + 1
        data = b"".join(enemy.headers(id_, padding=2000) for id_ in range(first, first + 200, 2))
        try:
            async with asyncio.timeout(1):
                await asyncio.get_running_loop().sock_sendall(enemy.sock, data)
        except (TimeoutError, ConnectionError):
            break
    assert turn < 999
    held = [
        len(one._held) + len(one.protocol.out)
        for one in port._http_listener._clients
        if isinstance(one, H2Client)
    ]
    assert held or port.stats.errors["h2_flood"]
    assert sum(held) < 2 * h2_transport.OUT_MAX


async def test_streams_without_a_window_hold_little_memory(
    port: HttpPort, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred streams whose responses nobody takes: some bytes of each are held, and the rest not read."""
    monkeypatch.setattr(limits, "BODY_SECONDS", 1.0)
    enemy = Enemy(port)
    await enemy.greet(INITIAL_WINDOW_SIZE=0)
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    await enemy.say(b"".join(enemy.headers(id_, "/large") for id_ in range(1, 201, 2)))
    server = next(iter(port.target.backend.servers.values()))
    async with asyncio.timeout(LIMIT):
        while server.requests < 100:
            await asyncio.sleep(0)
    held = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert held < 100 * 2 * limits.READ_BYTES + 2 * SIZE * 8  # the endpoints' own are in it
    async with asyncio.timeout(LIMIT):
        while server.active:
            await asyncio.sleep(0.01)
    assert port.target.stats.faults["client_gone"] == 100
    enemy.close()


@pytest.mark.parametrize(
    "begun",
    [
        PREFACE[:10],
        PREFACE,
        PREFACE + GREETING[:5],
        PREFACE + GREETING + HeadersFrame(1, b"\x82").serialize(),
    ],
)
async def test_an_incomplete_beginning_is_timed_out(
    port: HttpPort, enemy: Enemy, begun: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "HEAD_SECONDS", 0.1)
    monkeypatch.setattr("mesh.http.downstream.h2_connection.H2Client.idle_seconds", 0.1)
    monkeypatch.setattr(limits, "LINGER_SECONDS", 0.1)
    await enemy.say(begun)
    await enemy.rest()
    await none_left(port)


@pytest.mark.parametrize(
    "state",
    ["greeted", "in a block", "asked", "in a body", "not reading"],
)
async def test_a_reset_in_every_state_leaves_nothing(port: HttpPort, state: str) -> None:
    loop = asyncio.get_running_loop()
    descriptors = len(os.listdir("/proc/self/fd"))
    enemies = [Enemy(port) for _ in range(20)]
    for enemy in enemies:
        await enemy.greet()
        match state:
            case "in a block":
                await enemy.say(HeadersFrame(1, b"\x82").serialize())
            case "asked":
                await enemy.say(enemy.headers(1, "/never"))
            case "in a body":
                await enemy.say(enemy.headers(1, "/never", end=False) + DataFrame(1, b"abc").serialize())
            case "not reading":
                await enemy.say(WindowUpdateFrame(0, 2**30).serialize() + enemy.headers(1, "/large"))
    if state in ("asked", "in a body", "not reading"):
        server = next(iter(port.target.backend.servers.values()))
        async with asyncio.timeout(LIMIT):
            while server.requests < len(enemies):
                await asyncio.sleep(0)
    for enemy in enemies:
        enemy.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        enemy.close()
    await none_left(port)
    server = next(iter(port.target.backend.servers.values()))
    assert server.active == 0
    server.forget_idle()
    async with asyncio.timeout(LIMIT):
        while len(os.listdir("/proc/self/fd")) > descriptors:
            await asyncio.sleep(0.01)
    assert loop.is_running()
