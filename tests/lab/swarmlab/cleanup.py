"""Leave nothing behind: processes, mounts, namespaces, cgroups, files. Works on half a lab and after a crash.

Network namespaces, their veths and bridges go with the last process or mount that holds them.
"""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

from .cgroups import remove_cgroups
from .places import Places
from .processes import marked
from .shell import run, wait_until

DEAD_SECONDS = 30.0
HOST_DOCKER_ROOT = Path("/var/lib/docker")


def tear_down(places: Places) -> None:
    """Remove the lab; the cache stays."""
    end_processes(str(places.state))
    unmount_below(places.state)
    remove_cgroups(places.cgroup)
    try:
        HOST_DOCKER_ROOT.rmdir()  # the engines' mount point, made by the first of them
    except OSError:
        pass  # a Docker of the host uses it, or it is not there
    shutil.rmtree(places.state, ignore_errors=True)
    if places.state.exists():
        shutil.rmtree(places.state)  # again, and say what is in the way


def remove_cache(places: Places) -> None:
    unmount_below(places.cache)
    shutil.rmtree(places.cache, ignore_errors=True)


def end_processes(mark: str) -> None:
    def none_left() -> bool:
        left = marked(mark)
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        return not left

    wait_until(none_left, DEAD_SECONDS, lambda: f"processes do not die: {marked(mark)}")


def unmount_below(folder: Path) -> None:
    """Take off all mounts in the folder, the last one first."""
    for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
        target = line.split()[4].encode().decode("unicode_escape")
        if target.startswith(f"{folder}/"):
            run(["umount", "-l", target])
