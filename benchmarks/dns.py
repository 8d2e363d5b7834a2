"""Our resolver beside dnsmasq, unbound and knot: the same 1,000 names, the same core, in one run.

    python -m benchmarks.dns [--install] [--rounds 3] [--seconds 3]

Every server is pinned to one core and dnsperf to another; rounds alternate between the servers, so that
whatever else the machine does hits them all. Only the ratios mean anything beyond this machine. The medians
of the rounds are printed as a table and written to benchmarks/out/dns.json.
"""

import argparse
import asyncio
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import uvloop

from benchmarks.peers import PACKAGES, PEERS, ZONE, Names
from mesh.catalog.model import Asker, Network, Service, ServiceNetwork, Task, TaskState
from mesh.catalog.snapshot import Change, Snapshot
from mesh.dns.config import DnsConfig
from mesh.dns.resolver import Resolver
from mesh.dns.server import Endpoint
from mesh.dns.wire import QType, query_message
from mesh.net.tasks import Tasks

NAMES = 1000
SERVER_CORE, LOAD_CORE = "0", "1"
FIRST_PORT = 15353
READY_WITHIN = 20.0  # seconds
WARM_UP = 1  # seconds of load before anything is counted
TICKS = os.sysconf("SC_CLK_TCK")
OUT = Path(__file__).parent / "out" / "dns.json"
POLICY = Path("/usr/sbin/policy-rc.d")  # Debian asks it before a package starts its service


class BenchmarkFailed(Exception):
    """Something that the measurement needs is not there or did not work."""


@dataclass
class Series:
    """What was measured of one server, round by round."""

    name: str
    qps: list[float] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)  # of the server, per query
    lost: int = 0

    def median(self) -> tuple[float, float]:
        return statistics.median(self.qps), statistics.median(self.cpu_us)


@dataclass(frozen=True)
class Server:
    name: str
    port: int
    pid: int


def main() -> None:
    options = _options()
    if options.serve:
        uvloop.run(_serve(options.serve))
        return
    try:
        if options.install:
            install()
        report(measure(options.rounds, options.seconds))
    except BenchmarkFailed as failed:
        sys.exit(f"benchmarks.dns: {failed}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dns", description="DNS, ours beside peers")
    parser.add_argument("--install", action="store_true", help="install dnsperf and the peers (Debian, root)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3, help="of load per server and round")
    parser.add_argument("--serve", type=int, metavar="PORT", help="be the server that is measured")
    return parser.parse_args()


# --- the run ------------------------------------------------------------------------------------------------


def measure(rounds: int, seconds: int) -> list[Series]:
    """Load every server in turn, `rounds` times. Raises BenchmarkFailed."""
    if shutil.which("dnsperf") is None:
        raise BenchmarkFailed("dnsperf is not installed (try --install)")
    if len(os.sched_getaffinity(0)) < 2:
        raise BenchmarkFailed("two cores are needed: one for the server, one for the load")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mesh-bench-")))
        queries = folder / "queries"
        queries.write_text("".join(f"{name} A\n" for name in _names()))
        servers = [stack.enter_context(server) for server in _servers(folder)]
        results = {server.name: Series(server.name) for server in servers}
        for server in servers:
            _load(server, queries, WARM_UP)
        for number in range(rounds):
            print(f"round {number + 1} of {rounds}", flush=True)
            for server in servers:
                _add_round(results[server.name], server, queries, seconds)
        return list(results.values())


def _add_round(series: Series, server: Server, queries: Path, seconds: int) -> None:
    before = _cpu_seconds(server.pid)
    qps, completed, lost = _load(server, queries, seconds)
    series.qps.append(qps)
    series.cpu_us.append((_cpu_seconds(server.pid) - before) / completed * 1e6)
    series.lost += lost


def _load(server: Server, queries: Path, seconds: int) -> tuple[float, int, int]:
    """(queries per second, queries answered, queries lost)."""
    command = ["taskset", "-c", LOAD_CORE, "dnsperf", "-s", "127.0.0.1", "-p", str(server.port)]
    command += ["-d", str(queries), "-l", str(seconds)]
    text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds + 30).stdout
    if not re.search(r"NOERROR \d+ \(100\.00%\)", text):
        raise BenchmarkFailed(f"{server.name} does not answer every name with NOERROR:\n{text}")
    return (
        float(_figure(text, r"Queries per second:\s+([\d.]+)")),
        int(_figure(text, r"Queries completed:\s+(\d+)")),
        int(_figure(text, r"Queries lost:\s+(\d+)")),
    )


def _figure(text: str, pattern: str) -> str:
    found = re.search(pattern, text)
    if found is None:
        raise BenchmarkFailed(f"dnsperf did not print {pattern!r}:\n{text}")
    return found.group(1)


