"""`mesh demo`: the whole sidecar on one machine, without Docker and without root, explaining itself.

Three small HTTP backends stand for a service's tasks; a catalogue file in a temporary folder says so; the
sidecar answers their names and carries their published port in user space. The demo then asks it what a
user would, stops a backend, edits the file as an operator would, and shows the answers follow.
"""

import asyncio
import contextlib
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import uvloop
import yaml
from aiohttp import ClientError, ClientSession, ClientTimeout, TCPConnector, web
from dnslib import QTYPE, DNSRecord

from mesh.errors import ConfigError, DiscoveryError, Problem
from mesh.net.tasks import Tasks
from mesh.parsing import SHOWN_MAX, parse_float
from mesh.telemetry import logs
from sidecar import config
from sidecar.app import Sidecar
from sidecar.config import Address, Config

LOOPBACK = "127.0.0.1"
SUBNET = "127.1.0.0/24"
VIP = "127.1.0.2"
TASK_ADDRESSES = ("127.1.0.11", "127.1.0.12", "127.1.0.13")
REQUESTS = 9  # per round: three for each backend
ANSWER_LIMIT = 3.0  # seconds for one lookup or request
FOLLOW_LIMIT = 15.0  # seconds until an edit must have shown; the file is looked at every second
LOOK_EVERY = 0.05  # seconds between two looks at whether it has


def main(seconds: str) -> int:
    """Runs until Ctrl-C, or for so many seconds ("": no end). Returns the exit code. Raises ConfigError."""
    limit = _limit(seconds)
    logs.setup("warning", "text")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(limit))
    return 0


DEMO_SECONDS_MAX = 1e9  # more is for ever, which is said by saying nothing


def _limit(seconds: str) -> float | None:
    if not seconds:
        return None
    try:
        return parse_float(seconds, 0, DEMO_SECONDS_MAX)
    except ValueError:
        message = f"must be a number of seconds, not '{seconds[:SHOWN_MAX]}'"
        raise ConfigError([Problem("environment", "DEMO_SECONDS", message)]) from None


async def _run(limit: float | None) -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    if limit is not None:
        loop.call_later(limit, ended.set)
    failures: list[BaseException] = []

    def failed(_: str, error: BaseException) -> None:
        failures.append(error)
        ended.set()

    async with _stage() as stage:
        tasks = Tasks(failed)
        tasks.start(_show(stage, endless=limit is None), "demo show")
        await ended.wait()
        await tasks.close()
    if failures:
        raise failures[0]
    say("\nstopped.")


# --- the stage: backends, catalogue file, sidecar -----------------------------------------------------------


@dataclass
class DemoBackend:
    """One task of the demo: an HTTP server that answers with its name."""

    name: str
    address: str
    port: int
    runner: web.AppRunner = field(init=False)

    async def start(self) -> None:
        app = web.Application()
        app.router.add_get("/", self._answer)
        self.runner = web.AppRunner(app, access_log=None)
        await self.runner.setup()
        await web.TCPSite(self.runner, self.address, self.port).start()

    async def _answer(self, _: web.Request) -> web.Response:
        return web.Response(text=f"hello from {self.name} ({self.address})\n")

    async def stop(self) -> None:
        await self.runner.cleanup()


@dataclass(frozen=True)
class Stage:
    """Everything that the demo runs, with its addresses."""

    backends: list[DemoBackend]
    catalogue: Path
    published: int
    dns: Address
    metrics: Address
    admin: Address

    def write(self, dead: str = "") -> None:
        """The catalogue as the file says it, with one task marked dead; renamed into place as editors do."""
        beside = self.catalogue.with_suffix(".new")
        beside.write_text(yaml.safe_dump(catalogue(self.backends, self.published, dead), sort_keys=False))
        beside.replace(self.catalogue)


