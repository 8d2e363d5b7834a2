"""What processes that serve HTTP are told of the catalogue, by a sidecar in which something fails."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Sequence

import pytest

from mesh.catalog.model import Service, ServiceNetwork, Task, TaskState
from mesh.catalog.snapshot import Change, Snapshot
from mesh.catalog.store import Store
from mesh.internal_errors import ERRORS
from mesh.net.bound_listener import listen
from mesh.net.tasks import Tasks
from sidecar.config import Address, EntryPointAddress, Http, Log
from sidecar.workers.http_messages import LearnHttp
from sidecar.workers.http_supervisor import HttpSupervisor
from sidecar.workers.privileges import Restriction
from tests.http.conftest import NET, routed, saying, serving
from tests.http.conftest import Tasks as Served
from tests.loopback.test_http_workers import asked
from tests.support.waiting import until
from tests.support.workers import children, holds

MODULE = "sidecar.processes.http"
RESTRICTION = Restriction(59_180, 59_180, 512 * 1024 * 1024)

pytestmark = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="no /proc here")


class Running:
    """One process with an entry point."""

    def __init__(self) -> None:
        self.failures: list[BaseException] = []
        self.tasks = Tasks(lambda _, error: self.failures.append(error))
        self.store = Store(later=asyncio.get_running_loop().call_later)
        self.store.publish(Change(networks={NET.id: NET}))
        config = Http(entrypoints=(EntryPointAddress("web", Address("127.0.0.1", 0), tls=False),))
        self.supervisor = HttpSupervisor(config, Log(), self.tasks, self.store, RESTRICTION, None)
        listener = listen("127.0.0.1", 0)
        self.port = listener.getsockname()[1]
        self.supervisor.opened("web", listener)
        self._listener = listener

    async def process(self) -> int:
        await until(lambda: any(holds(pid, self.port) for pid in children(MODULE)), "it has the entry point")
        (pid,) = children(MODULE)
        return pid

    async def status(self, host: str) -> int:
        return await asyncio.to_thread(asked, self.port, host=host)

    async def comes_to(self, host: str, status: int) -> None:
        async with asyncio.timeout(20):
            while await self.status(host) != status:
                await asyncio.sleep(0.02)

    async def stop(self) -> None:
        await self.supervisor.end()
        await self.tasks.close()
        self._listener.close()
        assert not self.failures


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    ERRORS.clear()
    one = Running()
    yield one
    await one.stop()
    ERRORS.clear()


def service(name: str, server: Served) -> Service:
    address, port = server.endpoint.address, server.endpoint.port
    return Service(
        name,
        name,
        networks=(ServiceNetwork(NET.id),),
        labels=routed(name, f"Host(`{name}.example`)", port),
        tasks=(Task(f"{name}.1", f"{name}.1", "here", TaskState.RUNNING, {NET.id: address}),),
    )


async def test_processes_forget_what_a_failed_change_has_told_them(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The change fails when processes know of it already: they know the good part of it in the end, also
    one that begins later, and not what was the cause."""
    tell, failed = running.supervisor.workers.tell, 0

    def fails_late(message: object, sockets: Sequence[object] = ()) -> None:
        nonlocal failed
        tell(message)
        if isinstance(message, LearnHttp) and "bad" in message.services:
            failed += 1
            raise RuntimeError("a fault of ours")

    async with serving(saying("hi")) as server:
        running.store.publish(Change(services={"first": service("first", server)}))
        pid = await running.process()
        await running.comes_to("first.example", 200)
        monkeypatch.setattr(running.supervisor.workers, "tell", fails_late)
        new = ("bad", "good")
        running.store.publish(Change(services={name: service(name, server) for name in new}))
        await running.comes_to("good.example", 200)
        await running.comes_to("bad.example", 404)
        assert failed
        (subscription,) = running.store.subscriptions
        assert (subscription.up, subscription.quarantined) == (True, (("services", "bad"),))
        assert await running.status("first.example") == 200
        os.kill(pid, signal.SIGKILL)
        await until(lambda: pid not in children(MODULE), "it has ended")
        await running.process()
        await running.comes_to("good.example", 200)
        assert await running.status("bad.example") == 404


async def test_what_a_restart_does_not_name_is_no_more(running: Running) -> None:
    async with serving(saying("hi")) as server:
        running.store.publish(Change(services={name: service(name, server) for name in ("stays", "goes")}))
        await running.process()
        await running.comes_to("goes.example", 200)
        (subscription,) = running.store.subscriptions
        assert subscription._restart is not None
        subscription._restart(running.store.current.apply(Change(services={"goes": None})))
        await running.comes_to("goes.example", 404)
        assert await running.status("stays.example") == 200


def test_a_whole_message_takes_the_rest_away() -> None:
    now = Snapshot().apply(Change(networks={NET.id: NET}, services={"a": Service("a", "a")}))
    b = Service("b", "b")
    assert LearnHttp("", {}, {"b": b}).change(now) == Change(services={"b": b})
    whole = LearnHttp.all_of(Snapshot().apply(Change(services={"b": b})))
    assert dict(whole.change(now).services) == {"a": None, "b": b}
    assert dict(whole.change(now).networks) == {NET.id: None}
