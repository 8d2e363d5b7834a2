"""Our resolver beside unbound, knot, dnsmasq and bind9, scenario by scenario, in one run.

    python -m benchmarks.dns [--install] [--only SCENARIO …] [--rounds 3] [--seconds 3]

The method is `measure`'s. The tables are printed, and written as JSON to benchmarks/out/dns.json.
"""

import argparse
import json
import random
import sys
import tempfile
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks import dns_catalogue, dns_docker
from benchmarks.dns_served import DOCKER_RESOLVER, names
from benchmarks.measure import BenchmarkFailed, Load, Series, Server, check_tools, in_turns, running
from benchmarks.namespaces import redirected
from benchmarks.peers import ZONE, Place, authority, install, installed
from benchmarks.report import Table, latencies, rates

OUT = Path(__file__).parent / "out" / "dns.json"
FIRST_PORT = 15353
UPSTREAM_PORT = 15300
FEW, MANY = 1000, 100_000
FIXED_RATE = 10_000  # queries per second
PROBE = f"name1.{ZONE}"


@dataclass(frozen=True)
class Run:
    """What the command line said, and a folder to write to."""

    rounds: int
    seconds: int
    folder: Path

    def queries(self, asked: Iterable[str], kind: str = "A") -> Path:
        """A file for dnsperf, in an order that no server's memory likes."""
        lines = [f"{name} {kind}\n" for name in asked]
        random.Random(len(lines)).shuffle(lines)
        with tempfile.NamedTemporaryFile("w", dir=self.folder, delete=False) as file:
            file.writelines(lines)
        return Path(file.name)

    def place(self, port: int, address: str = "127.0.0.1") -> Place:
        return Place(Path(tempfile.mkdtemp(dir=self.folder)), address, port)


Servers = list[AbstractContextManager[Server]]


def main() -> None:
    options = _options()
    try:
        if options.install:
            install()
        check_tools()
        with tempfile.TemporaryDirectory(prefix="mesh-bench-") as folder:
            run = Run(options.rounds, options.seconds, Path(folder))
            tables = [table for name in options.only or SCENARIOS for table in _named(name, run)]
    except BenchmarkFailed as failed:
        sys.exit(f"benchmarks.dns: {failed}")
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps([table.document() for table in tables], indent=2) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dns", description="DNS, ours beside peers")
    parser.add_argument("--install", action="store_true", help="install dnsperf and the peers (Debian, root)")
    parser.add_argument("--only", action="append", choices=SCENARIOS, help="this scenario; may be repeated")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3, help="of load per server and round")
    return parser.parse_args()


def _named(name: str, run: Run) -> Iterable[Table]:
    """The scenario's tables, each printed as soon as it is there."""
    for table in SCENARIOS[name](run):
        print(f"\n{table}", flush=True)
        yield table


# --- servers ------------------------------------------------------------------------------------------------


def _ours(port: int, *options: str, name: str = "ours", probe: str = PROBE) -> AbstractContextManager[Server]:
    command = [sys.executable, "-m", "benchmarks.dns_served", str(port), *options]
    return running(name, command, port, probe)


def _local(run: Run, count: int) -> Servers:
    """Ours and every peer with so many names in memory."""
    servers = [_ours(FIRST_PORT, "--names", str(count))]
    for port, peer in enumerate(installed(), FIRST_PORT + 1):
        if peer.local is not None:
            command = peer.local(run.place(port), names(count))
            servers.append(running(peer.name, command, port, PROBE))
    return servers


def _always(run: Run, queries: Path) -> Callable[[Server], Load]:
    """The same load for every server."""
    return lambda _: Load(queries, run.seconds)


# --- scenarios ----------------------------------------------------------------------------------------------


def local(run: Run) -> Iterable[Table]:
    """A answers from memory, few names and many; the echo is what no answer at all costs."""
    for count in (FEW, MANY):
        floor = _ours(FIRST_PORT + 90, "--echo", name="(echo)")
        queries = run.queries(names(count))
        results = in_turns([*_local(run, count), floor], _always(run, queries), run.rounds)
        yield rates(f"local: A from memory, {count:,} names, UDP", results)


def cold(run: Run) -> Iterable[Table]:
    """Each name once: nothing that a cache in front of the answer could have."""
    queries = run.queries(names(MANY))
    results = in_turns(_local(run, MANY), lambda _: Load(queries, 0, once=True), rounds=1)
    yield rates(f"cold: each of {MANY:,} names for the first time", results)


