"""A program for the time of a measurement: on one core, ready when the block begins, ended after it."""

import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.failure import BenchmarkFailed

ROOT = Path(__file__).parents[1]
STOP_LIMIT = 10.0  # seconds to end in when told to
SHOWN = 2000  # characters of what a program said, in an error message


@contextmanager
def running(
    name: str,
    argv: Sequence[str],
    core: str,
    fault: Callable[["subprocess.Popen[bytes]"], str],
    inside: Sequence[str] = (),
) -> Iterator["subprocess.Popen[bytes]"]:
    """`inside`: the command that leads to where it starts. `fault` waits until the program is ready and says
    what is wrong with it, "" for nothing. It must become what is measured, or stay its parent.

    Raises BenchmarkFailed.
    """
    with tempfile.TemporaryFile() as said:
        command = [*inside, "taskset", "-c", core, *argv]
        process = subprocess.Popen(command, stdout=said, stderr=said, cwd=ROOT)
        try:
            if wrong := fault(process):
                said.seek(0)
                raise BenchmarkFailed(f"{name} {wrong}\n{said.read().decode()[-SHOWN:]}")
            yield process
        finally:
            process.terminate()
            try:
                process.wait(STOP_LIMIT)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
