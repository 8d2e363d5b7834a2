"""The feed's messages as bytes, and back. Pure.

A message is a JSON document: first the whole cluster view, then what changed, or a heartbeat. On the wire and
in the state file it is the same document. What is received is validated as a whole: a message that does not
fit is an error of the sender, never a half-taken catalogue.

Sidecars of before other nodes' plain containers were told refuse a message with `neighbours`, and those of
before hosts had owners one with `holds`: these are left out where there are none, and for clients that did
not ask for them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ConfigDict, TypeAdapter

from mesh.catalog.cluster_view import ClusterView
from mesh.catalog.model import Neighbour, Network, Node, Service
from mesh.catalog.snapshot import Change
from mesh.peers.documents import valid


@dataclass(frozen=True, slots=True)
class ChangedMessage:
    """What changed in the cluster: id → new value, None where it is gone."""

    nodes: Mapping[str, Node | None] = field(default_factory=dict)
    networks: Mapping[str, Network | None] = field(default_factory=dict)
    services: Mapping[str, Service | None] = field(default_factory=dict)
    neighbours: Mapping[str, Neighbour | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FeedMessage:
    """Exactly one of them; neither is a heartbeat."""

    __pydantic_config__ = ConfigDict(extra="forbid")
    view: ClusterView | None = None
    changed: ChangedMessage | None = None


_MESSAGE: TypeAdapter[FeedMessage] = TypeAdapter(FeedMessage)

HEARTBEAT = b"{}"


def encode_view(view: ClusterView, *, neighbours: bool = True, holds: bool = True) -> bytes:
    left_out = {"view": _left_out(view, neighbours, holds)}
    return _MESSAGE.dump_json(FeedMessage(view=view), exclude=left_out)


def encode_change(change: Change, *, neighbours: bool = True, holds: bool = True) -> bytes:
    """The cluster's part of a change; containers and askers never leave their node."""
    told = ChangedMessage(change.nodes, change.networks, change.services, change.neighbours)
    return _MESSAGE.dump_json(
        FeedMessage(changed=told), exclude={"changed": _left_out(told, neighbours, holds)}
    )


def _left_out(told: ClusterView | ChangedMessage, neighbours: bool, holds: bool) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if not (neighbours and told.neighbours):
        found["neighbours"] = True
    if not (holds and any(one is not None and one.holds is not None for one in told.services.values())):
        found["services"] = {"__all__": {"holds"}}
    return found


def decode(data: bytes) -> ClusterView | Change | None:
    """A view, a change, or None for a heartbeat. Raises DiscoveryError for anything else."""
    message = valid(_MESSAGE, data)
    if message.view is not None:
        return message.view
    if message.changed is None:
        return None
    told = message.changed
    return Change(told.nodes, told.networks, told.services, neighbours=told.neighbours)
