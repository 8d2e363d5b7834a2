"""What only a new process mends ends this one in an orderly way, also when a boundary has caught it.

A sidecar at its limit of memory that went on would refuse every query and every client. Docker starts the
next one; of an edge process its supervisor does (`test_edge_memory_limit`).
"""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from mesh.internal_errors import ERRORS
from sidecar.app import Sidecar
from tests.loopback.test_sidecar import catalogue, config, variables

SECONDS = 60

# A real sidecar whose resolver has no memory left for the second catalogue; its boundary catches that.
PROGRAM = """
import os, sys
from mesh.dns.resolver import Resolver
from sidecar.config import build
from sidecar.lifecycle import run

right = Resolver.update

def update(self, old, new, change):
    if "later" in new.services:
        raise MemoryError("no memory is left")
    right(self, old, new, change)

Resolver.update = update
sys.exit(run(build("", "", dict(os.environ), {}, "here")))
"""


@pytest.mark.parametrize("error", [MemoryError("none left"), SystemError("broken")])
async def test_a_fault_that_a_restart_mends_ends_the_sidecar(tmp_path: Path, error: Exception) -> None:
    sidecar = Sidecar(config(tmp_path))
    ERRORS.report("subscriber dns", error)
    assert sidecar.failed.is_set()


async def test_any_other_fault_does_not(tmp_path: Path) -> None:
    sidecar = Sidecar(config(tmp_path))
    ERRORS.report("subscriber dns", ValueError("one service's"))
    assert not sidecar.failed.is_set()


async def test_a_real_sidecar_without_memory_stops_and_says_why(tmp_path: Path) -> None:
    file = tmp_path / "catalog.yml"
    file.write_text(catalogue("127.9.0.11"))
    environment = {**os.environ, **variables(tmp_path), "MESH_LOG_FORMAT": "text"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, env=environment, stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    said: list[str] = []
    try:
        async with asyncio.timeout(SECONDS):
            async for line in process.stderr:
                said.append(line.decode())
                if "started" in said[-1]:
                    file.write_text(catalogue("127.9.0.11").replace("web:", "later:"))
            status = await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    text = "".join(said)
    assert status == 1, text
    assert "only a new process mends" in text
    assert "stopped" in text
