"""The catalogue from Docker: this node's engine, and the cluster from its API (managers) or a feed (workers).

    engine events ──▶ this node's containers ──┐     what ends here, plain containers ──▶ to all managers
    manager: API, polled, and its events ──┬───┤──▶ merge ──▶ publish; managers also serve it as the feed
             what the nodes say ───────────┘   │
    worker: feed of any manager's sidecar ─────┘
    nobody tells of the cluster: gossip of this engine ──▶ corrects the last view

When the engine cannot be reached, or its stream ends, the whole session begins anew, and what is known stays
in force meanwhile.

Whoever serves must know: a manager opens its feed only when it has read the cluster, and closes it when its
own reads fail, so that workers turn to a manager that still has a quorum.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import replace
from typing import Any

from mesh.catalog.cluster_view import ClusterView
from mesh.catalog.model import NO_RETURN_PATH, ReturnPath
from mesh.catalog.snapshot import Change, Snapshot
from mesh.discovery.engine_client import Engine
from mesh.discovery.engine_json import NetworkView, network_view
from mesh.discovery.host_records import HostRecords
from mesh.discovery.manager_watch import ManagerWatch
from mesh.discovery.merge import Merger
from mesh.discovery.node_watch import NodeWatch
from mesh.discovery.plain_containers import Neighbours, plain_containers
from mesh.discovery.return_path_overlay import ReturnPathOverlay
from mesh.discovery.source import SourceStatus
from mesh.discovery.stopping_overlay import StoppingOverlay
from mesh.discovery.swarm_json import NOT_UNDERSTOOD
from mesh.discovery.view_cache import SavedView
from mesh.errors import DiscoveryError, EngineUnavailable, Problem
from mesh.internal_errors import ERRORS, restart_mends
from mesh.peers.feed.client import FeedClient
from mesh.peers.feed.server import FeedServer
from mesh.peers.report.client import SignClient
from mesh.peers.report.codec import NodeReport, check_containers

Json = Mapping[str, Any]

ROLE_SECONDS = 2.0  # between two looks at this node's role and its managers: 8 ms of dockerd each
ALONE_SECONDS = 5.0  # without news of the cluster, after which the engine's gossip corrects the last view
PATIENCE = 3  # times as long as its last read took is what a manager waits at least: large Swarms are slow
GOSSIP_SECONDS = 1.0  # between two looks at it
EXPIRY_SECONDS = 1.0  # between two looks at which nodes have fallen silent
FIRST_RETRY, LAST_RETRY = 0.5, 10.0  # seconds before a new session with the engine

logger = logging.getLogger(__name__)


class DockerSource:
    """Publishes until cancelled. The caller owns `engine`; server and client of the feed are made here."""

    kind = "docker"

    def __init__(
        self,
        engine: Engine,
        publish: Callable[[Change], Snapshot],
        make_server: Callable[[Callable[[], ClusterView], Callable[[str, NodeReport], None]], FeedServer],
        make_client: Callable[..., FeedClient],
        make_teller: Callable[[Callable[[], Mapping[str, str]], Callable[[], NodeReport]], SignClient],
        state_dir: str,
        identify: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = time.time,
        return_path: Callable[[], ReturnPath] = lambda: NO_RETURN_PATH,
        hosts: HostRecords | None = None,
    ) -> None:
        self._engine = engine
        self._publish = publish
        self._identify = identify
        self._clock = clock
        self._return_path = return_path
        self._hosts = hosts
        self._merger = Merger()
        self._watch = NodeWatch(
            engine, self._merger, self._tell_of_node, self._heard_of_cluster, self._report_changed
        )
        self._cluster = ManagerWatch(engine, self._read_cluster, self._cannot_read_cluster)
        self._signs = StoppingOverlay()
        self._neighbours = Neighbours()
        self._return_paths = ReturnPathOverlay()
        self._plain = NodeReport()  # this node's plain containers, as they are to be reported
        self._plain_fault = ""
        self._saved = SavedView(state_dir, lambda: self._merger.cluster)
        self._server = make_server(lambda: self._merger.cluster, self._take_report)
        self._client = make_client(lambda: self._managers, self._take_view, self._take_change)
        self._teller = make_teller(lambda: self._other_managers, self._report)
        self._node = ""
        self._in_swarm = False
        self._is_manager: bool | None = None  # None: not asked yet
        self._managers: dict[str, str] = {}  # host → node's id
        self._other_managers: dict[str, str] = {}  # than this node
        self._role_changed = asyncio.Event()
        self._fresh = asyncio.Event()  # this manager's own reads succeed
        self._stale = asyncio.Event()  # the opposite
        self._last_success: float | None = None
        self._last_news = time.monotonic()  # of the cluster, from whomever
        self._informed = asyncio.Event()  # of this node and of the cluster, by whomever
        self._engine_fault = "not connected yet"
        self._cluster_fault = ""

    # --- life ---

    async def run(self) -> None:
        """Sessions with the engine, one after the other."""
        if (saved := self._saved.load()) is not None:
            self._tell(self._merger.set_cluster(saved)[0])
        async with asyncio.TaskGroup() as group:
            group.create_task(self._saved.run(), name="saved view")
            await self._sessions()

    async def _sessions(self) -> None:
        pause = FIRST_RETRY
        while True:
            started = time.monotonic()
            # In a task of its own, which raises nothing that is expected: before Python 3.13 a group that
            # ends with errors forgets that it was cancelled meanwhile, and we would never end.
            async with asyncio.TaskGroup() as group:
                group.create_task(self._until_lost(), name="session")
            pause = FIRST_RETRY if time.monotonic() - started > LAST_RETRY else min(LAST_RETRY, pause * 2)
            await asyncio.sleep(pause)

    async def _until_lost(self) -> None:
        """A session; why it ended is told."""
        try:
            await self._session()
        except* DiscoveryError as errors:
            self._engine_fault = str(_first(errors))
            logger.error("docker: %s", self._engine_fault)
        except* Exception as errors:  # the boundary of a session: the next one lists everything anew
            if restart_mends(errors):
                raise
            self._engine_fault = f"fault of ours: {_first(errors)}"
            ERRORS.report("session with Docker", _first(errors))

    async def _session(self) -> None:
        """Until the engine is lost."""
        events = await self._watch.listen()  # before the lists: what happens meanwhile is not missed
        try:
            await self._look_at_role()
            await self._watch.list()
            self._engine_fault, self._last_news = "", time.monotonic()
            if not self._in_swarm:
                self._informed.set()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._watch.follow(events), name="engine events")
                group.create_task(self._watch.sift_endings(), name="endings")
                group.create_task(self._teller.run(), name="signs")
                group.create_task(self._follow_role(), name="role")
                group.create_task(self._follow_cluster(), name="cluster")
                group.create_task(self._follow_gossip(), name="gossip")
        finally:
            events.close()

    async def informed(self) -> None:
        """Wait until this node and the cluster are known as they are now, not only as they were saved."""
        await self._informed.wait()

    def status(self) -> SourceStatus:
        role = "" if self._is_manager is None else "manager" if self._is_manager else "worker"
        following = "" if self._is_manager else self._client.following
        connected = not self._known_fault and bool(self._is_manager or following)
        return SourceStatus(
            kind=self.kind,
            role=role,
            connected=connected,
            last_success=self._clock() if following else self._last_success,
            last_error=self._fault(connected),
            feed_following=following,
            feed_serving=bool(self._is_manager) and self._server.serving,
            feed_clients=self._server.clients,
            feed_refused=self._server.refused.total(),
            feed_error=self._server.fault if self._is_manager else self._client.fault,
            signs=dict(self._signs.results),
            neighbours_refused=dict(self._neighbours.refused),
            return_paths_refused=dict(self._return_paths.refused),
            problems=tuple(self._problems()) if self._is_manager else (),
        )

    def _problems(self) -> Iterator[Problem]:
        """What nodes say of themselves and is not believed."""
        yield from self._return_paths.problems()
        yield from self._neighbours.problems()
        yield from self._server.problems()

    @property
    def leads(self) -> bool:
        """Is this node the one that leads the Swarm's managers?"""
        return bool(self._is_manager and self._node and self._cluster.leader == self._node)

    @property
    def _known_fault(self) -> str:
        return self._engine_fault or (self._cluster_fault if self._is_manager else "")

    def _fault(self, connected: bool) -> str:
        if self._known_fault or connected:
            return self._known_fault
        return self._client.fault if self._in_swarm else "this node is not in a Swarm"

    # --- this node's role ---

    async def _look_at_role(self) -> None:
        swarm: Json = (await self._engine.info()).get("Swarm") or {}
        managers = {_host(one["Addr"]): one.get("NodeID") or "" for one in swarm.get("RemoteManagers") or ()}
        managers.pop("", None)
        self._managers = managers
        self._other_managers = {a: id_ for a, id_ in managers.items() if id_ != swarm.get("NodeID")}
        self._in_swarm = bool(swarm.get("NodeID"))
        if swarm.get("NodeID", "") != self._node:
            self._node = swarm.get("NodeID", "")
            self._tell(self._merger.set_node(self._node))
            self._identify(self._node)
        is_manager = bool(swarm.get("ControlAvailable"))
        if is_manager != self._is_manager:
            self._is_manager = is_manager
            self._role_changed.set()

    async def _follow_role(self) -> None:
        while True:
            await asyncio.sleep(ROLE_SECONDS)
            await self._look_at_role()

    async def _follow_cluster(self) -> None:
        while True:
            self._role_changed.clear()
            self._cluster_fault = ""
            logger.info("docker: this node is a %s", "manager" if self._is_manager else "worker")
            await _until(self._role_changed, self._as_manager() if self._is_manager else self._client.run())

    def set_unwell(self, tasks: Mapping[str, str]) -> None:
        """All tasks of this node that do not pass their probes, with their services' ids."""
        self._watch.set_unwell(tasks)

    # --- managers ---

    async def _as_manager(self) -> None:
        self._set_fresh(False)
        self._signs.clear()
        self._neighbours.begin(self._merger.cluster.neighbours)
        self._return_paths.begin(self._merger.cluster.nodes)
        self._report_changed()
        async with asyncio.TaskGroup() as group:
            if self._hosts is not None:
                self._hosts.begin(self._merger.cluster)
                group.create_task(self._hosts.run(), name="hosts of other managers")
            group.create_task(self._cluster.run(), name="cluster poll")
            group.create_task(self._serve(), name="feed server")
            group.create_task(self._expire_signs(), name="expiry of signs")

    async def _serve(self) -> None:
        while True:
            await self._fresh.wait()
            await _until(self._stale, self._server.run())

    def _set_fresh(self, fresh: bool) -> None:
        known, unknown = (self._fresh, self._stale) if fresh else (self._stale, self._fresh)
        known.set()
        unknown.clear()
        if not fresh:
            self._cluster.list_again()

    def _read_cluster(self, view: ClusterView | None) -> None:
        self._cluster_fault, self._last_success = "", self._clock()
        self._last_news = time.monotonic()
        self._informed.set()
        if view is not None:
            if self._hosts is not None:
                view = self._hosts.lay_over(view, self._cluster.created)
            known = self._cluster.allocations
            laid = self._neighbours.lay_over(self._signs.lay_over(view), known)
            laid = self._return_paths.lay_over(laid, known)
            ours, raw = self._merger.set_cluster(laid)
            self._server.publish(raw)
            self._learned(ours, raw)
            self._set_fresh(True)

    def _cannot_read_cluster(self, fault: str) -> None:
        self._cluster_fault = fault
        if self._hosts is not None:
            self._hosts.book.lose_sight()

    def _heard_of_cluster(self) -> None:
        self._cluster.news()

    # --- reports of the nodes ---

    def _report(self) -> NodeReport:
        """Of this node."""
        watch = self._watch
        return replace(self._plain, ending=watch.ending, unwell=watch.unwell, return_path=self._return_path())

    def return_path_changed(self) -> None:
        """What `return_path` gives is not what it was."""
        self._report_changed()

    def _report_changed(self) -> None:
        self._teller.news()
        if self._is_manager:
            self._take_report(self._node, self._report())

    def _look_at_plain(self) -> None:
        """More than managers take are not reported: they would refuse it."""
        found = plain_containers(self._merger.containers.values(), self._merger.local_networks)
        fault = ""
        try:
            check_containers(found)
        except DiscoveryError as error:
            fault, found = str(error), {}
        if fault and fault != self._plain_fault:
            logger.warning("docker: other nodes do not learn of this node's: %s", fault)
        self._plain_fault = fault
        if found != self._plain.containers:
            self._plain = NodeReport(containers=found)
            self._report_changed()

    def _take_report(self, node: str, report: NodeReport) -> None:
        """Of a node whose certificate says that it is this one, or of our own."""
        self._take_laid(self._signs.report(node, report.ending, time.monotonic(), report.unwell))
        self._take_laid(self._neighbours.report(node, report.containers))
        self._take_laid(self._return_paths.report(node, report.return_path))
        if self._neighbours.unproven:
            self._cluster.look_at_all()

    async def _expire_signs(self) -> None:
        while True:
            await asyncio.sleep(EXPIRY_SECONDS)
            self._take_report(self._node, self._report())
            self._take_laid(self._signs.expire(time.monotonic()))

    def _take_laid(self, raw: Change) -> None:
        """What the nodes' words change in the view."""
        if raw:
            self._server.publish(raw)
            self._learned(self._merger.apply(raw), raw)

    # --- workers ---

    def _take_view(self, view: ClusterView) -> None:
        self._learned(*self._merger.set_cluster(view))
        self._informed.set()

    def _take_change(self, raw: Change) -> None:
        self._learned(self._merger.apply(raw), raw)

    # --- both, when nobody tells of the cluster ---

    async def _follow_gossip(self) -> None:
        """Correct the last view while there is no manager to ask."""
        while True:
            await asyncio.sleep(GOSSIP_SECONDS)
            now = time.monotonic()
            if not self._is_manager and self._client.following:
                self._last_news, self._last_success = now, self._clock()
            elif now - self._last_news >= max(ALONE_SECONDS, PATIENCE * self._cluster.read_seconds):
                self._set_fresh(False)
                await self._correct()

    async def _correct(self) -> None:
        last = self._last_news
        views = [view for id_ in self._merger.overlays_here() if (view := await self._view(id_)) is not None]
        if self._last_news == last and not self._client.following:  # still alone
            self._tell(self._merger.set_views(views))
            self._last_success = self._clock()
            self._informed.set()

    async def _view(self, id_: str) -> NetworkView | None:
        """None when this engine takes no part in it: a manager lists them all, and asks the others then."""
        try:
            json = await self._engine.network(id_, verbose=True)
        except EngineUnavailable:
            raise
        except DiscoveryError as error:
            logger.debug("docker: no gossip of network %s: %s", id_, error)
            return None
        try:
            return None if json is None else network_view(json)
        except NOT_UNDERSTOOD as error:
            ERRORS.report("Docker's JSON of a network", error)
            return None

    # --- telling ---

    def _learned(self, ours: Change, raw: Change) -> None:
        if raw:
            self._saved.changed()
        self._tell(ours)

    def _tell_of_node(self, change: Change) -> None:
        self._tell(change)
        if change.containers or change.networks:
            self._look_at_plain()

    def _tell(self, change: Change) -> None:
        if change:
            self._publish(change)


async def _until(event: asyncio.Event, work: Coroutine[Any, Any, None]) -> None:
    """Do the work until the event; what the work raises is raised."""
    async with asyncio.TaskGroup() as group:
        working = group.create_task(work)
        waiting = group.create_task(event.wait())
        await asyncio.wait((working, waiting), return_when=asyncio.FIRST_COMPLETED)
        working.cancel()
        waiting.cancel()


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first error itself, out of whatever groups it was raised through."""
    found: BaseException = errors
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found


def _host(address: str) -> str:
    """192.168.2.60:2377 → 192.168.2.60"""
    return address.rpartition(":")[0].strip("[]")
