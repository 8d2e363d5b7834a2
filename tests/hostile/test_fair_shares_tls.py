"""Connections that say nothing, of one address and of many: whoever else comes is served."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from mesh.http import limits
from mesh.http.downstream.listener import HttpListener
from mesh.http.downstream.published_port import HttpPort
from mesh.http.tls.certificate_store import TlsCertificates
from mesh.net.bound_listener import listen
from mesh.relay.tcp_connection import RelayOptions
from mesh.relay.tcp_port import TcpPort, plain_socket
from tests.http.conftest import Conversation, Stand, saying
from tests.http.tls.test_certificate_store import connect, in_one_file
from tests.support.waiting import until


class Attackers:
    """Sockets that connect from addresses of their own."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.sockets: list[socket.socket] = []

    async def connect(self, to: tuple[str, int], count: int, first: bytes = b"", addresses: int = 1) -> None:
        loop = asyncio.get_running_loop()
        for number in range(count):
            one = self._stack.enter_context(socket.socket())
            one.setblocking(False)
            one.bind((f"127.0.{1 + number % addresses // 250}.{1 + number % addresses % 250}", 0))
            with suppress(OSError):  # it may be refused at once
                await loop.sock_connect(one, to)
                await loop.sock_sendall(one, first)
            self.sockets.append(one)


@pytest.fixture
def attackers() -> Iterator[Attackers]:
    with ExitStack() as stack:
        yield Attackers(stack)


@pytest.fixture
async def front(stand: Stand, tmp_path: Path) -> AsyncIterator[HttpListener]:
    in_one_file(tmp_path, "a.pem", "a.example")
    certificates = TlsCertificates(str(tmp_path))
    certificates.refresh()
    port = await stand.port((await stand.endpoint(saying("served"))).endpoint)
    made = HttpListener(stand.core, listen("127.0.0.1", 0), port, tls=certificates.context)
    yield made
    await made.close()


async def good(to: HttpListener) -> None:
    one = await connect(to, "a.example")
    await one.request()
    assert (await one.response())[2] == b"served /"
    one.close()


async def test_silent_connections_of_one_address(front: HttpListener, attackers: Attackers) -> None:
    for _ in range(5):
        await attackers.connect(front.address, 300)
        await good(front)
    assert len(front._handshakes) == limits.HANDSHAKES_PER_ADDRESS
    assert front.refusals["gave_way"] == 1500 - limits.HANDSHAKES_PER_ADDRESS


async def test_silent_connections_of_many_addresses(front: HttpListener, attackers: Attackers) -> None:
    for _ in range(3):
        await attackers.connect(front.address, 400, addresses=8)
        await good(front)
    assert len(front._handshakes) <= limits.HANDSHAKES_MAX


async def test_connections_that_begin_to_say_something(front: HttpListener, attackers: Attackers) -> None:
    await attackers.connect(front.address, limits.HANDSHAKES_PER_ADDRESS, b"\x16\x03\x01")
    await until(lambda: len(front._handshakes._active) == limits.HANDSHAKES_PER_ADDRESS)
    await good(front)
    await attackers.connect(front.address, 50, b"\x16\x03\x01")
    await until(lambda: front.refusals["handshakes_per_address"] == 50)
    await good(front)


async def test_all_places_are_taken_by_those_that_begin_to_say_something(
    front: HttpListener, attackers: Attackers
) -> None:
    await attackers.connect(front.address, limits.HANDSHAKES_MAX, b"\x16", addresses=10)
    await until(lambda: len(front._handshakes._active) == limits.HANDSHAKES_MAX)
    await good(front)


# --- without TLS ---


async def served(port: HttpPort) -> None:
    reader, writer = await asyncio.open_connection(*port.address)
    one = Conversation(reader, writer)
    await one.request()
    assert (await one.response())[2] == b"served /"
    one.close()


async def test_silent_connections_to_http(
    stand: Stand, attackers: Attackers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "CONNECTIONS_MAX", 400)
    stand.core.per_address = 100
    port = await stand.port((await stand.endpoint(saying("served"))).endpoint)
    for _ in range(3):
        await attackers.connect(port.address, 400, b"GET / HT", addresses=10)
        await served(port)
        await attackers.connect(port.address, 400, addresses=10)
        await served(port)
    assert port.stats.active <= 400
    assert port.stats.errors["gave_way"] > 0


async def test_idle_connections_give_way_after_silent_ones(
    stand: Stand, attackers: Attackers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "CONNECTIONS_MAX", 101)
    monkeypatch.setattr(limits, "SPARED_AT_ONCE", 1)
    port = await stand.port((await stand.endpoint(saying("served"))).endpoint)
    client = await stand.client(port)
    await client.request()
    await client.response()
    await attackers.connect(port.address, 100, addresses=100)
    await until(lambda: port.stats.active == 101)
    for _ in range(50):
        await served(port)
    await client.request()  # it has asked before: those that never did went first
    assert (await client.response())[2] == b"served /"


async def test_silent_connections_that_take_all_descriptors(stand: Stand, attackers: Attackers) -> None:
    port = await stand.port((await stand.endpoint(saying("served"))).endpoint)
    client = await stand.client(port)
    await client.request()
    await client.response()
    await attackers.connect(port.address, 100)
    await until(lambda: port.stats.active == 101)
    port._http_listener._on_not_accepted("fd_limit")  # as when the kernel gave none
    await until(lambda: port.stats.active == 101 - limits.SPARED_AT_ONCE)
    await client.request()
    assert (await client.response())[2] == b"served /"


# --- mode: proxy ---


async def test_idle_connections_through_a_relayed_port(
    stand: Stand, attackers: Attackers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mesh.relay.tcp_proxy.MAX_CONNECTIONS", 200)
    monkeypatch.setattr("mesh.relay.tcp_proxy.CONNECTIONS_PER_ADDRESS", 50)
    task = await stand.endpoint(saying("served"))
    port = TcpPort(listen("127.0.0.1", 0), (task.endpoint,), RelayOptions(), plain_socket)
    try:
        await attackers.connect(port.address, 80)
        await until(lambda: port.stats.errors["per_address"] == 30)
        await relayed(port)
        await attackers.connect(port.address, 300, addresses=8)
        for _ in range(5):
            await relayed(port)
        assert port.active <= 200
    finally:
        await port.close()


async def relayed(port: TcpPort) -> None:
    reader, writer = await asyncio.open_connection(*port.address)
    one = Conversation(reader, writer)
    await one.request()
    assert (await one.response())[2] == b"served /"
    one.close()