def catalogue(backends: list[DemoBackend], published: int, dead: str = "") -> dict[str, Any]:
    """A document of one service with the backends as its tasks."""
    tasks = [
        {
            "name": b.name,
            "node": "demo",
            "state": "dead" if b.name == dead else "running",
            "addresses": {"demo": b.address},
        }
        for b in backends
    ]
    port = {"published": published, "target": backends[0].port, "protocol": "tcp", "mode": "ingress"}
    web_ = {
        "networks": {"demo": {"vip": VIP, "aliases": ["www"]}},
        "ports": [port],
        "labels": {f"mesh.port.{published}.mode": "proxy"},
        "tasks": tasks,
    }
    return {
        "networks": {"demo": {} if len(backends) == 1 else {"subnet": SUBNET}},
        "services": {"web": web_},
        "askers": [{"name": "this machine", "source": "127.0.0.0/8", "networks": ["demo"]}],
    }


def settings(folder: Path) -> Config:
    """The sidecar as the demo runs it: everything on loopback, on ports of the kernel's choice."""
    anywhere = Address(LOOPBACK, 0)
    return Config(
        node="demo",
        discovery=config.Discovery(config.DiscoveryKind.FILE, str(folder / "catalog.yml")),
        dns=config.Dns(listen=(anywhere,)),
        capture=config.CaptureMode.OFF,
        ingress=config.IngressConfig(LOOPBACK, config.PortMode.PROXY),
        metrics=config.Metrics(anywhere),
        admin=config.Admin(anywhere, socket=""),  # a page for the browser
        state_dir=str(folder / "state"),
    )


@contextlib.asynccontextmanager
async def _stage() -> AsyncIterator[Stage]:
    """Set up in order, taken down in reverse, also when something fails half-way."""
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mesh-demo-")))
        backends = plan_backends()
        for backend in backends:
            await backend.start()
            stack.push_async_callback(backend.stop)
        wanted = settings(folder)
        nowhere = Address(LOOPBACK, 0)
        stage = Stage(backends, folder / "catalog.yml", free_port(LOOPBACK), nowhere, nowhere, nowhere)
        stage.write()
        sidecar = Sidecar(wanted)
        stack.push_async_callback(sidecar.stop)
        bound = await sidecar.start()
        assert bound.admin is not None
        yield replace(stage, dns=bound.dns[0], metrics=bound.metrics, admin=bound.admin)


def plan_backends() -> list[DemoBackend]:
    """Three tasks, each on its own address; only one where 127/8 has no more than 127.0.0.1 (macOS)."""
    for _ in range(10):  # a port that is free on one address may be taken on another
        port = free_port(TASK_ADDRESSES[0])
        if port and all(free_port(address, port) for address in TASK_ADDRESSES):
            return [
                DemoBackend(f"web.{i}", address, port) for i, address in enumerate(TASK_ADDRESSES, start=1)
            ]
    return [DemoBackend("web.1", LOOPBACK, free_port(LOOPBACK))]


def free_port(address: str, port: int = 0) -> int:
    """The port (0: any) if it can be bound there now; 0 if not."""
    with socket.socket() as probe:
        try:
            probe.bind((address, port))
        except OSError:
            return 0
        return int(probe.getsockname()[1])


# --- the show -----------------------------------------------------------------------------------------------


def say(text: str = "") -> None:
    print(text, flush=True)


async def _show(stage: Stage, *, endless: bool) -> None:
    _what_runs(stage)
    await _show_names(stage)
    await _show_balancing(stage)
    if len(stage.backends) > 1:
        await _show_failover(stage)
    else:
        say("\n(this system has one loopback address only: one backend, so no failover to show)")
    say(
        "\nIt goes on running: try the lines above, edit the catalogue."
        + (" Ctrl-C ends it." if endless else "")
    )


