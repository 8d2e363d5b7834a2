"""The sidecar with `http.workers: 2`: two restricted processes serve entry points, and no client can tell."""

import asyncio
import os
import re
import signal
import socket
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from sidecar.app import BoundAddresses, Sidecar
from tests.http.conftest import Conversation, parsed, serving
from tests.loopback.test_relay_workers import DEADLINE, free_port
from tests.loopback.test_sidecar import catalogue, config, get
from tests.support.certificates import pair
from tests.support.waiting import until
from tests.support.workers import children, holds, is_listened_on

MODULE = "sidecar.processes.http"
ADDRESS = "127.9.0.3"
HOST = "shop.example"

pytestmark = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="no /proc here")


class Running:
    def __init__(
        self, sidecar: Sidecar, bound: BoundAddresses, plain: int, secure: int, folder: Path
    ) -> None:
        self.sidecar, self.bound, self.plain, self.secure = sidecar, bound, plain, secure
        self.folder = folder

    async def processes(self) -> list[int]:
        """Both, when they have both ports."""
        await until(lambda: len(self._holders()) == 2, "both have the entry points")
        return self._holders()

    def _holders(self) -> list[int]:
        return sorted(pid for pid in children(MODULE) if holds(pid, self.plain) and holds(pid, self.secure))

    def told(self, target: int, **labels: str) -> None:
        (self.folder / "catalog.yml").write_text(text(target, **labels))

    async def metric(self, line: str) -> float:
        found = re.search(
            rf"^{re.escape(line)} (\S+)$", (await get(self.bound.metrics, "/metrics"))[1], re.MULTILINE
        )
        return float(found[1]) if found else 0.0

    async def comes_to(self, line: str, value: float) -> None:
        seen = None
        try:
            async with asyncio.timeout(DEADLINE):
                while (seen := await self.metric(line)) != value:
                    await asyncio.sleep(0.05)
        except TimeoutError:
            pytest.fail(f"{line} is {seen}, not {value}")


def text(target: int, **labels: str) -> str:
    return catalogue(ADDRESS, labels={"mesh.http.host": HOST, "mesh.http.port": str(target)} | labels)


@asynccontextmanager
async def running(folder: Path, target: int, **labels: str) -> AsyncIterator[Running]:
    plain, secure = free_port(), free_port()
    (folder / "certificates").mkdir(exist_ok=True)
    (folder / "certificates" / "shop.pem").write_bytes(b"".join(pair(HOST)))
    (folder / "catalog.yml").write_text(text(target, **labels))
    settings = config(
        folder,
        MESH_HTTP_WORKERS="2",
        MESH_HTTP_ENTRYPOINTS=f"web=127.0.0.1:{plain},websecure=127.0.0.1:{secure}/tls",
        MESH_HTTP_CERTIFICATES=str(folder / "certificates"),
    )
    sidecar = Sidecar(settings)
    try:
        yield Running(sidecar, await sidecar.start(), plain, secure, folder)
        assert not sidecar.failed.is_set()
    finally:
        await sidecar.stop()
        assert children(MODULE) == set()


def asked(port: int, path: str = "/", *, tls: bool = False, host: str = HOST) -> int:
    """A connection of its own, on whatever thread. Returns the status."""
    with socket.create_connection(("127.0.0.1", port), DEADLINE) as sock:
        if tls:
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            context.set_alpn_protocols(["http/1.1"])
            sock = context.wrap_socket(sock, server_hostname=host)
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        head = b""
        while more := sock.recv(65536):
            head += more
        sock.close()
    return parsed(head.partition(b"\r\n\r\n")[0].decode() + "\r\n\r\n")[0]


async def hello(one: Conversation) -> None:
    while await one.head():
        await one.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


async def statuses(port: int, count: int, path: str = "/", *, tls: bool = False) -> list[int]:
    return [await asyncio.to_thread(asked, port, path, tls=tls) for _ in range(count)]


OK = 'mesh_http_requests_total{code="200",method="GET",service="web"}'


