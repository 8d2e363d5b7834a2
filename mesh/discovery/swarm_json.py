"""The manager API's JSON → the entities of the cluster. Pure.

Endpoint (what was allocated) wins over Spec (what was asked for); the spec fills in where nothing was, as the
mode of a dnsrr service. A task that has ended says nothing about traffic and is left out at once; one that is
asked to end is LEAVING while it still runs. Docker counts a task as running only when its health check, if
any, has passed, so RUNNING needs no further proof.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from mesh.catalog.cluster_view import ClusterView
from mesh.catalog.intake import fault_of
from mesh.catalog.model import (
    EndpointMode,
    Network,
    Node,
    Port,
    Protocol,
    PublishMode,
    Role,
    Service,
    ServiceNetwork,
    Task,
    TaskState,
)
from mesh.discovery.hostname_template import expand
from mesh.internal_errors import ERRORS

Json = Mapping[str, Any]

T = TypeVar("T")

# JSON of other types, without what has to be there, nested too deep, with numbers beyond all bounds.
NOT_UNDERSTOOD = (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError, RecursionError)

ENDED = frozenset({"complete", "shutdown", "failed", "rejected", "remove", "orphaned"})
UNWANTED = frozenset({"shutdown", "remove"})  # desired states


def cluster(
    nodes: Sequence[Json], networks: Sequence[Json], services: Sequence[Json], tasks: Sequence[Json]
) -> ClusterView:
    """The four lists of the manager API (`/nodes`, `/networks`, `/services`, `/tasks`) as entities."""
    return SwarmReader().read(nodes, networks, services, tasks)


class SwarmReader:
    """Reads the lists again and again; a service whose JSON has not changed is the same object as before.

    So one changed task among thousands costs one service, and comparing two views costs next to nothing.
    Docker counts every change of an object in its `Version.Index`.
    """

    def __init__(self) -> None:
        self._surroundings: object = None  # what services are read against
        self._known: dict[str, tuple[object, Service]] = {}
        self.created: Mapping[str, str] = {}  # id → when a service was made, as of the last read

    def read(
        self, nodes: Sequence[Json], networks: Sequence[Json], services: Sequence[Json], tasks: Sequence[Json]
    ) -> ClusterView:
        known = {one.id: one for one in read_each("node", nodes, node)}
        listed = (one for one in networks if not isinstance(one, Mapping) or one.get("Scope") == "swarm")
        overlays = {one.id: one for one in read_each("network", listed, network)}
        ids = {one.name: one.id for one in overlays.values()}
        surroundings = ({one.id for one in known.values() if one.state == "down"}, ids)
        if surroundings != self._surroundings:
            self._surroundings, self._known = surroundings, {}
        own = _by_service(tasks)
        before, self._known = self._known, {}
        created: dict[str, str] = {}

        def read_one(one: Json) -> Service:
            id_, of_it = one["ID"], own.get(one["ID"], ())
            versions = (_version(one), sorted((task["ID"], _version(task)) for task in of_it))
            same = before.get(id_)
            if same is None or same[0] != versions:
                same = versions, service(one, of_it, known, overlays, ids)
            self._known[id_] = same
            created[id_] = str(one.get("CreatedAt", ""))
            return same[1]

        read = {one.id for one in read_each("service", services, read_one)}
        self._known = {id_: one for id_, one in self._known.items() if id_ in read}
        self.created = created
        return ClusterView(known, overlays, {id_: one for id_, (_, one) in self._known.items()})


def read_each(kind: str, items: Iterable[Json], read: Callable[[Json], T]) -> Iterator[T]:
    """What is read of each. One whose JSON can't be understood, or says what can't be, is left out, and named
    in `mesh status`: the others are what they are."""
    where = f"Docker's JSON of a {kind}"
    for one in items:
        subject = f"{kind} {_id_of(one)}"
        try:
            entity = read(one)
            if fault := fault_of(entity):
                raise ValueError(fault)
        except NOT_UNDERSTOOD as error:
            ERRORS.report(where, error, subject, "it is left out")
        else:
            ERRORS.mended(where, subject)
            yield entity


def _id_of(json: object) -> str:
    found = (json.get("ID") or json.get("Id")) if isinstance(json, Mapping) else None
    return found[:64] if isinstance(found, str) else "without an id"


def _by_service(tasks: Iterable[Json]) -> Mapping[str, Sequence[Json]]:
    found: dict[str, list[Json]] = {}
    for one in tasks:
        if isinstance(one, Mapping) and isinstance(id_ := one.get("ServiceID", ""), str):
            found.setdefault(id_, []).append(one)
    return found


def _version(json: Json) -> int:
    index: int = (json.get("Version") or {}).get("Index", 0)
    return index


def node(json: Json) -> Node:
    spec, description, status = json.get("Spec", {}), json.get("Description", {}), json.get("Status", {})
    return Node(
        id=json["ID"],
        name=description.get("Hostname", ""),
        address=status.get("Addr", ""),
        role=Role.MANAGER if spec.get("Role") == "manager" else Role.WORKER,
        availability=spec.get("Availability", "active"),
        state=status.get("State", "unknown"),
    )


def network(json: Json) -> Network:
    """A network as listed or inspected, by the manager or the local engine."""
    configs = (json.get("IPAM") or {}).get("Config") or ()
    return Network(
        id=json["Id"],
        name=json["Name"],
        subnets=tuple(one["Subnet"] for one in configs if one.get("Subnet")),
        scope=json.get("Scope", "local"),
        driver=json.get("Driver", ""),
        internal=bool(json.get("Internal")),
        attachable=bool(json.get("Attachable")),
        ingress=bool(json.get("Ingress")),
    )


def service(
    json: Json,
    tasks: Iterable[Json],
    nodes: Mapping[str, Node],
    networks: Mapping[str, Network],
    ids: Mapping[str, str],
) -> Service:
    """One service with the tasks that have not ended. `ids`: network name → id, for specs that name one."""
    spec, endpoint = json.get("Spec", {}), json.get("Endpoint", {})
    name = spec.get("Name", json["ID"])
    labels = dict(spec.get("Labels") or {})
    living = _tasks(tasks, name, nodes, labels)
    return Service(
        id=json["ID"],
        name=name,
        mode=_mode(spec, endpoint),
        networks=tuple(_memberships(spec, endpoint, networks, ids)),
        ports=tuple(_ports(spec, endpoint)),
        labels=labels,
        tasks=tuple(sorted((one for one in living if one is not None), key=lambda one: (one.slot, one.id))),
    )


def _tasks(
    tasks: Iterable[Json], service_name: str, nodes: Mapping[str, Node], labels: Mapping[str, str]
) -> Iterator[Task | None]:
    """One that can't be understood is left out; the service has its others."""
    for one in tasks:
        try:
            found = task(one, service_name, nodes, labels)
            if found is not None and (fault := fault_of(found)):
                raise ValueError(fault)
        except NOT_UNDERSTOOD as error:
            ERRORS.report("Docker's JSON of a task", error)
        else:
            yield found


