"""Find and name processes: a number alone may be somebody else's by now, so its start time goes with it.

Every process that the lab starts, and so every descendant that keeps its environment, carries the mark.
"""

from __future__ import annotations

import os
from pathlib import Path

MARK = "MESH_LAB_PROCESS"


def start_time(pid: int) -> int:
    """Clock ticks after boot at which the process started; 0 if there is none such, or only its zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return 0 if fields[0] in "ZX" else int(fields[19])


def alive(pid: int, started: int) -> bool:
    """True if that very process runs."""
    return started != 0 and start_time(pid) == started


def marked(mark: str) -> list[int]:
    """All processes with this mark, but not the one asking."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            try:
                environment = Path(f"/proc/{entry}/environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if wanted in environment:
                found.append(int(entry))
    return found
