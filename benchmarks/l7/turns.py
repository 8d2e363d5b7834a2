"""The method: all proxies are up, one at a time is loaded, and the turns alternate."""

import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import program
from benchmarks.failure import BenchmarkFailed
from benchmarks.l7.loads import SOCKETS, Outcome
from benchmarks.l7.proxies import APPLICATION, Proxy, write_pair
from benchmarks.l7.scenarios import Scenario
from benchmarks.measure import GRACE, LOAD_CORE, SERVER_CORE
from benchmarks.processes import cpu_seconds, memory
from benchmarks.program import SHOWN

READY_WITHIN = 20.0  # seconds


@dataclass
class Series:
    name: str
    rate: list[float] = field(default_factory=list)  # requests per second
    cpu: list[float] = field(default_factory=list)  # seconds of the proxy, per request
    p50: list[float] = field(default_factory=list)  # seconds, where times are taken
    p99: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)  # bytes for each socket that is open


@dataclass(frozen=True)
class _Running:
    port: int
    pid: int
    idle: int  # bytes of memory before anything was asked of it


def in_turns(
    taking_part: Sequence[Proxy],
    scenario: Scenario,
    rounds: int,
    seconds: float,
    rate: float = 0.0,
    cores: str = SERVER_CORE,
) -> list[Series]:
    """`rate`: requests per second, for a paced load; `cores`: the proxies'. Raises BenchmarkFailed."""
    results = [Series(one.name) for one in taking_part]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.chmod(0o755)  # the application's workers are not root
        stack.enter_context(_running("application", scenario.application(folder), LOAD_CORE, APPLICATION))
        running = []
        for at, one in enumerate(taking_part, 1):
            own = folder / str(at)
            own.mkdir()
            write_pair(own)
            port = APPLICATION + at
            argv = one.argv(own, port, scenario.tls)
            pid = stack.enter_context(_running(one.name, argv, cores, port))
            running.append(_Running(port, pid, memory(pid)))
        for turn in range(rounds + 1):
            for series, proxy in zip(results, running, strict=True):
                _turn(series, proxy, scenario, folder, seconds, rate, counts=turn > 0)
            print(".", end="", file=sys.stderr, flush=True)
    return results


def _turn(
    series: Series,
    proxy: "_Running",
    scenario: Scenario,
    folder: Path,
    seconds: float,
    rate: float,
    *,
    counts: bool,
) -> None:
    """The first one warms up, and does not count."""
    address = f"{'https' if scenario.tls else 'http'}://127.0.0.1:{proxy.port}"
    argv = ["taskset", "-c", LOAD_CORE, *scenario.load.argv(address, seconds, rate, folder)]
    held, before = 0, cpu_seconds(proxy.pid)
    try:
        with _started(argv) as process:
            if scenario.load.waits:
                assert process.stdout is not None
                if process.stdout.readline() == "open\n":
                    held, before = memory(proxy.pid), cpu_seconds(proxy.pid)
            said, _ = process.communicate("\n", timeout=seconds + GRACE)
        if process.returncode:
            raise BenchmarkFailed(said[-SHOWN:])
        done = scenario.load.read(said, seconds, rate, folder)
    except subprocess.TimeoutExpired as error:
        raise BenchmarkFailed(f"{series.name}: the load took too long") from error
    except BenchmarkFailed as failed:
        raise BenchmarkFailed(f"{series.name}: {failed}") from failed
    if counts:
        _note(series, done, seconds, cpu_seconds(proxy.pid) - before)
        if scenario.load.waits:
            series.memory.append((held - proxy.idle) / SOCKETS)


def _note(series: Series, done: Outcome, seconds: float, cpu: float) -> None:
    series.rate.append(done.done / seconds)
    series.cpu.append(cpu / done.done)
    if done.times:
        series.p50.append(done.p(0.5))
        series.p99.append(done.p(0.99))


@contextmanager
def _started(argv: Sequence[str]) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen(
        argv,
        cwd=program.ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def _running(name: str, argv: Sequence[str], core: str, port: int) -> Iterator[int]:
    """Its process number, once it can be connected to."""

    def fault(process: "subprocess.Popen[bytes]") -> str:
        end = time.monotonic() + READY_WITHIN
        while time.monotonic() < end:
            if process.poll() is not None:
                return f"ended with status {process.returncode}"
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
            except OSError:
                time.sleep(0.05)
            else:
                return ""
        return f"cannot be reached within {READY_WITHIN:.0f} s"

    with program.running(name, argv, core, fault) as process:
        yield process.pid
