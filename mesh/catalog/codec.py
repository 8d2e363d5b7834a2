"""The catalogue as a document: `catalog.yml` for the file source, and the shape of `mesh … --json`.

Strategy: a pydantic schema says what a document may look like; sense across entities (references, subnets,
ports or addresses given twice) is checked by one small function each, listed in `_CHECKS`. Every problem is
collected before anything is refused. In a document everything is called by its name, so entities that are
parsed from one have their names for ids.
"""

import ipaddress
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeAlias, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from mesh.catalog.documents import Location, dotted, kind_of, read_yaml, suggestion
from mesh.catalog.model import (
    NO_RETURN_PATH,
    Asker,
    Attachment,
    Container,
    EndpointMode,
    Network,
    Node,
    Port,
    Protocol,
    PublishMode,
    ReturnPath,
    Role,
    Service,
    ServiceNetwork,
    Task,
    TaskState,
)
from mesh.catalog.partial_check import check_partly
from mesh.catalog.snapshot import Snapshot
from mesh.errors import ConfigError, Problem

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All that a document says: full sets, ready for `mesh.catalog.diff.difference`."""

    nodes: Mapping[str, Node] = field(default_factory=dict)
    networks: Mapping[str, Network] = field(default_factory=dict)
    services: Mapping[str, Service] = field(default_factory=dict)
    containers: Mapping[str, Container] = field(default_factory=dict)
    askers: tuple[Asker, ...] = ()


def parse_text(text: str, file: str) -> Catalogue:
    """YAML text → catalogue. Raises ConfigError with every problem; `file` is only named in them."""
    return parse(read_yaml(text, file), file)


def parse(document: Mapping[str, Any], file: str) -> Catalogue:
    """A document → catalogue. Raises ConfigError with every problem; `file` is only named in them."""
    checked = check_partly(
        CatalogDocument,
        document,
        lambda location: (file, dotted(location)),
        emptied=("networks", "services", "nodes"),
        whole=("ports",),
    )
    problems = list(checked.problems)
    if checked.value is not None:
        faults = (found for rule in _CHECKS for found in rule(checked.value))
        for place, message, *other in faults:
            end = dotted(checked.located(*other)) if other else ""
            problems.append(Problem(file, dotted(checked.located(place)), message + end))
    if problems or checked.value is None:
        raise ConfigError(problems)
    return _entities(checked.value)


def dump(snapshot: Snapshot) -> dict[str, Any]:
    """The snapshot as a document, defaults left out. What `parse` read comes back equal; a snapshot learned
    from Docker is told with names in place of its ids."""
    names = _Names.of(snapshot)
    document: dict[str, Any] = {
        "networks": {names.networks[n.id]: _network(n) for n in _by_name(snapshot.networks.values())},
        "services": {names.services[s.id]: _service(s, names) for s in _by_name(snapshot.services.values())},
    }
    if snapshot.nodes:
        document["nodes"] = {names.nodes[n.id]: _node(n) for n in _by_name(snapshot.nodes.values())}
    if snapshot.containers:
        containers = _by_name(snapshot.containers.values())
        document["containers"] = {names.containers[c.id]: _container(c, names) for c in containers}
    if snapshot.askers:
        document["askers"] = [_asker(a, names) for a in snapshot.askers]
    return document


def dump_service(service: Service, snapshot: Snapshot) -> dict[str, Any]:
    """One service as in `dump(snapshot)["services"]`."""
    return _service(service, _Names.of(snapshot))


# --- the shape of a document --------------------------------------------------------------------------------


def _no_bool(value: object) -> object:
    if isinstance(value, bool):  # pydantic would take true for 1
        raise ValueError(f"must be a whole number, not {kind_of(value)}")
    return value


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _empty_means_defaults(value: object) -> object:
    return {} if value is None else value


def _label(value: object) -> object:
    """Labels are text to Docker; `true` and `80` are what people write."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else value


PortNumber: TypeAlias = Annotated[int, BeforeValidator(_no_bool), Field(ge=1, le=65535)]
Labels: TypeAlias = dict[str, Annotated[str, BeforeValidator(_label)]]


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ReturnPathDocument(_Document):
    entry: str = ""
    mac: str = ""
    entries: list[str] = []
    tasks: list[str] = []


