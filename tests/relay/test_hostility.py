"""A relayed port under clients that mean no good, or know no better: others are served, nothing is left."""

import asyncio
import errno
import os
import resource
import select
import socket
import struct
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress

import pytest

from mesh.balance.policies import Endpoint
from mesh.net import acceptor
from mesh.net.bound_listener import listen
from mesh.relay.tcp_connection import RelayOptions
from mesh.relay.tcp_port import TcpPort
from tests.support.waiting import until

CONNECTIONS = 2000
AT_ONCE = 25
RESET = struct.pack("ii", 1, 0)


class Echo:
    """A task on one thread per connection: sends everything back when the client has said all."""

    def __init__(self) -> None:
        # Its queue takes a whole storm: what is tried is the relay, not how soon this one is full.
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=CONNECTIONS)
        self.endpoint = Endpoint(*self._listener.getsockname()[:2])
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                # accept() takes its descriptor first and waits then: it would fail while there are none.
                select.select([self._listener], [], [])
                threading.Thread(target=self._one, args=self._listener.accept()[:1], daemon=True).start()

    def _one(self, connection: socket.socket) -> None:
        with closing(connection), suppress(OSError):  # a client that resets is no news here
            connection.sendall(read_all(connection))

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def read_all(sock: socket.socket) -> bytes:
    chunks = []
    while chunk := sock.recv(65536):
        chunks.append(chunk)
    return b"".join(chunks)


def exchange(address: tuple[str, int], data: bytes) -> bytes:
    with socket.create_connection(address, timeout=30) as sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        return read_all(sock)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture
def echo() -> Iterator[Echo]:
    made = Echo()
    yield made
    made.close()


@pytest.fixture
async def relayed(echo: Echo) -> AsyncIterator[TcpPort]:
    made = TcpPort(listen("127.0.0.1", 0), [echo.endpoint], RelayOptions())
    yield made
    await made.close()


@contextmanager
def no_descriptors() -> Iterator[None]:
    """Everything that would open one fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(map(int, os.listdir("/proc/self/fd")))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
    taken = list[int]()
    try:
        with suppress(OSError):
            while True:
                taken.append(os.open("/dev/null", os.O_RDONLY))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for one in taken:
            os.close(one)


async def test_a_soak_of_half_closing_connections_leaves_nothing(relayed: TcpPort) -> None:
    before = descriptors()

    def some(start: int) -> None:
        for number in range(start, CONNECTIONS, AT_ONCE):
            data = number.to_bytes(4) * (number * 7 % 3000)
            assert exchange(relayed.address, data) == data

    await asyncio.gather(*(asyncio.to_thread(some, start) for start in range(AT_ONCE)))
    await until(lambda: relayed.stats.active == 0)
    assert relayed.stats.connections == CONNECTIONS
    assert not relayed.stats.errors
    await until(lambda: descriptors() <= before + 2)


async def test_a_storm_of_resets_leaves_nothing_and_the_next_client_is_served(relayed: TcpPort) -> None:
    before = descriptors()

    def storm() -> None:
        for number in range(CONNECTIONS):
            with socket.create_connection(relayed.address, timeout=30) as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                sock.sendall(b"x" * (number % 3))

    await asyncio.to_thread(storm)
    assert await asyncio.to_thread(exchange, relayed.address, b"hello") == b"hello"
    await until(lambda: relayed.stats.active == 0)
    assert relayed.stats.errors.keys() <= {"reset"}
    assert relayed.seen()[0].ejected_for == 0.0  # the task is not to blame
    await until(lambda: descriptors() <= before + 2)


async def test_clients_that_say_nothing_or_read_nothing_hold_nobody_up(relayed: TcpPort) -> None:
    before = descriptors()
    with ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(socket.create_connection(relayed.address, timeout=30))
        greedy = stack.enter_context(socket.create_connection(relayed.address, timeout=30))
        await asyncio.to_thread(greedy.sendall, bytes(16 * 1024 * 1024))
        greedy.shutdown(socket.SHUT_WR)  # its echo is never read: it backs up through the relay
        assert await asyncio.to_thread(exchange, relayed.address, b"hello") == b"hello"
        await until(lambda: relayed.stats.active == 201)
    await until(lambda: relayed.stats.active == 0)
    await until(lambda: descriptors() <= before + 2)


async def test_without_descriptors_clients_wait_and_are_served_when_there_are_some(
    relayed: TcpPort, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acceptor, "PAUSE_SECONDS", 0.02)
    with ExitStack() as stack:
        clients = [
            stack.enter_context(socket.create_connection(relayed.address, timeout=30)) for _ in range(20)
        ]
        for number, client in enumerate(clients):
            client.sendall(bytes([number]))
            client.shutdown(socket.SHUT_WR)
        with no_descriptors():
            await until(lambda: relayed.stats.errors["fd_limit"] > 2)
            assert relayed.stats.connections == 0
        answers = await asyncio.gather(*(asyncio.to_thread(read_all, client) for client in clients))
    assert answers == [bytes([number]) for number in range(20)]
    assert relayed.stats.errors.keys() == {"fd_limit"}


async def test_a_service_without_tasks_refuses_each_of_many_at_once(relayed: TcpPort) -> None:
    relayed.update_endpoints([])

    def refused() -> int:
        count = 0
        for _ in range(200):
            try:
                exchange(relayed.address, b"")
            except OSError as error:  # whichever call comes after the reset
                count += error.errno in (errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN)
        return count

    assert await asyncio.to_thread(refused) == 200
    assert relayed.stats.errors == {"no_endpoint": 200}


async def test_urgent_data_does_not_hold_up_what_follows(relayed: TcpPort) -> None:
    """A read ends short of the urgent byte; what comes after it is there, and not told again."""

    def talk() -> bytes:
        with socket.create_connection(relayed.address, timeout=30) as sock:
            for _ in range(100):
                sock.sendall(b"one")
                sock.send(b"!", socket.MSG_OOB)
                sock.sendall(b"two")
            sock.shutdown(socket.SHUT_WR)
            return read_all(sock)

    answer = await asyncio.to_thread(talk)
    assert answer.replace(b"!", b"") == b"onetwo" * 100  # a byte is inline again when the next is urgent


async def test_a_client_that_has_said_all_and_then_resets_is_noticed_at_once() -> None:
    """Its task is silent: nothing that is sent would tell."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = TcpPort(listen("127.0.0.1", 0), [Endpoint(*silent.getsockname()[:2])], RelayOptions())
        client = socket.create_connection(port.address, timeout=30)
        client.sendall(b"all")
        client.shutdown(socket.SHUT_WR)
        task = (await asyncio.to_thread(silent.accept))[0]
        with task:
            task.settimeout(30)
            assert await asyncio.to_thread(read_all, task) == b"all"
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            client.close()
            await until(lambda: not port.stats.active)
            assert port.stats.errors == {"reset": 1}
            with pytest.raises((ConnectionResetError, BrokenPipeError)):
                await asyncio.to_thread(task.send, b"too late")
        await port.close()
