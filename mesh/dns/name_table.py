"""Which names exist on which network: an index that follows the catalogue in O(changed).

Strategy:
- A network is indexed when somebody asks on it for the first time, and followed from then on. A node's askers
  are on a few of a large cluster's networks, and the first catalogue stops nobody.
- The index leads from a name, or an address, to its owners: services, their tasks, this node's containers and
  plain ones of other nodes, which are on networks of the Swarm only. What an owner says is made from the
  snapshot when it is asked; the replies are cached anyway. So the index is strings and small tuples, which
  cost little to build and next to nothing to collect.
- What a change may have made different is told in the words in which `answers` notes on what a reply depends:
  names, for `tasks.NAME` also the plain name, and for reversed names the address.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from mesh.catalog.model import Container, Neighbour, Service, ServiceNetwork, Task, TaskState
from mesh.catalog.snapshot import Change, Snapshot
from mesh.dns.name_index import Keys, NetworkIndex, Owner
from mesh.dns.names import (
    TASKS,
    Contribution,
    HostName,
    any_serving,
    attachment_to,
    container_addresses,
    container_names,
    membership_of,
    named,
    pointer_name,
    service_hosts,
    service_names,
    task_hosts,
    task_names,
    vip_of,
)

CONTAINER, SERVICE, TASK = "container", "service", "task"  # kinds of owners
SWARM = "swarm"  # scope of a network
NO_KEYS: Keys = ((), ())


class NameTable:
    """The names of one snapshot; `apply` makes it that of the next."""

    def __init__(self, snapshot: Snapshot | None = None) -> None:
        self._snapshot = snapshot or Snapshot()
        self._networks: dict[str, NetworkIndex] = {}  # those that somebody has asked on
        self._local: dict[str, set[str]] = {}  # service → containers of its tasks on this node
        for container in self._snapshot.containers.values():
            self._follow_local(container.id, None, container)

    def __len__(self) -> int:
        """Names and addresses on all networks that somebody has asked on."""
        return sum(map(len, self._networks.values()))

    # --- asking ---------------------------------------------------------------------------------------------

    def get(self, network: str, name: str) -> tuple[Contribution, ...]:
        """Who contributes to the lower-case name on the network; empty: the name is unknown there."""
        if not self._named(network):
            return ()
        names = self.index(network).names
        owners = self._rightful(names.owners(name))
        if not name.startswith(TASKS):
            return tuple([self._says(owner, network) for owner in owners])
        services = [
            self._snapshot.services[id_]
            for kind, id_, _ in names.owners(name[len(TASKS) :])
            if kind == SERVICE
        ]
        if services and owners:
            owners = [owner for owner in owners if not owner[2] or owner[0] != CONTAINER]
        found = [self._says(owner, network) for owner in owners]
        found += [Contribution(one.stack, one, task_hosts(one, network)) for one in services]
        return tuple(found)

    def pointers(self, network: str, address: str) -> tuple[Contribution, ...]:
        """Whose address it is on the network: of a task, first its own, then its service's if it is a VIP."""
        owners = self._rightful(self.index(network).addresses.owners(address)) if self._named(network) else ()
        return tuple(map(self._points, sorted(owners, key=lambda owner: owner[0] == SERVICE)))

    def _rightful(self, owners: Collection[Owner]) -> Collection[Owner]:
        """Another node's plain container has nothing that a service has: managers see to it, and here it
        holds for a saved view and an older manager's as well."""
        if len(owners) > 1 and any(map(self._is_a_services, owners)):
            return [owner for owner in owners if owner[0] != CONTAINER or not owner[2]]
        return owners

    def _is_a_services(self, owner: Owner) -> bool:
        kind, id_, key = owner
        if kind != CONTAINER:
            return True
        return not key and bool(self._snapshot.containers[id_].service)

    def _named(self, network: str) -> bool:
        return named(self._snapshot.networks.get(network))

    def _says(self, owner: Owner, network: str) -> Contribution:
        kind, id_, task = owner
        if kind == CONTAINER:
            container, its_service = self._container(owner)
            addresses = _addresses(container, network, self._networks[network])
            hosts = tuple(HostName(container.name, address) for address in addresses)
            return Contribution(container.stack, its_service, hosts)
        service = self._snapshot.services[id_]
        if kind == SERVICE:
            return Contribution(service.stack, service, service_hosts(service, network))
        found = _task(service, task)
        return Contribution(service.stack, service, (HostName(found.name, found.addresses[network]),))

    def _points(self, owner: Owner) -> Contribution:
        kind, id_, task = owner
        if kind == CONTAINER:
            container, its_service = self._container(owner)
            return Contribution(service=its_service, pointer=pointer_name(container))
        found = self._snapshot.services[id_]
        if kind == SERVICE:
            return Contribution(service=found, pointer=found.name, vip=True)
        return Contribution(service=found, pointer=_task(found, task).name)

    def _container(self, owner: Owner) -> tuple[Container | Neighbour, Service | None]:
        """And its service, if it is a task's."""
        _, id_, key = owner
        if key:
            return self._snapshot.neighbours[key], None
        local = self._snapshot.containers[id_]
        return local, self._snapshot.services.get(local.service)

    # --- following ------------------------------------------------------------------------------------------

    def index(self, network: str) -> NetworkIndex:
        """The network's index, made if this is the first time. About 6 ms for 1,000 services."""
        made = self._networks.get(network)
        if made is not None:
            return made
        snapshot = self._snapshot
        known = snapshot.networks.get(network)
        made = NetworkIndex(swarm=known is not None and known.scope == SWARM)
        if not named(known):
            return made  # not followed; no scope has it
        self._networks[network] = made
        for service in snapshot.services_on(network):
            _enter(service, network, made)
        for id_ in snapshot.containers:
            if local := _Local.of(id_, snapshot):
                made.move((CONTAINER, id_, ""), NO_KEYS, _container_keys(local.container, network, made))
        for key, one in snapshot.neighbours.items() if made.swarm else ():
            made.move((CONTAINER, one.id, key), NO_KEYS, _container_keys(one, network, made))
        return made

    def apply(self, new: Snapshot, change: Change) -> set[str]:
        """Become the table of `new`, which is the snapshot so far after `change`. Returns what may differ."""
        old, touched = self._snapshot, set[str]()
        containers = set(change.containers)
        for id_ in change.services:
            self._follow_service(old.services.get(id_), new.services.get(id_), touched)
            containers.update(self._local.get(id_, ()))
        for id_ in containers:
            was, is_ = _Local.of(id_, old), _Local.of(id_, new)
            if was != is_:
                owner = CONTAINER, id_, ""
                ends = was.container if was else None, is_.container if is_ else None
                self._follow_container(owner, *ends, touched)
        for key, after in change.neighbours.items():
            before = old.neighbours.get(key)
            if one := after or before:
                self._follow_container((CONTAINER, one.id, key), before, after, touched)
        for id_ in change.containers:
            self._follow_local(id_, old.containers.get(id_), new.containers.get(id_))
        for id_, network in change.networks.items():
            if network is None and id_ in self._networks and not len(self._networks[id_]):
                del self._networks[id_]
        self._snapshot = new
        return touched

    def _follow_service(self, before: Service | None, after: Service | None, touched: set[str]) -> None:
        members = (member for service in (before, after) if service for member in service.networks)
        indexes = {m.network: self._networks[m.network] for m in members if m.network in self._networks}
        if indexes:
            step = _ServiceStep.of(before, after)
            for network, index in indexes.items():
                touched.update(step.enter(network, index))

    def _follow_container(
        self,
        owner: Owner,
        before: Container | Neighbour | None,
        after: Container | Neighbour | None,
        touched: set[str],
    ) -> None:
        attached = (a for one in (before, after) if one for a in one.attachments)
        for network in {a.network for a in attached if a.network in self._networks}:
            index = self._networks[network]
            if owner[2] and not index.swarm:
                continue  # another node's container cannot be on this one's own network
            was, is_ = _container_keys(before, network, index), _container_keys(after, network, index)
            index.move(owner, was, is_)
            touched.update(*was, *is_)

    def _follow_local(self, id_: str, before: Container | None, after: Container | None) -> None:
        if before and before.service:
            self._local[before.service].discard(id_)
            if not self._local[before.service]:
                del self._local[before.service]
        if after and after.service:
            self._local.setdefault(after.service, set()).add(id_)


