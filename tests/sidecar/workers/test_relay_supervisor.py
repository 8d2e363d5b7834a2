"""Real processes on loopback: they accept from one socket, do as they are told, report, and may die."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from mesh.balance.policies import Endpoint, Policy
from mesh.net.bound_listener import listen
from mesh.net.tasks import Tasks
from mesh.relay.tcp_connection import RelayOptions
from mesh.relay.tcp_port import plain_socket
from sidecar.config import Log
from sidecar.workers import shared_ports
from sidecar.workers import supervisor as workers
from sidecar.workers.privileges import Restriction
from sidecar.workers.relay_supervisor import RelaySupervisor
from sidecar.workers.shared_ports import SharedPort
from tests.support.waiting import until
from tests.support.workers import (
    ADDRESS_BYTES,
    answer,
    answering,
    children,
    connected,
    greeting,
    holds,
    is_listened_on,
)

DEADLINE = 30.0

pytestmark = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="no /proc here")


MODULE = "sidecar.processes.relay"
RESTRICTION = Restriction(59_180, 59_180, 512 * 1024 * 1024)


class Running:
    """One process, and a port. Sockets come from us, of our own namespace."""

    def __init__(self, *endpoints: Endpoint) -> None:
        self.failures: list[BaseException] = []
        self.tasks = Tasks(lambda _, error: self.failures.append(error))
        self.workers = RelaySupervisor(1, Log(), self.tasks, RESTRICTION, lambda _: None)
        self.port = self.open(*endpoints)

    def open(self, *endpoints: Endpoint) -> SharedPort:
        opened = self.workers.open_tcp(listen("127.0.0.1", 0), endpoints, RelayOptions(), plain_socket, ())
        assert isinstance(opened, SharedPort)
        return opened

    @property
    def number(self) -> int:
        return self.port.address[1]

    async def worker(self) -> int:
        """The process, when it has the port as it is now."""
        await until(lambda: bool(self._with_the_port()) and self._follows(), "the worker follows")
        (pid,) = self._with_the_port()
        return pid

    def _with_the_port(self) -> list[int]:
        return [pid for pid in children(MODULE) if holds(pid, self.number)]

    def _follows(self) -> bool:
        return bool(self.port.holders) and self.port.followed

    async def stop(self) -> None:
        await self.port.close()
        await self.workers.close()
        await self.tasks.close()
        assert not self.failures


@pytest.fixture
def first() -> Iterator[Endpoint]:
    with answering("127.0.0.2") as port:
        yield Endpoint("127.0.0.2", port, "one")


@pytest.fixture
async def running(first: Endpoint, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Running]:
    monkeypatch.setattr(workers, "RETRY_SECONDS", 0.05)
    made = Running(first)
    yield made
    await made.stop()
    assert children(MODULE) == set(), "none outlives the sidecar"


async def test_connections_are_relayed_and_counted(running: Running) -> None:
    await running.worker()
    assert {await asyncio.to_thread(answer, running.number) for _ in range(40)} == {"127.0.0.2"}

    def told() -> bool:
        stats = running.port.stats
        return (stats.connections, stats.active, stats.sent) == (40, 0, 40 * ADDRESS_BYTES)

    await until(told, "the process has reported them")


async def test_a_worker_follows_the_endpoints(running: Running) -> None:
    await running.worker()
    with answering("127.0.0.3") as port:
        running.port.update_endpoints(
            (Endpoint("127.0.0.3", port, "two"),), RelayOptions(policy=Policy.LEAST_CONN)
        )
        await running.worker()
        assert await asyncio.to_thread(answer, running.number) == "127.0.0.3"


async def test_connections_are_seen_per_endpoint(running: Running) -> None:
    await running.worker()
    with connected(running.number) as held:
        await asyncio.to_thread(greeting, held)
        await until(lambda: [one.active for one in running.port.seen()] == [1], "it is seen")


async def test_a_port_that_closes_drains_in_the_worker_and_another_one_goes_on(
    running: Running, first: Endpoint
) -> None:
    other = running.open(first)
    await running.worker()
    await until(lambda: bool(other.holders) and other.followed, "the worker has the other port too")
    with connected(other.address[1]) as held:
        await asyncio.to_thread(greeting, held)
        number = other.address[1]
        closing = asyncio.gather(other.close(DEADLINE))
        await until(lambda: not is_listened_on(number), "nobody listens any more")
        held.sendall(b"still here")
        assert await asyncio.to_thread(held.recv, 100) == b"still here"
        assert not closing.done()
    await asyncio.wait_for(closing, DEADLINE)
    assert (other.stats.connections, other.stats.active) == (1, 0)
    assert await asyncio.to_thread(answer, running.number) == "127.0.0.2"


async def test_who_waits_to_be_accepted_is_not_lost_with_a_worker_and_it_is_replaced(
    running: Running,
) -> None:
    pid = await running.worker()
    assert await asyncio.to_thread(answer, running.number) == "127.0.0.2"
    await until(lambda: running.port.stats.connections == 1, "it has told of its connection")
    os.kill(pid, signal.SIGSTOP)
    waiting = [connected(running.number) for _ in range(10)]  # accepted by nobody yet
    os.kill(pid, signal.SIGKILL)
    for sock in waiting:
        with sock:
            assert await asyncio.to_thread(greeting, sock) == "127.0.0.2"
    await until(lambda: not children(MODULE) & {pid}, "it has ended")
    await until(lambda: bool(running.port.holders), "there is another one")
    assert await running.worker() != pid
    assert await asyncio.to_thread(answer, running.number) == "127.0.0.2"
    await until(lambda: running.port.stats.connections == 12, "what the first has told is kept")


async def test_a_worker_that_is_not_heard_of_is_replaced(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = await running.worker()
    monkeypatch.setattr(workers, "STOP_SECONDS", 0.05)
    monkeypatch.setattr(workers, "SILENT_SECONDS", 0.5)  # from the next thing it tells on
    await until(lambda: not children(MODULE) & {pid}, "it is ended")
    monkeypatch.setattr(workers, "SILENT_SECONDS", DEADLINE)
    assert await running.worker() != pid


async def test_a_worker_that_does_not_take_its_orders_is_replaced(
    running: Running, first: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = await running.worker()
    monkeypatch.setattr(workers, "BEHIND_MAX", 1000)  # beyond what the pair itself holds
    monkeypatch.setattr(workers, "STOP_SECONDS", 0.05)
    os.kill(pid, signal.SIGSTOP)
    for drain in range(20_000):
        running.port.update_endpoints((first,), RelayOptions(drain=drain))
    await until(lambda: pid not in children(MODULE), "it is ended")
    assert await running.worker() != pid
    assert await asyncio.to_thread(answer, running.number) == "127.0.0.2"


async def test_a_worker_that_cannot_be_started_is_tried_again(
    first: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures, start = [OSError(24, "too many open files")], asyncio.create_subprocess_exec

    async def failing(*words: str, **more: Any) -> asyncio.subprocess.Process:
        if failures:
            raise failures.pop()
        return await start(*words, **more)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", failing)
    monkeypatch.setattr(workers, "RETRY_SECONDS", 0.05)
    made = Running(first)
    await made.worker()
    assert failures == []
    assert await asyncio.to_thread(answer, made.number) == "127.0.0.2"
    await made.stop()


async def test_signals_that_all_processes_get_do_not_end_a_worker(running: Running) -> None:
    pid = await running.worker()
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(pid, number)
    assert await asyncio.to_thread(answer, running.number) == "127.0.0.2"
    assert await running.worker() == pid


async def test_a_worker_that_hangs_does_not_hold_up_the_end(
    running: Running, monkeypatch: pytest.MonkeyPatch, first: Endpoint
) -> None:
    monkeypatch.setattr(shared_ports, "LATE_SECONDS", 0.05)
    other = running.open(first)
    pid = await running.worker()
    os.kill(pid, signal.SIGSTOP)
    await asyncio.wait_for(other.close(0.05), DEADLINE)
    os.kill(pid, signal.SIGCONT)
    assert await running.worker() == pid
