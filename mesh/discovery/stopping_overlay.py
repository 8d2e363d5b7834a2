"""What the nodes say is ending, laid over what Swarm says. Pure; the clock is an argument.

Every node's sidecar tells the managers' which of its own tasks are ending (`endings` there), or fail their
probes: always all of them, so that the last report is the whole truth, and one that is lost or repeated does
no harm. A manager lays the reports over its own view: a task that Swarm still calls running, or starting, is
LEAVING when its own node says so, or UNWELL when it merely fails its probe. The result depends on the last
view and the last reports alone, in whatever order they came, and once Swarm has caught up a sign has no
effect any more.

A sign never adds, moves or revives anything, and it ends when its node takes it back or falls silent.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from mesh.catalog.cluster_view import ClusterView
from mesh.catalog.model import Service, Task, TaskState
from mesh.catalog.snapshot import Change

KEPT_SECONDS = 15.0  # after a node's last word; reports come every few seconds while there is a network
KEPT_MAX = 65_536  # signs of all nodes; more are refused

Ending = Mapping[str, str]  # task id → service id: all that is ending on one node

RESULTS = ("taken", "unknown", "foreign", "excess", "withdrawn", "expired")
SERVES_OR_WILL = frozenset({TaskState.RUNNING, TaskState.STARTING})
NOTHING: Ending = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class _HeardEndings:
    signs: Ending
    unwell: frozenset[str]  # of those: tasks that do not end
    at: float  # seconds, of the caller's clock


class StoppingOverlay:
    """A manager's book of reports. `results` counts new signs by what became of them:

    `taken`; `unknown`: no such task is known to run (any more, or yet: kept, in case it is listed late);
    `foreign`: the task is another node's, refused; `excess`: too many, refused. Of those that Swarm did not
    confirm: `withdrawn` by the node; `expired`, as the node said nothing for too long.
    """

    def __init__(self) -> None:
        self._services: Mapping[str, Service] = {}  # as Swarm has them
        self._heard: dict[str, _HeardEndings] = {}  # by node
        self._kept = 0
        self.results = Counter(dict.fromkeys(RESULTS, 0))

    def clear(self) -> None:
        """Forget everything but the counts: this node is no manager any more."""
        self._services, self._heard, self._kept = {}, {}, 0

    def lay_over(self, view: ClusterView) -> ClusterView:
        """Swarm's new view, as it is to be told. Nodes that are gone are not heard any more."""
        self._services = view.services
        for node in self._heard.keys() - view.nodes.keys():
            self._keep(node, NOTHING, frozenset(), 0.0)
        concerned = {service for heard in self._heard.values() for service in heard.signs.values()}
        signed = self._signed(concerned)
        return replace(view, services={**view.services, **signed}) if signed else view

    def report(self, node: str, signs: Ending, now: float, unwell: frozenset[str] = frozenset()) -> Change:
        """All that is ending on the node, or (`unwell`) fails its probe; returns what that changes."""
        kept = self._admitted(node, signs)
        self._count_ended("withdrawn", node, signs)
        return self._replaced(node, kept, unwell.intersection(kept), now)

    def expire(self, now: float) -> Change:
        """Without news of a node what it said ends; returns what that changes in the view."""
        change: dict[str, Service | None] = {}
        for node in [id_ for id_, heard in self._heard.items() if now - heard.at >= KEPT_SECONDS]:
            self._count_ended("expired", node, NOTHING)
            change.update(self._replaced(node, NOTHING, frozenset(), now).services)
        return Change(services=change)

    # --- keeping ---

    def _signs_of(self, node: str) -> Ending:
        heard = self._heard.get(node)
        return NOTHING if heard is None else heard.signs

    def _unwell_of(self, node: str) -> frozenset[str]:
        heard = self._heard.get(node)
        return frozenset() if heard is None else heard.unwell

    def _admitted(self, node: str, signs: Ending) -> Ending:
        """What of a report may be kept. What was kept before has been looked at before."""
        before = self._signs_of(node)
        kept = {task: service for task, service in signs.items() if before.get(task) == service}
        room = KEPT_MAX - self._kept + len(before) - len(kept)
        fresh = {task: service for task, service in signs.items() if task not in kept}
        known = self._known(fresh)
        for task, service in fresh.items():
            found = known.get(task)
            result = _judged(found, node) if room > 0 else "excess"
            self.results[result] += 1
            if result in ("taken", "unknown"):
                kept[task], room = service, room - 1
        return kept

    def _known(self, signs: Ending) -> Mapping[str, Task]:
        services = (self._services.get(id_) for id_ in set(signs.values()))
        return {task.id: task for service in services if service for task in service.tasks}

    def _count_ended(self, result: str, node: str, signs: Ending) -> None:
        """The node's signs that end before Swarm has caught up."""
        gone = {task: service for task, service in self._signs_of(node).items() if task not in signs}
        known = self._known(gone)
        self.results[result] += sum(_judged(known.get(task), node) == "taken" for task in gone)

    def _replaced(self, node: str, signs: Ending, unwell: frozenset[str], now: float) -> Change:
        before = self._signs_of(node)
        concerned = {service for task, service in {*before.items()} ^ {*signs.items()}}
        concerned |= {signs[task] for task in (self._unwell_of(node) ^ unwell) & signs.keys()}
        old = self._signed(concerned)
        self._keep(node, signs, unwell, now)
        new = self._signed(concerned)
        return Change(
            services={
                id_: new.get(id_, self._services[id_]) for id_ in concerned if old.get(id_) != new.get(id_)
            }
        )

    def _keep(self, node: str, signs: Ending, unwell: frozenset[str], now: float) -> None:
        self._kept += len(signs) - len(self._signs_of(node))
        if signs:
            self._heard[node] = _HeardEndings(signs, unwell, now)
        else:
            self._heard.pop(node, None)

    # --- laying over ---

    def _signed(self, services: Iterable[str]) -> Mapping[str, Service]:
        """Those of the services that are different with the signs."""
        found = ((id_, self._services.get(id_)) for id_ in services)
        laid = ((id_, one, self._laid_over(one)) for id_, one in found if one is not None)
        return {id_: now for id_, one, now in laid if now is not one}

    def _laid_over(self, service: Service) -> Service:
        tasks = tuple(self._leaving(task, service.id) for task in service.tasks)
        same = all(one is other for one, other in zip(tasks, service.tasks, strict=True))
        return service if same else replace(service, tasks=tasks)

    def _leaving(self, task: Task, service: str) -> Task:
        """A task is ending when its own node says so."""
        if task.state in SERVES_OR_WILL and self._signs_of(task.node).get(task.id) == service:
            unwell = task.id in self._unwell_of(task.node)
            return replace(task, state=TaskState.UNWELL if unwell else TaskState.LEAVING)
        return task


def _judged(task: Task | None, node: str) -> str:
    if task is None or task.state not in SERVES_OR_WILL:
        return "unknown"
    return "taken" if task.node == node else "foreign" if task.node else "unknown"
