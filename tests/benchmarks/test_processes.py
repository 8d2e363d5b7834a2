"""The CPU time of a server with all that belongs to it."""

import subprocess
import sys

from benchmarks.processes import cpu_seconds

SPENT = 0.1  # seconds
BURN = f"import time\nend = time.process_time() + {SPENT}\nwhile time.process_time() < end: pass"
# The one is waited for, the other lives on.
PARENT = f"""
import subprocess, sys
subprocess.run([sys.executable, "-c", {BURN!r}], check=True)
child = subprocess.Popen([sys.executable, "-c", {BURN + chr(10) + "print(flush=True); input()"!r}])
child.wait()
"""


def test_the_time_of_children_living_and_dead_counts() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert parent.stdout is not None
        parent.stdout.readline()  # both have spent their time, and the second one waits for input
        assert cpu_seconds(parent.pid) >= 2 * SPENT * 0.9
        assert cpu_seconds(parent.pid, family=False) < SPENT
    finally:
        parent.communicate(b"\n")
