"""The limits that a container runtime sets: memory and processes of this process's control group.

Both versions of the interface, and both views of it: a container may see its own group as the root, or the
whole tree with its own path in it. A limit of a group above holds too, so the lowest one counts.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

ROOT, OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
UNLIMITED = 2**62  # version 1 writes a number of about this size for no limit


@dataclass(frozen=True, slots=True)
class CgroupLimits:
    """What is used, and what may be; None: no limit, or it cannot be seen. Memory in bytes, without what the
    kernel would give back first (files that it has read)."""

    memory: int | None = None
    memory_max: int | None = None
    processes: int | None = None  # and threads
    processes_max: int | None = None


def limits(root: Path = ROOT, own: Path = OWN) -> CgroupLimits:
    """Of this process."""
    paths = _paths(own)
    if (root / "cgroup.controllers").exists():
        groups = tuple(_groups(root, paths.get("", "/")))
        memory = processes = groups
    else:
        memory = tuple(_groups(root / "memory", paths.get("memory", "/")))
        processes = tuple(_groups(root / "pids", paths.get("pids", "/")))
    return CgroupLimits(
        _memory(memory[0]) if memory else None,
        _lowest(memory, "memory.max", "memory.limit_in_bytes"),
        _number(processes[0] / "pids.current") if processes else None,
        _lowest(processes, "pids.max"),
    )


def _paths(own: Path) -> dict[str, str]:
    """Controller → the group's path; "" is version 2."""
    found = dict[str, str]()
    for line in _text(own).splitlines():
        _, controllers, path = line.split(":", 2)
        found |= dict.fromkeys(controllers.split(","), path)
    return found


def _groups(root: Path, path: str) -> Iterator[Path]:
    """The own group first, then those above it, as far as they can be seen."""
    group = PurePosixPath(path)
    for one in (group, *group.parents):
        folder = root / one.relative_to("/")
        if (folder / "cgroup.procs").exists():
            yield folder


def _memory(group: Path) -> int | None:
    used = _number(group / "memory.current")
    if used is None:
        used = _number(group / "memory.usage_in_bytes")
    if used is None:
        return None
    fields = dict(line.split(" ", 1) for line in _text(group / "memory.stat").splitlines())
    inactive = fields.get("inactive_file") or fields.get("total_inactive_file") or "0"
    return max(0, used - int(inactive))


def _lowest(groups: tuple[Path, ...], *names: str) -> int | None:
    found = [number for one in groups for name in names if (number := _number(one / name)) is not None]
    return min(found, default=None)


def _number(file: Path) -> int | None:
    """None for no file, and for no limit ("max")."""
    text = _text(file).strip()
    return int(text) if text.isdecimal() and len(text) < 20 and int(text) < UNLIMITED else None


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii")
    except OSError:
        return ""