def _mode(spec: Json, endpoint: Json) -> EndpointMode:
    wanted = (endpoint.get("Spec") or {}).get("Mode") or (spec.get("EndpointSpec") or {}).get("Mode")
    return EndpointMode.DNSRR if wanted == "dnsrr" else EndpointMode.VIP


def _memberships(
    spec: Json, endpoint: Json, networks: Mapping[str, Network], ids: Mapping[str, str]
) -> Iterable[ServiceNetwork]:
    """The networks of the spec, with the VIP allocated on each. Docker offers no names on ingress."""
    allocated = endpoint.get("VirtualIPs") or ()
    vips = {
        one["NetworkID"]: bare(one["Addr"]) for one in allocated if ":" not in one.get("Addr", ":")
    }  # IPv4
    asked = (spec.get("TaskTemplate") or {}).get("Networks") or spec.get("Networks") or ()
    seen = set()
    for one in asked:
        target = one.get("Target", "")
        id_ = target if target in networks else ids.get(target, target)
        if id_ not in seen:
            seen.add(id_)
            yield ServiceNetwork(id_, vips.get(id_) or None, tuple(one.get("Aliases") or ()))


def _ports(spec: Json, endpoint: Json) -> Iterable[Port]:
    allocated = endpoint.get("Ports") or ()
    asked = (spec.get("EndpointSpec") or {}).get("Ports") or ()
    yield from (_port(one) for one in allocated if one.get("PublishedPort"))
    if not allocated:
        yield from (_port(one) for one in asked if one.get("PublishedPort"))


def _port(json: Json) -> Port:
    return Port(
        published=json["PublishedPort"],
        target=json.get("TargetPort") or json["PublishedPort"],
        protocol=Protocol(json.get("Protocol", "tcp")),
        mode=PublishMode(json.get("PublishMode") or "ingress"),
        name=json.get("Name") or "",
    )


def task(
    json: Json, service_name: str, nodes: Mapping[str, Node], labels: Mapping[str, str] = {}
) -> Task | None:
    """A task of the service; None when it has ended, or its node has. `labels`: the service's."""
    state = task_state(json, nodes)
    if state is TaskState.DEAD:
        return None
    spec, status = json.get("Spec") or {}, json.get("Status") or {}
    where = json.get("NodeID", "")
    slot = json.get("Slot") or 0
    name = f"{service_name}.{slot or where}.{json['ID']}"
    fields = {
        ".Service.ID": json.get("ServiceID", ""),
        ".Service.Name": service_name,
        ".Task.ID": json["ID"],
        ".Task.Name": name,
        ".Task.Slot": str(slot or where),
        ".Node.ID": where,
        ".Node.Hostname": nodes[where].name if where in nodes else "",
    }
    return Task(
        id=json["ID"],
        name=name,
        node=where,
        state=state,
        addresses=dict(_addresses(json)),
        container=(status.get("ContainerStatus") or {}).get("ContainerID", ""),
        hostname=expand((spec.get("ContainerSpec") or {}).get("Hostname") or "", fields, labels),
        slot=slot,
    )


def task_state(json: Json, nodes: Mapping[str, Node]) -> TaskState:
    """Docker's state and desired state, folded to what matters for traffic."""
    state = (json.get("Status") or {}).get("State", "new")
    where = nodes.get(json.get("NodeID", ""))
    if state in ENDED or (where is not None and where.state == "down"):
        return TaskState.DEAD
    if json.get("DesiredState") in UNWANTED:
        return TaskState.LEAVING
    return TaskState.RUNNING if state == "running" else TaskState.STARTING


def _addresses(json: Json) -> Iterable[tuple[str, str]]:
    for attachment in json.get("NetworksAttachments") or ():
        addresses = [one for one in attachment.get("Addresses") or () if ":" not in one]  # IPv4
        id_ = (attachment.get("Network") or {}).get("ID")
        if id_ and addresses:
            yield id_, bare(addresses[0])


def bare(address: str) -> str:
    """10.0.0.2/24 → 10.0.0.2"""
    return address.partition("/")[0]
