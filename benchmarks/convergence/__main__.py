"""How soon the truth is told, and followed: a task ends or begins, and others ask for it all the time.

    python -m benchmarks.convergence [--only WAY …] [--repeat 10] [--repeat-nodes 3]    (root; tests/lab)

Both resolvers of one container, ours and Docker's own, are asked for `tasks.web` every few milliseconds while
tasks of `web` end in every way that they do. All the time new connections are made to its virtual IP, its
published port, and, as Docker would have it, to what its resolver says. Tables are printed, and written as
JSON to benchmarks/out/convergence.json.
"""

import argparse
import json
import sys
from pathlib import Path

from benchmarks.convergence.lab import EVERY_MS, Lab, converging
from benchmarks.convergence.report import connection_tables, tables
from benchmarks.convergence.ways import WAYS
from benchmarks.failure import CannotRun
from benchmarks.machine import machine
from benchmarks.report import Table

OUT = Path(__file__).parents[1] / "out" / "convergence.json"


def main() -> None:
    options = _options()
    try:
        _measure(options)
    except CannotRun as reason:
        sys.exit(f"benchmarks.convergence: {reason}")


def _measure(options: argparse.Namespace) -> None:
    ways = [way for way in WAYS if not options.only or way.name in options.only]
    with converging() as lab:
        for way in ways:
            for _ in range(options.repeat if way.cheap else options.repeat_nodes):
                way.once(way.name, lab)
                print(".", end="", file=sys.stderr, flush=True)
            _write(lab)  # what is known so far: a long run may be cut short
        lab.settle()  # the last ones that began
        print("\n", "\n\n".join(map(str, _write(lab))), sep="")


def _write(lab: Lab) -> list[Table]:
    found = [*tables(lab.endings, lab.beginnings), *connection_tables(lab.sent)]
    document = {**machine(), "every_ms": EVERY_MS, "tables": [table.document() for table in found]}
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    return found


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.convergence", description="How soon truth is told"
    )
    names = [way.name for way in WAYS]
    parser.add_argument("--only", action="append", choices=names, help="this way; may be repeated")
    parser.add_argument("--repeat", type=int, default=10, help="ways that end one task")
    parser.add_argument("--repeat-nodes", type=int, default=3, help="ways that end three")
    return parser.parse_args()


if __name__ == "__main__":
    main()