class NodeDocument(_Document):
    address: str = ""
    role: Role = Role.WORKER
    availability: str = "active"
    state: str = "ready"
    return_path: ReturnPathDocument | None = None


class NetworkDocument(_Document):
    subnet: Annotated[list[str], BeforeValidator(_listed)] = []
    scope: str = "swarm"
    driver: str = "overlay"
    internal: bool = False
    attachable: bool = False
    ingress: bool = False


class MembershipDocument(_Document):
    vip: str | None = None
    aliases: list[str] = []


class PortDocument(_Document):
    published: PortNumber
    target: PortNumber
    protocol: Protocol = Protocol.TCP
    mode: PublishMode = PublishMode.INGRESS
    name: str = ""


class TaskDocument(_Document):
    name: str
    node: str = ""
    state: TaskState = TaskState.RUNNING
    addresses: dict[str, str] = {}
    container: str = ""
    hostname: str = ""
    slot: Annotated[int, BeforeValidator(_no_bool), Field(ge=0)] = 0


class ServiceDocument(_Document):
    mode: EndpointMode = EndpointMode.VIP
    networks: dict[str, Annotated[MembershipDocument, BeforeValidator(_empty_means_defaults)]] = {}
    ports: list[PortDocument] = []
    labels: Labels = {}
    tasks: list[TaskDocument] = []


class AttachmentDocument(_Document):
    address: str
    aliases: list[str] = []
    address6: str = ""
    gateway: bool = False
    priority: int = 0
    links: dict[str, str] = {}


class ContainerDocument(_Document):
    namespace: str = ""
    networks: dict[str, AttachmentDocument] = {}
    hostname: str = ""
    service: str = ""
    task: str = ""
    labels: Labels = {}
    running: bool = True
    dns: list[str] = []
    ndots: bool = False


class AskerDocument(_Document):
    name: str
    source: str
    networks: list[str]
    stack: str = ""


class CatalogDocument(_Document):
    networks: dict[str, Annotated[NetworkDocument, BeforeValidator(_empty_means_defaults)]]
    services: dict[str, Annotated[ServiceDocument, BeforeValidator(_empty_means_defaults)]]
    nodes: dict[str, Annotated[NodeDocument, BeforeValidator(_empty_means_defaults)]] | None = None
    containers: dict[str, ContainerDocument] = {}
    askers: list[AskerDocument] = []


# --- sense across entities: each rule yields (location, message) --------------------------------------------

# (location, message), or with another location as the message's end
Faults: TypeAlias = Iterator[tuple[Location, str] | tuple[Location, str, Location]]


def _subnets_are_cidr(document: CatalogDocument) -> Faults:
    for name, network in document.networks.items():
        for subnet in network.subnet:
            if fault := _cidr_fault(subnet):
                yield ("networks", name, "subnet"), fault


def _askers_are_cidr(document: CatalogDocument) -> Faults:
    for index, asker in enumerate(document.askers):
        if fault := _cidr_fault(asker.source):
            yield ("askers", index, "source"), fault


def _networks_exist(document: CatalogDocument) -> Faults:
    for network, location in _network_references(document):
        if network not in document.networks:
            yield location, f"unknown network '{network}'{suggestion(network, document.networks)}"


def _nodes_exist(document: CatalogDocument) -> Faults:
    if document.nodes is None:  # nobody listed them: the tasks' nodes are taken as they come
        return
    for location, task in _tasks(document):
        if task.node and task.node not in document.nodes:
            yield (
                (*location, "node"),
                f"unknown node '{task.node}'{suggestion(task.node, document.nodes)}",
            )


def _addresses_fit(document: CatalogDocument) -> Faults:
    for use in _addresses(document):
        try:
            address = ipaddress.IPv4Address(use.address)
        except ValueError:
            yield use.location, f"'{use.address}' is not an IPv4 address"
            continue
        subnets = _known_subnets(document, use.network)
        if subnets and not any(address in subnet for subnet in subnets):
            known = ", ".join(map(str, subnets))
            yield use.location, f"{address} is outside network '{use.network}' ({known})"


