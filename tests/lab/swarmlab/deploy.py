"""Stacks on the lab: the product's own, unmodified, or any other."""
from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from .errors import LabError
from .forge import contexts
from .images import build
from .node import Node
from .places import CHECKOUT
from .shell import in_parallel, wait_until, works
from .wire import inside

STACK = CHECKOUT / "deploy/stack.yml"
STACK_NAME = "mesh"
SERVICE = "mesh_sidecar"
READY_PORT = 9180
READY_SECONDS = 120.0
COMMAND_SECONDS = 60.0
LOG_LINES = "40"


def stack(manager: Node, file: Path, name: str) -> None:
    """docker stack deploy, with the images that the nodes have."""
    manager.engine.docker(
        "stack", "deploy", "--resolve-image", "never", "-c", str(file.resolve()), name, timeout=COMMAND_SECONDS
    )


def sidecar(manager: Node, nodes: Sequence[Node]) -> None:
    """Bring every node's sidecar to the present source and wait until all are ready."""
    images = contexts(manager.places)
    started = time.monotonic()
    built = any(in_parallel(lambda node: any([build(node.engine, image) for image in images]), nodes))
    if built:
        print(f"lab: image built in {time.monotonic() - started:.1f} s", file=sys.stderr, flush=True)
    existed = works(manager.engine.enter(["docker", "service", "inspect", SERVICE]))
    stack(manager, STACK, STACK_NAME)
    if built and existed:  # the same tag: Docker would not notice
        manager.engine.docker("service", "update", "--force", "--detach", "--no-resolve-image", SERVICE)
    wait_until(lambda: not updating(manager), READY_SECONDS, lambda: "the update does not end\n" + picture(manager))
    wait_until(
        lambda: all(in_parallel(ready, nodes)),
        READY_SECONDS,
        lambda: "not ready: " + ", ".join(node.name for node in nodes if not ready(node)) + "\n" + picture(manager),
    )


def updating(manager: Node) -> bool:
    template = "{{if .UpdateStatus}}{{.UpdateStatus.State}}{{end}}"
    return manager.engine.docker("service", "inspect", "--format", template, SERVICE).strip() == "updating"


def ready(node: Node) -> bool:
    """True if the node's sidecar says so to an outside client."""
    url = f"http://{node.machine.front}:{READY_PORT}/readyz"
    return works(inside(node.places.client, ["curl", "-sf", "-m", "2", "-o", "/dev/null", url]))


def picture(manager: Node) -> str:
    """What an operator would look at."""
    docker = manager.engine.docker
    tasks = docker("service", "ps", "--no-trunc", SERVICE, check=False)
    logs = docker("service", "logs", "--tail", LOG_LINES, SERVICE, check=False, timeout=20)
    return f"{tasks}\n{logs}"


def a_manager(nodes: Sequence[Node]) -> Node:
    """The first manager that is on."""
    for node in nodes:
        if node.machine.manager and node.engine.running():
            return node
    raise LabError("no manager is running")
