"""What pip needs to install the sidecar in an image built without a network.

Wheels for the image's Python, downloaded once on the host.
"""

from __future__ import annotations

import hashlib
import platform
import shutil
import sys
from pathlib import Path

from .errors import LabError
from .places import CHECKOUT
from .shell import run, works

PYTHON = "3.13"  # of Debian trixie, which the lab's base image is made of


LOCKS = (CHECKOUT / "deploy/requirements.lock", CHECKOUT / "deploy/build-requirements.lock")


def wheelhouse(cache: Path) -> Path:
    """The folder of wheels, filled now if the requirements changed."""
    key = hashlib.sha256(repr((PYTHON, [lock.read_text() for lock in LOCKS])).encode()).hexdigest()[:12]
    folder = cache / f"wheels-{key}"
    if folder.exists():
        return folder
    print("lab: downloading wheels (once per change of the dependencies)", file=sys.stderr, flush=True)
    part = folder.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    machine = platform.machine()
    platforms = [f"--platform=manylinux_2_{minor}_{machine}" for minor in (36, 34, 31, 28, 17, 12, 5)]
    legacy = f"--platform=manylinux2014_{machine}"
    choice = ["--only-binary=:all:", f"--python-version={PYTHON}", "--implementation=cp", *platforms, legacy]
    locked = ["--require-hashes", *(f"--requirement={lock}" for lock in LOCKS)]
    run([*pip(), "download", "-q", *choice, "-d", part, *locked], timeout=900)
    part.rename(folder)
    return folder


def pip() -> list[str]:
    """A pip that runs: of this Python, or of the checkout's virtual environment."""
    for python in (sys.executable, str(CHECKOUT / ".venv/bin/python")):
        if works([python, "-m", "pip", "--version"]):
            return [python, "-m", "pip", "--disable-pip-version-check"]
    raise LabError("no pip found to download wheels with: run `make lint`, or install python3-pip")
