"""What a node's sidecar says of its node to the managers' sidecars, as bytes and back. Pure.

A report names all that is ending on the node, all its plain containers on networks of the Swarm, and how it
takes part in keeping the client's address, so the last one is the whole truth. It does not say which node
that is: the sender's certificate does.

A part that is empty is left out, and one that is not there is empty: sidecars of before plain containers were
reported understand the former and are understood by the latter. One with more than endings they refuse; the
sender then leaves the rest out for that manager (`peers.report.client`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import ConfigDict, Field, StringConstraints, TypeAdapter

from mesh.catalog.model import NO_RETURN_PATH, Attachment, Neighbour, ReturnPath
from mesh.errors import DiscoveryError
from mesh.peers.documents import valid

ENDINGS_MAX = 1024  # containers of one node; beyond, the oldest are forgotten


ID_MAX = 64  # characters; Swarm's own have 25, containers' 64
NAME_MAX = 253  # characters of a DNS name (RFC 1035 2.3.4)
CONTAINERS_MAX = 256  # plain containers of a node
NETWORKS_MAX = 32  # of one container
ALIASES_MAX = 64  # of one container on one network
CONTAINERS_BYTES_MAX = 128 * 1024  # of all plain containers of a node, as they are sent
ENTRIES_MAX = 1024  # nodes whose entries a node's tasks answer through
TASKS_MAX = 2048  # of a node that answer so
ADDRESS_MAX = len("255.255.255.255")
RETURN_PATH_BYTES_MAX = (ENTRIES_MAX + TASKS_MAX) * (ADDRESS_MAX + 3) + 256
ENDING_BYTES_MAX = ENDINGS_MAX * 3 * (ID_MAX + 3)
# bytes of the longest report that is understood
REPORT_MAX = ENDING_BYTES_MAX + CONTAINERS_BYTES_MAX + RETURN_PATH_BYTES_MAX + 64


@dataclass(frozen=True, slots=True)
class NodeReport:
    """`ending`: task id → service id; `unwell`: those among them that do not end, but fail their probes.
    `containers` by id; their `node` is empty."""

    ending: Mapping[str, str] = field(default_factory=dict)
    containers: Mapping[str, Neighbour] = field(default_factory=dict)
    return_path: ReturnPath = NO_RETURN_PATH
    unwell: frozenset[str] = frozenset()


_Id = Annotated[str, StringConstraints(min_length=1, max_length=ID_MAX)]
_Name = Annotated[str, StringConstraints(max_length=NAME_MAX)]
_Address = Annotated[str, StringConstraints(max_length=ADDRESS_MAX)]
_Mac = Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{2}(:[0-9a-f]{2}){5})?$")]


@dataclass(frozen=True, slots=True)
class _ReportedEndpoint:
    address: _Address
    aliases: Annotated[tuple[_Name, ...], Field(max_length=ALIASES_MAX)] = ()


@dataclass(frozen=True, slots=True)
class _ReportedContainer:
    name: _Name
    hostname: _Name = ""
    stack: _Name = ""
    networks: Annotated[dict[_Id, _ReportedEndpoint], Field(max_length=NETWORKS_MAX)] = field(
        default_factory=dict
    )


@dataclass(frozen=True, slots=True)
class _ReportedReturnPath:
    entry: _Address = ""
    mac: _Mac = ""
    entries: Annotated[tuple[_Address, ...], Field(max_length=ENTRIES_MAX)] = ()
    tasks: Annotated[tuple[_Address, ...], Field(max_length=TASKS_MAX)] = ()


@dataclass(frozen=True, slots=True)
class _EncodedReport:
    __pydantic_config__ = ConfigDict(extra="forbid")
    ending: Annotated[dict[_Id, _Id], Field(max_length=ENDINGS_MAX)]
    containers: Annotated[dict[_Id, _ReportedContainer], Field(max_length=CONTAINERS_MAX)] = field(
        default_factory=dict
    )
    return_path: _ReportedReturnPath | None = None
    unwell: Annotated[tuple[_Id, ...], Field(max_length=ENDINGS_MAX)] = ()


_REPORT: TypeAdapter[_EncodedReport] = TypeAdapter(_EncodedReport)


def encode_report(report: NodeReport) -> bytes:
    containers = {id_: _as_sent(one) for id_, one in report.containers.items()}
    said = report.return_path
    return_path = _ReportedReturnPath(said.entry, said.mac, said.entries, said.tasks)
    sent = _EncodedReport(dict(report.ending), containers, return_path, tuple(sorted(report.unwell)))
    return _REPORT.dump_json(sent, exclude=_left_out(report))


def decode_report(data: bytes) -> NodeReport:
    """Raises DiscoveryError for anything else."""
    found = valid(_REPORT, data)
    containers = {id_: _as_known(id_, one) for id_, one in found.containers.items()}
    said = found.return_path or _ReportedReturnPath()
    return_path = ReturnPath(said.entry, said.mac, said.entries, said.tasks)
    return NodeReport(found.ending, containers, return_path, frozenset(found.unwell))


def check_containers(containers: Mapping[str, Neighbour]) -> None:
    """Raises DiscoveryError when managers would refuse them."""
    if len(containers) > CONTAINERS_MAX:
        raise DiscoveryError(
            f"{len(containers)} plain containers on networks of the Swarm, {CONTAINERS_MAX} at most"
        )
    data = encode_report(NodeReport({}, containers))
    if len(data) > CONTAINERS_BYTES_MAX:
        raise DiscoveryError(
            f"plain containers take {len(data)} bytes in a report, {CONTAINERS_BYTES_MAX} at most"
        )
    decode_report(data)


def _left_out(report: NodeReport) -> Any:
    empty = {
        "containers": not report.containers,
        "return_path": report.return_path == NO_RETURN_PATH,
        "unwell": not report.unwell,
    }
    return {part for part, is_empty in empty.items() if is_empty} or None


def _as_sent(one: Neighbour) -> _ReportedContainer:
    networks = {a.network: _ReportedEndpoint(a.address, a.aliases) for a in one.attachments}
    return _ReportedContainer(one.name, one.hostname, one.stack, networks)


def _as_known(id_: str, one: _ReportedContainer) -> Neighbour:
    attachments = tuple(Attachment(n, e.address, e.aliases) for n, e in one.networks.items())
    return Neighbour("", id_, one.name, attachments, one.hostname, one.stack)
