"""The sidecar with `ingress.workers: 2`: two restricted processes carry a port, and no client can tell."""

import asyncio
import os
import re
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from sidecar.app import BoundAddresses, Sidecar
from tests.loopback.test_sidecar import catalogue, config, get, variables
from tests.support.waiting import until
from tests.support.workers import answer, answering, children, connected, greeting, holds, is_listened_on

DEADLINE = 30.0
MODULE = "sidecar.processes.relay"

pytestmark = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="no /proc here")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


class Running:
    def __init__(self, sidecar: Sidecar, bound: BoundAddresses, published: int) -> None:
        self.sidecar, self.bound, self.published = sidecar, bound, published

    async def processes(self) -> list[int]:
        """Both, when they have the port."""
        await until(lambda: len(self._holders()) == 2, "both have the port")
        return self._holders()

    def _holders(self) -> list[int]:
        return sorted(pid for pid in children(MODULE) if holds(pid, self.published))

    async def metric(self, name: str) -> float:
        text = (await get(self.bound.metrics, "/metrics"))[1]
        found = re.search(rf'^{name}{{[^}}]*port="{self.published}/tcp"[^}}]*}} (\S+)$', text, re.MULTILINE)
        return float(found[1]) if found else 0.0


@asynccontextmanager
async def running(folder: Path, target: int) -> AsyncIterator[Running]:
    published = free_port()
    text = catalogue("127.9.0.3", ports=[{"published": published, "target": target}])
    (folder / "catalog.yml").write_text(text)
    sidecar = Sidecar(config(folder, MESH_INGRESS_WORKERS="2"))
    try:
        yield Running(sidecar, await sidecar.start(), published)
        assert not sidecar.failed.is_set()
    finally:
        await sidecar.stop()
        assert children(MODULE) == set()


class Clients:
    """One connection after the other, on a thread."""

    def __init__(self, published: int) -> None:
        self.answers: list[str] = []
        self.failures: list[OSError] = []
        self._published = published
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.wait(0.005):
            try:
                self.answers.append(answer(self._published))
            except OSError as error:
                self.failures.append(error)

    def stop(self) -> None:
        self._over.set()
        self._thread.join()


async def test_connections_are_taken_by_either_and_the_counters_add_up(tmp_path: Path) -> None:
    with answering("127.9.0.3") as target:
        async with running(tmp_path, target) as one:
            for stopped in await one.processes():
                os.kill(stopped, signal.SIGSTOP)  # so it is the other one's
                for _ in range(2):
                    assert await asyncio.to_thread(answer, one.published) == "127.9.0.3"
                os.kill(stopped, signal.SIGCONT)
            async with asyncio.timeout(DEADLINE):
                while await one.metric("mesh_port_connections_total") != 4:
                    await asyncio.sleep(0.05)
            assert await one.metric("mesh_port_connections_active") == 0


async def test_no_new_connection_fails_while_processes_are_killed_and_replaced(tmp_path: Path) -> None:
    """Even all of them: the sidecar has the listening socket, so clients wait for the next one."""
    with answering("127.9.0.3") as target:
        async with running(tmp_path, target) as one:
            pids = await one.processes()
            for pid in pids:
                os.kill(pid, signal.SIGSTOP)  # so that no connection is in its hands when it is killed
            clients = Clients(one.published)
            try:
                for pid in pids:
                    os.kill(pid, signal.SIGKILL)
                await until(lambda: len(clients.answers) >= 20, "others go on")
            finally:
                await asyncio.to_thread(clients.stop)
            assert clients.failures == []
            assert set(clients.answers) == {"127.9.0.3"}
            assert not set(pids) & set(await one.processes())


async def test_workers_end_with_a_sidecar_that_is_killed(tmp_path: Path) -> None:
    with answering("127.9.0.3") as target:
        published = free_port()
        text = catalogue("127.9.0.3", ports=[{"published": published, "target": target}])
        (tmp_path / "catalog.yml").write_text(text)
        sidecar = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "sidecar", "run"),
            env=os.environ | variables(tmp_path, MESH_INGRESS_WORKERS="2"),
        )
        try:
            await until(
                lambda: sum(holds(pid, published) for pid in children(MODULE, sidecar.pid)) == 2,
                "they are there",
            )
            of_it = children(MODULE, sidecar.pid)
        finally:
            sidecar.kill()
            await sidecar.wait()
        await until(lambda: not any(map(is_running, of_it)), "they have ended")
        assert not is_listened_on(published)


def is_running(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


async def test_the_end_waits_for_connections_of_a_worker(tmp_path: Path) -> None:
    with answering("127.9.0.3") as target:
        async with running(tmp_path, target) as one:
            await one.processes()
            with connected(one.published) as held:
                await asyncio.to_thread(greeting, held)
                stopping = asyncio.gather(one.sidecar.stop())
                await until(lambda: not is_listened_on(one.published), "nobody listens any more")
                held.sendall(b"still here")
                assert await asyncio.to_thread(held.recv, 100) == b"still here"
                assert not stopping.done()
            await asyncio.wait_for(stopping, DEADLINE)
