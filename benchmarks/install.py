"""Debian's packages of what is measured beside ours, without starting their services."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from benchmarks.failure import BenchmarkFailed

POLICY = Path("/usr/sbin/policy-rc.d")  # Debian asks it before a package starts its service


def install(packages: Sequence[str]) -> None:
    """Raises BenchmarkFailed."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise BenchmarkFailed("--install needs root on Debian or Ubuntu")
    ours = not POLICY.exists()
    if ours:
        POLICY.write_text("#!/bin/sh\nexit 101\n")
        POLICY.chmod(0o755)
    try:
        command = ["apt-get", "install", "-y", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300"]
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run([*command, *packages], check=True, stdout=subprocess.DEVNULL, env=environment)
    except subprocess.CalledProcessError as error:
        raise BenchmarkFailed("apt-get failed (is the package list up to date?)") from error
    finally:
        if ours:
            POLICY.unlink()