# --- a service's change -------------------------------------------------------------------------------------


class _Move(NamedTuple):
    """A serving task, as it was and as it is; None where it does not serve."""

    id: str
    before: Task | None
    after: Task | None


@dataclass(frozen=True, slots=True)
class _ServiceStep:
    """A service before and after a change, to be entered into the index of each of its networks."""

    before: Service | None
    after: Service | None
    alike: bool  # but for its tasks
    tasks: tuple[_Move, ...]  # all of them where it is not alike

    @classmethod
    def of(cls, before: Service | None, after: Service | None) -> "_ServiceStep":
        alike = before is not None and after is not None and _alike(before, after)
        return cls(before, after, alike, tuple(_moves(before, after, all_of_them=not alike)))

    def enter(self, network: str, index: NetworkIndex) -> set[str]:
        """Returns the names under which, and addresses of which, something else may be said than before."""
        touched = self._hosts_differ(network) if self.alike else self._enter_service(network, index)
        before, after = _member(self.before, network), _member(self.after, network)
        for id_, was, is_ in self.tasks:
            keys = _task_keys(was if before else None, network), _task_keys(is_ if after else None, network)
            index.move((TASK, self.id, id_), *keys)
            touched.update(*keys[0], *keys[1])
        return touched

    @property
    def id(self) -> str:
        return self.after.id if self.after else self.before.id if self.before else ""

    def _enter_service(self, network: str, index: NetworkIndex) -> set[str]:
        keys = _service_keys(self.before, network), _service_keys(self.after, network)
        index.move((SERVICE, self.id, ""), *keys)
        return set().union(*keys[0], *keys[1])

    def _hosts_differ(self, network: str) -> set[str]:
        """Which of the service's names lead elsewhere when nothing but its tasks changes."""
        before, after = self.before, self.after
        membership = _member(after, network)
        if before is None or after is None or membership is None:
            return set()
        moved = any(_address(m.before, network) != _address(m.after, network) for m in self.tasks)
        touched = {TASKS + name for name in service_names(after, membership)} if moved else set[str]()
        vip = vip_of(after, membership)
        if any_serving(before) != any_serving(after):
            touched.update(service_names(after, membership), (vip,) if vip else ())
        elif moved and not vip:
            touched.update(service_names(after, membership))
        return touched