def _addresses_unique(document: CatalogDocument) -> Faults:
    uses = [use for use in _addresses(document) if use.held]
    for use, first in _repeated(uses, lambda use: (use.network, use.address)):
        yield use.location, f"{use.address} on '{use.network}' is already {first.owner}"


def _published_unique(document: CatalogDocument) -> Faults:
    ports = [  # host mode binds on the task's node only: two services may share the number
        (("services", name, "ports", index), name, port)
        for name, service in document.services.items()
        for index, port in enumerate(service.ports)
        if port.mode is PublishMode.INGRESS
    ]
    for (key, name, port), (_, first, _port) in _repeated(ports, lambda p: (p[2].published, p[2].protocol)):
        by = "twice by service" if first == name else f"by services '{first}' and"
        yield (*key, "published"), f"port {port.published}/{port.protocol} is published {by} '{name}'"


def _task_names_unique(document: CatalogDocument) -> Faults:
    for (location, task), (first, _) in _repeated(list(_tasks(document)), lambda t: t[1].name):
        yield (*location, "name"), f"task '{task.name}' is already ", first


def _dnsrr_has_no_vip(document: CatalogDocument) -> Faults:
    for name, service in document.services.items():
        if service.mode is not EndpointMode.DNSRR:
            continue
        for network, membership in service.networks.items():
            if membership.vip:
                yield ("services", name, "networks", network, "vip"), "a dnsrr service has no VIP"
        for index, port in enumerate(service.ports):
            if port.mode is PublishMode.INGRESS:
                key = ("services", name, "ports", index, "mode")
                yield key, "a dnsrr service can publish in host mode only"


def _one_ingress(document: CatalogDocument) -> Faults:
    ingress = [name for name, network in document.networks.items() if network.ingress]
    for name in ingress[1:]:
        yield ("networks", name, "ingress"), f"'{ingress[0]}' is already the ingress network"


_CHECKS: tuple[Callable[[CatalogDocument], Faults], ...] = (
    _subnets_are_cidr,
    _askers_are_cidr,
    _networks_exist,
    _nodes_exist,
    _addresses_fit,
    _addresses_unique,
    _published_unique,
    _task_names_unique,
    _dnsrr_has_no_vip,
    _one_ingress,
)


@dataclass(frozen=True, slots=True)
class _EncodedNetworkUse:
    """An address at its place in the document. `held`: nobody else may have it on that network."""

    location: Location
    network: str
    address: str
    owner: str
    held: bool = True


def _addresses(document: CatalogDocument) -> Iterator[_EncodedNetworkUse]:
    for name, service in document.services.items():
        for network, membership in service.networks.items():
            if membership.vip is not None:
                where: Location = ("services", name, "networks", network, "vip")
                yield _EncodedNetworkUse(where, network, membership.vip, f"the VIP of service '{name}'")
    for location, task in _tasks(document):
        held = task.state is not TaskState.DEAD  # Docker gives a dead task's address away again
        for network, address in task.addresses.items():
            where = (*location, "addresses", network)
            yield _EncodedNetworkUse(where, network, address, f"the address of task '{task.name}'", held)
    for name, container in document.containers.items():
        held = not container.task and container.running  # a task's container has the task's address
        for network, attachment in container.networks.items():
            where = ("containers", name, "networks", network, "address")
            if attachment.address:
                yield _EncodedNetworkUse(
                    where, network, attachment.address, f"the address of container '{name}'", held
                )


def _network_references(document: CatalogDocument) -> Iterator[tuple[str, Location]]:
    for name, service in document.services.items():
        for network in service.networks:
            yield network, ("services", name, "networks", network)
    for location, task in _tasks(document):
        for network in task.addresses:
            yield network, (*location, "addresses", network)
    for name, container in document.containers.items():
        for network in container.networks:
            yield network, ("containers", name, "networks", network)
    for index, asker in enumerate(document.askers):
        for place, network in enumerate(asker.networks):
            yield network, ("askers", index, "networks", place)


def _tasks(document: CatalogDocument) -> Iterator[tuple[Location, TaskDocument]]:
    for name, service in document.services.items():
        for index, task in enumerate(service.tasks):
            yield ("services", name, "tasks", index), task


