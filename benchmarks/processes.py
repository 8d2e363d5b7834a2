"""Processes on a lab's nodes, as this machine numbers them: a node has a count of its own."""

import os
import re
from collections.abc import Callable
from pathlib import Path


def first_process(container: str) -> int:
    """The first process of a container, by its whole id. Raises LookupError."""
    return _find(
        lambda folder: container in (folder / "cgroup").read_text() and _first_inside(folder), container
    )


def engine(namespace: str) -> int:
    """The dockerd that lives in a network namespace, `net:[…]`. Raises LookupError."""
    return _find(
        lambda folder: _comm(folder) == "dockerd" and os.readlink(folder / "ns/net") == namespace, "dockerd"
    )


def started(pid: int) -> float:
    """When a process began, on the monotonic clock; to 10 ms."""
    ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    return ticks / os.sysconf("SC_CLK_TCK")


def _comm(folder: Path) -> str:
    return (folder / "comm").read_text().strip()


def _first_inside(folder: Path) -> bool:
    pids = re.search(r"^NSpid:(.*)$", (folder / "status").read_text(), re.MULTILINE)
    return pids is not None and pids[1].split()[-1] == "1"


def _find(matches: Callable[[Path], bool], what: str) -> int:
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if matches(folder):
                return int(folder.name)
        except OSError:  # it has ended meanwhile
            continue
    raise LookupError(f"no process of {what}")