def _what_runs(stage: Stage) -> None:
    dns, published = stage.dns, stage.published
    say("mesh demo: a sidecar on this machine; no Docker, no root.\n")
    say(f"  catalogue  {stage.catalogue}")
    for backend in stage.backends:
        say(f"  task       {backend.name} on {backend.address}:{backend.port}")
    say(f"  resolver   {dns}\n  port       {LOOPBACK}:{published} -> service web, carried in user space")
    say("\nTry, in another terminal:")
    say(f"  dig @{dns.host} -p {dns.port} web +short         # the service's virtual IP")
    say(f"  dig @{dns.host} -p {dns.port} tasks.web +short   # its tasks")
    say(f"  curl http://{LOOPBACK}:{published}/                  # balanced")
    say(f"  curl -s http://{stage.metrics}/metrics | grep mesh_")
    say(f"  {_command()} status --admin {stage.admin}   # or open http://{stage.admin}/")
    say(f"  {_command()} resolve tasks.web --admin {stage.admin}")


def _command() -> str:
    """The command that this user can type for `mesh`: `make demo` leaves no `mesh` on the PATH."""
    beside = Path(sys.executable).with_name("mesh")
    return "mesh" if shutil.which("mesh") or not beside.exists() else str(beside)


async def _show_names(stage: Stage) -> None:
    say("\nNames:")
    for name in ("web", "tasks.web"):
        say(f"  {name:<10} -> {' '.join(await look_up(stage.dns, name)) or 'no answer'}")


async def _show_balancing(stage: Stage) -> None:
    say(f"\nBalancing: {REQUESTS} requests to {LOOPBACK}:{stage.published}:")
    _tally(await ask(stage.published, REQUESTS))


async def _show_failover(stage: Stage) -> None:
    gone = stage.backends[1]
    await gone.stop()
    say(f"\nFailover: {gone.name} stops without a word; {REQUESTS} requests while the catalogue lists it:")
    _tally(await ask(stage.published, REQUESTS))
    stage.write(dead=gone.name)
    began = time.monotonic()
    answers = await _until(stage.dns, lambda found: found and gone.address not in found)
    took = time.monotonic() - began
    say(f"  the catalogue calls it dead; {took:.1f} s later tasks.web -> {' '.join(answers)}")
    _tally(await ask(stage.published, REQUESTS))


def _tally(answers: Counter[str]) -> None:
    for answer, count in sorted(answers.items()):
        say(f"  {count} x {answer}")


async def _until(dns: Address, good: Callable[[list[str]], object]) -> list[str]:
    """Looks `tasks.web` up until the answer is the expected one."""
    try:
        async with asyncio.timeout(FOLLOW_LIMIT):
            while True:
                found = await look_up(dns, "tasks.web")
                if good(found):
                    return found
                await asyncio.sleep(LOOK_EVERY)
    except TimeoutError as error:
        raise DiscoveryError(f"the catalogue's change did not show within {FOLLOW_LIMIT:.0f} s") from error


async def ask(port: int, times: int) -> Counter[str]:
    """Counts the answers to so many requests, each on a connection of its own."""
    answers: Counter[str] = Counter()
    timeout = ClientTimeout(total=ANSWER_LIMIT)
    async with ClientSession(connector=TCPConnector(force_close=True), timeout=timeout) as session:
        for _ in range(times):
            try:
                async with session.get(f"http://{LOOPBACK}:{port}/") as response:
                    answers[(await response.text()).strip()] += 1
            except (ClientError, TimeoutError) as error:
                answers[f"failed: {type(error).__name__}"] += 1
    return answers


async def look_up(dns: Address, name: str) -> list[str]:
    """The addresses that the resolver gives for the name; none when it does not answer."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.setblocking(False)
        asking.connect((dns.host, dns.port))
        query = DNSRecord.question(name)
        try:
            async with asyncio.timeout(ANSWER_LIMIT):
                await loop.sock_sendall(asking, query.pack())
                reply = DNSRecord.parse(await loop.sock_recv(asking, 4096))
        except (OSError, TimeoutError):
            return []
    return sorted(str(record.rdata) for record in reply.rr if record.rtype == QTYPE.A)
