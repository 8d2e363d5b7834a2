"""Names that two stacks share: who gets whose, and the ports behind them.

The shared network's name comes before the others', so Docker looks there first.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.swarm import APP_IMAGE, Box, Swarm, eventually

SHARED = "all"
STACK = f"""
version: "3.8"
services:
  web:
    image: {APP_IMAGE}
    stop_grace_period: 2s
    networks: [own, shared]
    deploy:
      replicas: 1
      labels: {{mesh.dns.ttl: "42", mesh.dns.srv.http: "8080", mesh.dns.srv.bad: "eighty"}}
  cache:
    image: {APP_IMAGE}
    stop_grace_period: 2s
    networks: [CACHE]
  asker:
    image: {APP_IMAGE}
    stop_grace_period: 2s
    networks: [own]
networks:
  own: {{}}
  shared: {{external: true, name: {SHARED}}}
"""
CACHE = {"red": "own", "blue": "own, shared"}
SERVICES = ("web", "cache", "asker")


@pytest.fixture
def stacks(swarm: Swarm, tmp_path: Path) -> Iterator[Swarm]:
    swarm.network(SHARED, "--attachable")
    try:
        for stack, networks in CACHE.items():
            swarm.stack(stack, STACK.replace("CACHE", networks), tmp_path)
        for stack in CACHE:
            for service in SERVICES:
                swarm.settled(f"{stack}_{service}")
        yield swarm
    finally:
        for stack in list(swarm.stacks):
            swarm.docker("stack", "rm", stack)
            for service in SERVICES:
                name = f"{stack}_{service}"
                eventually(lambda name=name: not swarm.boxes(name), f"{name} is gone")  # type: ignore[misc]


@pytest.fixture
def stranger(stacks: Swarm) -> Iterator[Box]:
    """A plain container on the shared network, of no stack."""
    stacks.docker("run", "-d", "--name", "stranger", "--network", SHARED, APP_IMAGE, "idle")
    try:
        box = stacks.box("swarm00", json.loads(stacks.docker("inspect", "stranger"))[0])
        assert box is not None
        yield box
    finally:
        stacks.docker("rm", "-f", "stranger", check=False)


def test_each_stack_gets_its_own(stacks: Swarm, stranger: Box) -> None:
    red, blue = (stacks.boxes(f"{stack}_web")[0] for stack in CACHE)
    vips = {}
    for stack, box in (("red", red), ("blue", blue)):
        full = box.dig(f"{stack}_web.{SHARED}")
        vips[stack] = full.data
        assert {answer[1] for answer in full.answers} == {42}, "the TTL that the label says"
        assert box.dig("web").data == box.dig(f"web.{SHARED}").data == full.data
        assert box.dig("web.own").status == "NXDOMAIN", "networks are called by their full names"
        own = stacks.boxes(f"{stack}_asker")[0]
        assert own.dig("web").data == box.dig(f"web.{stack}_own").data != full.data
    assert len(vips["red"]) == len(vips["blue"]) == 1
    everybody = sorted(vips["red"] + vips["blue"])
    eventually(lambda: red.dig_docker("web").data == everybody, "Docker gives both stacks' to either")
    eventually(
        lambda: stranger.dig("web").data == everybody, "an asker of no stack gets both, as with Docker"
    )
    assert red.dig("blue_web").data == vips["blue"], "a full name is nobody else's"


def test_a_name_on_the_own_network_comes_before_a_strangers_on_the_shared_one(stacks: Swarm) -> None:
    red, blue = (stacks.boxes(f"{stack}_web")[0] for stack in CACHE)
    theirs, own = blue.dig(f"blue_cache.{SHARED}").data, red.dig("red_cache").data
    assert red.dig_docker("cache").data == theirs, "Docker goes by the networks' names"
    assert red.dig("cache").data == own != theirs
    assert red.dig(f"cache.{SHARED}").data == theirs, "said plainly"
    assert blue.dig("cache").data == theirs


def test_ports_by_name(stacks: Swarm, stranger: Box) -> None:
    red = stacks.boxes("red_web")[0]
    found = red.dig("_http._tcp.web", "SRV")
    assert found.data == [f"0 0 8080 red_web.{SHARED}."]
    assert red.dig(found.data[0].split()[3]).data == red.dig("web").data
    task = red.dig("_http._tcp.tasks.web", "SRV").data[0].split()[3]
    assert task == f"{red.name}.{SHARED}."
    assert red.dig(task).data == [red.addresses[SHARED]]
    both = [f"0 1 8080 {stack}_web.{SHARED}." for stack in ("blue", "red")]
    eventually(lambda: stranger.dig("_http._tcp.web", "SRV").data == both, "both, for an asker of no stack")
    told = stacks.mesh("swarm00", "status")["problems"]
    assert "red_web: mesh.dns.srv.bad: 'eighty' is not a port like 8080 or 53/udp; ignored" in told
