"""A lab of `tests/lab` with the mesh deployed, for the time of a measurement."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.failure import CannotRun
from tests.support.swarm import Box, CommandFailed, Swarm

NETWORK = "bench"
DOCKER_TTL = 600  # seconds: of a record that Docker's resolver tells
LIMIT = 900.0  # seconds for one step; the first `up` on a machine makes trees and images


@contextmanager
def laboratory(nodes: int) -> Iterator[Swarm]:
    """So many nodes and a network of tasks, gone afterwards. Raises CannotRun."""
    if os.geteuid() != 0:
        raise CannotRun("needs root, for the lab")
    swarm = Swarm()
    _set_up(swarm)
    try:
        swarm.lab("up", "--nodes", str(nodes), limit=LIMIT)
        swarm.lab("deploy", limit=LIMIT)
        swarm.network(NETWORK)
        yield swarm
    finally:
        swarm.lab("down", check=False)


def _set_up(swarm: Swarm) -> None:
    try:
        swarm.lab("setup", limit=LIMIT)
        status = swarm.lab("status", "--json")
    except CommandFailed as failed:
        raise CannotRun(f"no lab here: {failed}") from failed
    if status.strip():
        raise CannotRun("a lab is up, and it is somebody's: `tests/lab/lab down` first")


def ttl(box: Box, name: str) -> int:
    """Of the answer that the container gets; 0 without one. Tells Docker's resolver from ours."""
    answers = box.dig(name).answers
    return answers[0][1] if answers else 0