@asynccontextmanager
async def application() -> AsyncIterator[int]:
    """In a process of its own, since our loop stands still at times."""
    code = (
        "import http.server as h\n"
        "class A(h.BaseHTTPRequestHandler):\n"
        " protocol_version = 'HTTP/1.1'\n"
        " def do_GET(self):\n"
        "  self.send_response(503 if 'bad' in self.path else 200)\n"
        "  self.send_header('Content-Length', '0')\n"
        "  self.end_headers()\n"
        " def log_message(self, *_): pass\n"
        f"s = h.ThreadingHTTPServer(('{ADDRESS}', 0), A)\n"
        "print(s.server_address[1], flush=True)\n"
        "s.serve_forever()\n"
    )
    process = await asyncio.create_subprocess_exec(
        "python3", "-c", code, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    assert process.stdout is not None
    try:
        yield int(await process.stdout.readline())
    finally:
        process.kill()
        await process.wait()


async def test_both_serve_and_the_counters_add_up(tmp_path: Path) -> None:
    async with application() as target, running(tmp_path, target) as one:
        for stopped in await one.processes():
            os.kill(stopped, signal.SIGSTOP)  # so it is the other one that answers
            assert await statuses(one.plain, 2) == [200, 200]
            assert await statuses(one.secure, 2, tls=True) == [200, 200]
            os.kill(stopped, signal.SIGCONT)
        await one.comes_to(OK, 8)
        await one.comes_to('mesh_http_request_duration_seconds_count{service="web"}', 8)
        # What never became a request counts as well, wherever it was.
        reader, writer = await asyncio.open_connection("127.0.0.1", one.plain)
        writer.write(b"nonsense\r\n\r\n")
        assert (await reader.read(4096)).startswith(b"HTTP/1.1 400")
        writer.close()
        await one.comes_to('mesh_http_faults_total{reason="malformed",service=""}', 1)


async def test_the_catalogue_and_certificates_reach_the_processes(tmp_path: Path) -> None:
    async with application() as target, running(tmp_path, target) as one:
        await one.processes()
        one.told(target, **{"mesh.http.path": "/new"})
        async with asyncio.timeout(DEADLINE):
            while await statuses(one.plain, 10) != 10 * [404] or await statuses(
                one.plain, 10, "/new"
            ) != 10 * [200]:
                pass
        (one.folder / "certificates" / "shop.pem").write_bytes(b"".join(pair(HOST, "other.example")))

        def names() -> str:
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            with (
                socket.create_connection(("127.0.0.1", one.secure), DEADLINE) as sock,
                context.wrap_socket(sock, server_hostname="other.example") as secured,
            ):
                return repr(secured.getpeercert(binary_form=True))

        async with asyncio.timeout(DEADLINE):
            while "other.example" not in await asyncio.to_thread(names):
                await asyncio.sleep(0.05)


FAILING = """
import sys
from mesh.http.routing.router import RequestRouter
from sidecar.processes import edge
read = RequestRouter._read
def failing(site, id_):
    service = site._snapshot.services.get(id_)
    if service is not None and "bad" in service.labels:
        raise RuntimeError("a fault of ours")
    return read(site, id_)
RequestRouter._read = failing
sys.exit(edge.main(sys.argv[1:]))
"""


async def test_what_processes_have_in_quarantine_is_counted_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only processes have the fault: both leave the service out, the sidecar does not."""
    start = asyncio.create_subprocess_exec

    async def with_a_fault(program: str, *words: str, **more: Any) -> asyncio.subprocess.Process:
        if words[:3] == ("-P", "-m", "sidecar.processes.edge"):
            words = ("-P", "-c", FAILING, *words[3:])
        return await start(program, *words, **more)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", with_a_fault)
    counted = 'mesh_quarantined{subscriber="http"}'
    async with application() as target, running(tmp_path, target) as one:
        await one.processes()
        await one.comes_to(counted, 0)
        assert await statuses(one.plain, 10) == 10 * [200]
        one.told(target, bad="1")
        await one.comes_to(counted, 1)
        async with asyncio.timeout(DEADLINE):
            while await statuses(one.plain, 10) != 10 * [404]:
                pass
        one.told(target)
        await one.comes_to(counted, 0)
        assert 200 in await statuses(one.plain, 10)


async def test_what_a_worker_has_left_out_is_told(tmp_path: Path) -> None:
    labels = {"mesh.http.outlier_statuses": "503", "mesh.http.outlier_failures": "1"}
    async with application() as target, running(tmp_path, target, **labels) as one:
        # A second task, of which nobody is asked to say anything: it is there so that one can be left out.
        tasks = (ADDRESS, "127.9.0.9")
        own = {"mesh.http.host": HOST, "mesh.http.port": str(target)} | labels
        (one.folder / "catalog.yml").write_text(catalogue(*tasks, labels=own))
        await one.processes()

        async def endpoints() -> list[dict[str, object]]:
            told = (await get(one.bound.admin, f"/v1/explain/http?host={HOST}&target=/"))[1]
            return list(told["entrypoints"][0]["endpoints"])

        async with asyncio.timeout(DEADLINE):
            while len(await endpoints()) != 2:
                await asyncio.sleep(0.05)
        assert await statuses(one.plain, 1, "/bad") == [503]
        async with asyncio.timeout(DEADLINE):
            while not any(found["ejected_for"] for found in await endpoints()):
                await asyncio.sleep(0.05)
        assert await one.metric('mesh_http_ejections_total{service="web"}') > 0


async def test_all_that_are_killed_are_replaced_no_client_notices_and_their_counts_stay(
    tmp_path: Path,
) -> None:
    async with application() as target, running(tmp_path, target) as one:
        pids = await one.processes()
        assert await statuses(one.plain, 3) == [200, 200, 200]
        await one.comes_to(OK, 3)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        assert await statuses(one.plain, 2) == [200, 200]  # who connects meanwhile waits for the next one
        assert not set(pids) & set(await one.processes())
        await one.comes_to(OK, 5)


async def test_a_request_under_way_in_the_worker_ends_before_the_sidecar_does(tmp_path: Path) -> None:
    """The application answers when the sidecar is already stopping."""
    stopping = asyncio.Event()

    async def slow(one: Conversation) -> None:
        await one.head()
        await asyncio.wait_for(stopping.wait(), DEADLINE)
        await one.say("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate")

    async with serving(slow, ADDRESS) as task, running(tmp_path, task.endpoint.port) as one:
        await one.processes()
        sock = socket.create_connection(("127.0.0.1", one.plain), DEADLINE)
        sock.sendall(f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        begun = time.monotonic()
        while not task.connections and time.monotonic() < begun + 1:
            await asyncio.sleep(0)
        await until(lambda: task.connections > 0, "the request is with the application")
        end = asyncio.create_task(one.sidecar.stop())
        await until(lambda: not is_listened_on(one.plain), "nobody accepts any more")
        stopping.set()
        got = await asyncio.to_thread(lambda: b"".join(iter(lambda: sock.recv(4096), b"")))
        sock.close()
        await end
        assert got.startswith(b"HTTP/1.1 200")
        assert got.endswith(b"late")
        assert b"Connection: close" in got
