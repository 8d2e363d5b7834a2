"""Which source wins where two disagree about a task. Pure.

The cluster's view (a manager's) says what exists; this node's engine knows sooner what ends here (`endings`):
such a task is LEAVING at once, whatever the manager still says. Nothing here makes a task serve that the
manager does not call running.

Cut off from every manager, the engine's gossip corrects the last known cluster on the networks that this node
takes part in: what is no longer seen there is dropped, what is seen and unknown is added, services too. The
next whole view of a manager ends the correction.

Strategy: `Merger` holds the uncorrected truth; after any news it corrects only the services concerned and
returns them as a `Change` against what it returned before.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import TypeVar

from mesh.catalog.cluster_view import ClusterView
from mesh.catalog.diff import changed
from mesh.catalog.model import (
    Container,
    EndpointMode,
    Neighbour,
    Network,
    Node,
    Service,
    ServiceNetwork,
    Task,
    TaskState,
)
from mesh.catalog.snapshot import Change
from mesh.discovery.engine_json import SERVICE_NAME_LABEL, NetworkView, SeenService, SeenTask
from mesh.parsing import is_int, parse_int

T = TypeVar("T")


class Merger:
    """The truth of one node, from its cluster view, its containers and, when cut off, its gossip."""

    def __init__(self) -> None:
        self._nodes: dict[str, Node] = {}
        self._networks: dict[str, Network] = {}
        self._local_networks: dict[str, Network] = {}
        self._services: dict[str, Service] = {}
        self._containers: dict[str, Container] = {}
        self._neighbours: dict[str, Neighbour] = {}  # this node's own among them: the cluster's view has all
        self._node = ""
        self._leaving: Mapping[str, str] = {}  # task id → service id, of this node
        self._unwell: frozenset[str] = frozenset()  # of those: tasks that do not end, but fail their probes
        self._views: dict[str, NetworkView] = {}
        self._unlisted: dict[str, Service] = {}  # services that only gossip knows, without their tasks
        self._told: dict[str, Service] = {}  # as last returned

    @property
    def cluster(self) -> ClusterView:
        """The cluster's view, uncorrected: what a manager's feed serves and the state file keeps."""
        return ClusterView(self._nodes, self._networks, self._services, self._neighbours)

    @property
    def known_networks(self) -> frozenset[str]:
        return frozenset(self._networks) | frozenset(self._local_networks)

    @property
    def containers(self) -> Mapping[str, Container]:
        """Those of this node that run, by id, as they are known now."""
        return self._containers

    @property
    def local_networks(self) -> Mapping[str, Network]:
        """As the local engine describes them."""
        return self._local_networks

    def lists(self, task: str, service: str) -> bool:
        """Does the cluster list this task, in whatever state?"""
        known = self._services.get(service)
        return known is not None and any(one.id == task for one in known.tasks)

    def overlays_here(self) -> list[str]:
        """The Swarm's networks that this node takes part in: those whose gossip its engine hears."""
        return sorted(id_ for id_, one in self._local_networks.items() if one.scope == "swarm")

    # --- news of the cluster ---

    def set_cluster(self, view: ClusterView) -> tuple[Change, Change]:
        """The whole view, which ends any correction by gossip.

        Returns (what changes for us, what differs in the uncorrected view).
        """
        raw = Change(
            nodes=changed(self._nodes, view.nodes),
            networks=changed(self._networks, view.networks),
            services=changed(self._services, view.services),
            neighbours=changed(self._neighbours, view.neighbours),
        )
        corrected = self._heard_of(self._views.values()) | set(self._unlisted)
        self._views, self._unlisted = {}, {}
        return self._apply(raw, corrected), raw

    def apply(self, raw: Change) -> Change:
        """What changed in the cluster's view; returns what changes for us."""
        return self._apply(raw, ())

    def _apply(self, raw: Change, also: Iterable[str]) -> Change:
        networks = self._network_change(raw.networks)
        _update(self._nodes, raw.nodes)
        _update(self._networks, raw.networks)
        _update(self._services, raw.services)
        neighbours = self._neighbour_change(raw.neighbours)
        services = self._corrected({*raw.services, *also})
        return Change(nodes=raw.nodes, networks=networks, services=services, neighbours=neighbours)

    def _neighbour_change(self, raw: Mapping[str, Neighbour | None]) -> dict[str, Neighbour | None]:
        """Without this node's own: its engine knows better and sooner."""
        own = {
            key for key in raw if (one := raw[key] or self._neighbours.get(key)) and one.node == self._node
        }
        _update(self._neighbours, raw)
        return {key: one for key, one in raw.items() if key not in own}

    def _network_change(self, raw: Mapping[str, Network | None]) -> dict[str, Network | None]:
        """A network that the cluster does not list, or no longer, may be known to the local engine."""
        known = self._local_networks | self._networks
        now = {id_: one or self._local_networks.get(id_) for id_, one in raw.items()}
        return {id_: one for id_, one in now.items() if one != known.get(id_)}

    # --- news of this node ---

    def set_node(self, node: str) -> Change:
        """This node's id is known, or another one."""
        was, self._node = self._node, node
        moved = {key: one for key, one in self._neighbours.items() if one.node in (was, node)}
        return Change(neighbours={key: None if one.node == node else one for key, one in moved.items()})

    def set_local_networks(self, networks: Mapping[str, Network]) -> Change:
        """Networks of the local engine; the cluster's own description of one wins."""
        before = self._local_networks | self._networks
        self._local_networks = dict(networks)
        difference = changed(before, self._local_networks | self._networks)
        return Change(networks=difference, services=self._corrected(self._list_unlisted()))

    def set_containers(self, containers: Mapping[str, Container]) -> Change:
        """All running containers of this node."""
        difference = changed(self._containers, containers)
        concerned = self._services_of((*self._containers.values(), *containers.values()), difference)
        self._containers = dict(containers)
        concerned |= self._list_unlisted()
        return Change(containers=difference, services=self._corrected(concerned))

    def put_container(self, id_: str, container: Container | None) -> Change:
        """One container started, changed, or (None) ended."""
        old = self._containers.get(id_)
        if old == container:
            return Change()
        _update(self._containers, {id_: container})
        concerned = {one.service for one in (old, container) if one is not None} | self._list_unlisted()
        return Change(containers={id_: container}, services=self._corrected(concerned))

    def set_leaving(self, tasks: Mapping[str, str], unwell: frozenset[str] = frozenset()) -> Change:
        """All tasks of this node that take no new work, with their services' ids. `unwell`: those that do not
        end."""
        before, self._leaving = self._leaving, dict(tasks)
        concerned = {service for _, service in {*before.items()} ^ {*tasks.items()}}
        concerned |= {tasks[task] for task in (self._unwell ^ unwell) & tasks.keys()}
        self._unwell = unwell
        concerned |= self._unlisted.keys()  # gossip may know them by another id
        return Change(services=self._corrected(concerned))

    # --- gossip, while cut off ---

    def set_views(self, views: Iterable[NetworkView]) -> Change:
        """What the engine's gossip says of the networks that this node takes part in."""
        before, self._views = self._views, {one.network: one for one in views}
        moved = changed(before, self._views)
        if not moved:
            return Change()
        heard = [one for one in (*before.values(), *self._views.values()) if one.network in moved]
        concerned = self._heard_of(heard) | self._list_unlisted()
        return Change(services=self._corrected(concerned))

    def _list_unlisted(self) -> set[str]:
        """Anew, when gossip or what it is read against has changed; returns those concerned."""
        before, self._unlisted = self._unlisted, self._unlisted_services()
        return {*before, *self._unlisted}

    def _unlisted_services(self) -> dict[str, Service]:
        """The least that names and balancing need, for services that no manager has told of."""
        if not self._views:
            return {}
        listed = {one.name for one in self._services.values()}
        seen = {name for view in self._views.values() for name in view.services} - listed
        ids = {c.labels.get(SERVICE_NAME_LABEL, ""): c.service for c in self._containers.values()}
        return {id_: self._unlisted_service(id_, name) for name in seen for id_ in (ids.get(name) or name,)}

    def _unlisted_service(self, id_: str, name: str) -> Service:
        networks = tuple(
            ServiceNetwork(network, view.services[name].vip or None)
            for network, view in sorted(self._views.items())
            if name in view.services and not self._is_ingress(network)
        )
        has_vip = any(one.vip for one in networks)
        return Service(id_, name, EndpointMode.VIP if has_vip else EndpointMode.DNSRR, networks)

    def _is_ingress(self, network: str) -> bool:
        known = self._networks.get(network) or self._local_networks.get(network)
        return known is not None and known.ingress

    # --- correction ---

    def _services_of(self, containers: Iterable[Container], difference: Mapping[str, object]) -> set[str]:
        return {one.service for one in containers if one.id in difference and one.service}

    def _heard_of(self, views: Collection[NetworkView]) -> set[str]:
        """Services on these networks as a manager last told, and those that gossip names there."""
        networks = {one.network for one in views}
        names = {name for one in views for name in one.services}
        return {s.id for s in self._services.values() if s.name in names or networks & _networks_of(s)}

    def _corrected(self, services: Iterable[str]) -> dict[str, Service | None]:
        """The services as they are for us, where that differs from what was told before."""
        difference: dict[str, Service | None] = {}
        for id_ in services:
            raw = self._services.get(id_) or self._unlisted.get(id_)
            now = None if raw is None else self._correct(raw)
            if now != self._told.get(id_):
                difference[id_] = now
        _update(self._told, difference)
        return difference

    def _correct(self, service: Service) -> Service:
        tasks = self._as_gossip_has(service) if self._views else service.tasks
        tasks = tuple(self._here(task) for task in tasks)
        return service if tasks == service.tasks else replace(service, tasks=tasks)

    def _as_gossip_has(self, service: Service) -> tuple[Task, ...]:
        nodes = {one.address: one.id for one in self._nodes.values()}
        tasks, own = service.tasks, _networks_of(service)
        for network, view in sorted(self._views.items()):
            if network in own or service.name in view.services:
                tasks = _as_seen(tasks, service.name, view, nodes)
        return tasks

    def _here(self, task: Task) -> Task:
        if task.id in self._leaving and task.state in _MAY_SERVE:
            unwell = task.id in self._unwell
            return replace(task, state=TaskState.UNWELL if unwell else TaskState.LEAVING)
        return task


