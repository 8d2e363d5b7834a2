"""Ours beside plain wires, HAProxy and nginx, scenario by scenario, in one run.

    python -m benchmarks.l4 [--install] [--only SCENARIO …] [--rounds 7] [--seconds 1]    (root)

The method is `turns`'. Tables are printed, and written as JSON to benchmarks/out/l4.json, as they come.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks import measure
from benchmarks.failure import BenchmarkFailed
from benchmarks.install import install
from benchmarks.l4 import programs, scenarios
from benchmarks.l4.scenarios import Run
from benchmarks.machine import machine
from benchmarks.report import Table

OUT = Path(__file__).parents[1] / "out" / "l4.json"
SCENARIOS: dict[str, Callable[[Run], Iterator[Table]]] = {
    scenario.__name__: scenario
    for scenario in (
        scenarios.published,
        scenarios.vip,
        scenarios.relay,
        scenarios.cores,
        scenarios.idle,
        scenarios.updates,
    )
}


def main() -> None:
    options = _options()
    try:
        if options.install:
            install(programs.PACKAGES)
        _check()
        _measure(options.only or list(SCENARIOS), Run(options.rounds, options.seconds))
    except BenchmarkFailed as failed:
        sys.exit(f"benchmarks.l4: {failed}")


def _check() -> None:
    measure.check_cores()
    if os.geteuid() != 0:
        raise BenchmarkFailed("needs root, for network namespaces")
    if lacking := programs.missing():
        raise BenchmarkFailed(f"not installed: {', '.join(lacking)} (try --install)")
    for one in programs.RELAYS:
        if not one.installed:
            print(f"left out: {one.name} is not installed (try --install)")
    programs.raise_files()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.l4", description="L4, ours beside peers")
    parser.add_argument("--install", action="store_true", help="install the peers and loads (Debian, root)")
    parser.add_argument("--only", action="append", choices=SCENARIOS, help="this scenario; may be repeated")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=1, help="of load per contender and round")
    return parser.parse_args()


def _measure(chosen: list[str], run: Run) -> None:
    said = {"rounds": run.rounds, "seconds": run.seconds}
    document: dict[str, Any] = {**machine(programs.PACKAGES), **said, "scenarios": {}}
    OUT.parent.mkdir(parents=True, exist_ok=True)
    for name in chosen:
        done = document["scenarios"][name] = []
        for table in SCENARIOS[name](run):
            print(f"\n{table}", flush=True)
            done.append(table.document())
            OUT.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
