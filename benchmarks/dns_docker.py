"""Docker's own resolver and ours, asked by one and the same container of a real Swarm (tests/lab, root)."""

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.measure import (
    SERVER_CORE,
    BenchmarkFailed,
    Load,
    Series,
    Server,
    cpu_seconds,
    parse,
)
from benchmarks.processes import engine, first_process
from tests.support.swarm import Box, Swarm, eventually

NODE = "swarm01"


def measure(queries: Path, seconds: int, rounds: int) -> list[Series]:
    """Raises BenchmarkFailed where there can be no lab."""
    if os.geteuid() != 0:
        raise BenchmarkFailed("the scenario `docker` needs root")
    with _swarm() as (swarm, box):
        ours, docker = Series("ours, captured"), Series("Docker's own")
        sidecar = first_process(
            swarm.on(NODE, "docker", "inspect", "-f", "{{.Id}}", swarm.sidecar(NODE)).strip()
        )
        dockerd = engine(swarm.on(NODE, "readlink", "/proc/self/ns/net").strip())
        servers = {
            ours.name: (ours, Server(ours.name, "127.0.0.11", 53, sidecar, box.namespace)),
            docker.name: (
                docker,
                Server(docker.name, "127.0.0.11", _docker_port(box), dockerd, box.namespace),
            ),
        }
        for _, server in servers.values():
            _pin(server.pid)
        for number in range(rounds + 1):
            for series, server in servers.values():
                _round(swarm, series, server, Load(queries, seconds if number else 1), counted=number > 0)
        return [series for series, _ in servers.values()]


def _round(swarm: Swarm, series: Series, server: Server, load: Load, *, counted: bool) -> None:
    before = cpu_seconds(server.pid)
    outcome = parse(swarm.on(NODE, *load.command(server)))
    if not counted:
        return
    series.qps.append(outcome.qps)
    series.cpu_us.append((cpu_seconds(server.pid) - before) / outcome.completed * 1e6)
    series.lost += outcome.lost


def _docker_port(box: Box) -> int:
    rules = box.inside("iptables", "-t", "nat", "-S", "DOCKER_OUTPUT")
    found = re.search(r"-p udp .*--to-destination 127\.0\.0\.11:(\d+)", rules)
    if found is None:
        raise BenchmarkFailed(f"no rule of Docker's resolver in:\n{rules}")
    return int(found[1])


def _pin(pid: int) -> None:
    subprocess.run(["taskset", "-acp", SERVER_CORE, str(pid)], check=True, stdout=subprocess.DEVNULL)


@contextmanager
def _swarm() -> Iterator[tuple[Swarm, Box]]:
    """Three nodes with the mesh, service `web`, and the container that asks."""
    swarm = Swarm()
    try:
        swarm.lab("setup", limit=600)
        swarm.lab("up", limit=600)
        swarm.lab("deploy", limit=600)
        swarm.network("bench")
        swarm.service("web", "--network", "bench")
        swarm.service("asker", "--network", "bench", "--constraint", f"node.hostname=={NODE}")
        (box,) = swarm.boxes("asker")
        eventually(lambda: box.dig("web").answers and box.dig("web").answers[0][1] < 600, "it is captured")
        yield swarm, box
    finally:
        swarm.lab("down", check=False)
