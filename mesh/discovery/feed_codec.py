"""The feed's messages as bytes, and back. Pure.

A message is a JSON document: first the whole cluster view, then what changed, or a heartbeat. On the wire and
in the state file it is the same document. What is received is validated as a whole: a message that does not
fit is an error of the sender, never a half-taken catalogue.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar

from pydantic import ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

from mesh.catalog.model import Network, Node, Service
from mesh.catalog.snapshot import Change
from mesh.discovery.endings import ENDINGS_MAX
from mesh.discovery.signs import Report
from mesh.discovery.swarm import ClusterView
from mesh.errors import DiscoveryError

T = TypeVar("T")

ID_MAX = 64  # characters; Swarm's own have 25
REPORT_MAX = ENDINGS_MAX * 2 * (ID_MAX + 3) + 64  # bytes of the longest report that is understood

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


_Id = Annotated[str, StringConstraints(min_length=1, max_length=ID_MAX)]


@dataclass(frozen=True, slots=True)
class Reported:
    """All that is ending on the sender's node: task id → service id."""

    __pydantic_config__ = ConfigDict(extra="forbid")
    ending: Annotated[dict[_Id, _Id], Field(max_length=ENDINGS_MAX)]


_MESSAGE: TypeAdapter[Message] = TypeAdapter(Message)
_REPORTED: TypeAdapter[Reported] = TypeAdapter(Reported)

HEARTBEAT = b"{}"


def encode_view(view: ClusterView) -> bytes:
    return _MESSAGE.dump_json(Message(view=view), exclude_none=False)


def encode_change(change: Change) -> bytes:
    """The cluster's part of a change; containers and askers never leave their node."""
    return _MESSAGE.dump_json(Message(changed=Changed(change.nodes, change.networks, change.services)))


def decode(data: bytes) -> ClusterView | Change | None:
    """A view, a change, or None for a heartbeat. Raises DiscoveryError for anything else."""
    message = _valid(_MESSAGE, data)
    if message.view is not None:
        return message.view
    if message.changed is None:
        return None
    return Change(message.changed.nodes, message.changed.networks, message.changed.services)


def encode_report(report: Report) -> bytes:
    return _REPORTED.dump_json(Reported(dict(report)))


def decode_report(data: bytes) -> Report:
    """Raises DiscoveryError for anything else."""
    return _valid(_REPORTED, data).ending


def _valid(expected: TypeAdapter[T], data: bytes) -> T:
    try:
        return expected.validate_json(data)
    except ValidationError as error:
        raise DiscoveryError(f"not a message of the feed: {_faults(error.errors())}") from error


def _faults(errors: list[Any]) -> str:
    return "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in errors[:_SHOWN])
