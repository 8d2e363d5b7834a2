"""The catalogue as a document: `catalog.yml` for the file source, and the shape of `mesh … --json`.

Strategy: `document_schema` says what a document may look like, `document_rules` whether its entities make
sense together. Every problem is collected before anything is refused. In a document everything is called by
its name, so entities that are parsed from one have their names for ids.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from mesh.catalog.document_rules import RULES, tasks_of
from mesh.catalog.document_schema import (
    AskerDocument,
    AttachmentDocument,
    CatalogDocument,
    CatalogueModel,
    ContainerDocument,
    MembershipDocument,
    NetworkDocument,
    NodeDocument,
    ReturnPathDocument,
    ServiceDocument,
    TaskDocument,
)
from mesh.catalog.documents import dotted, read_yaml
from mesh.catalog.model import (
    NO_RETURN_PATH,
    Asker,
    Attachment,
    Container,
    Network,
    Node,
    Port,
    ReturnPath,
    Service,
    ServiceNetwork,
    Task,
)
from mesh.catalog.partial_check import check_partly
from mesh.catalog.snapshot import Snapshot
from mesh.errors import ConfigError, Problem


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
        faults = (found for rule in RULES for found in rule(checked.value))
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
        return {task.node: Node(task.node, task.node, "") for _, task in tasks_of(document) if task.node}
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


def _without_defaults(schema: type[CatalogueModel], values: Mapping[str, Any]) -> dict[str, Any]:
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
