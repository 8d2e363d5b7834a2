"""Nothing is lost while the cluster changes under a steady load, from outside and from a container.

Every request has a connection of its own and, inside, a lookup of its own. Beside it runs the same load
through Docker's own means, `tasks.NAME` from a container that is not captured: what it loses is printed
(`pytest -rP`). The application has a health check and finishes on SIGTERM what it has accepted, as it should
in production.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from tests.support.load import Ended, Load
from tests.support.swarm import FRONT, LAB, NODES, Box, Swarm, eventually

RATE = 25  # requests a second of each load: enough to hit every window of some tens of milliseconds
STEADY = 25  # requests that are seen to succeed before, and again after, something changes
# A killed process cannot be known to be dead before it is: until its node's word has come round, its kernel
# refuses connections for it.
WORD_SECONDS = 0.25

HEALTH = (
    "--health-cmd=python3 /app.py get http://127.0.0.1:8080/",
    "--health-interval=1s",
    "--health-timeout=5s",
    "--health-retries=5",
)


@dataclass
class Loads:
    outside: Load
    inside: Load
    docker: Load

    @property
    def ours(self) -> tuple[Load, Load]:
        return self.outside, self.inside

    def steady(self) -> None:
        """Requests that begin now succeed."""
        for load in self.ours:
            load.more(STEADY, lambda one: not one.error)

    def lost(self) -> list[Ended]:
        return [one for load in self.ours for one in load.failures()]


@pytest.fixture(scope="module")
def world(lab: Swarm) -> Iterator[Swarm]:
    """A service on all nodes, and two containers that use it: one captured, one left to Docker."""
    swarm = Swarm()
    for node in NODES:
        eventually(lambda n=node: lab.ready(n), f"{node}'s sidecar is ready", 90)  # type: ignore[misc]
    swarm.network("internal", "--attachable")
    placed = ("--network", "internal", "--constraint", "node.hostname==swarm01")
    swarm.service("asker", *placed, command=["idle"])
    swarm.service("other", *placed, "--container-label", "mesh.capture=off", command=["idle"])
    swarm.service(
        "web",
        *("--network", "internal", "--publish", "80:8080", "--replicas", "3", *HEALTH),
        *("--constraint", "node.role==worker", "--stop-grace-period", "10s"),
    )
    for node in NODES:
        eventually(lambda n=node: entered(swarm, n), f"the overlay leads from {node} and back", 60)  # type: ignore[misc]
    yield swarm
    swarm.tidy()


def entered(swarm: Swarm, node: str) -> bool:
    """The node's published port reaches the tasks of the workers, and their answers come back.

    A node that was without power (`test_without_manager`) is reached again only when Docker's gossip has
    told the others of its new endpoint on the ingress network: 17 to 31 s after its engine is up.
    """
    answered = swarm.served_by(node, 4)
    return len(answered) > 1 and "" not in answered


def one_of(swarm: Swarm, service: str) -> Box:
    (box,) = swarm.boxes(service)
    return box


@contextmanager
def under_load(swarm: Swarm, nodes: tuple[str, ...] = NODES) -> Iterator[Loads]:
    """The loads, steady before and after what is done meanwhile. Docker's losses are printed."""
    front = [f"{FRONT[node]}:80" for node in nodes]
    asker, other = one_of(swarm, "asker"), one_of(swarm, "other")
    made: list[Load] = []

    def load(name: str, command: tuple[str, ...], *targets: str) -> Load:
        made.append(Load(name, [*LAB, *command], RATE, targets))
        return made[-1]

    def within(box: Box) -> tuple[str, ...]:
        return ("node", box.node, "--", "docker", "exec", "-i", box.id)

    try:
        loads = Loads(
            load("from outside", ("client", "--"), *front),
            load("from a container", within(asker), "web:8080"),
            load("Docker's own means", within(other), "tasks.web:8080"),
        )
        loads.steady()
        yield loads
        loads.steady()
        for one in made:
            one.stop()
            print(one)
    finally:
        for one in made:
            one.kill()


def settled(swarm: Swarm, replicas: int = 3) -> None:
    swarm.settled("web", replicas)


def updated(swarm: Swarm, service: str, *options: str) -> None:
    """Every task replaced, and Swarm says so."""
    swarm.docker("service", "update", "--detach=false", "--quiet", "--force", *options, service)


