"""Who reads what strangers send holds nothing: no privilege to use, and no word that the sidecar believes.

Beside each attack names are asked for, and answered throughout.
"""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from mesh.balance.policies import Endpoint
from mesh.errors import WireError
from mesh.net.bound_listener import listen
from mesh.net.tasks import Tasks
from mesh.peers.tunnel.client import Tunnels
from mesh.relay.tcp_connection import RelayOptions
from mesh.relay.tcp_port import plain_socket
from sidecar.app import BoundAddresses
from sidecar.config import Log
from sidecar.workers import supervisor
from sidecar.workers.frames import pack_head
from sidecar.workers.http_messages import Cut, Dial
from sidecar.workers.privileges import Restriction
from sidecar.workers.relay_supervisor import RelaySupervisor
from sidecar.workers.tunnel_broker import TunnelBroker
from tests.loopback.test_relay_workers import free_port
from tests.loopback.test_sidecar import catalogue, config, lookup, running
from tests.net.lab import needs_root
from tests.support.waiting import until
from tests.support.workers import answer, answering, children, holds

ADDRESS = "127.9.0.3"
MODULES = ("sidecar.processes.relay", "sidecar.processes.http")
MIB = 1024 * 1024

pytestmark = needs_root


class Attacked:
    def __init__(self, bound: BoundAddresses, relayed: int, entry: int) -> None:
        self.bound, self.relayed, self.entry = bound, relayed, entry
        self.answered = 0
        self.failures: list[str] = []

    async def processes(self) -> list[int]:
        """Both, when they serve."""
        await until(lambda: len(self._serving()) == 2, "they serve")
        return self._serving()

    def _serving(self) -> list[int]:
        return [
            pid
            for module, port in zip(MODULES, (self.relayed, self.entry), strict=True)
            for pid in children(module)
            if holds(pid, port)
        ]

    async def ask_names(self) -> None:
        (dns,) = self.bound.dns
        while True:
            try:
                found = await asyncio.wait_for(lookup(dns, "tasks.web"), 5)
            except TimeoutError:
                found = (-1, [])
            self.answered += 1
            if found != (0, [ADDRESS]):
                self.failures.append(str(found))
            await asyncio.sleep(0.01)


@asynccontextmanager
async def attacked(folder: Path, target: int, **more: str) -> AsyncIterator[Attacked]:
    relayed, entry = free_port(), free_port()
    labels = {"mesh.http.host": "shop.example", "mesh.http.port": str(target)}
    text = catalogue(ADDRESS, labels=labels, ports=[{"published": relayed, "target": target}])
    (folder / "catalog.yml").write_text(text)
    settings = config(folder, MESH_HTTP_ENTRYPOINTS=f"web=127.0.0.1:{entry}", **more)
    async with running(settings) as bound:
        one = Attacked(bound, relayed, entry)
        asking = asyncio.ensure_future(one.ask_names())
        try:
            yield one
            before = one.answered
            await until(lambda: one.answered > before + 5, "names are answered")
        finally:
            asking.cancel()
    assert one.failures == []


def status(pid: int) -> dict[str, str]:
    text = Path(f"/proc/{pid}/status").read_text()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}


async def test_what_the_processes_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_SECRET", "hush")
    with answering(ADDRESS) as target:
        async with attacked(tmp_path, target, MESH_EDGE_UID="59181", MESH_EDGE_MEMORY="300") as one:
            for pid in await one.processes():
                of = status(pid)
                assert of["Uid"].split() == 4 * ["59181"]
                assert of["Gid"].split() == 4 * ["59180"]
                assert of["Groups"] == ""
                for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
                    assert int(of[name], 16) == 0, name
                assert of["NoNewPrivs"] == "1"
                environment = Path(f"/proc/{pid}/environ").read_bytes()
                assert b"hush" not in environment
                assert b"MESH_" not in environment
                assert os.readlink(f"/proc/{pid}/cwd") == "/"
                assert f"{300 * MIB} " in Path(f"/proc/{pid}/limits").read_text().split("Max data size")[1]
                files = [os.readlink(one) for one in Path(f"/proc/{pid}/fd").iterdir()]
                assert not [one for one in files if "docker" in one or str(tmp_path) in one]


TRIES = """
import ctypes, os, socket, sys
sys.path.insert(0, sys.argv[1])
from sidecar.workers.privileges import Restriction, drop
folder = sys.argv[2]
drop(Restriction(59180, 59180, 128 << 20))
def connect():
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(folder + "/docker.sock")
def enter():
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(0x40000000) != 0:
        raise PermissionError
for name, attempt in {
    "the Swarm's key": lambda: open(folder + "/swarm-node.key"),
    "Docker's socket": connect,
    "a namespace": enter,
    "another user": lambda: os.setuid(0),
    "a raw socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1),
    "the sidecar's memory": lambda: open(f"/proc/{os.getppid()}/mem", "rb"),
    "much memory": lambda: bytearray(256 << 20),
}.items():
    try:
        attempt()
        print("got", name)
    except (PermissionError, MemoryError):
        pass
"""


def test_what_a_process_that_is_taken_over_can_get(tmp_path: Path) -> None:
    """Nothing: it is the same program that gives its privileges up, and then tries."""
    tmp_path.chmod(0o755)
    (tmp_path / "swarm-node.key").write_text("key")
    (tmp_path / "swarm-node.key").chmod(0o600)
    with socket.socket(socket.AF_UNIX) as docker:
        docker.bind(str(tmp_path / "docker.sock"))
        (tmp_path / "docker.sock").chmod(0o660)
        docker.listen()
        root = str(Path(supervisor.__file__).parents[2])
        command = [sys.executable, "-c", TRIES, root, str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)


