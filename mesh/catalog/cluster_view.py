"""What a manager knows of the cluster, as one value. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from mesh.catalog.model import Neighbour, Network, Node, Service


@dataclass(frozen=True, slots=True)
class ClusterView:
    """Everything a manager knows, by id."""

    nodes: Mapping[str, Node]
    networks: Mapping[str, Network]
    services: Mapping[str, Service]
    neighbours: Mapping[str, Neighbour] = field(default_factory=dict)  # what the nodes say, by key
