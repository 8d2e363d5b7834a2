"""The entities of a Swarm as the rest of the program sees them: frozen values, compared by content.

They hold what is needed to answer, choose, carry and tell; Docker's own JSON stays in `mesh.discovery`.
Every reference between entities is by id. For the file source ids are the names.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Role(StrEnum):
    MANAGER = "manager"
    WORKER = "worker"


class EndpointMode(StrEnum):
    """How a service's name is answered (Docker's `--endpoint-mode`)."""

    VIP = "vip"
    DNSRR = "dnsrr"


class Protocol(StrEnum):
    TCP = "tcp"
    UDP = "udp"
    SCTP = "sctp"


class PublishMode(StrEnum):
    INGRESS = "ingress"
    HOST = "host"  # left to Docker, shown as such


class TaskState(StrEnum):
    """Docker's task states folded to what matters for traffic."""

    STARTING = "starting"  # new … starting; also running but not yet healthy
    RUNNING = "running"
    UNWELL = "unwell"  # runs, but does not pass its probe
    LEAVING = "leaving"  # desired state is shutdown/remove, or its engine has begun to stop it
    DEAD = "dead"  # complete, shutdown, failed, rejected, orphaned, its node is down


@dataclass(frozen=True, slots=True)
class ReturnPath:
    """How a node takes part in keeping the client's address; what its own sidecar says.

    A published port's traffic enters the ingress network at the `entry` of the node that the client chose. A
    task that is sent the client's own address must answer through that same entry: `tasks` do, for `entries`.
    """

    entry: str = ""  # address of its ingress namespace on the ingress network, "" when there is none
    mac: str = ""  # of that interface, by which tasks recognise the entry
    entries: tuple[str, ...] = ()  # of all nodes: those that its tasks answer through
    tasks: tuple[str, ...] = ()  # ingress addresses of its tasks that answer so

    def leads(self, task: str, entry: str) -> bool:
        """Does the task at this address answer through that entry?"""
        return bool(entry) and entry in self.entries and task in self.tasks


NO_RETURN_PATH = ReturnPath()


@dataclass(frozen=True, slots=True)
class Node:
    id: str
    name: str
    address: str  # as the manager sees it; "" when unknown
    role: Role = Role.WORKER
    availability: str = "active"  # active | pause | drain
    state: str = "ready"  # ready | down | unknown | disconnected
    return_path: ReturnPath = NO_RETURN_PATH


@dataclass(frozen=True, slots=True)
class Network:
    id: str
    name: str
    subnets: tuple[str, ...] = ()
    scope: str = "swarm"  # swarm | local
    driver: str = "overlay"
    internal: bool = False
    attachable: bool = False
    ingress: bool = False


@dataclass(frozen=True, slots=True)
class Port:
    """A published port. `published` is on the nodes, `target` inside the task."""

    published: int
    target: int
    protocol: Protocol = Protocol.TCP
    mode: PublishMode = PublishMode.INGRESS
    name: str = ""  # of the port, where the API was given one

    @property
    def key(self) -> str:
        return f"{self.published}/{self.protocol}"


@dataclass(frozen=True, slots=True)
class ServiceNetwork:
    """A service's membership of one network."""

    network: str
    vip: str | None = None  # None: dnsrr, or not allocated
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Task:
    id: str
    name: str  # as Docker names its container: svc.slot.taskid, or svc.nodeid.taskid
    node: str
    state: TaskState
    addresses: Mapping[str, str] = field(default_factory=dict)  # network id → IPv4 address
    container: str = ""  # engine's container id, "" until known
    hostname: str = ""
    slot: int = 0

    @property
    def serving(self) -> bool:
        """May new connections and answers name it?"""
        return self.state is TaskState.RUNNING


@dataclass(frozen=True, slots=True)
class Service:
    id: str
    name: str
    mode: EndpointMode = EndpointMode.VIP
    networks: tuple[ServiceNetwork, ...] = ()
    ports: tuple[Port, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    tasks: tuple[Task, ...] = ()
    # What its labels claim (hosts, names) and its stack has, and since when (seconds since the epoch), as
    # managers have recorded it; None: nobody has.
    holds: Mapping[str, float] | None = None

    @property
    def stack(self) -> str:
        """The stack it was deployed with, "" if none."""
        return self.labels.get("com.docker.stack.namespace", "")

    @property
    def enabled(self) -> bool:
        """Not left to Docker by the label `mesh.enable`."""
        return self.labels.get("mesh.enable", "true").strip().lower() not in ("false", "0", "no", "off")

    def serving(self) -> tuple[Task, ...]:
        return tuple(task for task in self.tasks if task.serving)

    def vip(self, network: str) -> str | None:
        return next((n.vip for n in self.networks if n.network == network), None)


@dataclass(frozen=True, slots=True)
class Attachment:
    """A container's endpoint on one network."""

    network: str
    address: str
    aliases: tuple[str, ...] = ()  # as the engine registers them for this endpoint, without name and id
    address6: str = ""
    gateway: bool = False  # has a default gateway there
    priority: int = 0  # Docker's gw-priority
    links: tuple[tuple[str, str], ...] = ()  # `--link`: (alias, name of another one on this network)


@dataclass(frozen=True, slots=True)
class Container:
    """A container of *this* node."""

    id: str
    name: str
    namespace: str  # path of its network namespace, "" when it has none of its own
    attachments: tuple[Attachment, ...] = ()
    hostname: str = ""
    service: str = ""  # service id, "" for a plain container
    task: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    running: bool = True
    dns: tuple[str, ...] = ()  # its own --dns servers
    ndots: bool = False  # says by `--dns-option ndots:N` when names are searched for

    @property
    def short_id(self) -> str:
        return self.id[:12]

    @property
    def stack(self) -> str:
        return self.labels.get("com.docker.stack.namespace", "")


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A plain container of *another* node, on networks of the Swarm: as much of it as names need."""

    node: str
    id: str
    name: str
    attachments: tuple[Attachment, ...] = ()  # IPv4 only
    hostname: str = ""
    stack: str = ""

    @property
    def key(self) -> str:
        """What the catalogue calls it. No node can speak for another's."""
        return f"{self.node}/{self.id}"

    @property
    def short_id(self) -> str:
        return self.id[:12]


@dataclass(frozen=True, slots=True)
class Asker:
    """Who may ask by source address, and which networks it is on (file source; explicit resolver)."""

    name: str
    source: str  # CIDR
    networks: tuple[str, ...]
    stack: str = ""  # as whose member it asks
