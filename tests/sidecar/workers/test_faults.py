"""A worker in which something fails goes on, and the sidecar is told."""

import asyncio
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from mesh.catalog.model import Service
from mesh.catalog.snapshot import Change, Snapshot
from mesh.catalog.store import Store
from mesh.dns.config import DnsConfig
from mesh.internal_errors import ERRORS
from sidecar.workers import worker_main
from sidecar.workers.channel import Channel
from sidecar.workers.dns_messages import TELLS, TOLD, BeginDns, Leave
from sidecar.workers.messages import PROBLEMS_MAX, TEXT_MAX, Faults


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(worker_main, "FAULTS_SECONDS", 0.01)
    ERRORS.clear()
    yield
    ERRORS.clear()


class Failing:
    """Cannot handle messages about the container `bad`."""

    def __init__(self) -> None:
        self.failed = asyncio.Event()
        self.handled: list[str] = []

    async def start(self) -> None:
        """Nothing to begin."""

    def handle(self, message: object, _: tuple[socket.socket, ...]) -> None:
        assert isinstance(message, Leave)
        if message.container == "bad":
            raise ValueError("x" * 5000)
        if message.container == "no memory":
            raise MemoryError
        self.handled.append(message.container)

    async def stop(self) -> None:
        """Nothing to end."""


async def test_a_message_that_fails_is_told_and_the_next_one_is_handled() -> None:
    ours, theirs = socket.socketpair()
    made = Failing()

    def make(*_: Any) -> Failing:
        return made

    channel = Channel(ours, TOLD, TELLS)
    channel.send(BeginDns(DnsConfig(), (), "info", "text"))
    serving = asyncio.create_task(worker_main.serve(theirs, make, TOLD, TELLS))
    for container in ("bad", "good"):
        channel.send(Leave(container))
    async with asyncio.timeout(10):
        told, _ = await channel.receive()
        assert made.handled == ["good"]
        assert isinstance(told, Faults)
        assert told.counts == {"message to a worker": 1}
        assert len(told.problems) <= PROBLEMS_MAX
        assert all(len(one) <= TEXT_MAX for one in told.problems)
        channel.send(Leave("no memory"))  # that only a new process mends
        assert await serving == worker_main.BUG
    channel.close()


async def test_a_worker_without_memory_ends_although_a_boundary_has_caught_it() -> None:
    ours, theirs = socket.socketpair()
    channel = Channel(ours, TOLD, TELLS)
    channel.send(BeginDns(DnsConfig(), (), "info", "text"))
    serving = asyncio.create_task(worker_main.serve(theirs, lambda *_: Failing(), TOLD, TELLS))
    async with asyncio.timeout(10):
        ERRORS.report("callback of a client", ValueError())
        channel.send(Leave("bad"))
        await channel.receive()
        assert not serving.done()
        ERRORS.report("callback of a client", MemoryError())
        assert await serving == worker_main.BUG
    ERRORS.report("callback of a client", MemoryError())  # nobody is there to end any more
    channel.close()


async def test_what_a_worker_leaves_out_of_its_catalogue_is_told() -> None:
    ours, theirs = socket.socketpair()
    channel = Channel(ours, TOLD, TELLS)
    channel.send(BeginDns(DnsConfig(), (), "info", "text"))
    made = WithStore()
    serving = asyncio.create_task(worker_main.serve(theirs, lambda *_: made, TOLD, TELLS))
    long = "x" * 5000
    made.store.publish(Change(services={one: Service(one, "web") for one in ("a", long)}))
    async with asyncio.timeout(10):
        told, _ = await channel.receive()
        assert isinstance(told, Faults)
        assert set(told.quarantined) == {
            ("fails", "services", "a"),
            ("fails", "services", long[:TEXT_MAX]),
        }
        channel.close()
        await serving


class WithStore(Failing):
    """One of its subscribers cannot take a service."""

    def __init__(self) -> None:
        super().__init__()
        self.store = Store()
        self.store.subscribe(self._update, "fails")

    def _update(self, _old: Snapshot, new: Snapshot, _change: Change) -> None:
        if new.services:
            raise ValueError("a service")
