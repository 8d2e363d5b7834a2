"""Stacks on the lab: the product's own, unmodified, or any other."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from .context import SIDECAR_TAG, Context
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
READY_SECONDS = float(os.environ.get("MESH_LAB_READY_SECONDS", "120"))  # an emulated machine needs more
COMMAND_SECONDS = 60.0
LOG_LINES = "40"


def stack(manager: Node, file: Path, name: str) -> None:
    """docker stack deploy, with the images that the nodes have."""
    manager.engine.docker(
        "stack",
        "deploy",
        "--resolve-image",
        "never",
        "-c",
        str(file.resolve()),
        name,
        timeout=COMMAND_SECONDS,
    )


def sidecar(manager: Node, nodes: Sequence[Node]) -> None:
    """Bring every node's sidecar to the present source and wait until all are ready."""
    images = contexts(manager.places)
    started = time.monotonic()
    if any(in_parallel(lambda node: build_all(node, images), nodes)):
        print(f"lab: image built in {time.monotonic() - started:.1f} s", file=sys.stderr, flush=True)
    before = template(manager)
    stack(manager, STACK, STACK_NAME)
    if template(manager) == before and any(in_parallel(outdated, nodes)):
        renew(manager)
    if before and template(manager) != before:
        wait_until(
            lambda: updated(manager), READY_SECONDS, lambda: f"the update does not end\n{picture(manager)}"
        )
    wait_until(
        lambda: all(in_parallel(ready, nodes)),
        READY_SECONDS,
        lambda: f"not ready: {[node.name for node in nodes if not ready(node)]}\n{picture(manager)}",
    )


def build_all(node: Node, images: Sequence[Context]) -> bool:
    """True if any of them was not there."""
    built = [build(node.engine, image) for image in images]
    return any(built)


def renew(manager: Node) -> None:
    """Replace the tasks although the tag is the same; all at once, since a test waits for it."""
    flags = ("--force", "--detach", "--no-resolve-image", "--update-parallelism=0", "--update-monitor=1ms")
    manager.engine.docker("service", "update", *flags, SERVICE)


def template(manager: Node) -> str:
    """What the service's tasks are made from; an update begins when it changes. Empty: no service."""
    return inspect(manager, "{{json .Spec.TaskTemplate}}")


def updated(manager: Node) -> bool:
    """True if the update is through. Docker shows no status until it has begun."""
    state = inspect(manager, "{{if .UpdateStatus}}{{.UpdateStatus.State}}{{end}}")
    if state == "paused":
        raise LabError(f"the update failed\n{picture(manager)}")
    return state == "completed"


def inspect(manager: Node, form: str) -> str:
    return manager.engine.docker("service", "inspect", "--format", form, SERVICE, check=False).strip()


def outdated(node: Node) -> bool:
    """True if the node's sidecar runs another image than the one its tag names now."""
    docker = node.engine.docker
    label = f"label=com.docker.swarm.service.name={SERVICE}"
    running = docker("ps", "--quiet", "--filter", label).split()
    images = {
        docker("inspect", "--format", "{{.Image}}", container, check=False).strip() for container in running
    }
    return bool(images - {docker("image", "inspect", "--format", "{{.Id}}", SIDECAR_TAG).strip()})


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
