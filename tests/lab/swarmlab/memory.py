"""What one command must know of the one before, and the lock that lets only one change the lab."""

from __future__ import annotations

import fcntl
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from .errors import LabError
from .places import Places, Shape


@dataclass(frozen=True, slots=True)
class Memory:
    shape: Shape
    whole: bool  # `up` came to its end


def recall(places: Places) -> Memory | None:
    """None when there is no lab, not even half of one."""
    if not places.state.exists():
        return None
    try:
        known = json.loads(_file(places).read_text())
        return Memory(Shape(**known["shape"]), known["whole"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return Memory(Shape(), whole=False)


def remember(places: Places, memory: Memory) -> None:
    places.state.mkdir(parents=True, exist_ok=True)
    part = _file(places).with_suffix(".part")
    part.write_text(json.dumps({"shape": asdict(memory.shape), "whole": memory.whole}))
    part.rename(_file(places))


def require(places: Places) -> Memory:
    """The lab that is up, or LabError."""
    memory = recall(places)
    if memory is None or not memory.whole:
        raise LabError("there is no lab: run `tests/lab/lab up`")
    return memory


@contextmanager
def alone(places: Places) -> Iterator[None]:
    """Only one command at a time changes the lab; a second one waits."""
    places.cache.mkdir(parents=True, exist_ok=True)
    with (places.cache / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("lab: another lab command is at work; waiting for it", file=sys.stderr, flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _file(places: Places) -> Path:
    return places.state / "lab.json"
