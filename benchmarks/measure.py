"""Servers on one core, load on the other, in turns: the method that all figures come from.

Every server is pinned to one core and the load to another; rounds alternate between the servers, so that
whatever else the machine does hits them all. Only ratios mean anything beyond this machine, and of those the
CPU time per query is steadier than the rate: where a server's core is not busy, the load was the slower one.
"""

import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Protocol

from benchmarks import program
from benchmarks.dnsperf import Load, Outcome, parse
from benchmarks.failure import BenchmarkFailed
from benchmarks.processes import cpu_seconds
from benchmarks.program import SHOWN
from benchmarks.ready import await_answer

SERVER_CORE, LOAD_CORE = "0", "1"
GRACE = 30.0  # seconds: what dnsperf may take beyond the load's own
ONCE_LIMIT = 120.0  # seconds for once through the file


class Role(Enum):
    """FLOOR answers nothing at all: what the system calls alone cost."""

    OURS = "ours"
    PEER = "peer"
    FLOOR = "floor"


@dataclass(frozen=True)
class Server:
    """Running. `address` and `port` are where it is asked, inside `namespace` ("": the host's).

    `family`: the CPU time of its child processes is its own.
    """

    name: str
    pid: int
    port: int
    address: str = "127.0.0.1"
    namespace: str = ""
    role: Role = Role.PEER
    family: bool = True


class Launch(Protocol):
    """A server that can be started, as often as needed."""

    def running(self) -> AbstractContextManager[Server]: ...


@dataclass(frozen=True)
class Command:
    """Started on the servers' core, answering `probe` by the time the block begins, stopped when it ends.

    The command must become the server, or stay its parent. It starts inside `namespace`, unless it `enters`
    by itself. Raises BenchmarkFailed.
    """

    name: str
    argv: Sequence[str]
    port: int
    probe: str
    address: str = "127.0.0.1"
    namespace: str = ""
    role: Role = Role.PEER
    enters: bool = False

    @contextmanager
    def running(self) -> Iterator[Server]:
        inside = ["nsenter", f"--net={self.namespace}"] if self.namespace else []

        def fault(process: "subprocess.Popen[bytes]") -> str:
            return await_answer(process, inside, self.address, self.port, self.probe)

        entered = () if self.enters else inside
        with program.running(self.name, self.argv, SERVER_CORE, fault, entered) as process:
            yield Server(self.name, process.pid, self.port, self.address, self.namespace, self.role)


@dataclass
class Series:
    """What was measured of one server, round by round."""

    name: str
    role: Role = Role.PEER
    qps: list[float] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)  # of the server, per query
    latencies: list[float] = field(default_factory=list)  # seconds, of all rounds
    lost: int = 0

    @property
    def median_qps(self) -> float:
        return statistics.median(self.qps)

    @property
    def median_cpu_us(self) -> float:
        return statistics.median(self.cpu_us)

    @property
    def busy(self) -> float:
        """Share of a core that the server took."""
        return statistics.median(qps * cpu / 1e6 for qps, cpu in zip(self.qps, self.cpu_us, strict=True))


def check_cores() -> None:
    """Raises BenchmarkFailed."""
    if not {int(SERVER_CORE), int(LOAD_CORE)} <= os.sched_getaffinity(0):
        raise BenchmarkFailed("two cores are needed: one for the server, one for the load")


def in_turns(launches: Sequence[Launch], load: Callable[[Server], Load], rounds: int) -> list[Series]:
    """All servers run at once, are asked for everything once, and are then loaded in turn."""
    with ExitStack() as stack:
        servers = [stack.enter_context(launch.running()) for launch in launches]
        results = [Series(server.name, server.role) for server in servers]
        for server in servers:
            run(server, replace(load(server), once=True, rate=0))
        for _ in range(rounds):
            _add_round(results, servers, load)
    return results


def afresh(launches: Sequence[Launch], load: Callable[[Server], Load], rounds: int) -> list[Series]:
    """The servers are started anew for each round: nothing has been asked before."""
    results: list[Series] = []
    for _ in range(rounds):
        with ExitStack() as stack:
            servers = [stack.enter_context(launch.running()) for launch in launches]
            results = results or [Series(server.name, server.role) for server in servers]
            _add_round(results, servers, load)
    return results


def _add_round(results: Sequence[Series], servers: Sequence[Server], load: Callable[[Server], Load]) -> None:
    for series, server in zip(results, servers, strict=True):
        before = cpu_seconds(server.pid, server.family)
        outcome = run(server, load(server))
        used = cpu_seconds(server.pid, server.family) - before
        series.qps.append(outcome.qps)
        series.cpu_us.append(used / outcome.completed * 1e6)
        series.latencies += outcome.latencies
        series.lost += outcome.lost
    print(".", end="", file=sys.stderr, flush=True)


def run(server: Server, load: Load) -> Outcome:
    """One run of dnsperf. Raises BenchmarkFailed when a reply does not say NOERROR."""
    inside = ["nsenter", f"--net={server.namespace}"] if server.namespace else []
    command = [*inside, "taskset", "-c", LOAD_CORE, *load.command(server.address, server.port)]
    limit = ONCE_LIMIT if load.once else load.seconds + GRACE
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=limit)
    except subprocess.CalledProcessError as error:
        raise BenchmarkFailed(f"{server.name}: dnsperf failed:\n{error.stderr[-SHOWN:]}") from error
    except subprocess.TimeoutExpired as error:
        raise BenchmarkFailed(f"{server.name}: dnsperf took more than {limit:.0f} s") from error
    outcome = parse(done.stdout)
    if not 0 < outcome.noerror == outcome.completed:
        raise BenchmarkFailed(f"{server.name} does not always answer NOERROR:\n{done.stdout[-SHOWN:]}")
    return outcome