async def test_names_are_answered_while_processes_are_killed_stopped_and_flooded(tmp_path: Path) -> None:
    with answering(ADDRESS) as target:
        async with attacked(tmp_path, target) as one:
            pids = await one.processes()
            for pid in pids:
                os.kill(pid, signal.SIGSTOP)
            held = []
            for port in (one.relayed, one.entry):  # into the queues of those that are stopped
                for _ in range(200):
                    sock = socket.socket()
                    sock.setblocking(False)
                    with suppress(BlockingIOError):
                        sock.connect(("127.0.0.1", port))
                    held.append(sock)
            before = one.answered
            await until(lambda: one.answered > before + 20, "names are answered meanwhile")
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
            for sock in held:
                sock.close()
            assert not set(pids) & set(await one.processes())
            assert await asyncio.to_thread(answer, one.relayed) == ADDRESS


# --- what they say ------------------------------------------------------------------------------------------

LIAR = """
import array, socket, sys, time
pair = socket.socket(fileno=int(sys.argv[1]))
data, descriptors = bytes.fromhex(sys.argv[2]), int(sys.argv[3])
rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors * [0]))
while data:
    data = data[pair.sendmsg([data], [rights] if descriptors else []):]
    descriptors = 0
time.sleep(60)
"""


def framed(text: str, descriptors: int = 0) -> bytes:
    return pack_head(text.encode(), descriptors) + text.encode()


PORT = (
    '{"number": %s, "version": 1, "connections": %s, "active": 0, "received": 0, "sent": 0, "errors": {},'
    ' "retries": 0, "endpoints": []}'
)


@pytest.mark.parametrize(
    ("said", "descriptors"),
    [
        (framed("Report\n{}"), 0),
        (framed("Carry\n{}"), 0),
        (framed('Report\n{"ports": [%s]}' % (PORT % (1, -1))), 0),
        (framed('Report\n{"ports": [%s]}' % (PORT % (1, "1" * 5000))), 0),
        (framed('Report\n{"ports": [%s]}' % (PORT % (99, 1))), 0),
        (framed("Report\n" + "[" * 100_000), 0),
        (pack_head(b"")[:3] + b"\xff\xff", 0),
        (b"\xff\xff\xff\xff\x00", 0),
        (framed('Report\n{"ports": []}'), 1),
        (framed('Report\n{"ports": []}', 1), 0),
        (b"\x80\x05cos\nsystem\n.", 0),
        (6_000 * framed('Report\n{"ports": []}'), 0),
    ],
    ids=lambda value: f"{value[:20]!r}" if isinstance(value, bytes) else str(value),
)
async def test_a_process_that_lies_is_ended_named_counted_and_replaced(
    said: bytes,
    descriptors: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    start, lies = asyncio.create_subprocess_exec, [LIAR]
    script = tmp_path / "said"
    script.write_text(said.hex())

    async def first_lies(*words: str, pass_fds: tuple[int, ...], **more: Any) -> asyncio.subprocess.Process:
        if not lies:
            return await start(*words, pass_fds=pass_fds, **more)
        code = lies.pop().replace("sys.argv[2]", f"open({str(script)!r}).read()")
        argv = (sys.executable, "-c", code, str(pass_fds[0]), "", str(descriptors))
        return await start(*argv, pass_fds=pass_fds)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", first_lies)
    monkeypatch.setattr(supervisor, "RETRY_SECONDS", 0.05)
    failures: list[BaseException] = []
    tasks = Tasks(lambda _, error: failures.append(error))
    relaying = RelaySupervisor(1, Log(), tasks, Restriction(59_180, 59_180, 0), lambda _: None)
    with answering(ADDRESS) as target:
        port = relaying.open_tcp(
            listen("127.0.0.1", 0), (Endpoint(ADDRESS, target, "t"),), RelayOptions(), plain_socket, ()
        )
        try:
            await until(lambda: relaying.workers.ends["malformed"] == 1, "it is ended")
            assert await asyncio.to_thread(answer, port.address[1]) == ADDRESS
        finally:
            await port.close(0)
            await relaying.close()
            await tasks.close()
    assert failures == []
    assert "relay worker 0 did what it may not" in caplog.text


async def test_tunnels_are_for_ends_of_pairs_and_no_more_than_there_may_be() -> None:
    said: list[object] = []
    failures: list[BaseException] = []
    tasks = Tasks(lambda _, error: failures.append(error))
    certificates: Any = None  # nobody is dialled: the catalogue has no such task
    tunnels = Tunnels(tasks, certificates, 1, lambda _network, _address: None)
    broker = TunnelBroker(tasks, tunnels, lambda _process, message, _sockets: said.append(message))
    dial = Dial(1, "net", "10.0.0.9", 80)

    def refused(*sockets: socket.socket) -> bool:
        with pytest.raises(WireError):
            broker.on_dial(0, dial, sockets)
        return all(one.fileno() < 0 for one in sockets)

    assert refused()
    assert refused(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
    assert refused(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
    ours, theirs = socket.socketpair()
    broker.on_dial(0, dial, (theirs,))
    assert refused(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)), "the number is taken"
    await until(lambda: bool(said), "it is told that it leads nowhere")
    broker.on_cut(0, Cut(7), ())  # of none that there is
    ours.close()
    await tasks.close()
    assert failures == []
