"""The ways in which a task ends, from the gentlest to the plug."""

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.convergence.lab import HOME, REPLICAS, SERVICE, Lab
from tests.support.swarm import eventually

NODE_LIMIT = 120.0  # seconds for a node to come back


@dataclass(frozen=True)
class Way:
    """`cheap`: over in seconds, so that it is repeated more often. `once` leaves things as it found them."""

    name: str
    once: Callable[[str, Lab], None]
    cheap: bool = False


def _remove(way: str, lab: Lab) -> None:
    victim = lab.settle()[0]
    lab.measure(way, [victim], lambda: lab.swarm.docker("rm", "-f", victim.id, node=victim.node), 1)


def _scale(way: str, lab: Lab) -> None:
    boxes = lab.settle()
    lab.measure(way, boxes, lambda: _service(lab, "scale", f"{SERVICE}={REPLICAS - 1}"), 1)
    lab.settle(REPLICAS - 1)
    _service(lab, "scale", f"{SERVICE}={REPLICAS}")


def _update(way: str, lab: Lab) -> None:
    boxes = lab.settle()
    lab.measure(way, boxes, lambda: _service(lab, "update", "--force", SERVICE), REPLICAS)


def _drain(way: str, lab: Lab) -> None:
    boxes = lab.settle()
    lab.measure(way, boxes, lambda: _availability(lab, "drain"), REPLICAS, home_stays=False)
    _availability(lab, "active")
    _back(lab)


def _kill(way: str, lab: Lab) -> None:
    boxes = lab.settle()
    lab.measure(way, boxes, lambda: lab.swarm.lab("kill", HOME), REPLICAS, home_stays=False)
    lab.swarm.lab("start", HOME)
    _back(lab)


def _service(lab: Lab, verb: str, *argv: str) -> None:
    lab.swarm.docker("service", verb, "--detach", *argv)


def _availability(lab: Lab, wanted: str) -> None:
    lab.swarm.docker("node", "update", "--availability", wanted, HOME)


def _back(lab: Lab) -> None:
    eventually(lambda: lab.swarm.ready(HOME), f"{HOME} is ready again", NODE_LIMIT)


WAYS = (
    Way("docker rm -f", _remove, cheap=True),
    Way("service scale", _scale, cheap=True),
    Way("rolling update", _update),
    Way("node drain", _drain),
    Way("node killed", _kill),
)
