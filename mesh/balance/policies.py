"""Which of the usable endpoints a new connection goes to. Pure: chance and counts are arguments."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple


class Policy(StrEnum):
    ROUND_ROBIN = "round_robin"
    RANDOM = "random"
    LEAST_CONN = "least_conn"
    P2C = "p2c"  # of two random ones the one that costs less
    SOURCE_HASH = "source_hash"


class Endpoint(NamedTuple):
    """One task's address and port. A named tuple, because it is the key of several dicts for each connection,
    and the hash of a tuple is computed in C."""

    address: str
    port: int
    task: str = ""

    def __str__(self) -> str:
        return f"{self.address}:{self.port}"


# One is made for each connection, and a frozen one would take four times as long.
@dataclass(slots=True)
class Draw:
    """What a choice may look at."""

    turn: int = 0  # grows by one with every connection of the port
    random: Callable[[], float] = lambda: 0.0  # [0, 1)
    active: Callable[[Endpoint], int] = lambda _: 0  # open connections to it
    cost: Callable[[Endpoint], float] = lambda _: 0.0  # what one more connection costs there
    hashed: Callable[[Sequence[Endpoint]], Endpoint] = lambda endpoints: endpoints[0]  # by client


def choose(policy: Policy, endpoints: Sequence[Endpoint], draw: Draw) -> Endpoint:
    """One of `endpoints`, which must not be empty."""
    return _CHOICES[policy](endpoints, draw)


def _round_robin(endpoints: Sequence[Endpoint], draw: Draw) -> Endpoint:
    return endpoints[draw.turn % len(endpoints)]


def _random(endpoints: Sequence[Endpoint], draw: Draw) -> Endpoint:
    return endpoints[int(draw.random() * len(endpoints))]


def _least_conn(endpoints: Sequence[Endpoint], draw: Draw) -> Endpoint:
    # Starting at the turn, so that equally idle endpoints share the load.
    start = draw.turn % len(endpoints)
    return min((*endpoints[start:], *endpoints[:start]), key=draw.active)


def _p2c(endpoints: Sequence[Endpoint], draw: Draw) -> Endpoint:
    first = int(draw.random() * len(endpoints))
    second = (first + 1 + int(draw.random() * (len(endpoints) - 1))) % len(endpoints)
    return min((endpoints[first], endpoints[second]), key=draw.cost)


def _source_hash(endpoints: Sequence[Endpoint], draw: Draw) -> Endpoint:
    return draw.hashed(endpoints)


_CHOICES: Mapping[Policy, Callable[[Sequence[Endpoint], Draw], Endpoint]] = {
    Policy.ROUND_ROBIN: _round_robin,
    Policy.RANDOM: _random,
    Policy.LEAST_CONN: _least_conn,
    Policy.P2C: _p2c,
    Policy.SOURCE_HASH: _source_hash,
}
