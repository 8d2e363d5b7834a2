"""Processes of this machine: their CPU time, and which of them belong to a lab's nodes.

A node of the lab has process numbers of its own; those here are the machine's.
"""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")  # per second
# Of /proc/PID/stat behind the program's name: see proc(5).
PARENT, USER_TIME, START_TIME = 1, 11, 19


def cpu_seconds(pid: int, family: bool = True) -> float:
    """User and system time of a process, and of its descendants, living and dead. To 10 ms."""
    ticks = 0
    for one in [pid, *_descendants(pid)] if family else [pid]:
        times = [int(text) for text in _stat(Path(f"/proc/{one}"))[USER_TIME : USER_TIME + 4]]
        ticks += sum(times if family else times[:2])  # the last two: of children that were waited for
    return ticks / TICKS


def memory(pid: int) -> int:
    """Bytes that are in RAM for this process alone."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(size) for size in re.findall(r"^Private_\w+:\s+(\d+) kB$", text, re.MULTILINE)) * 1024


def started(pid: int) -> float:
    """When a process began, on the monotonic clock. To 10 ms."""
    return int(_stat(Path(f"/proc/{pid}"))[START_TIME]) / TICKS


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


def _stat(folder: Path) -> list[str]:
    return (folder / "stat").read_text().rpartition(")")[2].split()


def _descendants(pid: int) -> Iterator[int]:
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            children.setdefault(int(_stat(folder)[PARENT]), []).append(int(folder.name))
        except OSError:  # it has ended meanwhile
            continue
    found = [pid]
    while found:
        own = children.get(found.pop(), [])
        yield from own
        found += own


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