def _repeated(items: Iterable[Any], key: Callable[[Any], K]) -> Iterator[tuple[Any, Any]]:
    """(item, the first with the same key) for every item but the first."""
    first: dict[K, Any] = {}
    for item in items:
        earlier = first.setdefault(key(item), item)
        if earlier is not item:
            yield item, earlier


def _cidr_fault(text: str) -> str:
    try:
        ipaddress.ip_network(text)
    except ValueError as error:
        return str(error) if "host bits" in str(error) else f"'{text}' is not a network in CIDR form"
    return ""


def _known_subnets(document: CatalogDocument, network: str) -> list[ipaddress.IPv4Network]:
    known = document.networks.get(network)
    subnets = [] if known is None else known.subnet
    if any(map(_cidr_fault, subnets)):
        return []  # told by its own rule; the addresses in it cannot be judged
    parsed = map(ipaddress.ip_network, subnets)
    return [subnet for subnet in parsed if isinstance(subnet, ipaddress.IPv4Network)]


# --- document → entities ------------------------------------------------------------------------------------


def _entities(document: CatalogDocument) -> Catalogue:
    return Catalogue(
        nodes=_nodes_of(document),
        networks={name: _network_of(name, n) for name, n in document.networks.items()},
        services={name: _service_of(name, s) for name, s in document.services.items()},
        containers={name: _container_of(name, c) for name, c in document.containers.items()},
        askers=tuple(Asker(a.name, a.source, tuple(a.networks), a.stack) for a in document.askers),
    )


def _nodes_of(document: CatalogDocument) -> dict[str, Node]:
    if document.nodes is None:
        return {task.node: Node(task.node, task.node, "") for _, task in _tasks(document) if task.node}
    return {
        name: Node(name, name, n.address, n.role, n.availability, n.state, _return_path_of(n.return_path))
        for name, n in document.nodes.items()
    }


def _return_path_of(r: ReturnPathDocument | None) -> ReturnPath:
    return NO_RETURN_PATH if r is None else ReturnPath(r.entry, r.mac, tuple(r.entries), tuple(r.tasks))


def _network_of(name: str, n: NetworkDocument) -> Network:
    return Network(name, name, tuple(n.subnet), n.scope, n.driver, n.internal, n.attachable, n.ingress)


def _service_of(name: str, service: ServiceDocument) -> Service:
    networks = service.networks.items()
    return Service(
        id=name,
        name=name,
        mode=service.mode,
        networks=tuple(ServiceNetwork(network, m.vip, tuple(m.aliases)) for network, m in networks),
        ports=tuple(Port(p.published, p.target, p.protocol, p.mode, p.name) for p in service.ports),
        labels=service.labels,
        tasks=tuple(map(_task_of, service.tasks)),
    )


def _task_of(t: TaskDocument) -> Task:
    return Task(t.name, t.name, t.node, t.state, t.addresses, t.container, t.hostname, t.slot)


def _container_of(name: str, container: ContainerDocument) -> Container:
    return Container(
        id=name,
        name=name,
        namespace=container.namespace,
        attachments=tuple(
            Attachment(
                network,
                a.address,
                tuple(a.aliases),
                a.address6,
                a.gateway,
                a.priority,
                tuple(a.links.items()),
            )
            for network, a in container.networks.items()
        ),
        hostname=container.hostname,
        service=container.service,
        task=container.task,
        labels=container.labels,
        running=container.running,
        dns=tuple(container.dns),
        ndots=container.ndots,
    )


# --- entities → document ------------------------------------------------------------------------------------


class _Calls(dict[str, str]):
    """id → what a document calls it; an id that nothing is known of stands for itself."""

    def __missing__(self, id_: str) -> str:
        return id_


@dataclass(frozen=True, slots=True)
class _Names:
    nodes: _Calls
    networks: _Calls
    services: _Calls
    containers: _Calls

    @classmethod
    def of(cls, snapshot: Snapshot) -> "_Names":
        return cls(
            nodes=_calls(snapshot.nodes.values()),
            networks=_calls(snapshot.networks.values()),
            services=_calls(snapshot.services.values()),
            containers=_calls(snapshot.containers.values()),
        )


