"""Run commands. A failure becomes a LabError that shows the command and the end of what it said."""

from __future__ import annotations

import shlex
import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, TypeVar

from .errors import LabError

Item = TypeVar("Item")
Result = TypeVar("Result")

SAID_LIMIT = 3000  # characters of a failed command's output worth reading
POLL_SECONDS = 0.1


def run(
    argv: Sequence[str | Path],
    *,
    text: str | None = None,
    stdin: IO[bytes] | None = None,
    env: dict[str, str] | None = None,
    check: bool = True,
    timeout: float | None = None,
) -> str:
    """Run a command to its end and return what it printed. `text` or `stdin` is its input (default: none)."""
    words = [str(word) for word in argv]
    given = None if text is None else text.encode()
    source = subprocess.PIPE if text is not None else stdin or subprocess.DEVNULL
    pipe = subprocess.PIPE
    try:
        with subprocess.Popen(words, stdin=source, stdout=pipe, stderr=pipe, env=env) as process:
            try:
                said, complained = process.communicate(given, timeout)
            except BaseException:
                process.kill()
                raise
    except FileNotFoundError as error:
        raise LabError(f"{words[0]} is not installed: run `tests/lab/lab setup`") from error
    except subprocess.TimeoutExpired as error:
        raise LabError(f"no end after {timeout:.0f} s: {shlex.join(words)}") from error
    out = said.decode(errors="replace")
    if check and process.returncode:
        end = (out + complained.decode(errors="replace")).strip()[-SAID_LIMIT:]
        raise LabError(f"exit {process.returncode} from: {shlex.join(words)}\n{end}")
    return out


def works(argv: Sequence[str | Path]) -> bool:
    """True if the command ends with 0."""
    try:
        run(argv)
    except LabError:
        return False
    return True


def wait_until(ready: Callable[[], bool], seconds: float, otherwise: Callable[[], str]) -> None:
    """Poll until `ready`; after `seconds` raise LabError(otherwise())."""
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise LabError(otherwise())
        time.sleep(POLL_SECONDS)


def in_parallel(act: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """Act on every item at once; all of them end before the first error is raised."""
    if not items:
        return []
    with ThreadPoolExecutor(len(items)) as pool:
        return list(pool.map(act, items))
