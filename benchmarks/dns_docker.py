"""Docker's own resolver and ours, asked by two containers of one node of a real Swarm (tests/lab, root)."""

import os
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
DOCKER_TTL = 600  # seconds


def measure(queries: Path, seconds: int, rounds: int) -> list[Series]:
    """Raises BenchmarkFailed where there can be no lab."""
    if os.geteuid() != 0:
        raise BenchmarkFailed("the scenario `docker` needs root")
    with _swarm() as swarm:
        ours, docker = Series("ours, captured"), Series("Docker's own")
        sidecar = first_process(swarm.docker("inspect", "-f", "{{.Id}}", swarm.sidecar(NODE), node=NODE))
        dockerd = engine(swarm.on(NODE, "readlink", "/proc/self/ns/net").strip())
        servers = {
            one.name: (one, Server(one.name, "127.0.0.11", 53, pid, _asker(swarm, service).namespace))
            for one, pid, service in ((ours, sidecar, "captured"), (docker, dockerd, "left"))
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


def _asker(swarm: Swarm, service: str) -> Box:
    (box,) = swarm.boxes(service)
    return box


def _pin(pid: int) -> None:
    subprocess.run(["taskset", "-acp", SERVER_CORE, str(pid)], check=True, stdout=subprocess.DEVNULL)


@contextmanager
def _swarm() -> Iterator[Swarm]:
    """Three nodes with the mesh, service `web`, and on one of them a container that is captured, and one
    that is left to Docker."""
    swarm = Swarm()
    try:
        swarm.lab("setup", limit=600)
        swarm.lab("up", limit=600)
        swarm.lab("deploy", limit=600)
        swarm.network("bench")
        swarm.service("web", "--network", "bench")
        on = ("--network", "bench", "--constraint", f"node.hostname=={NODE}")
        swarm.service("captured", *on)
        swarm.service("left", *on, "--label", "mesh.capture=off")
        eventually(lambda: _ttl(swarm, "captured") < DOCKER_TTL, "one is captured")
        eventually(lambda: _ttl(swarm, "left") == DOCKER_TTL, "the other is left to Docker")
        yield swarm
    finally:
        swarm.lab("down", check=False)


def _ttl(swarm: Swarm, service: str) -> int:
    answers = _asker(swarm, service).dig("web").answers
    assert answers, "no answer"
    return answers[0][1]
