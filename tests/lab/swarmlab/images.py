"""Images without a registry: the base imported from a Debian tree, the others built on it.

Each carries the label `mesh.lab` with the fingerprint of what it was made from; an image is made only when
that differs.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from .context import Context
from .engine import Engine
from .errors import LabError
from .trees import BASE

BASE_TAG = "mesh-base:lab"
LABEL = "mesh.lab"
BUILD_SECONDS = 900.0


def present(engine: Engine, tag: str) -> str:
    """The fingerprint of the engine's image, empty when there is none."""
    template = '{{index .Config.Labels "' + LABEL + '"}}'
    return engine.docker("image", "inspect", "--format", template, tag, check=False).strip()


def import_base(engine: Engine, cache: Path) -> None:
    """Make the base image from its tree."""
    if present(engine, BASE_TAG) == BASE.fingerprint:
        return
    tree = BASE.make(cache)
    change = f"LABEL {LABEL}={BASE.fingerprint}"
    command = engine.enter(["docker", "import", "--change", change, "-", BASE_TAG])
    with subprocess.Popen(["tar", "-C", tree, "--numeric-owner", "-c", "."], stdout=subprocess.PIPE) as tar:
        done = subprocess.run(command, stdin=tar.stdout, capture_output=True, check=False)
    if done.returncode or tar.returncode:
        raise LabError(f"docker import of the base image failed: {done.stderr.decode(errors='replace')}")


def build(engine: Engine, context: Context) -> bool:
    """Build the image unless the engine has it; True if it was built."""
    fingerprint = context.fingerprint
    if present(engine, context.tag) == fingerprint:
        return False
    arguments = [f"--build-arg={argument}" for argument in context.arguments]
    with tempfile.TemporaryFile() as archive:
        archive.write(context.tar())
        archive.seek(0)
        engine.docker(
            "build", "--network=none", "-t", context.tag, "-f", context.dockerfile, *arguments,
            f"--label={LABEL}={fingerprint}", "-", stdin=archive, timeout=BUILD_SECONDS,
        )  # fmt: skip
    return True
