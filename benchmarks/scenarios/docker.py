"""Docker's own resolver and ours, asked by two containers of one node of a real Swarm (tests/lab, root)."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from benchmarks.dnsperf import Load
from benchmarks.failure import CannotRun
from benchmarks.measure import SERVER_CORE, Role, Server
from benchmarks.processes import engine, first_process
from benchmarks.scenario import Comparison, Run
from benchmarks.served import DOCKER_RESOLVER
from tests.support.swarm import Box, CommandFailed, Swarm, eventually

NODE = "swarm01"
DOCKER_TTL = 600  # seconds
DNS_PORT = 53


@dataclass(frozen=True)
class AlreadyRunning:
    """A server that is not ours to start or stop."""

    server: Server

    @contextmanager
    def running(self) -> Iterator[Server]:
        yield self.server


def docker(run: Run) -> Iterator[Comparison]:
    """`web`, which has a VIP: from a captured container, and from one that is left to Docker."""
    if os.geteuid() != 0:
        raise CannotRun("needs root, for the lab")
    with _swarm() as swarm:
        sidecar = first_process(swarm.docker("inspect", "-f", "{{.Id}}", swarm.sidecar(NODE), node=NODE))
        dockerd = engine(swarm.on(NODE, "readlink", "/proc/self/ns/net").strip())
        servers = (
            _asked(swarm, "captured", Role.OURS, sidecar, family=True),
            _asked(swarm, "left", Role.PEER, dockerd, family=False),  # containerd resolves nothing
        )
        for one in servers:
            _pin(one.server.pid)
        load = Load(run.queries(["web"]), run.seconds)
        yield Comparison("docker: `web`, in a container of a Swarm", servers, load)


def _asked(swarm: Swarm, service: str, role: Role, pid: int, *, family: bool) -> AlreadyRunning:
    name = "ours" if role is Role.OURS else "Docker's own"
    namespace = f"/proc/{first_process(_box(swarm, service).id)}/ns/net"
    return AlreadyRunning(Server(name, pid, DNS_PORT, DOCKER_RESOLVER, namespace, role, family))


def _pin(pid: int) -> None:
    subprocess.run(["taskset", "-acp", SERVER_CORE, str(pid)], check=True, stdout=subprocess.DEVNULL)


def _box(swarm: Swarm, service: str) -> Box:
    (box,) = swarm.boxes(service)
    return box


@contextmanager
def _swarm() -> Iterator[Swarm]:
    """Three nodes with the mesh, service `web`, and on one of them a container that is captured, and one
    that is left to Docker. Raises CannotRun where there can be no lab."""
    swarm = Swarm()
    try:
        _up(swarm)
        swarm.network("bench")
        swarm.service("web", "--network", "bench")
        on = ("--network", "bench", "--constraint", f"node.hostname=={NODE}")
        swarm.service("captured", *on)
        swarm.service("left", *on, "--label", "mesh.capture=off")
        eventually(lambda: 0 < _ttl(swarm, "captured") < DOCKER_TTL, "one is captured")
        eventually(lambda: _ttl(swarm, "left") == DOCKER_TTL, "the other is left to Docker")
        yield swarm
    finally:
        swarm.lab("down", check=False)


def _up(swarm: Swarm) -> None:
    try:
        swarm.lab("setup", limit=600)
        swarm.lab("up", limit=600)
        swarm.lab("deploy", limit=600)
    except CommandFailed as failed:
        raise CannotRun(f"no lab here: {failed}") from failed


def _ttl(swarm: Swarm, service: str) -> int:
    """Of the answer for `web`; 0 without one."""
    answers = _box(swarm, service).dig("web").answers
    return answers[0][1] if answers else 0
