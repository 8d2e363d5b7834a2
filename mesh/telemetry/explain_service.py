"""A service as the containers of this node reach it: per network its virtual IP and the tasks. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mesh.balance.hash_slots import NOBODY, Choice
from mesh.catalog.model import EndpointMode, Network, Service
from mesh.catalog.snapshot import Snapshot
from mesh.kernel.inspect import ContainerVip
from mesh.telemetry.explain import (
    FLUSHED,
    NOT_YET,
    Hop,
    HopState,
    PortPath,
    ServicePath,
    VipPath,
    VipTask,
    compared,
    leads_to,
    node_name,
    unused,
)


@dataclass(frozen=True, slots=True)
class Vips:
    """Of one local container. `held`: by virtual IP; None: not captured, or could not be read."""

    name: str
    networks: frozenset[str]
    reason: str = ""  # why it is not captured
    held: Mapping[str, ContainerVip] | None = None
    wanted: Mapping[str, Choice] = field(default_factory=dict)


def service_path(
    snapshot: Snapshot,
    service: Service,
    ports: Sequence[PortPath],
    containers: Sequence[Vips],
    unseen: int,
    gated: bool,
) -> ServicePath:
    """`containers`: of this node on networks of the service. `unseen`: more of them, not looked at."""
    notes = list[str]()
    if not service.enabled:
        notes.append("label mesh.enable=false: it is left to Docker")
    if not service.networks:
        notes.append("it is on no network that containers share: only published ports lead to it")
    networks = tuple(
        _vip_path(snapshot, service, member.network, containers, unseen, gated)
        for member in service.networks
        if not _is_ingress(snapshot.networks.get(member.network))
    )
    return ServicePath(
        service.name,
        node_name(snapshot, snapshot.this_node),
        networks,
        tuple(ports),
        unused(snapshot, service),
        tuple(notes),
    )


def _is_ingress(network: Network | None) -> bool:
    return network is not None and network.ingress


def _vip_path(
    snapshot: Snapshot, service: Service, network: str, seen: Sequence[Vips], unseen: int, gated: bool
) -> VipPath:
    known = snapshot.networks.get(network)
    vip = service.vip(network) or ""
    tasks = tuple(
        VipTask(task.name, node_name(snapshot, task.node), task.addresses[network])
        for task in service.serving()
        if network in task.addresses
    )
    here = [one for one in seen if network in one.networks]
    return VipPath(
        known.name if known else network,
        vip,
        _vip_how(service, vip, len(tasks)),
        tasks,
        tuple(_vip_hop(one, vip, gated) for one in here) if vip and service.enabled else (),
        unseen if vip and service.enabled else 0,
    )


def _vip_how(service: Service, vip: str, tasks: int) -> str:
    if service.mode is EndpointMode.DNSRR:
        return "endpoint mode dnsrr: its name is answered with the addresses of its tasks"
    if not vip:
        return "no virtual IP yet"
    if not service.enabled:
        return "left to Docker (label mesh.enable=false)"
    if not tasks:
        return "no task serves: connections are refused"
    return "each container's kernel leads a new connection to one of the tasks"


def _vip_hop(one: Vips, vip: str, gated: bool) -> Hop:
    if one.reason:
        return Hop(one.name, "left to Docker's own virtual IP", HopState.OK, one.reason)
    wanted = one.wanted.get(vip, NOBODY)
    held = one.held.get(vip) if one.held is not None else None
    if held is None:
        return Hop(one.name, leads_to(wanted), HopState.UNKNOWN, "its namespace could not be read")
    if not held.table:
        return Hop(one.name, leads_to(wanted), HopState.MISSING, FLUSHED)
    if not wanted.slots and held.leading is None and not held.refused:
        return Hop(one.name, leads_to(wanted), HopState.MISSING, NOT_YET)
    return compared(one.name, wanted, held.leading, gated, held.alive)
