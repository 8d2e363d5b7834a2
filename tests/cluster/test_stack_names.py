"""Two stacks with a service `web` each, on a network of their own and on a shared one."""

from pathlib import Path

from tests.support.swarm import APP_IMAGE, Box, Swarm, eventually

STACK = f"""
version: "3.8"
services:
  web:
    image: {APP_IMAGE}
    stop_grace_period: 2s
    networks: [own, shared]
    deploy: {{replicas: 1}}
  asker:
    image: {APP_IMAGE}
    stop_grace_period: 2s
    networks: [own]
networks:
  own: {{}}
  shared: {{external: true, name: shared}}
"""


def asker(swarm: Swarm, stack: str) -> Box:
    swarm.settled(f"{stack}_asker")
    return swarm.boxes(f"{stack}_asker")[0]


def test_each_stack_sees_its_own_short_name_and_the_full_names_where_networks_are_shared(
    swarm: Swarm, tmp_path: Path
) -> None:
    swarm.network("shared", "--attachable")
    try:
        for stack in ("red", "blue"):
            swarm.stack(stack, STACK, tmp_path)
        answers = {}
        for stack in ("red", "blue"):
            box = asker(swarm, stack)
            swarm.settled(f"{stack}_web")
            eventually(lambda box=box: box.dig("web").data, f"web resolves in {stack}")  # type: ignore[misc]
            answers[stack] = box.dig("web").data
            assert answers[stack] == box.dig(f"{stack}_web").data
            assert answers[stack] == box.dig(f"web.{stack}_own").data
            other = "blue" if stack == "red" else "red"
            assert box.dig(f"{other}_web").status == "NXDOMAIN", "another stack's own network is out of scope"
        assert answers["red"] != answers["blue"]

        web = swarm.boxes("red_web")[0]
        full = web.dig("blue_web").data
        assert full, "on the shared network the other stack's full name resolves"
        shared_web = web.dig("web.shared").data
        assert shared_web == web.dig("red_web.shared").data, "the alias of both is the own stack's"
        assert set(full) | set(shared_web) == set(web.dig_docker("web.shared").data), "Docker has the union"
        assert web.dig("web").data == web.dig_docker("web").data, "network order is Docker's"
    finally:
        for stack in list(swarm.stacks):
            swarm.docker("stack", "rm", stack)
            for service in ("web", "asker"):
                name = f"{stack}_{service}"
                eventually(lambda name=name: not swarm.boxes(name), f"{name} is gone")  # type: ignore[misc]