_MAY_SERVE = (TaskState.RUNNING, TaskState.STARTING, TaskState.UNWELL)  # or will soon


def _networks_of(service: Service) -> set[str]:
    """Those it is a member of, and those its tasks have an address on (ingress, where names mean nothing)."""
    return {n.network for n in service.networks} | {id_ for task in service.tasks for id_ in task.addresses}


def _as_seen(
    tasks: tuple[Task, ...], service: str, view: NetworkView, nodes: Mapping[str, str]
) -> tuple[Task, ...]:
    """The tasks as gossip has them on one network: not seen is gone, seen and unknown is running.

    A task is in the gossip only once it is healthy, so one that was starting has started. `nodes`: address →
    id, for the node of an unknown one.
    """
    network = view.network
    seen = {_task_id(one): one for one in view.services.get(service, SeenService("", ())).tasks}
    left = {t.id: t for t in tasks if network not in t.addresses or t.id in seen}
    for id_, one in seen.items():
        left[id_] = _seen_as(left.get(id_), one, id_, network, nodes)
    return tuple(left.values())


def _seen_as(known: Task | None, seen: SeenTask, id_: str, network: str, nodes: Mapping[str, str]) -> Task:
    task = known or Task(id_, seen.name, nodes.get(seen.host, ""), TaskState.RUNNING, slot=_slot(seen.name))
    if task.state is TaskState.STARTING:
        task = replace(task, state=TaskState.RUNNING)
    if task.addresses.get(network) != seen.address:
        task = replace(task, addresses={**task.addresses, network: seen.address})
    return task


def _task_id(seen: SeenTask) -> str:
    """Docker names a task's endpoint service.slot.id, or service.node.id; no part but the first has dots."""
    return seen.name.rpartition(".")[2]


SLOT_MAX = 2**63 - 1  # Swarm counts them in an int64


def _slot(name: str) -> int:
    """The number in service.slot.id; 0 for a global service's task."""
    slot = name.rpartition(".")[0].rpartition(".")[2]
    return parse_int(slot, 0, SLOT_MAX) if is_int(slot, 0, SLOT_MAX) else 0


def _update(entities: dict[str, T], changes: Mapping[str, T | None]) -> None:
    for id_, value in changes.items():
        if value is None:
            entities.pop(id_, None)
        else:
            entities[id_] = value
