"""A relayed port as its clients and tasks see it, on loopback, under asyncio and uvloop."""

import asyncio
import errno
import hashlib
import os
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from ipaddress import ip_network

import pytest

from mesh.balance.policies import Endpoint, Policy
from mesh.balance.rendezvous import best, slot_of
from mesh.net import acceptor
from mesh.net.bound_listener import PortTaken, listen
from mesh.relay import tcp_connection as connection_module
from mesh.relay.proxy_protocol import header
from mesh.relay.splice import BULK_BYTES
from mesh.relay.tcp_connection import RelayOptions
from mesh.relay.tcp_port import TcpPort
from tests.support.waiting import until


class Backend:
    """A blocking TCP server on threads: `serve` gets each connection."""

    def __init__(self, serve: Callable[[socket.socket], None], address: str = "127.0.0.1") -> None:
        self._listener = socket.create_server((address, 0), backlog=512)
        self._serve = serve
        self.endpoint = Endpoint(*self._listener.getsockname()[:2])
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._one, args=(connection,), daemon=True).start()

    def _one(self, connection: socket.socket) -> None:
        with closing(connection):
            try:
                self._serve(connection)
            except OSError:
                return

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def read_all(sock: socket.socket) -> bytes:
    chunks = []
    while chunk := sock.recv(65536):
        chunks.append(chunk)
    return b"".join(chunks)


def digest_at_eof(sock: socket.socket) -> None:
    """Answers only when the client has half-closed: the test that half-close goes through."""
    sock.sendall(hashlib.sha256(read_all(sock)).digest())


def greet(name: bytes) -> Callable[[socket.socket], None]:
    return lambda sock: sock.sendall(name)


@pytest.fixture
def backends() -> Iterator[Callable[..., Backend]]:
    made: list[Backend] = []

    def make(serve: Callable[[socket.socket], None], address: str = "127.0.0.1") -> Backend:
        made.append(Backend(serve, address))
        return made[-1]

    yield make
    for backend in made:
        backend.close()


@pytest.fixture
async def port() -> AsyncIterator[Callable[..., TcpPort]]:
    made: list[TcpPort] = []

    def make(*endpoints: Endpoint, **options: object) -> TcpPort:
        made.append(TcpPort(listen("127.0.0.1", 0), endpoints, RelayOptions(**options)))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for one in made:
        await one.close()


def exchange(address: tuple[str, int], data: bytes) -> bytes:
    """Send, half-close, read to the end. Runs on a thread."""
    with socket.create_connection(address, timeout=30) as sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        return read_all(sock)


def greeting(address: tuple[str, int]) -> bytes:
    with socket.create_connection(address, timeout=30) as sock:
        return read_all(sock)


def was_reset(address: tuple[str, int]) -> bool:
    try:
        greeting(address)
    except ConnectionResetError:
        return True
    return False


