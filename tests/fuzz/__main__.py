"""Fuzz all targets, one after the other: `python -m tests.fuzz [--seconds N] [--seed N] [TARGET …]`."""

import argparse
import random
import subprocess
import sys

TARGETS = (
    *("queries", "datagrams", "streams", "replies", "parsers"),  # DNS
    "headers",
    *("rules", "labels", "heads", "chunks", "conversations", "frames", "hellos"),  # HTTP
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)} (all)")
    parser.add_argument("--seconds", type=int, default=60, help="for each target (60)")
    parser.add_argument("--seed", type=int, default=random.randrange(1, 1 << 31), help="(any)")
    chosen = parser.parse_args()
    if unknown := set(chosen.targets) - set(TARGETS):
        parser.error(f"no such target: {', '.join(unknown)}")
    failed = []
    for target in chosen.targets or TARGETS:
        print(f"--- {target}: {chosen.seconds} s, seed {chosen.seed}", flush=True)
        command = (sys.executable, "-m", "tests.fuzz.one", target, str(chosen.seconds), str(chosen.seed))
        if subprocess.run(command, check=False).returncode:
            failed.append(target)
    print(f"failed: {', '.join(failed)}" if failed else "nothing wrong found")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
