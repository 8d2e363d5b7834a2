"""What passes between the sidecar and its relay workers.

    sidecar ──▶ Begin, then Carry and Shut as ports open, change and close
    worker  ──▶ Told, every second, of ports that have something new; Ended, when a shut port is empty

A port is known by the number of its opening: one that is closed and opened again is another one. How it goes
on is a value with a version: a worker is told the whole of it each time, and tells which version it goes by.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from mesh.balance.policies import Endpoint
from mesh.relay.connection import Options
from mesh.relay.counts import PortStats, Seen


@dataclass(frozen=True, slots=True)
class Begin:
    """`sandbox`: path of the namespace from which tasks are reached; None: our own."""

    sandbox: str | None
    log_level: str
    log_format: str


@dataclass(frozen=True, slots=True)
class Way:
    """Where a port's connections go, and how: plain layer 4."""

    endpoints: tuple[Endpoint, ...]
    near: tuple[Endpoint, ...]
    options: Options


@dataclass(frozen=True, slots=True)
class Carry:
    """A port as it is now. Its listening socket comes with the first order for it."""

    number: int
    version: int
    way: Way


@dataclass(frozen=True, slots=True)
class Shut:
    """Take no more connections; those there are have so many seconds."""

    number: int
    drain: float


@dataclass(frozen=True, slots=True)
class Experience:
    """A port as one worker has it: the version it goes by, and what it has counted in all."""

    version: int
    stats: PortStats
    seen: tuple[Seen, ...]


@dataclass(frozen=True, slots=True)
class Told:
    ports: Mapping[int, Experience]  # by number


@dataclass(frozen=True, slots=True)
class Ended:
    number: int
    last: Experience
