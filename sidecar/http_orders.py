"""What passes between the sidecar and its HTTP workers.

    sidecar ──▶ Begin, then Learn as the catalogue changes, Listen as entry points open, Shut at the end
    worker  ──▶ Told, every second; Done, when it has drained

A worker has the configuration and the catalogue, so it makes of them what the sidecar makes.
"""

from dataclasses import dataclass, field

from mesh.balance.policies import Endpoint
from mesh.catalog.snapshot import Change
from mesh.http.stats import ServiceStats
from sidecar.config import Http


@dataclass(frozen=True, slots=True)
class OnSwarm:
    """Paths of a Swarm's node. `sandbox`: the ingress namespace."""

    netns: str
    certificates: str
    sandbox: str | None


@dataclass(frozen=True, slots=True)
class Begin:
    """`swarm`: None, where there is none. `issued`: the folder with what an authority has issued, or ""."""

    http: Http
    swarm: OnSwarm | None
    issued: str
    log_level: str
    log_format: str


@dataclass(frozen=True, slots=True)
class Learn:
    """`node`: the id of this one."""

    node: str
    change: Change


@dataclass(frozen=True, slots=True)
class Listen:
    """An entry point's listening socket comes with it."""

    name: str


@dataclass(frozen=True, slots=True)
class Shut:
    """Take no more; requests under way have so many seconds."""

    drain: float


@dataclass(frozen=True, slots=True)
class Seen:
    """An endpoint of an HTTP service as one process has it."""

    active: int  # requests
    left: float  # seconds more that it is left out
    why: str
    unwell: str


Endpoints = dict[tuple[str, Endpoint], Seen]  # by HTTP service


@dataclass(frozen=True, slots=True)
class Told:
    """In all since the worker's start, of what has changed; `seen` is whole."""

    stats: dict[str, ServiceStats]  # by service id
    seen: Endpoints
    tunnels: dict[tuple[str, ...], int] = field(default_factory=dict)
    passed: dict[tuple[str, str], int] = field(default_factory=dict)  # service id, result
    refused: dict[str, int] = field(default_factory=dict)  # targets, by reason


@dataclass(frozen=True, slots=True)
class Done:
    last: Told