def rotation(run: Run) -> Iterable[Table]:
    """Replies with many addresses, which ours rotates."""
    results: list[Series] = []
    for tasks in (1, 10, 60, 100):
        queries = run.queries(f"tasks.name{n}.{ZONE}" for n in range(100))
        server = _ours(FIRST_PORT, "--names", "100", "--tasks", str(tasks), name=f"ours, {tasks} A")
        results += in_turns([server], _always(run, queries), run.rounds)
    yield rates("rotation: tasks.NAME with so many addresses (UDP: as many as fit)", results)


def tcp(run: Run) -> Iterable[Table]:
    """Over TCP, on connections that stay."""
    queries = run.queries(names(FEW))
    results = in_turns(_local(run, FEW), lambda _: Load(queries, run.seconds, tcp=True), run.rounds)
    yield rates(f"tcp: A from memory, {FEW:,} names", results)


def captured(run: Run) -> Iterable[Table]:
    """Inside a container's network namespace, through our redirect of 127.0.0.11:53."""
    queries = run.queries(names(FEW))
    with ExitStack() as stack:
        servers: Servers = []
        for port, peer in enumerate([None, *installed()], FIRST_PORT):
            namespace = stack.enter_context(redirected(f"mesh-bench-{port}", port))
            if peer is None:
                command = [sys.executable, "-m", "benchmarks.dns_served", str(port), "--namespace", namespace]
                servers.append(running("ours", command, 53, PROBE, DOCKER_RESOLVER, namespace))
            elif peer.local is not None:
                command = peer.local(run.place(port, DOCKER_RESOLVER), names(FEW))
                servers.append(running(peer.name, command, 53, PROBE, DOCKER_RESOLVER, namespace))
        results = in_turns(servers, _always(run, queries), run.rounds)
    yield rates(f"captured: {FEW:,} names, in a namespace, 127.0.0.11:53 redirected", results)


def _forwarding(run: Run) -> Servers:
    servers = [_ours(FIRST_PORT, "--names", "1", "--upstream", str(UPSTREAM_PORT))]
    for port, peer in enumerate(installed(), FIRST_PORT + 1):
        if peer.forwarding is not None:
            command = peer.forwarding(run.place(port), UPSTREAM_PORT)
            servers.append(running(peer.name, command, port, PROBE))
    return servers


def forwarded(run: Run) -> Iterable[Table]:
    """What another server has said, from the cache."""
    queries = run.queries(names(FEW))
    with running("authority", authority(run.place(UPSTREAM_PORT), names(FEW)), UPSTREAM_PORT, PROBE):
        results = in_turns(_forwarding(run), _always(run, queries), run.rounds)
    yield rates(f"forwarded: {FEW:,} names of another server, cached", results)


def latency(run: Run) -> Iterable[Table]:
    """At a rate that everybody can keep up with."""
    queries = run.queries(names(FEW))
    load = Load(queries, run.seconds, rate=FIXED_RATE)
    results = in_turns(_local(run, FEW), lambda _: load, run.rounds)
    yield latencies(f"latency: {FIXED_RATE:,} queries a second, {FEW:,} names", results)


def growth(run: Run) -> Iterable[Table]:
    """The same load on ever more names of ours, 1,000 of which are asked for."""
    counts = (10, 1000, 10_000, 100_000)
    servers = [
        _ours(FIRST_PORT + turn, "--names", str(count), name=f"{count:,} names")
        for turn, count in enumerate(counts)
    ]
    ports = {FIRST_PORT + turn: count for turn, count in enumerate(counts)}
    queries = {port: run.queries(list(names(count))[:FEW]) for port, count in ports.items()}
    results = in_turns(servers, lambda server: Load(queries[server.port], run.seconds), run.rounds)
    yield rates("growth: ours with more and more names", results)


def change(run: Run) -> Iterable[Table]:
    """What the event loop is busy with when the catalogue changes."""
    yield dns_catalogue.changes()
    yield dns_catalogue.building()


def docker(run: Run) -> Iterable[Table]:
    """Docker's own resolver and ours, from two containers of one node of a real Swarm."""
    queries = run.queries(["web"])
    results = dns_docker.measure(queries, run.seconds, run.rounds)
    yield rates("docker: `web`, in a container of a Swarm", results)


SCENARIOS: dict[str, Callable[[Run], Iterable[Table]]] = {
    scenario.__name__: scenario
    for scenario in (local, cold, rotation, tcp, captured, forwarded, latency, growth, change, docker)
}


if __name__ == "__main__":
    main()
