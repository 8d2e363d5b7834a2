"""Which names exist on which network: an immutable table that follows the catalogue in O(changed).

Every service and every container of this node is an *owner*. What an owner contributes is a pure function
of a snapshot (`_of_service`, `_of_container`); a change is applied by computing what the changed owners
contributed to the old snapshot and contribute to the new one, and by replacing what differs. The table holds
forward names and, as names like any other, the `in-addr.arpa` and `ip6.arpa` names of their addresses.

The names are those of Docker's resolver (libnetwork `service_common.go`, `agent.go`, `sandbox.go`), except:
- a service without any serving task keeps its names, without addresses: an application that meets NODATA
  retries, one that meets the outside world's NXDOMAIN gives up;
- a VIP has a PTR record.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import TypeAlias

from immutables import Map

from mesh.catalog.model import Container, EndpointMode, Network, Service, Task
from mesh.catalog.snapshot import Change, Snapshot

Key: TypeAlias = tuple[str, str]  # network id, lower-case name without the trailing dot

# Docker offers no service discovery on these, whatever is attached to them.
WITHOUT_NAMES = frozenset({"bridge", "host", "none", "docker_gwbridge"})


@dataclass(frozen=True, slots=True)
class Contribution:
    """What one owner says under one name: addresses of both families, or where a reversed name points.

    `left`: the name exists, but its service is left to Docker, who knows the answer. `vip`: the reversed name
    is a virtual IP's.
    """

    owner: str
    addresses: tuple[str, ...] = ()
    target: str = ""
    left: bool = False
    stack: str = ""
    vip: bool = False

    @property
    def empty(self) -> bool:
        """A service without a serving task."""
        return not self.addresses and not self.target


@dataclass(frozen=True, slots=True)
class NameTable:
    """The names of one snapshot."""

    entries: Map[Key, tuple[Contribution, ...]] = field(default_factory=Map)

    @classmethod
    def of(cls, snapshot: Snapshot) -> "NameTable":
        """The table of a whole snapshot."""
        return cls().apply(Snapshot(), snapshot, whole(snapshot))[0]

    def get(self, network: str, name: str) -> tuple[Contribution, ...]:
        """Who contributes to the lower-case name on the network; empty: the name is unknown there."""
        return self.entries.get((network, name), ())

    def apply(self, old: Snapshot, new: Snapshot, change: Change) -> tuple["NameTable", frozenset[str]]:
        """The table of `new`, and the lower-case names whose answers may differ from before.

        Self must be the table of `old`. Never touches self.
        """
        draft = self.entries.mutate()
        touched: set[str] = set()
        for owner, before, after in _differing(old, new, change):
            for key in before.keys() | after.keys():
                if before.get(key) == after.get(key):
                    continue
                touched.add(key[1])
                others = [c for c in draft.get(key, ()) if c.owner != owner]
                mine = [after[key]] if key in after else []
                if merged := sorted(others + mine, key=lambda c: c.owner):
                    draft[key] = tuple(merged)
                else:
                    draft.pop(key, None)
        return NameTable(draft.finish()), frozenset(touched)


def whole(snapshot: Snapshot) -> Change:
    """The change that leads from nothing to the snapshot."""
    return Change(
        networks=dict(snapshot.networks),
        services=dict(snapshot.services),
        containers=dict(snapshot.containers),
    )


def named(network: Network | None) -> bool:
    """Does Docker answer names on this network? Not on ingress, nor where it knows no service discovery."""
    if network is None or network.ingress:
        return False
    return network.scope == "swarm" or network.name not in WITHOUT_NAMES


def reversed_name(address: str) -> str:
    """The name under which an address' PTR record stands; "" for what is no address."""
    octets = address.split(".")
    if len(octets) == 4 and all(map(str.isdecimal, octets)):  # ipaddress takes ten times as long
        return ".".join((*reversed(octets), "in-addr.arpa"))
    try:
        return ip_address(address).reverse_pointer
    except ValueError:
        return ""


# --- who is concerned by a change ---------------------------------------------------------------------------

Contributions: TypeAlias = dict[Key, Contribution]


