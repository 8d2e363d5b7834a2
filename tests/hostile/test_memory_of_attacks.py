"""What a real sidecar takes in memory while one address attacks it; others are answered meanwhile."""

import asyncio
import os
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.http.conftest import Conversation, serving
from tests.loopback.test_relay_workers import free_port
from tests.loopback.test_sidecar import catalogue, variables
from tests.support import http_attacks
from tests.support.waiting import until

TASK = "127.9.0.3"
GOOD = "127.0.0.9"  # another address than the enemy's
MOST = 200_000_000  # bytes of a process's memory


async def endpoint(one: Conversation) -> None:
    while await one.head():
        await one.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")


class Running:
    """A sidecar of its own process or processes."""

    def __init__(self, process: Process, published: int) -> None:
        self.process = process
        self.address = ("127.0.0.1", published)

    async def good(self) -> Conversation:
        reader, writer = await asyncio.open_connection(*self.address, local_addr=(GOOD, 0))
        return Conversation(reader, writer)

    async def answers(self) -> None:
        one = await self.good()
        await one.request("Connection: close")
        status, _, body = await one.response()
        assert (status, len(body)) == (200, 2)
        one.close()

    def memory(self) -> dict[int, int]:
        """The most that each of its processes has taken so far, in bytes."""
        found = {}
        for pid in family(self.process.pid):
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    found[pid] = int(line.split()[1]) * 1024
        return found


def family(pid: int) -> list[int]:
    """A process and all that it has started."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(one for child in children for one in family(int(child)))]


def listening(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


@asynccontextmanager
async def program(*words: str, env: dict[str, str] | None = None) -> AsyncIterator[Process]:
    process = await asyncio.create_subprocess_exec(sys.executable, *words, env=env, stdin=PIPE, stdout=PIPE)
    try:
        yield process
    finally:
        process.kill()
        await process.wait()


async def line(process: Process) -> str:
    assert process.stdout is not None
    return (await process.stdout.readline()).decode().strip()


@pytest.mark.parametrize("attack", http_attacks.ATTACKS)
async def test_memory_stays_bounded_and_others_are_answered(tmp_path: Path, attack: str) -> None:
    attacked, published = free_port(), free_port()
    async with (
        serving(endpoint, TASK) as task,
        program(str(http_attacks.__file__), TASK, str(attacked), attack) as enemy,
    ):
        targets = {attacked: int(await line(enemy)), published: task.endpoint.port}
        ports = [{"published": port, "target": target} for port, target in targets.items()]
        labels = {f"mesh.port.{port}.mode": "http" for port in targets}
        (tmp_path / "catalog.yml").write_text(catalogue(TASK, ports=ports, labels=labels))
        quiet = os.environ | variables(tmp_path, MESH_LOG_LEVEL="error")
        async with program("-m", "sidecar", "run", env=quiet) as process:
            one = Running(process, published)
            await until(lambda: listening(published) and listening(attacked), "it listens")
            await one.answers()
            said = asyncio.create_task(line(enemy))
            assert enemy.stdin is not None
            enemy.stdin.write(b"\n")
            while not said.done():
                await one.answers()
                await asyncio.sleep(0.05)
            assert said.result() == "said"
            for _ in range(5):
                await one.answers()
            memory = one.memory()
            assert max(memory.values()) < MOST, memory
            print(attack, {pid: f"{size / 1e6:.0f} MB" for pid, size in memory.items()})
