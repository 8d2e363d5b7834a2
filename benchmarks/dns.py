"""Our resolver beside unbound, knot, dnsmasq, bind9 and Docker's own, scenario by scenario, in one run.

    python -m benchmarks.dns [--install] [--only SCENARIO …] [--rounds 3] [--seconds 3]

The method is `measure`'s. Tables are printed, and written as JSON to benchmarks/out/dns.json, as they come.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks import dnsperf, measure
from benchmarks.failure import BenchmarkFailed, CannotRun
from benchmarks.install import install
from benchmarks.machine import machine
from benchmarks.peers import PACKAGES, missing
from benchmarks.report import Table
from benchmarks.scenario import Comparison, Run
from benchmarks.scenarios.captured import captured
from benchmarks.scenarios.catalogue import change
from benchmarks.scenarios.docker import docker
from benchmarks.scenarios.forwarded import forwarded
from benchmarks.scenarios.memory import growth, latency, local, tcp
from benchmarks.scenarios.misses import misses, rotation

OUT = Path(__file__).parent / "out" / "dns.json"
SCENARIOS: dict[str, Callable[[Run], Iterator[Comparison] | Iterator[Table]]] = {
    scenario.__name__: scenario
    for scenario in (local, captured, forwarded, latency, growth, change, misses, rotation, tcp, docker)
}


def main() -> None:
    options = _options()
    try:
        if options.install:
            install(PACKAGES)
        dnsperf.check_installed()
        measure.check_cores()
        for name in missing():
            print(f"left out: {name} is not installed (try --install)")
        with tempfile.TemporaryDirectory(prefix="mesh-bench-") as folder:
            _measure(options.only or list(SCENARIOS), Run(options.rounds, options.seconds, Path(folder)))
    except BenchmarkFailed as failed:
        sys.exit(f"benchmarks.dns: {failed}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dns", description="DNS, ours beside peers")
    parser.add_argument("--install", action="store_true", help="install dnsperf and the peers (Debian, root)")
    parser.add_argument("--only", action="append", choices=SCENARIOS, help="this scenario; may be repeated")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3, help="of load per server and round")
    return parser.parse_args()


def _measure(chosen: list[str], run: Run) -> None:
    said = {"rounds": run.rounds, "seconds": run.seconds}
    document: dict[str, Any] = {**machine(PACKAGES), **said, "scenarios": {}}
    OUT.parent.mkdir(parents=True, exist_ok=True)
    for name in chosen:
        done = document["scenarios"][name] = []
        try:
            for given in SCENARIOS[name](run):
                table = given.measure(run.rounds) if isinstance(given, Comparison) else given
                print(f"\n{table}", flush=True)
                done.append(table.document())
        except CannotRun as reason:
            print(f"\nskipped: {name}: {reason}", flush=True)
            done.append({"skipped": str(reason)})
        OUT.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
