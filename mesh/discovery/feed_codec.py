"""The feed's messages as bytes, and back. Pure.

A message is a JSON document: first the whole cluster view, then what changed, or a heartbeat. On the wire and
in the state file it is the same document. What is received is validated as a whole: a message that does not
fit is an error of the sender, never a half-taken catalogue.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from mesh.catalog.model import Network, Node, Service
from mesh.catalog.snapshot import Change
from mesh.discovery.swarm import ClusterView
from mesh.errors import DiscoveryError

_SHOWN = 3  # faults of a message that are quoted


@dataclass(frozen=True, slots=True)
class Changed:
    """What changed in the cluster: id → new value, None where it is gone."""

    nodes: Mapping[str, Node | None] = field(default_factory=dict)
    networks: Mapping[str, Network | None] = field(default_factory=dict)
    services: Mapping[str, Service | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Message:
    """Exactly one of them; neither is a heartbeat."""

    __pydantic_config__ = ConfigDict(extra="forbid")
    view: ClusterView | None = None
    changed: Changed | None = None


_MESSAGE: TypeAdapter[Message] = TypeAdapter(Message)

HEARTBEAT = b"{}"


def encode_view(view: ClusterView) -> bytes:
    return _MESSAGE.dump_json(Message(view=view), exclude_none=False)


def encode_change(change: Change) -> bytes:
    """The cluster's part of a change; containers and askers never leave their node."""
    return _MESSAGE.dump_json(Message(changed=Changed(change.nodes, change.networks, change.services)))


def decode(data: bytes) -> ClusterView | Change | None:
    """A view, a change, or None for a heartbeat. Raises DiscoveryError for anything else."""
    try:
        message = _MESSAGE.validate_json(data)
    except ValidationError as error:
        raise DiscoveryError(f"not a message of the feed: {_faults(error.errors())}") from error
    if message.view is not None:
        return message.view
    if message.changed is None:
        return None
    return Change(message.changed.nodes, message.changed.networks, message.changed.services)


def _faults(errors: list[Any]) -> str:
    return "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in errors[:_SHOWN])