def test_a_rolling_update_that_stops_first(world: Swarm) -> None:
    with under_load(world) as loads:
        updated(world, "web", "--update-order", "stop-first")
    assert not loads.lost(), [*map(str, loads.ours)]


def test_an_update_of_a_single_task_that_starts_first(world: Swarm) -> None:
    world.scale("web", 1)
    with under_load(world) as loads:
        updated(world, "web", "--update-order", "start-first")
    assert not loads.lost(), [*map(str, loads.ours)]
    world.scale("web", 3)


def test_scaling_up_and_down(world: Swarm) -> None:
    world.scale("web", 2)
    with under_load(world) as loads:
        for replicas in (5, 2):
            world.scale("web", replicas)
            loads.steady()
    assert not loads.lost(), [*map(str, loads.ours)]
    world.scale("web", 3)


def test_a_node_is_drained(world: Swarm) -> None:
    """The load goes to the other nodes: whoever drains one takes it out of the balancer in front first."""
    try:
        with under_load(world, ("swarm00", "swarm01")) as loads:
            world.docker("node", "update", "--availability", "drain", "swarm02")
            eventually(lambda: not world.boxes("web", ["swarm02"]), "no task runs on swarm02", 90)
            settled(world)
        assert not loads.lost(), [*map(str, loads.ours)]
    finally:
        world.docker("node", "update", "--availability", "active", "swarm02")
    eventually(lambda: world.ready("swarm02"), "swarm02's sidecar is back", 90)
    updated(world, "web")


def test_a_task_is_killed(world: Swarm) -> None:
    """What was under way on it is lost; what begins later is not, even if its SYN went to the dead task."""
    victim = world.boxes("web")[0]
    with under_load(world) as loads:
        world.docker("rm", "-f", victim.id, node=victim.node)
        settled(world)
    died = death_of(world, victim)
    late = [one for one in loads.lost() if one.begun > died + WORD_SECONDS]
    assert not late, [f"died {died}", *map(str, loads.ours)]


def death_of(swarm: Swarm, box: Box) -> float:
    """Seconds since the epoch, as its engine saw it."""
    what = ("--filter", f"container={box.id}", "--filter", "event=die", "--format", "{{.TimeNano}}")
    return (
        int(swarm.docker("events", "--since", "10m", "--until", "0s", *what, node=box.node).split()[0]) / 1e9
    )


def test_the_sidecar_is_restarted_on_a_node(world: Swarm) -> None:
    before = world.sidecar("swarm01")
    with under_load(world) as loads:
        world.docker("stop", before, node="swarm01")
        eventually(lambda: new_sidecar(world, "swarm01", before), "a next sidecar is ready", 90)
    assert not loads.lost(), [*map(str, loads.ours)]


def new_sidecar(swarm: Swarm, node: str, before: str) -> bool:
    return swarm.sidecar(node) != before and swarm.ready(node)


def test_the_sidecar_is_updated_everywhere(world: Swarm) -> None:
    with under_load(world) as loads:
        updated(world, "mesh_sidecar")
        for node in NODES:
            eventually(lambda n=node: world.ready(n), f"{node}'s sidecar is ready", 90)  # type: ignore[misc]
    assert not loads.lost(), [*map(str, loads.ours)]


def test_the_sidecar_is_killed(world: Swarm) -> None:
    """The kernel carries on. Names fail until the redirect has run out: nobody is there to withdraw it."""
    before = world.sidecar("swarm01")
    with under_load(world) as loads:
        world.docker("kill", before, node="swarm01")
        eventually(lambda: new_sidecar(world, "swarm01", before), "a next sidecar is ready", 90)
    assert not loads.outside.failures(), str(loads.outside)
    unnamed = loads.inside.failures()
    assert all(one.error.startswith("gaierror") for one in unnamed), str(loads.inside)
    assert not unnamed or unnamed[-1].begun - unnamed[0].begun < 5, str(loads.inside)


def test_the_manager_is_lost(world: Swarm) -> None:
    """Its power fails. Tasks are on the workers, as they are in production."""
    settled(world)
    with under_load(world, ("swarm01", "swarm02")) as loads:
        world.lab("kill", "swarm00")
        try:
            loads.steady()
        finally:
            world.lab("start", "swarm00", limit=300)
        eventually(lambda: world.ready("swarm00"), "swarm00's sidecar is back", 120)
    assert not loads.lost(), [*map(str, loads.ours)]
