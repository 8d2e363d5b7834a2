"""Ours beside HAProxy, nginx, Caddy and a plain aiohttp proxy, scenario by scenario, in one run.

    python -m benchmarks.l7 [--install] [--only SCENARIO …] [--rounds 5] [--seconds 2]

All are up, one at a time is loaded, and the turns alternate. A proxy has a core of its own; the load and the
application share the other. A round's samples are compared with each other. Tables are printed, and written
as JSON to benchmarks/out/l7.json.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

from benchmarks import measure
from benchmarks.failure import BenchmarkFailed
from benchmarks.install import install
from benchmarks.l4.report import paired
from benchmarks.l7 import proxies
from benchmarks.l7.proxies import ON_ALL_CORES, PROXIES, Proxy, routed
from benchmarks.l7.scenarios import PACED, SAME, SCENARIOS
from benchmarks.l7.turns import Series, in_turns
from benchmarks.machine import machine
from benchmarks.measure import LOAD_CORE, SERVER_CORE
from benchmarks.report import Table

OUT = Path(__file__).parents[1] / "out" / "l7.json"
ROUTERS = (10, 5000)
QUESTIONS = (*SCENARIOS, "latency", "routers", "cores")
ALL_CORES = f"{SERVER_CORE},{LOAD_CORE}"
SLOWEST_SHARE = 0.5  # of what the slowest takes: the rate at which latencies are compared


def main() -> None:
    options = _options()
    try:
        if options.install:
            install(proxies.PACKAGES)
        measure.check_cores()
        if lacking := [one for one in proxies.NEEDED if shutil.which(one) is None]:
            raise BenchmarkFailed(f"needs {', '.join(lacking)} (--install installs Debian's)")
        tables = []
        for table in _tables(options.only or QUESTIONS, options.rounds, options.seconds):
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
            results = in_turns([routed(count) for count in ROUTERS], SAME, rounds, seconds)
            yield _table("ours behind 10 and 5,000 routers: small requests, all the same", "request", results)
        elif name == "cores":
            taking_part = [one for one in ON_ALL_CORES if one.installed]
            results = in_turns(taking_part, SAME, rounds, seconds, cores=ALL_CORES)
            yield _table("on all cores, which load and application use as well", "request", results)
        elif name == "latency":
            yield _latencies(here, rounds, seconds)
        else:
            scenario = SCENARIOS[name]
            results = in_turns(list(filter(scenario.who, here)), scenario, rounds, seconds)
            yield _table(scenario.title, scenario.load.unit, results)


def _table(title: str, unit: str, results: Sequence[Series]) -> Table:
    """`per core`: one over the CPU time that the proxy takes for one."""
    first = results[0]
    rows = [
        (
            one.name,
            f"{median(one.rate):,.0f}",
            f"{median(one.cpu) * 1e6:,.1f}",
            f"{1 / median(one.cpu):,.0f}",
            f"{paired(one.cpu, first.cpu):.2f}",
            f"{paired(first.rate, one.rate):.2f}",
            *([f"{median(one.memory) / 1024:,.1f}"] if one.memory else []),
        )
        for one in results
    ]
    head = (
        "proxy",
        f"{unit}s/s",
        f"CPU µs/{unit}",
        f"{unit}s/s per core",
        f"{first.name}/it per core",
        f"{first.name}/it rate",
        *(["KiB/socket"] if first.memory else []),
    )
    return Table(title, head, rows, _raw(results))


def _latencies(here: Sequence[Proxy], rounds: int, seconds: float) -> Table:
    """At half of what the slowest takes, as it is now."""
    most = {one.name: median(one.rate) for one in in_turns(here, SAME, 1, seconds)}
    slowest = min(most, key=lambda name: most[name])
    rate = round(most[slowest] * SLOWEST_SHARE, -2)
    results = in_turns(here, PACED, rounds, seconds, rate)
    first = results[0]
    rows = [
        (
            one.name,
            f"{median(one.p50) * 1e3:.2f}",
            f"{median(one.p99) * 1e3:.2f}",
            f"{paired(first.p50, one.p50):.2f}",
            f"{paired(first.p99, one.p99):.2f}",
            f"{median(one.cpu) * 1e6:,.1f}",
        )
        for one in results
    ]
    head = ("proxy", "p50 ms", "p99 ms", f"{first.name}/it p50", f"{first.name}/it p99", "CPU µs/request")
    title = f"small requests at {rate:,.0f}/s, half of what {slowest} takes"
    return Table(title, head, rows, _raw(results))


def _raw(results: Sequence[Series]) -> list[dict[str, object]]:
    return [
        {
            "name": one.name,
            "rate": one.rate,
            "cpu_seconds": one.cpu,
            "p50": one.p50,
            "p99": one.p99,
            "memory": one.memory,
        }
        for one in results
    ]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.l7", description="L7, ours beside peers")
    parser.add_argument(
        "--install", action="store_true", help="install the peers and the load (Debian, root)"
    )
    parser.add_argument("--only", action="append", choices=QUESTIONS, help="may be repeated")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2, help="of load per proxy and round")
    return parser.parse_args()


if __name__ == "__main__":
    main()