def _differing(
    old: Snapshot, new: Snapshot, change: Change
) -> Iterator[tuple[str, Contributions, Contributions]]:
    """(owner, what it contributed, what it contributes) for every owner that the change may concern."""
    networks = {id_ for id_ in change.networks if _naming(old, id_) != _naming(new, id_)}
    services = set(change.services)
    for network in networks:
        services.update(old.members.get(network, ()), new.members.get(network, ()))
    for id_ in services:
        yield f"s:{id_}", _of_service(id_, old), _of_service(id_, new)
    # A walk over this node's containers, not the cluster's: there are some hundreds at most.
    containers = set(change.containers)
    for snapshot in (old, new) if services or networks else ():
        containers.update(c.id for c in snapshot.containers.values() if _concerned(c, services, networks))
    for id_ in containers:
        yield f"c:{id_}", _of_container(id_, old), _of_container(id_, new)


def _naming(snapshot: Snapshot, network: str) -> tuple[bool, str]:
    known = snapshot.networks.get(network)
    return named(known), known.name if known else ""


def _concerned(container: Container, services: set[str], networks: set[str]) -> bool:
    return container.service in services or any(a.network in networks for a in container.attachments)


# --- what an owner contributes ------------------------------------------------------------------------------


def _of_service(id_: str, snapshot: Snapshot) -> Contributions:
    service = snapshot.services.get(id_)
    if service is None:
        return {}
    made = _Made(f"s:{id_}", snapshot, left=not service.enabled, stack=service.stack)
    serving = service.serving()
    for membership in service.networks:
        network = membership.network
        tasks = tuple(t.addresses[network] for t in serving if network in t.addresses)
        own = (membership.vip,) if service.mode is EndpointMode.VIP and membership.vip else tasks
        for label in (service.name, *membership.aliases):
            made.add(network, label, own if serving else ())
            made.add(network, f"tasks.{label}", tasks)
        if service.mode is EndpointMode.VIP and membership.vip:
            made.point(network, membership.vip, service.name, vip=True)
    for task in serving:
        for network, address in task.addresses.items():
            made.endpoint(network, (address,), _task_names(task))
    return made.entries


def _task_names(task: Task) -> tuple[str, ...]:
    return (task.name, task.container[:12], task.hostname)


def _of_container(id_: str, snapshot: Snapshot) -> Contributions:
    container = snapshot.containers.get(id_)
    if container is None or not container.running:
        return {}
    service = snapshot.services.get(container.service) if container.service else None
    if service is not None and not _serving(container, service):
        return {}
    left = service is not None and not service.enabled
    made = _Made(f"c:{id_}", snapshot, left, container.stack)
    for attached in container.attachments:
        addresses = tuple(a for a in (attached.address, attached.address6) if a)
        labels = (container.name, *attached.aliases, container.short_id, container.hostname)
        made.endpoint(attached.network, addresses, labels)
    return made.entries


def _serving(container: Container, service: Service) -> bool:
    """A task's names go at the first sign of its end, though its container still runs."""
    return any(task.serving and task.id == container.task for task in service.tasks)


class _Made:
    """Collects one owner's contributions; the same name twice is one contribution with all addresses."""

    def __init__(self, owner: str, snapshot: Snapshot, left: bool, stack: str) -> None:
        self.entries: Contributions = {}
        self._owner, self._left, self._stack = owner, left, stack
        self._networks = snapshot.networks

    def endpoint(self, network: str, addresses: Iterable[str], labels: tuple[str, ...]) -> None:
        """A task or container: all its names, and a PTR to the first of them."""
        addresses = tuple(addresses)
        for label in dict.fromkeys(labels):
            self.add(network, label, addresses)
        for address in addresses:
            self.point(network, address, labels[0])

    def add(self, network: str, label: str, addresses: tuple[str, ...]) -> None:
        if not label or not named(self._networks.get(network)):
            return
        key = (network, label.lower())
        earlier = self.entries.get(key)
        if earlier is not None:
            addresses = (*earlier.addresses, *addresses)
        unique = tuple(dict.fromkeys(addresses))
        self.entries[key] = Contribution(self._owner, unique, left=self._left, stack=self._stack)

    def point(self, network: str, address: str, label: str, vip: bool = False) -> None:
        known = self._networks.get(network)
        name = reversed_name(address)
        if not name or known is None or not named(known):
            return
        target = f"{label}.{known.name}."
        made = Contribution(self._owner, target=target, left=self._left, vip=vip)
        self.entries.setdefault((network, name), made)