def _cpu_seconds(pid: int) -> float:
    """User and system time of a process, all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


# --- the servers --------------------------------------------------------------------------------------------


def _names() -> Names:
    return {f"name{n}.{ZONE}": f"10.1.{n // 250}.{n % 250 + 1}" for n in range(NAMES)}


def _servers(folder: Path) -> Iterator[AbstractContextManager[Server]]:
    ours = [sys.executable, "-m", "benchmarks.dns", "--serve", str(FIRST_PORT)]
    yield _running("ours", ours, FIRST_PORT)
    for offset, peer in enumerate(PEERS, start=1):
        if not peer.installed:
            print(f"left out: {peer.name} is not installed (try --install)")
            continue
        own = folder / peer.name
        own.mkdir()
        port = FIRST_PORT + offset
        yield _running(peer.name, peer.command(own, port, _names()), port)


@contextmanager
def _running(name: str, command: Sequence[str], port: int) -> Iterator[Server]:
    """A server on its core, stopped when the block ends."""
    process = subprocess.Popen(
        ["taskset", "-c", SERVER_CORE, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        _await_ready(name, process, port)
        yield Server(name, port, process.pid)  # taskset has become the server: the id is the same
    finally:
        process.terminate()
        process.wait()


def _await_ready(name: str, process: "subprocess.Popen[bytes]", port: int) -> None:
    query = query_message(1, f"name1.{ZONE}", QType.A)
    end = time.monotonic() + READY_WITHIN
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(0.2)
        while time.monotonic() < end:
            if process.poll() is not None:
                raise BenchmarkFailed(f"{name} ended with status {process.returncode}")
            try:
                asking.sendto(query, ("127.0.0.1", port))
                asking.recv(512)
            except OSError:
                continue
            return
    raise BenchmarkFailed(f"{name} did not answer within {READY_WITHIN:.0f} s")


async def _serve(port: int) -> None:
    """Ours: the explicit resolver with a catalogue as a file would give it."""
    tasks = Tasks(lambda name, error: print(name, repr(error), file=sys.stderr))
    resolver = Resolver(DnsConfig(), tasks, _snapshot())
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    udp.bind(("127.0.0.1", port))
    endpoint = Endpoint(resolver, udp, None, resolver.scope_by_source)
    await endpoint.start()
    await asyncio.Event().wait()


def _snapshot() -> Snapshot:
    services = {}
    for number, (name, address) in enumerate(_names().items()):
        label = name.removesuffix(f".{ZONE}")
        at = {ZONE: f"10.2.{number // 250}.{number % 250 + 1}"}
        task = Task(f"{label}.1", f"{label}.1.x", "node", TaskState.RUNNING, at)
        services[label] = Service(label, label, networks=(ServiceNetwork(ZONE, address),), tasks=(task,))
    askers = (Asker("anyone", "127.0.0.0/8", (ZONE,)),)
    return Snapshot().apply(Change(networks={ZONE: Network(ZONE, ZONE)}, services=services, askers=askers))


# --- installing and reporting -------------------------------------------------------------------------------


def install() -> None:
    """Debian's packages, without starting their services. Raises BenchmarkFailed."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise BenchmarkFailed("--install needs root on Debian or Ubuntu")
    ours = not POLICY.exists()
    if ours:
        POLICY.write_text("#!/bin/sh\nexit 101\n")
        POLICY.chmod(0o755)
    try:
        command = ["apt-get", "install", "-y", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300"]
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run([*command, *PACKAGES], check=True, stdout=subprocess.DEVNULL, env=environment)
    except subprocess.CalledProcessError as error:
        raise BenchmarkFailed("apt-get failed (is the package list up to date?)") from error
    finally:
        if ours:
            POLICY.unlink()


def report(results: Sequence[Series]) -> None:
    """The table, and the JSON beside it."""
    own_qps, own_cpu = results[0].median()
    print(
        f"\n{NAMES} names, type A, UDP on loopback; server on core {SERVER_CORE}, dnsperf on core {LOAD_CORE}"
    )
    print(f"{'server':<10}{'qps':>10}{'CPU µs/query':>15}{'lost':>7}{'ours/its qps':>15}{'ours/its CPU':>15}")
    rows = []
    for series in results:
        qps, cpu = series.median()
        ratios = own_qps / qps, own_cpu / cpu
        print(
            f"{series.name:<10}{qps:>10,.0f}{cpu:>15.1f}{series.lost:>7}{ratios[0]:>15.2f}{ratios[1]:>15.2f}"
        )
        rows.append({"server": series.name, "qps": series.qps, "cpu_us": series.cpu_us, "lost": series.lost})
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps({"names": NAMES, "rounds": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
