"""The cluster as a manager tells it: polled, and looked at sooner when something happens there.

Swarm has no events for tasks (moby#37403), so their list is polled; all else is told by events, and listed
again now and then, because events can be lost. An event comes before its effect on tasks: the orchestrator
acts on the same news a few milliseconds later. So after an event, or a change that was seen, the next looks
follow quickly and then ever more slowly; and never so often that looking becomes most of the work.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from docker.errors import APIError

from mesh.catalog.cluster_view import ClusterView
from mesh.discovery.allocations import ATTACHMENTS_FILTER, Allocations, allocations
from mesh.discovery.engine_client import Engine
from mesh.discovery.swarm_json import NOT_UNDERSTOOD, SwarmReader
from mesh.errors import DiscoveryError, EngineUnavailable
from mesh.internal_errors import ERRORS

Json = Mapping[str, Any]

TASKS_SECONDS = 0.5  # between two looks at the tasks when nothing happens
UPDATING_SECONDS = 0.1  # the same while Swarm updates a service: it moves on without an event
SOON_SECONDS = 0.015  # before the first look after news; doubled with each that shows nothing
WORK_SHARE = 4  # times as long as a look took is what is waited at least before the next
CLUSTER_SECONDS = 5.0  # after which services, networks and nodes are listed although no event came
ALLOCATIONS_SECONDS = 1.0  # between two looks at what else has been given out, however many events come

UPDATING = frozenset({"updating", "rollback_started"})


class Cadence:
    """How long to wait for the next look. Pure; seconds."""

    def __init__(self) -> None:
        self._wait = SOON_SECONDS

    def next(self, *, news: bool, updating: bool, took: float) -> float:
        """After a look that took so long. `news`: an event had come, or the look showed a change."""
        self._wait = SOON_SECONDS if news else self._wait * 2
        self._wait = min(self._wait, UPDATING_SECONDS if updating else TASKS_SECONDS)
        return max(self._wait, min(took * WORK_SHARE, TASKS_SECONDS))


@dataclass(frozen=True, slots=True)
class _FoundCluster:
    view: ClusterView
    tasks_changed: bool
    updating: bool
    allocations: Allocations | None  # None: not looked at
    leader: str  # id of the node that leads the managers, "" when none says so


class ManagerWatch:
    """Reads the cluster from this node's engine, which is a manager's, as long as it `run`s.

    `on_read` gets the view, or None when nothing has changed since; `on_fault` why it cannot be read.
    """

    def __init__(
        self,
        engine: Engine,
        on_read: Callable[[ClusterView | None], None],
        on_fault: Callable[[str], None],
    ) -> None:
        self._engine = engine
        self._on_read = on_read
        self._on_fault = on_fault
        self._reader = SwarmReader()
        self._news = asyncio.Event()
        self._seen_tasks: object = None
        self._listed: float | None = None  # when everything was
        self._updating = False
        self.read_seconds = 0.0  # that the last read took
        self.leader = ""  # id of the node that leads the managers, as of the last read
        self.allocations: Allocations | None = None  # as of the last look, if it was at them
        self._allocated = -ALLOCATIONS_SECONDS  # when that was begun
        self._asked = self._due = False

    @property
    def created(self) -> Mapping[str, str]:
        """When each service was made, as Docker writes it; by id."""
        return self._reader.created

    def news(self) -> None:
        """Look now: something has happened in the cluster."""
        self._news.set()

    def list_again(self) -> None:
        """The next look is at everything and yields a view, changed or not."""
        self._listed = None

    def look_at_all(self) -> None:
        """Soon, and at what else has been given out as well: somebody says what is not known here yet."""
        if not self._asked:
            self._asked = True
            left = self._allocated + ALLOCATIONS_SECONDS - time.monotonic()
            asyncio.get_running_loop().call_later(max(0.0, left), self._look_now)

    def _look_now(self) -> None:
        self._due = True
        self._news.set()

    async def run(self) -> None:
        """Until cancelled. Raises EngineUnavailable."""
        self._listed, self.read_seconds, cadence = None, 0.0, Cadence()
        while True:
            news = self._news.is_set()
            self._news.clear()
            changed = await self._look(everything=news)
            pause = cadence.next(news=news or changed, updating=self._updating, took=self.read_seconds)
            try:
                async with asyncio.timeout(pause):
                    await self._news.wait()
            except TimeoutError:
                pass

    async def _look(self, *, everything: bool) -> bool:
        """True if something has changed."""
        now = time.monotonic()
        everything = everything or self._listed is None or now - self._listed >= CLUSTER_SECONDS
        also = self._due or (everything and now - self._allocated >= ALLOCATIONS_SECONDS)
        everything = everything or also
        if also:
            self._asked = self._due = False
        try:
            found = await self._engine.cluster(partial(self._read, everything=everything, also=also))
        except EngineUnavailable:
            raise
        except DiscoveryError as error:  # no quorum, or just demoted: the role will tell
            self.list_again()
            self.leader = ""
            self._on_fault(str(error))
            return False
        self.read_seconds = time.monotonic() - now
        if found is None:
            self._on_read(None)
            return False
        self._listed, self._updating, self.leader = now, found.updating, found.leader
        self.allocations = found.allocations
        if also:
            self._allocated = now
        self._on_read(found.view)
        return found.tasks_changed

    def _read(self, api: Any, everything: bool, also: bool) -> _FoundCluster | None:
        """On a thread: the cluster, or None when nothing can have changed. `also`: with the allocations."""
        tasks = api.tasks()
        seen = {(str(one.get("ID")), str(one.get("Version"))) for one in tasks if isinstance(one, Mapping)}
        changed, self._seen_tasks = seen != self._seen_tasks, seen
        if not (everything or changed):
            return None
        nodes, networks, services = api.nodes(), api.networks(), api.services()
        view = self._reader.read(nodes, networks, services, tasks)
        allocated = _allocations(api, view, networks) if also else None
        return _FoundCluster(view, changed, _updating(services), allocated, _leader(nodes))


def _allocations(api: Any, view: ClusterView, networks: Iterable[Json]) -> Allocations | None:
    """None where the engine does not tell."""
    id_ = next((one.id for one in view.networks.values() if one.ingress), None)
    try:
        attachments = api.tasks(filters=ATTACHMENTS_FILTER)
    except APIError:
        return None
    try:
        ingress = api.inspect_network(id_, verbose=True) if id_ is not None else None
    except APIError:
        ingress = None  # this engine takes no part in it
    try:
        return allocations(view.nodes.values(), networks, attachments, ingress)
    except NOT_UNDERSTOOD as error:
        ERRORS.report("Docker's JSON of allocations", error)
        return None


def _leader(nodes: Iterable[Json]) -> str:
    leading = (one["ID"] for one in nodes if (one.get("ManagerStatus") or {}).get("Leader"))
    try:
        return str(next(leading, ""))
    except NOT_UNDERSTOOD:  # the node is named where all are read
        return ""


def _updating(services: Iterable[Json]) -> bool:
    try:
        return any((one.get("UpdateStatus") or {}).get("State") in UPDATING for one in services)
    except NOT_UNDERSTOOD:  # the service is named where all are read
        return False
