"""Docker's own resolver and ours, asked by two containers of a real Swarm's one node (tests/lab, root)."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from benchmarks.dnsperf import Load
from benchmarks.measure import SERVER_CORE, Role, Server
from benchmarks.processes import engine, first_process
from benchmarks.scenario import Comparison, Run
from benchmarks.served import DOCKER_RESOLVER
from benchmarks.swarm import DOCKER_TTL, NETWORK, laboratory, ttl
from tests.support.swarm import Box, Swarm, eventually

NODE = "swarm00"
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
    with laboratory(nodes=1) as swarm:
        swarm.service("web", "--network", NETWORK)
        swarm.service("captured", "--network", NETWORK)
        swarm.service("left", "--network", NETWORK, "--label", "mesh.capture=off")
        eventually(lambda: 0 < ttl(_box(swarm, "captured"), "web") < DOCKER_TTL, "one is captured")
        eventually(lambda: ttl(_box(swarm, "left"), "web") == DOCKER_TTL, "the other is left to Docker")
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
