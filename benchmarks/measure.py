"""Servers on one core, load on the other, in turns: the method that all figures come from.

Every server is pinned to one core and the load to another; rounds alternate between the servers, so that
whatever else the machine does hits them all. Only ratios mean anything beyond this machine, and of those the
CPU time per query is steadier than the rate: a load generator on one core is often the slower of the two.
"""

import os
import re
import shutil
import statistics
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks.ready import await_answer

SERVER_CORE, LOAD_CORE = "0", "1"
TICKS = os.sysconf("SC_CLK_TCK")


class BenchmarkFailed(Exception):
    """Something that the measurement needs is not there or did not work."""


@dataclass(frozen=True)
class Server:
    """Running. `address` and `port` are where it is asked, inside `namespace` ("": the host's)."""

    name: str
    address: str
    port: int
    pid: int
    namespace: str = ""


@dataclass
class Series:
    """What was measured of one server, round by round."""

    name: str
    qps: list[float] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)  # of the server, per query
    latencies: list[float] = field(default_factory=list)  # seconds, of all rounds
    lost: int = 0

    def median(self) -> tuple[float, float]:
        return statistics.median(self.qps), statistics.median(self.cpu_us)


@dataclass(frozen=True)
class Load:
    """What dnsperf does for `seconds`, or `once` through the file. `rate` 0: as fast as it goes."""

    queries: Path
    seconds: int
    tcp: bool = False
    rate: int = 0
    once: bool = False

    def command(self, server: Server) -> list[str]:
        inside = ["nsenter", f"--net={server.namespace}"] if server.namespace else []
        command = [*inside, "taskset", "-c", LOAD_CORE, "dnsperf", "-s", server.address]
        command += ["-p", str(server.port), "-d", str(self.queries)]
        command += ["-n", "1"] if self.once else ["-l", str(self.seconds)]
        command += ["-m", "tcp"] if self.tcp else []
        return command + (["-Q", str(self.rate), "-v"] if self.rate else [])


@dataclass(frozen=True)
class Outcome:
    """What dnsperf printed. `latencies`, in seconds, only where a rate was asked for."""

    qps: float
    completed: int
    lost: int
    latencies: Sequence[float] = ()


def check_tools() -> None:
    """Raises BenchmarkFailed."""
    if shutil.which("dnsperf") is None:
        raise BenchmarkFailed("dnsperf is not installed (try --install)")
    if len(os.sched_getaffinity(0)) < 2:
        raise BenchmarkFailed("two cores are needed: one for the server, one for the load")


def in_turns(
    servers: Sequence[AbstractContextManager[Server]], load: Callable[[Server], Load], rounds: int
) -> list[Series]:
    """Start all servers, ask each for everything once (`cold` counts that), then load them in turn."""
    with ExitStack() as stack:
        running = [stack.enter_context(server) for server in servers]
        results = [Series(server.name) for server in running]
        for server in running:
            if not load(server).once:
                run(server, replace(load(server), once=True, rate=0))
        for _ in range(rounds):
            for server, series in zip(running, results, strict=True):
                _add_round(series, server, load(server))
        return results


def _add_round(series: Series, server: Server, load: Load) -> None:
    before = cpu_seconds(server.pid)
    outcome = run(server, load)
    series.qps.append(outcome.qps)
    series.cpu_us.append((cpu_seconds(server.pid) - before) / outcome.completed * 1e6)
    series.latencies += outcome.latencies
    series.lost += outcome.lost


def run(server: Server, load: Load) -> Outcome:
    """One run of dnsperf. Raises BenchmarkFailed when not every reply says NOERROR."""
    command = load.command(server)
    limit = load.seconds + 30
    text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=limit).stdout
    outcome = parse(text)
    if not re.search(r"NOERROR \d+ \(100\.00%\)", text):
        raise BenchmarkFailed(f"{server.name} does not answer every name with NOERROR:\n{text[-2000:]}")
    return outcome


def parse(text: str) -> Outcome:
    """dnsperf's report. Raises BenchmarkFailed for anything else."""
    return Outcome(
        float(_figure(text, r"Queries per second:\s+([\d.]+)")),
        int(_figure(text, r"Queries completed:\s+(\d+)")),
        int(_figure(text, r"Queries lost:\s+(\d+)")),
        [float(one) for one in re.findall(r"^> NOERROR \S+ \S+ ([\d.]+)$", text, re.MULTILINE)],
    )


def _figure(text: str, pattern: str) -> str:
    found = re.search(pattern, text)
    if found is None:
        raise BenchmarkFailed(f"dnsperf did not print {pattern!r}:\n{text[-2000:]}")
    return found.group(1)


def cpu_seconds(pid: int) -> float:
    """User and system time of a process, all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def percentile(values: Sequence[float], share: float) -> float:
    """The value that this share of the others does not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


@contextmanager
def running(
    name: str, command: Sequence[str], port: int, probe: str, address: str = "127.0.0.1", namespace: str = ""
) -> Iterator[Server]:
    """A server on its core, answering `probe` by the time the block begins, stopped when it ends."""
    inside = ["nsenter", f"--net={namespace}"] if namespace else []
    process = subprocess.Popen(
        [*inside, "taskset", "-c", SERVER_CORE, *command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        if fault := await_answer(process, [*inside], address, port, probe):
            raise BenchmarkFailed(f"{name} {fault}")
        yield Server(name, address, port, process.pid, namespace)  # the id is the server's: all of them exec
    finally:
        process.terminate()
        process.wait()
