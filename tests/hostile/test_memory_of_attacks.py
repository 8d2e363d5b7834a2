"""What a real sidecar takes in memory while one address attacks it; others are answered meanwhile."""

import asyncio
import os
import socket
import ssl
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
from tests.support.certificates import pair
from tests.support.waiting import until

TASK = "127.9.0.3"
HOST = "a.example"
GOOD = "127.0.0.9"  # another address than the enemy's
MOST = 200_000_000  # bytes of a process's memory
# The same under half TLS handshakes: 90 MB were seen, and 160 to 190 where an address had no share of them.
MOST_HANDSHAKING = 130_000_000


async def endpoint(one: Conversation) -> None:
    while await one.head():
        await one.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")


class Running:
    """A sidecar of its own process or processes."""

    def __init__(self, process: Process, published: int, host: str = "") -> None:
        """`host`: over TLS, with a certificate of that name."""
        self.process = process
        self.address = ("127.0.0.1", published)
        self._host = host
        self._tls = ssl.create_default_context() if host else None
        if self._tls is not None:
            self._tls.check_hostname, self._tls.verify_mode = False, ssl.CERT_NONE

    async def good(self) -> Conversation:
        reader, writer = await asyncio.open_connection(
            *self.address, local_addr=(GOOD, 0), ssl=self._tls, server_hostname=self._host or None
        )
        return Conversation(reader, writer)

    async def answers(self) -> None:
        one = await self.good()
        host = self._host or "a.example"
        await one.say(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
        status, _, body = await one.response()
        assert (status, len(body)) == (200, 2)
        one.close()

    async def outlasts(self, enemy: Process, most: int = MOST) -> None:
        """Others are answered meanwhile and afterwards, and no process takes more than it may."""
        said = asyncio.create_task(line(enemy))
        assert enemy.stdin is not None
        enemy.stdin.write(b"\n")
        while not said.done():
            await self.answers()
            await asyncio.sleep(0.05)
        assert said.result() == "said"
        for _ in range(5):
            await self.answers()
        memory = self.memory()
        assert max(memory.values()) < most, memory
        print({pid: f"{size / 1e6:.0f} MB" for pid, size in memory.items()})

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
            await one.outlasts(enemy)


@pytest.mark.parametrize("attack", http_attacks.TLS_ATTACKS)
async def test_memory_stays_bounded_under_half_handshakes(tmp_path: Path, attack: str) -> None:
    secure = free_port()
    (tmp_path / "certificates").mkdir()
    (tmp_path / "certificates" / "a.pem").write_bytes(b"".join(pair(HOST)))
    async with (
        serving(endpoint, TASK) as task,
        program(str(http_attacks.__file__), TASK, str(secure), attack) as enemy,
    ):
        await line(enemy)
        labels = {"mesh.http.host": HOST, "mesh.http.port": str(task.endpoint.port)}
        (tmp_path / "catalog.yml").write_text(catalogue(TASK, labels=labels))
        settings = variables(
            tmp_path,
            MESH_LOG_LEVEL="error",
            MESH_HTTP_ENTRYPOINTS=f"websecure=127.0.0.1:{secure}/tls",
            MESH_HTTP_CERTIFICATES=str(tmp_path / "certificates"),
        )
        async with program("-m", "sidecar", "run", env=os.environ | settings) as process:
            one = Running(process, secure, HOST)
            await until(lambda: listening(secure), "it listens")
            await one.answers()
            await one.outlasts(enemy, MOST_HANDSHAKING)