def _alike(before: Service, after: Service) -> bool:
    return (
        before.name == after.name
        and before.mode == after.mode
        and before.networks == after.networks
        and before.ports == after.ports
        and before.labels == after.labels
    )


def _enter(service: Service, network: str, index: NetworkIndex) -> None:
    """A step from nothing, in less time: a network may have thousands of them when it is first asked on."""
    index.move((SERVICE, service.id, ""), NO_KEYS, _service_keys(service, network))
    for task in service.tasks:
        if task.state is TaskState.RUNNING:
            index.move((TASK, service.id, task.id), NO_KEYS, _task_keys(task, network))


def _moves(before: Service | None, after: Service | None, all_of_them: bool) -> Iterator[_Move]:
    running = TaskState.RUNNING
    gone = {task.id: task for task in before.tasks if task.state is running} if before else {}
    for task in after.tasks if after else ():
        if task.state is running:
            was = gone.pop(task.id, None)
            if all_of_them or (was is not task and was != task):
                yield _Move(task.id, was, task)
    for was in gone.values():
        yield _Move(was.id, was, None)


def _task(service: Service, id_: str) -> Task:
    return next(task for task in service.tasks if task.id == id_)


# --- this node's containers ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Local:
    """A container of this node that has names, and the labels of its service."""

    container: Container
    labels: Mapping[str, str] | None

    @classmethod
    def of(cls, id_: str, snapshot: Snapshot) -> "_Local | None":
        """None: it has no names. A task's go at the first sign of its end, though it still runs."""
        container = snapshot.containers.get(id_)
        if container is None or not container.running:
            return None
        service = snapshot.services.get(container.service) if container.service else None
        if service is None:
            return cls(container, None)
        serves = any(task.serving and task.id == container.task for task in service.tasks)
        return cls(container, service.labels) if serves else None


# --- under which keys an owner stands -----------------------------------------------------------------------


def _member(service: Service | None, network: str) -> ServiceNetwork | None:
    return membership_of(service, network) if service else None


def _address(task: Task | None, network: str) -> str | None:
    return task.addresses.get(network) if task else None


def _service_keys(service: Service | None, network: str) -> Keys:
    membership = _member(service, network)
    if service is None or membership is None:
        return NO_KEYS
    vip = vip_of(service, membership)
    return service_names(service, membership), (vip,) if vip else ()


def _task_keys(task: Task | None, network: str) -> Keys:
    address = _address(task, network)
    return (task_names(task), (address,)) if task and address else NO_KEYS


def _container_keys(container: Container | Neighbour | None, network: str, index: NetworkIndex) -> Keys:
    attached = attachment_to(network, container) if container else None
    if container is None or attached is None:
        return NO_KEYS
    return container_names(container, attached), _addresses(container, network, index)


def _addresses(container: Container | Neighbour, network: str, index: NetworkIndex) -> tuple[str, ...]:
    attached = attachment_to(network, container)
    return container_addresses(attached, ip6=not index.swarm) if attached else ()
