"""Ours beside HAProxy, nginx, Caddy and a plain aiohttp proxy, scenario by scenario, in one run.

    python -m benchmarks.l7 [--install] [--only SCENARIO …] [--rounds 5] [--seconds 2]

All are up, one at a time is loaded with 32 connections, and the turns alternate. A proxy has a core of its
own; wrk and the application share the other. A round's samples are compared with each other. Tables are
printed, and written as JSON to benchmarks/out/l7.json.
"""

import argparse
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from benchmarks import measure, program
from benchmarks.failure import BenchmarkFailed
from benchmarks.install import install
from benchmarks.l4.loads import requests
from benchmarks.l4.report import paired
from benchmarks.l7 import proxies
from benchmarks.l7.proxies import APPLICATION, OURS, PROXIES, Proxy, routed
from benchmarks.machine import machine
from benchmarks.measure import GRACE, LOAD_CORE, SERVER_CORE
from benchmarks.processes import cpu_seconds
from benchmarks.program import SHOWN
from benchmarks.report import Table

OUT = Path(__file__).parents[1] / "out" / "l7.json"
READY_WITHIN = 20.0  # seconds
CLIENTS = 32
ROUTERS = (10, 5000)

# Another path for each request, as wrk is told.
VARIED = 'n = 0\nrequest = function() n = n + 1; return wrk.format("GET", "/varied/" .. n) end\n'


@dataclass(frozen=True)
class Scenario:
    title: str
    options: Sequence[str] = ()
    path: str = "/"
    script: str = ""


SCENARIOS = {
    "same": Scenario("small requests on connections that stay, all the same"),
    "varied": Scenario(
        "small requests on connections that stay, all different, and so the responses", script=VARIED
    ),
    "connections": Scenario("a new connection for each request", ("--header", "Connection: close")),
    "large": Scenario("responses of a megabyte", path="/large"),
}


@dataclass
class Series:
    name: str
    rate: list[float] = field(default_factory=list)  # requests per second
    cpu: list[float] = field(default_factory=list)  # seconds of the proxy, per request


def main() -> None:
    options = _options()
    try:
        if options.install:
            install(proxies.PACKAGES)
        measure.check_cores()
        if lacking := [one for one in proxies.NEEDED if shutil.which(one) is None]:
            raise BenchmarkFailed(f"needs {', '.join(lacking)} (--install installs Debian's)")
        tables = []
        for table in _tables(options.only or [*SCENARIOS, "routers"], options.rounds, options.seconds):
            print(f"\n{table}", flush=True)
            tables.append(table.document())
        OUT.parent.mkdir(exist_ok=True)
        OUT.write_text(json.dumps({"machine": machine(), "tables": tables}, indent=1))
    except BenchmarkFailed as failed:
        sys.exit(f"benchmarks.l7: {failed}")


def _tables(wanted: Sequence[str], rounds: int, seconds: float) -> Iterator[Table]:
    here = [one for one in PROXIES if one.installed]
    for one in PROXIES:
        if one not in here:
            print(f"not installed, left out: {one.name}", file=sys.stderr)
    for name in wanted:
        if name == "routers":
            results = _in_turns([routed(count) for count in ROUTERS], SCENARIOS["same"], rounds, seconds)
            yield _table("ours behind 10 and 5,000 routers: small requests, all the same", results)
        else:
            scenario = SCENARIOS[name]
            yield _table(scenario.title, _in_turns(here, scenario, rounds, seconds))


def _in_turns(taking_part: Sequence[Proxy], scenario: Scenario, rounds: int, seconds: float) -> list[Series]:
    results = [Series(one.name) for one in taking_part]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.chmod(0o755)  # the application's workers are not root
        script = folder / "load.lua"
        script.write_text(scenario.script)
        stack.enter_context(_running("application", proxies.application(folder), LOAD_CORE, APPLICATION))
        running = []
        for at, one in enumerate(taking_part, 1):
            own = folder / str(at)
            own.mkdir()
            port = APPLICATION + at
            running.append(
                (port, stack.enter_context(_running(one.name, one.argv(own, port), SERVER_CORE, port)))
            )
        for turn in range(rounds + 1):
            for series, (port, pid) in zip(results, running, strict=True):
                before = cpu_seconds(pid)
                done = _load(series.name, port, scenario, script, seconds)
                if turn:  # the first round warms up
                    series.rate.append(done / seconds)
                    series.cpu.append((cpu_seconds(pid) - before) / done)
            print(".", end="", file=sys.stderr, flush=True)
    return results


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


def _load(name: str, port: int, scenario: Scenario, script: Path, seconds: float) -> float:
    words = ["wrk", "--threads", "1", "--connections", str(CLIENTS), "--duration", f"{seconds:g}s"]
    words += [*scenario.options, *(["--script", str(script)] if scenario.script else [])]
    command = ["taskset", "-c", LOAD_CORE, *words, f"http://127.0.0.1:{port}{scenario.path}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + GRACE, check=True)
        return requests(done.stdout)
    except subprocess.CalledProcessError as error:
        raise BenchmarkFailed(f"{name}: {(error.stdout + error.stderr)[-SHOWN:]}") from error
    except subprocess.TimeoutExpired as error:
        raise BenchmarkFailed(f"{name}: the load took too long") from error
    except BenchmarkFailed as failed:
        raise BenchmarkFailed(f"{name}: {failed}") from failed


def _table(title: str, results: Sequence[Series]) -> Table:
    """`per core`: one over the CPU time that the proxy takes for a request."""
    first = results[0]
    rows = [
        (
            one.name,
            f"{median(one.rate):,.0f}",
            f"{median(one.cpu) * 1e6:,.1f}",
            f"{1 / median(one.cpu):,.0f}",
            f"{paired(one.cpu, first.cpu):.2f}",
            f"{paired(first.rate, one.rate):.2f}",
        )
        for one in results
    ]
    by = OURS.name if first.name == OURS.name else first.name
    head = (
        "proxy",
        "requests/s",
        "CPU µs/request",
        "requests/s per core",
        f"{by}/it per core",
        f"{by}/it rate",
    )
    raw = [{"name": one.name, "rate": one.rate, "cpu_seconds": one.cpu} for one in results]
    return Table(title, head, rows, raw)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.l7", description="L7, ours beside peers")
    parser.add_argument(
        "--install", action="store_true", help="install the peers and the load (Debian, root)"
    )
    parser.add_argument("--only", action="append", choices=[*SCENARIOS, "routers"], help="may be repeated")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2, help="of load per proxy and round")
    return parser.parse_args()


if __name__ == "__main__":
    main()