def dead_endpoint() -> Endpoint:
    """An address where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return Endpoint(*taken.getsockname()[:2])


def read_greeting(sock: socket.socket) -> bytes:
    with sock:
        return read_all(sock)


@pytest.mark.parametrize("size", [0, 1, 70_000, BULK_BYTES * 20])
async def test_half_close_goes_through_and_every_byte_arrives(
    backends: Callable[..., Backend], port: Callable[..., TcpPort], size: int
) -> None:
    relayed = port(backends(digest_at_eof).endpoint)
    data = os.urandom(size)
    assert await asyncio.to_thread(exchange, relayed.address, data) == hashlib.sha256(data).digest()
    await until(lambda: relayed.stats.active == 0)
    assert (relayed.stats.received, relayed.stats.sent) == (size, 32)
    assert not relayed.stats.errors


async def test_bulk_both_ways_at_once_with_a_reader_that_starts_late(
    backends: Callable[..., Backend], port: Callable[..., TcpPort]
) -> None:
    def echo(sock: socket.socket) -> None:
        while chunk := sock.recv(65536):
            sock.sendall(chunk)

    relayed = port(backends(echo).endpoint)
    data = os.urandom(32 * 1024 * 1024)

    late = threading.Event()

    def talk() -> bytes:
        with socket.create_connection(relayed.address, timeout=30) as sock:
            sender = threading.Thread(target=lambda: (sock.sendall(data), sock.shutdown(socket.SHUT_WR)))
            sender.start()
            late.wait(20)  # until then the echo backs up through the relay to the sender
            answer = read_all(sock)
            sender.join()
            return answer

    talking = asyncio.create_task(asyncio.to_thread(talk))
    await until(lambda: relayed.stats.received > BULK_BYTES)
    late.set()
    assert await talking == data


async def test_soak_of_half_closing_connections(
    backends: Callable[..., Backend], port: Callable[..., TcpPort]
) -> None:
    """Hundreds of connections, many at once, each half-closed by the client and then by the task."""
    relayed = port(backends(digest_at_eof).endpoint, backends(digest_at_eof).endpoint)
    before = len(os.listdir("/proc/self/fd"))

    async def one(number: int) -> None:
        data = bytes([number % 251]) * (number * 997 % 600_000)
        assert await asyncio.to_thread(exchange, relayed.address, data) == hashlib.sha256(data).digest()

    for start in range(0, 600, 30):
        await asyncio.gather(*(one(number) for number in range(start, start + 30)))
    await until(lambda: relayed.stats.active == 0)
    assert relayed.stats.connections == 600
    assert not relayed.stats.errors
    await until(lambda: len(os.listdir("/proc/self/fd")) <= before + 2)


async def test_a_dead_endpoint_is_retried_on_another_and_then_avoided(
    backends: Callable[..., Backend], port: Callable[..., TcpPort]
) -> None:
    relayed = port(dead_endpoint(), backends(greet(b"hello")).endpoint)
    for _ in range(20):
        assert await asyncio.to_thread(greeting, relayed.address) == b"hello"
    assert relayed.stats.errors == {"refused": 3}
    assert relayed.stats.retries == 3


async def test_an_endpoint_that_does_not_answer_costs_the_connect_timeout_once(
    backends: Callable[..., Backend], port: Callable[..., TcpPort], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A listener whose backlog is full does not answer further connects.
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for sock in (first, second):
            sock.setblocking(False)
            sock.connect_ex(full.getsockname())
        silent = Endpoint(*full.getsockname()[:2])
        relayed = port(silent, backends(greet(b"hello")).endpoint, connect_timeout=0.05)
        assert await asyncio.to_thread(greeting, relayed.address) == b"hello"
        assert relayed.stats.errors == {"timeout": 1}


async def test_no_endpoint_is_a_reset_at_once(port: Callable[..., TcpPort]) -> None:
    relayed = port()
    assert await asyncio.to_thread(was_reset, relayed.address)
    assert relayed.stats.errors == {"no_endpoint": 1}


async def test_only_dead_endpoints_is_a_reset(port: Callable[..., TcpPort]) -> None:
    relayed = port(dead_endpoint())
    assert await asyncio.to_thread(was_reset, relayed.address)
    assert relayed.stats.errors == {"refused": 1}


async def test_a_reset_by_the_task_reaches_the_client_as_a_reset(
    backends: Callable[..., Backend], port: Callable[..., TcpPort]
) -> None:
    def cut(sock: socket.socket) -> None:
        sock.sendall(b"half of the ans")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    relayed = port(backends(cut).endpoint)
    assert await asyncio.to_thread(was_reset, relayed.address)
    await until(lambda: relayed.stats.errors == {"reset": 1})


async def test_idle_connections_end_with_a_reset(
    backends: Callable[..., Backend], port: Callable[..., TcpPort]
) -> None:
    relayed = port(backends(lambda sock: read_all(sock) and None).endpoint, idle_timeout=0.2)
    assert await asyncio.to_thread(was_reset, relayed.address)
    assert relayed.stats.errors == {"idle": 1}


async def test_connections_to_an_endpoint_that_left_end_after_the_drain_time(
    backends: Callable[..., Backend], port: Callable[..., TcpPort]
) -> None:
    relayed = port(backends(lambda sock: read_all(sock) and None).endpoint, drain=0.1)
    waiting = asyncio.create_task(asyncio.to_thread(was_reset, relayed.address))
    await until(lambda: relayed.stats.active == 1)
    relayed.update_endpoints([backends(greet(b"new")).endpoint])
    assert await asyncio.to_thread(greeting, relayed.address) == b"new"
    assert await waiting
    assert relayed.stats.errors == {"drained": 1}


async def test_closing_lets_connections_end_by_themselves(
    backends: Callable[..., Backend], port: Callable[..., TcpPort]
) -> None:
    go = threading.Event()

    def late(sock: socket.socket) -> None:
        go.wait(20)
        sock.sendall(b"late")

    relayed = port(backends(late).endpoint)
    waiting = asyncio.create_task(asyncio.to_thread(greeting, relayed.address))
    await until(lambda: relayed.stats.active == 1)
    closed = asyncio.create_task(relayed.close(drain_seconds=20))
    go.set()
    assert await waiting == b"late"
    await closed


async def test_those_who_wait_to_be_accepted_when_a_port_closes_are_served(
    backends: Callable[..., Backend], port: Callable[..., TcpPort]
) -> None:
    relayed = port(backends(greet(b"hello")).endpoint)
    waiting = [socket.create_connection(relayed.address, 30) for _ in range(100)]  # our loop stands still
    await relayed.close(drain_seconds=20)
    assert [await asyncio.to_thread(read_greeting, sock) for sock in waiting] == [b"hello"] * 100
    assert (relayed.stats.connections, relayed.stats.active) == (100, 0)


async def test_running_out_of_descriptors_pauses_accepting(
    backends: Callable[..., Backend], port: Callable[..., TcpPort], monkeypatch: pytest.MonkeyPatch
) -> None:
    relayed = port(backends(greet(b"hello")).endpoint)
    listening, failures = relayed._listener, [OSError(24, "too many open files")]

    class Failing:
        def accept(self) -> object:
            if failures:
                raise failures.pop()
            return listening.accept()

        def __getattr__(self, name: str) -> object:
            return getattr(listening, name)

    monkeypatch.setattr(relayed._accepting, "_listener", Failing())
    monkeypatch.setattr(acceptor, "PAUSE_SECONDS", 0.05)
    assert await asyncio.to_thread(greeting, relayed.address) == b"hello"
    assert relayed.stats.errors == {"fd_limit": 1}
    monkeypatch.undo()


@pytest.mark.parametrize("version", ["v1", "v2"])
async def test_the_proxy_protocol_header_comes_first(
    backends: Callable[..., Backend], port: Callable[..., TcpPort], version: str
) -> None:
    relayed = port(backends(lambda sock: sock.sendall(read_all(sock))).endpoint, proxy_protocol=version)
    answer = await asyncio.to_thread(exchange, relayed.address, b"data")
    assert answer.endswith(b"data")
    assert answer.startswith(
        b"PROXY TCP4 127.0.0.1 127.0.0.1 " if version == "v1" else b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"
    )
    await until(lambda: relayed.stats.active == 0)
    assert relayed.stats.received == 4


LOOPBACK = (ip_network("127.0.0.0/8"),)
CLIENT, LOCAL = ("203.0.113.9", 4711), ("198.51.100.1", 443)


@pytest.mark.parametrize("version", ["v1", "v2"])
async def test_a_trusted_proxys_header_names_the_client_for_the_task_and_is_not_relayed_itself(
    backends: Callable[..., Backend], port: Callable[..., TcpPort], version: str
) -> None:
    echo = backends(lambda sock: sock.sendall(read_all(sock)))
    relayed = port(echo.endpoint, proxy_protocol="v1", trusted=LOOPBACK)
    data = header(version, CLIENT, LOCAL) + b"data"
    answer = await asyncio.to_thread(exchange, relayed.address, data)
    assert answer == b"PROXY TCP4 203.0.113.9 198.51.100.1 4711 443\r\ndata"
    await until(lambda: relayed.stats.active == 0)
    assert (relayed.stats.received, relayed.stats.errors) == (4, {})


async def test_a_trusted_proxys_client_is_the_one_that_is_hashed(
    backends: Callable[..., Backend], port: Callable[..., TcpPort]
) -> None:
    tasks = [backends(greet(bytes([65 + n]))) for n in range(4)]
    endpoints = [task.endpoint for task in tasks]
    relayed = port(*endpoints, policy=Policy.SOURCE_HASH, trusted=LOOPBACK)
    for n in range(12):
        client = f"203.0.113.{n}"
        wanted = endpoints.index(best(slot_of(client), endpoints))
        data = header("v2", (client, 1), LOCAL)
        assert await asyncio.to_thread(exchange, relayed.address, data) == bytes([65 + wanted])


async def test_a_header_may_come_byte_by_byte(
    backends: Callable[..., Backend], port: Callable[..., TcpPort]
) -> None:
    relayed = port(backends(lambda sock: sock.sendall(read_all(sock))).endpoint, trusted=LOOPBACK)
    data = header("v1", CLIENT, LOCAL) + b"data"

    def slowly() -> bytes:
        with socket.create_connection(relayed.address, timeout=30) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for at in range(len(data)):
                sock.sendall(data[at : at + 1])
            sock.shutdown(socket.SHUT_WR)
            return read_all(sock)

    assert await asyncio.to_thread(slowly) == b"data"


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n\r\n", b"PROXY TCP4 10", b""])
async def test_without_its_header_a_trusted_proxy_is_reset_and_counted(
    backends: Callable[..., Backend], port: Callable[..., TcpPort], data: bytes
) -> None:
    relayed = port(backends(greet(b"hello")).endpoint, trusted=LOOPBACK)

    def cut() -> bool:
        try:
            return exchange(relayed.address, data) == b"never"
        except OSError as error:  # whichever call comes after the reset
            return error.errno in (errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN)

    assert await asyncio.to_thread(cut)
    await until(lambda: relayed.stats.active == 0)
    assert relayed.stats.errors == {"proxy_header": 1}


async def test_a_header_that_does_not_come_is_not_waited_for_long(
    backends: Callable[..., Backend], port: Callable[..., TcpPort], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "HEADER_SECONDS", 0.05)
    relayed = port(backends(greet(b"hello")).endpoint, trusted=LOOPBACK)
    assert await asyncio.to_thread(was_reset, relayed.address)
    assert relayed.stats.errors == {"proxy_header": 1}


async def test_who_is_not_trusted_cannot_say_who_it_is(
    backends: Callable[..., Backend], port: Callable[..., TcpPort]
) -> None:
    echo = backends(lambda sock: sock.sendall(read_all(sock)))
    relayed = port(echo.endpoint, proxy_protocol="v1", trusted=(ip_network("10.0.0.0/8"),))
    said = header("v1", CLIENT, LOCAL)
    answer = await asyncio.to_thread(exchange, relayed.address, said)
    assert answer.startswith(b"PROXY TCP4 127.0.0.1 127.0.0.1 ")
    assert answer.endswith(said)


async def test_closing_does_not_wait_for_a_header(
    backends: Callable[..., Backend], port: Callable[..., TcpPort]
) -> None:
    relayed = port(backends(greet(b"hello")).endpoint, trusted=LOOPBACK)
    waiting = asyncio.create_task(asyncio.to_thread(was_reset, relayed.address))
    await until(lambda: relayed.stats.active == 1)
    await relayed.close()
    assert await waiting
    assert relayed.stats.errors == {"drained": 1}


async def test_round_robin_and_least_connections(
    backends: Callable[..., Backend], port: Callable[..., TcpPort]
) -> None:
    one, two = backends(greet(b"1")), backends(greet(b"2"))
    relayed = port(one.endpoint, two.endpoint)
    answers = [await asyncio.to_thread(greeting, relayed.address) for _ in range(4)]
    assert answers == [b"1", b"2", b"1", b"2"]
    busy = port(one.endpoint, two.endpoint, policy=Policy.LEAST_CONN)
    busy.occupy(two.endpoint, 5)
    assert {await asyncio.to_thread(greeting, busy.address) for _ in range(4)} == {b"1"}


async def test_near_endpoints_come_first_while_one_of_them_answers(
    backends: Callable[..., Backend], port: Callable[..., TcpPort]
) -> None:
    far, near = backends(greet(b"far")), backends(greet(b"near"))
    relayed = port(far.endpoint, near.endpoint)
    relayed.update_endpoints(relayed.endpoints, near=[near.endpoint])
    assert {await asyncio.to_thread(greeting, relayed.address) for _ in range(4)} == {b"near"}
    dead = dead_endpoint()
    relayed.update_endpoints([far.endpoint, dead], near=[dead])
    assert {await asyncio.to_thread(greeting, relayed.address) for _ in range(8)} == {b"far"}
    assert relayed.stats.errors == {"refused": 3}


async def test_by_p2c_who_did_not_answer_is_not_preferred(
    backends: Callable[..., Backend], port: Callable[..., TcpPort]
) -> None:
    relayed = port(dead_endpoint(), backends(greet(b"hello")).endpoint, policy=Policy.P2C)
    for _ in range(20):
        assert await asyncio.to_thread(greeting, relayed.address) == b"hello"
    assert relayed.stats.errors.get("refused", 0) <= 1  # a random one of equals may be first, once


async def test_a_new_endpoint_starts_slowly_and_those_of_the_beginning_do_not(
    backends: Callable[..., Backend],
) -> None:
    first, second, new = (backends(greet(name)) for name in (b"1", b"2", b"new"))
    relayed = TcpPort(
        listen("127.0.0.1", 0),
        [first.endpoint, second.endpoint],
        RelayOptions(slow_start=3600.0),
        draw=lambda: 0.5,
    )
    assert {await asyncio.to_thread(greeting, relayed.address) for _ in range(2)} == {b"1", b"2"}
    relayed.update_endpoints([first.endpoint, second.endpoint, new.endpoint])
    assert {await asyncio.to_thread(greeting, relayed.address) for _ in range(6)} == {b"1", b"2"}
    relayed.update_endpoints([new.endpoint])
    assert await asyncio.to_thread(greeting, relayed.address) == b"new"
    await relayed.close()


def test_a_taken_port_is_named_with_the_process_that_holds_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        with pytest.raises(PortTaken, match=rf"127\.0\.0\.1:{number}: .*in use, held by .*\({os.getpid()}\)"):
            listen("127.0.0.1", number)
