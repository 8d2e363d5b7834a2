"""What everything is called: a service, a task, a container, and how their names are written.

The names are those of Docker's resolver (libnetwork `service_common.go`, `agent.go`, `sandbox.go`), except:
- a service without any serving task keeps its names, without addresses: an application that meets NODATA
  retries, one that meets the outside world's NXDOMAIN gives up;
- a VIP has a PTR record.
"""

from collections.abc import Collection
from ipaddress import ip_address
from typing import NamedTuple

from mesh.catalog.model import (
    Attachment,
    Container,
    EndpointMode,
    Neighbour,
    Network,
    Service,
    ServiceNetwork,
    Task,
    TaskState,
)

# Docker offers no service discovery on these, whatever is attached to them.
WITHOUT_NAMES = frozenset({"bridge", "host", "none", "docker_gwbridge"})

LABEL_MAX = 63  # octets (RFC 1035 2.3.4)
TASKS = "tasks."  # before a service's name: its tasks instead of its VIP


class HostName(NamedTuple):
    """An address and the first name, as written, of who has it: a service (its VIP), a task, a container."""

    name: str
    address: str


class Contribution(NamedTuple):
    """What one owner says under one name on one network.

    `service`: whose labels and ports count; None for a plain container. `pointer`: where a reversed name
    points, without the network; `vip`: that is a virtual IP's.
    """

    stack: str = ""
    service: Service | None = None
    hosts: tuple[HostName, ...] = ()
    pointer: str = ""
    vip: bool = False

    @property
    def left(self) -> bool:
        """The name exists, but its service is left to Docker, who knows the answer."""
        return self.service is not None and not self.service.enabled

    @property
    def empty(self) -> bool:
        """A service without a serving task."""
        if self.vip and self.service is not None:
            return not any_serving(self.service)
        return not self.hosts and not self.pointer


def named(network: Network | None) -> bool:
    """Does Docker answer names on this network? Not on ingress, nor where it knows no service discovery."""
    if network is None or network.ingress:
        return False
    return network.scope == "swarm" or network.name not in WITHOUT_NAMES


def membership_of(service: Service, network: str) -> ServiceNetwork | None:
    return next((m for m in service.networks if m.network == network), None)


def attachment_to(network: str, container: Container | Neighbour) -> Attachment | None:
    return next((a for a in container.attachments if a.network == network), None)


def service_names(service: Service, membership: ServiceNetwork) -> Collection[str]:
    """Lower-case; the same with `TASKS` before them are names, too."""
    return _written(service.name, *membership.aliases)


def task_names(task: Task) -> Collection[str]:
    return _written(task.name, task.container[:12], task.hostname)


def container_names(container: Container | Neighbour, attached: Attachment) -> Collection[str]:
    return _written(container.name, *attached.aliases, container.short_id, container.hostname)


def pointer_name(container: Container | Neighbour) -> str:
    """What a PTR record calls it: its name, or its short id if DNS cannot hold that."""
    fits = all(len(label.encode()) <= LABEL_MAX for label in container.name.split("."))
    return container.name if fits else container.short_id


def _written(*names: str) -> Collection[str]:
    """Each once, in order."""
    return {name.lower(): None for name in names if name}


def vip_of(service: Service, membership: ServiceNetwork) -> str:
    """The address behind the service's own name; "" where that leads to the tasks."""
    return (membership.vip or "") if service.mode is EndpointMode.VIP else ""


def any_serving(service: Service) -> bool:
    return any(task.state is TaskState.RUNNING for task in service.tasks)


def service_hosts(service: Service, network: str) -> tuple[HostName, ...]:
    """Whoever answers to the service's own name."""
    membership = membership_of(service, network)
    vip = vip_of(service, membership) if membership else ""
    if not vip:
        return task_hosts(service, network)
    return (HostName(service.name, vip),) if any_serving(service) else ()


def task_hosts(service: Service, network: str) -> tuple[HostName, ...]:
    return tuple(
        HostName(task.name, task.addresses[network])
        for task in service.tasks
        if task.state is TaskState.RUNNING and network in task.addresses
    )


def container_addresses(attached: Attachment, *, ip6: bool) -> tuple[str, ...]:
    """As `address_of` gives them. `ip6`: as on networks of this node; Docker's gossip carries IPv4 alone."""
    return tuple(map(canonical, filter(None, (attached.address, attached.address6 if ip6 else ""))))


def canonical(address: str) -> str:
    """One spelling for each IPv6 address; others have only one."""
    if ":" not in address:
        return address
    try:
        return str(ip_address(address))
    except ValueError:
        return address


# --- reversed names -----------------------------------------------------------------------------------------

_OCTETS = frozenset(map(str, range(256)))
_IP4, _IP6 = ".in-addr.arpa", ".ip6.arpa"


def address_of(name: str) -> str:
    """The address for which a lower-case reversed name stands (RFC 1035 3.5, RFC 3596 2.5); "" for others.

    Neither other numbers of octets or nibbles nor numbers with leading zeros are addresses.
    """
    if not name.endswith(".arpa"):
        return ""
    if name.endswith(_IP4):
        octets = name[: -len(_IP4)].split(".")
        return ".".join(reversed(octets)) if len(octets) == 4 and _OCTETS.issuperset(octets) else ""
    if name.endswith(_IP6):
        nibbles = name[: -len(_IP6)].split(".")
        if len(nibbles) == 32 and all(len(n) == 1 and n in "0123456789abcdef" for n in nibbles):
            return str(ip_address(bytes.fromhex("".join(reversed(nibbles)))))
    return ""
