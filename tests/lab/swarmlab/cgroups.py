"""Remove the cgroups that a dead engine left, in every hierarchy (v1 has one per controller, v2 one)."""

from __future__ import annotations

import os
from pathlib import Path

from .shell import wait_until

HIERARCHIES = Path("/sys/fs/cgroup")
GONE_SECONDS = 20.0


def remove_cgroups(name: str) -> None:
    """Remove the cgroup `name` ("/mesh-lab/swarm00") and all below. Its processes must be dead or dying."""
    wait_until(lambda: not _try(name), GONE_SECONDS, lambda: f"cgroups stay busy: {', '.join(_try(name))}")


def _try(name: str) -> list[str]:
    left = []
    for root in [HIERARCHIES, *(path for path in HIERARCHIES.iterdir() if path.is_dir())]:
        for folder, _, _ in os.walk(root / name.lstrip("/"), topdown=False):
            try:
                os.rmdir(folder)
            except FileNotFoundError:
                pass
            except OSError:
                left.append(folder)
    return left
