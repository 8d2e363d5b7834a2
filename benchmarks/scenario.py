"""What a scenario is made of: servers, a load for them, a table of what was measured."""

import random
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.dnsperf import Load
from benchmarks.measure import Command, Launch, Role, Series, Server, afresh, in_turns
from benchmarks.peers import ZONE, Names, Peer, Place, installed
from benchmarks.report import Table, rates

FIRST_PORT = 15353
ECHO_PORT = FIRST_PORT + 90
FEW, MANY = 1000, 100_000  # names
PROBE = f"name1.{ZONE}"


@dataclass(frozen=True)
class Comparison:
    """These servers under the same load, all asked for everything before it counts; or with `cold`, not."""

    title: str
    servers: Sequence[Launch]
    load: Load | Callable[[Server], Load]
    report: Callable[[str, Sequence[Series]], Table] = rates
    cold: bool = False

    def measure(self, rounds: int) -> Table:
        given = self.load
        load = (lambda _: given) if isinstance(given, Load) else given
        return self.report(self.title, (afresh if self.cold else in_turns)(self.servers, load, rounds))


@dataclass(frozen=True)
class Run:
    """What the command line said, and a folder to write to. `seconds` of load per server and round."""

    rounds: int
    seconds: int
    folder: Path

    def queries(self, asked: Iterable[str]) -> Path:
        """A file for dnsperf with an A question for each name, in an order that no server's memory likes."""
        lines = [f"{name} A\n" for name in asked]
        random.Random(len(lines)).shuffle(lines)
        with tempfile.NamedTemporaryFile("w", dir=self.folder, delete=False) as file:
            file.writelines(lines)
        return Path(file.name)

    def place(self, port: int, address: str = "127.0.0.1") -> Place:
        return Place(Path(tempfile.mkdtemp(dir=self.folder)), address, port)

    def in_memory(self, names: Names, *options: str, probe: str = PROBE, tcp: bool = False) -> list[Launch]:
        """Ours with these `options`, and every peer with these names in its memory (and fit for `tcp`)."""
        servers: list[Launch] = [ours(FIRST_PORT, *options, probe=probe)]
        for port, peer in numbered_peers():
            if peer.local is not None and (peer.tcp or not tcp):
                servers.append(Command(peer.name, peer.local(self.place(port), names), port, probe))
        return servers


def numbered_peers() -> Iterable[tuple[int, Peer]]:
    """Those that can run here, with a port for each."""
    return enumerate(installed(), FIRST_PORT + 1)


def ours(port: int, *options: str, name: str = "ours", probe: str = PROBE) -> Command:
    argv = [sys.executable, "-m", "benchmarks.served", str(port), *options]
    return Command(name, argv, port, probe, role=Role.OURS)


def echo() -> Command:
    argv = [sys.executable, "-m", "benchmarks.echo", str(ECHO_PORT)]
    return Command("(echo)", argv, ECHO_PORT, PROBE, role=Role.FLOOR)
