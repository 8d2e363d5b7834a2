"""Real processes on loopback: they accept from one socket, follow their orders, tell, and may die.

A connection that is made and used while our own loop stands still can only have been taken by the worker,
and one that is made while the worker is stopped only by us.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator

import pytest

from mesh.balance.policies import Endpoint, Policy
from mesh.net.tasks import Tasks
from mesh.relay.connection import Options
from mesh.relay.listener import listen, plain_socket
from sidecar import relay_workers
from sidecar.config import Log
from sidecar.relay_workers import RelayWorkers, SharedPort
from sidecar.workers import supervisor as workers
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


class Running:
    """One worker beside us, and a port."""

    def __init__(self, *endpoints: Endpoint) -> None:
        self.failures: list[BaseException] = []
        self.tasks = Tasks(lambda _, error: self.failures.append(error))
        self.workers = RelayWorkers(1, Log(), self.tasks, None)
        self.workers.start()
        self.port = self.open(*endpoints)

    def open(self, *endpoints: Endpoint) -> SharedPort:
        return self.workers.open(listen("127.0.0.1", 0), endpoints, Options(), plain_socket, ())

    @property
    def number(self) -> int:
        return self.port.address[1]

    async def worker(self) -> int:
        """The process, when it has the port as it is now."""
        await until(lambda: bool(self._with_the_port()) and self._follows(), "the worker follows")
        (pid,) = self._with_the_port()
        return pid

    def _with_the_port(self) -> list[int]:
        return [pid for pid in children("sidecar.relay_worker") if holds(pid, self.number)]

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
    assert children("sidecar.relay_worker") == set(), "none outlives the sidecar"


async def test_both_take_connections_and_are_counted_once(running: Running) -> None:
    pid = await running.worker()
    assert {answer(running.number) for _ in range(3)} == {"127.0.0.2"}  # our loop stands still: the worker's
    os.kill(pid, signal.SIGSTOP)
    assert await asyncio.to_thread(answer, running.number) == "127.0.0.2"  # ours
    os.kill(pid, signal.SIGCONT)

    def told() -> bool:
        stats = running.port.stats
        return (stats.connections, stats.active, stats.sent) == (4, 0, 4 * ADDRESS_BYTES)

    await until(told, "the worker has told its share")


async def test_a_worker_follows_the_endpoints(running: Running) -> None:
    await running.worker()
    with answering("127.0.0.3") as port:
        running.port.retarget((Endpoint("127.0.0.3", port, "two"),), Options(policy=Policy.LEAST_CONN))
        await running.worker()
        assert answer(running.number) == "127.0.0.3"


async def test_connections_of_all_are_seen_per_endpoint(running: Running) -> None:
    pid = await running.worker()
    with connected(running.number) as theirs:
        greeting(theirs)
        os.kill(pid, signal.SIGSTOP)
        with connected(running.number) as ours:
            await asyncio.to_thread(greeting, ours)
            os.kill(pid, signal.SIGCONT)
            await until(lambda: [one.active for one in running.port.seen()] == [2], "both are seen")


async def test_a_port_that_closes_drains_in_the_worker_and_another_one_goes_on(
    running: Running, first: Endpoint
) -> None:
    other = running.open(first)
    await running.worker()
    await until(lambda: bool(other.holders) and other.followed, "the worker has the other port too")
    with connected(other.address[1]) as held:
        greeting(held)
        number = other.address[1]
        closing = asyncio.gather(other.close(DEADLINE))
        await until(lambda: not is_listened_on(number), "nobody listens any more")
        held.sendall(b"still here")
        assert await asyncio.to_thread(held.recv, 100) == b"still here"
        assert not closing.done()
    await asyncio.wait_for(closing, DEADLINE)
    assert (other.stats.connections, other.stats.active) == (1, 0)
    assert answer(running.number) == "127.0.0.2"


async def test_who_waits_to_be_accepted_is_not_lost_with_a_worker_and_it_is_replaced(
    running: Running,
) -> None:
    pid = await running.worker()
    assert answer(running.number) == "127.0.0.2"
    await until(lambda: running.port.stats.connections == 1, "it has told of its connection")
    os.kill(pid, signal.SIGSTOP)
    waiting = [connected(running.number) for _ in range(10)]  # accepted by nobody yet
    os.kill(pid, signal.SIGKILL)
    for sock in waiting:
        with sock:
            assert await asyncio.to_thread(greeting, sock) == "127.0.0.2"
    await until(lambda: not children("sidecar.relay_worker") & {pid}, "it has ended")
    await until(lambda: bool(running.port.holders), "there is another one")
    assert await running.worker() != pid
    assert answer(running.number) == "127.0.0.2"
    await until(lambda: running.port.stats.connections == 12, "what the first has told is kept")


async def test_a_worker_that_is_not_heard_of_is_replaced(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = await running.worker()
    monkeypatch.setattr(workers, "STOP_SECONDS", 0.05)
    monkeypatch.setattr(workers, "SILENT_SECONDS", 0.5)  # from the next thing it tells on
    await until(lambda: not children("sidecar.relay_worker") & {pid}, "it is ended")
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
        running.port.retarget((first,), Options(drain=drain))
    await until(lambda: pid not in children("sidecar.relay_worker"), "it is ended")
    assert await running.worker() != pid
    assert answer(running.number) == "127.0.0.2"


async def test_a_worker_that_cannot_be_started_is_tried_again(
    first: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures, start = [OSError(24, "too many open files")], asyncio.create_subprocess_exec

    async def failing(*words: str, pass_fds: tuple[int, ...]) -> asyncio.subprocess.Process:
        if failures:
            raise failures.pop()
        return await start(*words, pass_fds=pass_fds)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", failing)
    monkeypatch.setattr(workers, "RETRY_SECONDS", 0.05)
    made = Running(first)
    await made.worker()
    assert failures == []
    assert answer(made.number) == "127.0.0.2"
    await made.stop()


async def test_signals_that_all_processes_get_do_not_end_a_worker(running: Running) -> None:
    pid = await running.worker()
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(pid, number)
    assert answer(running.number) == "127.0.0.2"
    assert await running.worker() == pid


async def test_a_worker_that_hangs_does_not_hold_up_the_end(
    running: Running, monkeypatch: pytest.MonkeyPatch, first: Endpoint
) -> None:
    monkeypatch.setattr(relay_workers, "LATE_SECONDS", 0.05)
    other = running.open(first)
    pid = await running.worker()
    os.kill(pid, signal.SIGSTOP)
    await asyncio.wait_for(other.close(0.05), DEADLINE)
    os.kill(pid, signal.SIGCONT)
    assert await running.worker() == pid
