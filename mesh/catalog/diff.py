"""What differs between what is known and what a source now reports, entity by entity.

Used where a source can only tell everything (a poll, a re-read file); sources that know what changed
(events, the feed) build their `Change` directly.
"""

from collections.abc import Mapping
from typing import TypeVar

from mesh.catalog.model import Asker, Container, Network, Node, Service
from mesh.catalog.snapshot import Change, Snapshot

T = TypeVar("T")


def changed(old: Mapping[str, T], new: Mapping[str, T]) -> dict[str, T | None]:
    """id → new value for what is new or different, None for what is gone."""
    result: dict[str, T | None] = {id_: value for id_, value in new.items() if old.get(id_) != value}
    result.update((id_, None) for id_ in old if id_ not in new)
    return result


def difference(
    old: Snapshot,
    *,
    nodes: Mapping[str, Node] | None = None,
    networks: Mapping[str, Network] | None = None,
    services: Mapping[str, Service] | None = None,
    containers: Mapping[str, Container] | None = None,
    askers: tuple[Asker, ...] | None = None,
) -> Change:
    """The change from `old` to the full sets given; a set left out (None) is taken as unchanged."""
    return Change(
        nodes={} if nodes is None else changed(old.nodes, nodes),
        networks={} if networks is None else changed(old.networks, networks),
        services={} if services is None else changed(old.services, services),
        containers={} if containers is None else changed(old.containers, containers),
        askers=None if askers is None or askers == old.askers else askers,
    )
