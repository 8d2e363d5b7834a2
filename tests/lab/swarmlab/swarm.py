"""Make the machines a Swarm: managers one after the other, workers all at once."""

from __future__ import annotations

from collections.abc import Sequence

from .node import Node
from .shell import in_parallel, wait_until

PORT = 2377
READY_SECONDS = 60.0
ADDRESSES = ("--advertise-addr=ens33", "--data-path-addr=ens33")
COMMAND_SECONDS = 60.0


def gather(nodes: Sequence[Node]) -> None:
    """init on the first node, join on the others; wait until all are ready."""
    first, *others = nodes
    first.engine.docker("swarm", "init", *ADDRESSES, timeout=COMMAND_SECONDS)

    def join(node: Node) -> None:
        role = "manager" if node.machine.manager else "worker"
        token = first.engine.docker("swarm", "join-token", "-q", role).strip()
        leader = f"{first.machine.back}:{PORT}"
        node.engine.docker("swarm", "join", "--token", token, *ADDRESSES, leader, timeout=COMMAND_SECONDS)

    for node in others:
        if node.machine.manager:
            join(node)
    in_parallel(join, [node for node in others if not node.machine.manager])
    wait_ready(first, len(nodes))


def wait_ready(manager: Node, count: int) -> None:
    """Wait until the manager sees so many ready nodes."""
    wait_until(
        lambda: states(manager).count("Ready") >= count,
        READY_SECONDS,
        lambda: "the Swarm is not complete:\n" + manager.engine.docker("node", "ls", check=False),
    )


def states(manager: Node) -> list[str]:
    return manager.engine.docker("node", "ls", "--format", "{{.Status}}", check=False).split()
