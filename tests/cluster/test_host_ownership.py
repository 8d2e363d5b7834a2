"""Two stacks want one host on the real Swarm: the first one has it on every node, over restarts."""

from pathlib import Path

from tests.cluster.test_http import ROUTER, SERVICE, curl
from tests.support.swarm import APP_IMAGE, NODES, Swarm, eventually


def stack(rule: str, shown: str, priority: int = 1) -> str:
    """Its answers say `shown` in their path."""
    return f"""
version: "3.8"
services:
  web:
    image: {APP_IMAGE}
    networks: [inner]
    deploy:
      labels:
        {ROUTER}.web.rule: {rule}
        {ROUTER}.web.priority: "{priority}"
        {ROUTER}.web.middlewares: mark
        {SERVICE}.web.loadbalancer.server.port: "8080"
        traefik.http.middlewares.mark.addprefix.prefix: /{shown}
networks:
  inner: {{}}
"""


def whose(swarm: Swarm, node: str, host: str) -> str:
    text = " ".join(curl(swarm, node, host=host))
    return next((one for one in ("zoo", "ape") if f"/{one}/" in text), "")


def everywhere(swarm: Swarm, host: str, by: str) -> None:
    eventually(lambda: {whose(swarm, node, host) for node in NODES} == {by}, f"{host} is {by}'s", 90)


def test_the_first_stack_keeps_its_host(swarm: Swarm, tmp_path: Path) -> None:
    swarm.stack("zoo", stack("Host(`zoo.example`)", "zoo"), tmp_path)
    everywhere(swarm, "zoo.example", "zoo")
    swarm.stack("ape", stack("Host(`zoo.example`) || Host(`ape.example`)", "ape", 99999), tmp_path)
    everywhere(swarm, "ape.example", "ape")
    everywhere(swarm, "zoo.example", "zoo")
    for node in NODES:
        problems = swarm.mesh(node, "status")["problems"]
        assert any("ape_web" in one and "zoo.example belongs to stack zoo since" in one for one in problems)
    for node in NODES:
        swarm.docker("rm", "-f", swarm.sidecar(node), node=node)
    for node in NODES:
        eventually(lambda node=node: swarm.sidecar(node) and swarm.ready(node), f"{node} is back", 90)  # type: ignore[misc]
    everywhere(swarm, "ape.example", "ape")
    everywhere(swarm, "zoo.example", "zoo")
    swarm.docker("stack", "rm", "zoo")
    everywhere(swarm, "zoo.example", "ape")
