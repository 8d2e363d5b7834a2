"""Where figures come from: without it they mean nothing to somebody else."""

import os
import platform
import re
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path


def machine(packages: Sequence[str] = ()) -> dict[str, object]:
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _said("git", "describe", "--always", "--dirty"),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load_before": os.getloadavg(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "packages": _versions(packages),
    }


def _processor() -> str:
    found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else platform.machine()


def _versions(packages: Sequence[str]) -> list[str]:
    if not packages:  # dpkg-query would list all there are
        return []
    return _said("dpkg-query", "-W", "-f", "${Package} ${Version}\n", *packages).splitlines()


def _said(*command: str) -> str:
    """What a command prints; "" where it is not there or fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
