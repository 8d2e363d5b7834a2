"""Where things are: folders, names, addresses. Pure, but for the environment read in `places()`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[3]
CLIENT_ADDRESS = "10.10.10.1"  # on the front network: the outside client, the nodes' gateway and DNS server
NODES_LIMIT = 9  # more engines than any machine this was tried on could carry


@dataclass(frozen=True, slots=True)
class Places:
    """The two folders that the lab writes to; nothing else on the machine is touched."""

    state: Path
    cache: Path

    @property
    def namespaces(self) -> Path:
        return self.state / "namespaces"

    @property
    def wire(self) -> Path:
        """The namespace that holds the bridges."""
        return self.namespaces / "wire"

    @property
    def client(self) -> Path:
        """The namespace of the outside client."""
        return self.namespaces / "client"

    @property
    def cgroup(self) -> str:
        """Parent of all the lab's cgroups, as Docker's --cgroup-parent wants it."""
        return f"/{self.state.name}"


def places() -> Places:
    """From MESH_LAB_DIR and MESH_LAB_CACHE, or the defaults."""
    state = Path(os.environ.get("MESH_LAB_DIR") or "/var/lib/mesh-lab")
    cache = Path(os.environ.get("MESH_LAB_CACHE") or "/var/cache/mesh-lab")
    return Places(state.absolute(), cache.absolute())


@dataclass(frozen=True, slots=True)
class Shape:
    """What `up` was asked for."""

    nodes: int = 3
    managers: int = 1
    engine: str = "bookworm"

    def __str__(self) -> str:
        return f"{self.nodes} nodes, {self.managers} of them managers, engine {self.engine}"

    def machines(self) -> list[Machine]:
        return [Machine(index, index < self.managers) for index in range(self.nodes)]


@dataclass(frozen=True, slots=True)
class Machine:
    """One node's name and addresses. Managers come first: swarm00 is always one."""

    index: int
    manager: bool

    @property
    def name(self) -> str:
        return f"swarm{self.index:02d}"

    @property
    def front(self) -> str:
        return f"10.10.10.{60 + self.index}"

    @property
    def back(self) -> str:
        return f"192.168.2.{60 + self.index}"
