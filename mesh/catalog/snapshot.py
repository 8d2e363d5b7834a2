"""One immutable value of the whole catalogue, and the change that leads from one to the next.

Strategy: entities live in persistent maps (HAMT), so a changed task among 100,000 copies a handful of
nodes, and every reader keeps the version it took. A `Change` names only what differs; applying one costs
O(changed · log n), and whoever is told of it does work of the same order.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from immutables import Map

from mesh.catalog.model import Asker, Container, Neighbour, Network, Node, Service

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Change:
    """What differs: id → new value, or None where the entity is gone. `askers` None: unchanged."""

    nodes: Mapping[str, Node | None] = field(default_factory=dict)
    networks: Mapping[str, Network | None] = field(default_factory=dict)
    services: Mapping[str, Service | None] = field(default_factory=dict)
    containers: Mapping[str, Container | None] = field(default_factory=dict)
    askers: tuple[Asker, ...] | None = None
    neighbours: Mapping[str, Neighbour | None] = field(default_factory=dict)

    def __bool__(self) -> bool:
        maps = (self.nodes, self.networks, self.services, self.containers, self.neighbours)
        return any(maps) or self.askers is not None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The catalogue at one version. `this_node` is the id of the node that we run on ("" when unknown)."""

    version: int = 0
    this_node: str = ""
    nodes: Map[str, Node] = field(default_factory=Map)
    networks: Map[str, Network] = field(default_factory=Map)
    services: Map[str, Service] = field(default_factory=Map)
    containers: Map[str, Container] = field(default_factory=Map)
    neighbours: Map[str, Neighbour] = field(default_factory=Map)  # by their keys
    askers: tuple[Asker, ...] = ()
    # network id → service ids on it: what a container's rules and names are computed from
    members: Map[str, Map[str, bool]] = field(default_factory=Map)

    def apply(self, change: Change) -> "Snapshot":
        """The next version. Never touches self."""
        return replace(
            self,
            version=self.version + 1,
            nodes=_updated(self.nodes, change.nodes),
            networks=_updated(self.networks, change.networks),
            services=_updated(self.services, change.services),
            containers=_updated(self.containers, change.containers),
            neighbours=_updated(self.neighbours, change.neighbours),
            askers=self.askers if change.askers is None else change.askers,
            members=self._members_after(change),
        )

    def as_change(self) -> Change:
        """What makes it of an empty one, but for who we are."""
        return Change(self.nodes, self.networks, self.services, self.containers, self.askers, self.neighbours)

    def services_on(self, network: str) -> Iterator[Service]:
        """Services attached to the network, in no particular order."""
        for service in self.members.get(network, _NONE):
            yield self.services[service]

    def service_named(self, name: str) -> Service | None:
        """By name or id; a scan, for people and not for packets."""
        found = self.services.get(name)
        return found or next((s for s in self.services.values() if s.name == name), None)

    def ingress_network(self) -> Network | None:
        return next((n for n in self.networks.values() if n.ingress), None)

    def _members_after(self, change: Change) -> Map[str, Map[str, bool]]:
        members = self.members
        for id_, new in change.services.items():
            old = self.services.get(id_)
            before = {n.network for n in old.networks} if old else set()
            after = {n.network for n in new.networks} if new else set()
            for network in before - after:
                left = members[network].delete(id_)
                members = members.set(network, left) if left else members.delete(network)
            for network in after - before:
                members = members.set(network, members.get(network, _NONE).set(id_, True))
        return members


_NONE: Map[str, bool] = Map()


def _updated(entities: "Map[str, T]", changed: Mapping[str, T | None]) -> "Map[str, T]":
    if not changed:
        return entities
    draft = entities.mutate()
    for id_, value in changed.items():
        if value is not None:
            draft[id_] = value
        else:
            draft.pop(id_, None)
    return draft.finish()