def _calls(entities: Iterable[Node | Network | Service | Container]) -> _Calls:
    """A name that two entities share (Docker allows it) calls neither: both go by id."""
    known = list(entities)
    count = Counter(entity.name for entity in known)
    return _Calls({e.id: e.name if e.name and count[e.name] == 1 else e.id for e in known})


E = TypeVar("E", Node, Network, Service, Container)


def _by_name(entities: Iterable[E]) -> list[E]:
    return sorted(entities, key=lambda entity: (entity.name, entity.id))


def _without_defaults(schema: type[_Document], values: Mapping[str, Any]) -> dict[str, Any]:
    fields = schema.model_fields
    return {
        key: value
        for key, value in values.items()
        if fields[key].is_required() or value != fields[key].default
    }


def _node(n: Node) -> dict[str, Any]:
    values = {"address": n.address, "role": n.role.value, "availability": n.availability, "state": n.state}
    return _without_defaults(NodeDocument, values | _return_path(n.return_path))


def _return_path(r: ReturnPath) -> dict[str, Any]:
    if r == NO_RETURN_PATH:
        return {}
    values = {"entry": r.entry, "mac": r.mac, "entries": list(r.entries), "tasks": list(r.tasks)}
    return {"return_path": _without_defaults(ReturnPathDocument, values)}


def _network(n: Network) -> dict[str, Any]:
    values = {
        "subnet": n.subnets[0] if len(n.subnets) == 1 else list(n.subnets),
        "scope": n.scope,
        "driver": n.driver,
        "internal": n.internal,
        "attachable": n.attachable,
        "ingress": n.ingress,
    }
    return _without_defaults(NetworkDocument, values)


def _service(service: Service, names: _Names) -> dict[str, Any]:
    values = {
        "mode": service.mode.value,
        "networks": {names.networks[n.network]: _membership(n) for n in service.networks},
        "ports": [_port(port) for port in service.ports],
        "labels": dict(service.labels),
        "tasks": [_task(task, names) for task in service.tasks],
    }
    return _without_defaults(ServiceDocument, values)


def _membership(n: ServiceNetwork) -> dict[str, Any]:
    return _without_defaults(MembershipDocument, {"vip": n.vip, "aliases": list(n.aliases)})


def _port(port: Port) -> dict[str, Any]:
    return {
        "published": port.published,
        "target": port.target,
        "protocol": port.protocol.value,
        "mode": port.mode.value,
    } | ({"name": port.name} if port.name else {})


def _task(task: Task, names: _Names) -> dict[str, Any]:
    values = {
        "name": task.name,
        "node": names.nodes[task.node],
        "state": task.state.value,
        "addresses": {names.networks[network]: address for network, address in task.addresses.items()},
        "container": task.container,
        "hostname": task.hostname,
        "slot": task.slot,
    }
    # state is told even when it is the default: it is what people look for
    return {"name": task.name, "state": task.state.value} | _without_defaults(TaskDocument, values)


def _container(container: Container, names: _Names) -> dict[str, Any]:
    values = {
        "namespace": container.namespace,
        "networks": {names.networks[a.network]: _attachment(a) for a in container.attachments},
        "hostname": container.hostname,
        "service": names.services[container.service],
        "task": container.task,
        "labels": dict(container.labels),
        "running": container.running,
        "dns": list(container.dns),
        "ndots": container.ndots,
    }
    return _without_defaults(ContainerDocument, values)


def _attachment(a: Attachment) -> dict[str, Any]:
    values = {
        "address": a.address,
        "aliases": list(a.aliases),
        "address6": a.address6,
        "gateway": a.gateway,
        "priority": a.priority,
        "links": dict(a.links),
    }
    return _without_defaults(AttachmentDocument, values)


def _asker(asker: Asker, names: _Names) -> dict[str, Any]:
    values = {
        "name": asker.name,
        "source": asker.source,
        "networks": [names.networks[n] for n in asker.networks],
        "stack": asker.stack,
    }
    return _without_defaults(AskerDocument, values)
