"""The catalogue from Docker: this node's engine, and the cluster from its API (managers) or a feed (workers).

    engine events ──▶ this node's containers ──┐
    manager: API, polled, and its events ──────┤──▶ merge ──▶ publish; managers also serve it as the feed
    worker: feed of any manager's sidecar ─────┘
    worker without any manager: gossip of its engine ──▶ corrects the last view

Swarm has no events for tasks (moby#37403), so a manager's task list is polled; all else is told by events,
and listed again now and then, because events can be lost. When the engine cannot be reached, or its stream
ends, the whole session begins anew, and what is known stays in force meanwhile.
"""

import asyncio
import logging
import signal
import time
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any

from mesh.catalog.model import Container
from mesh.catalog.snapshot import Change, Snapshot
from mesh.discovery.client import EngineClient, Events
from mesh.discovery.engine import GATEWAY_NETWORK, NOWHERE, Place, container, gateway_place, network_view
from mesh.discovery.feed_client import FeedClient
from mesh.discovery.feed_server import FeedServer
from mesh.discovery.merge import Merger
from mesh.discovery.saved import SavedView
from mesh.discovery.source import SourceStatus
from mesh.discovery.swarm import ClusterView, cluster, network
from mesh.errors import DiscoveryError, EngineUnavailable

Json = Mapping[str, Any]

TASKS_SECONDS = 0.5  # between two looks at a manager's tasks
CLUSTER_SECONDS = 5.0  # after which services, networks and nodes are listed although no event came
ROLE_SECONDS = 1.0  # between two looks at this node's role and its managers
ALONE_SECONDS = 5.0  # without a manager, after which the engine's gossip corrects the last view
GOSSIP_SECONDS = 1.0  # between two looks at it
FIRST_RETRY, LAST_RETRY = 0.5, 10.0  # seconds before a new session with the engine

RUNNING_AGAIN = frozenset({"start", "unpause"})
ENDED = frozenset({"die", "destroy"})
ALWAYS_FATAL = frozenset({str(signal.SIGKILL.value)})

logger = logging.getLogger(__name__)


class DockerSource:
    """Publishes until cancelled. The caller owns `engine`; server and client of the feed are made here."""

    kind = "docker"

    def __init__(
        self,
        engine: EngineClient,
        publish: Callable[[Change], Snapshot],
        make_server: Callable[[Callable[[], ClusterView]], FeedServer],
        make_client: Callable[..., FeedClient],
        state_dir: str,
        identify: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._engine = engine
        self._publish = publish
        self._merger = Merger()
        self._saved = SavedView(state_dir, lambda: self._merger.cluster)
        self._server = make_server(lambda: self._merger.cluster)
        self._client = make_client(lambda: self._managers, self._take_view, self._take_change)
        self._identify = identify
        self._clock = clock
        self._node = ""
        self._is_manager = False
        self._role_known = False
        self._managers: tuple[str, ...] = ()
        self._role_changed = asyncio.Event()
        self._cluster_news = asyncio.Event()
        self._stop_signals: dict[str, frozenset[str]] = {}
        self._seen_tasks: object = None
        self._last_success: float | None = None
        self._last_contact = time.monotonic()
        self._error = "not connected yet"

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
            try:
                await self._session()
            except* DiscoveryError as errors:
                self._error = str(errors.exceptions[0])
                logger.error("docker: %s", self._error)
            pause = FIRST_RETRY if time.monotonic() - started > LAST_RETRY else min(LAST_RETRY, pause * 2)
            await asyncio.sleep(pause)

    async def _session(self) -> None:
        """Until the engine is lost."""
        events = self._engine.events()  # before the lists: what happens meanwhile is not missed
        await self._look_at_role()
        await self._list_node()
        async with asyncio.TaskGroup() as group:
            for work in (self._follow_events(events), self._follow_role(), self._follow_cluster()):
                group.create_task(work)

    def status(self) -> SourceStatus:
        role = ("manager" if self._is_manager else "worker") if self._role_known else ""
        following = "" if self._is_manager else self._client.following
        connected = not self._error and (self._is_manager or bool(following))
        return SourceStatus(
            kind=self.kind,
            role=role,
            connected=connected,
            last_success=self._clock() if following else self._last_success,
            last_error=self._error or ("" if connected else self._client.fault),
            feed_following=following,
            feed_serving=self._is_manager and self._server.serving,
            feed_clients=self._server.clients,
            feed_refused=self._server.refused.total(),
            feed_error=self._server.fault if self._is_manager else self._client.fault,
        )

    # --- this node ---

    async def _look_at_role(self) -> None:
        swarm: Json = (await self._engine.info()).get("Swarm") or {}
        managers = swarm.get("RemoteManagers") or ()
        self._managers = tuple(_host(one["Addr"]) for one in managers if one.get("Addr"))
        if swarm.get("NodeID", "") != self._node:
            self._node = swarm.get("NodeID", "")
            self._identify(self._node)
        is_manager = bool(swarm.get("ControlAvailable"))
        if is_manager != self._is_manager or not self._role_known:
            self._is_manager, self._role_known = is_manager, True
            self._role_changed.set()

    async def _follow_role(self) -> None:
        while True:
            await asyncio.sleep(ROLE_SECONDS)
            await self._look_at_role()

    async def _list_node(self) -> None:
        """Everything of this node, from scratch."""
        await self._list_networks()
        place = await self._gateway()
        found = [self._container(one, place) for one in await self._engine.containers()]
        self._tell(self._merger.set_containers({one.id: one for one in found}))
        self._stop_signals = {id_: s for id_, s in self._stop_signals.items() if id_ in {c.id for c in found}}
        self._error = ""

    async def _list_networks(self) -> None:
        found = [network(one) for one in await self._engine.networks()]
        self._tell(self._merger.set_local_networks({one.id: one for one in found}))

    async def _gateway(self) -> Place:
        json = await self._engine.network(GATEWAY_NETWORK)
        return NOWHERE if json is None else gateway_place(json)

    def _container(self, json: Json, place: Place) -> Container:
        name = (json.get("Config") or {}).get("StopSignal") or "SIGTERM"
        self._stop_signals[json["Id"]] = ALWAYS_FATAL | {_signal_number(name)}
        return container(json, place)

    async def _look_at(self, id_: str) -> None:
        """One container that started or changed."""
        json = await self._engine.container(id_)
        found = None if json is None else self._container(json, await self._gateway())
        self._tell(self._merger.put_container(id_, found if found is not None and found.running else None))

    # --- events ---

    async def _follow_events(self, events: Events) -> None:
        while True:
            event = await events.next()
            if events.lost:
                events.lost = False
                await self._list_node()
            await self._heed(event)

    async def _heed(self, event: Json) -> None:
        kind, action, actor = event.get("Type"), event.get("Action", ""), event.get("Actor") or {}
        if event.get("scope") == "swarm":
            self._cluster_news.set()
        elif kind == "container":
            await self._heed_container(action, actor)
        elif kind == "network":
            await self._heed_network(action, actor)

    async def _heed_container(self, action: str, actor: Json) -> None:
        id_, attributes = actor.get("ID", ""), actor.get("Attributes") or {}
        if action in RUNNING_AGAIN:
            await self._look_at(id_)
        elif action in ENDED:
            self._stop_signals.pop(id_, None)
            self._tell(self._merger.put_container(id_, None))
        elif action == "stop" or (action == "kill" and self._ends(id_, str(attributes.get("signal", "")))):
            self._tell(self._merger.leaving(id_, attributes.get("com.docker.swarm.task.id", "")))

    def _ends(self, id_: str, number: str) -> bool:
        """Is it a signal that ends this container? Others (HUP, USR1) only talk to it."""
        return number in self._stop_signals.get(id_, ALWAYS_FATAL)

    async def _heed_network(self, action: str, actor: Json) -> None:
        if action in ("create", "destroy"):
            await self._list_networks()
        elif action in ("connect", "disconnect"):
            id_ = (actor.get("Attributes") or {}).get("container", "")
            if actor.get("ID") not in self._merger.known_networks:
                await self._list_networks()
            if id_ in self._stop_signals:  # one that runs; a starting one is looked at when it has started
                await self._look_at(id_)

    # --- the cluster, by role ---

    async def _follow_cluster(self) -> None:
        while True:
            self._role_changed.clear()
            logger.info("docker: this node is a %s", "manager" if self._is_manager else "worker")
            work = self._as_manager() if self._is_manager else self._as_worker()
            await _until(self._role_changed, work)

    async def _as_manager(self) -> None:
        self._tell(self._merger.set_views(()))
        self._seen_tasks = None
        async with asyncio.TaskGroup() as group:
            group.create_task(self._server.run(), name="feed server")
            group.create_task(self._poll(), name="cluster poll")

    async def _poll(self) -> None:
        listed = 0.0
        while True:
            now = time.monotonic()
            news = self._cluster_news.is_set() or now - listed >= CLUSTER_SECONDS
            self._cluster_news.clear()
            try:
                view = await self._engine.cluster(partial(self._read, everything=news))
            except EngineUnavailable:
                raise
            except DiscoveryError as error:  # no quorum, or just demoted: the role will tell
                self._error = str(error)
            else:
                listed = now if view is not None else listed
                self._taken(view)
            try:
                async with asyncio.timeout(TASKS_SECONDS):
                    await self._cluster_news.wait()
            except TimeoutError:
                pass

    def _read(self, api: Any, everything: bool) -> ClusterView | None:
        """On a thread: the cluster, or None when nothing can have changed."""
        tasks = api.tasks()
        seen = {(one["ID"], one["Version"]["Index"]) for one in tasks}
        if not everything and seen == self._seen_tasks:
            return None
        self._seen_tasks = seen
        return cluster(api.nodes(), api.networks(), api.services(), tasks)

    def _taken(self, view: ClusterView | None) -> None:
        self._error, self._last_success = "", self._clock()
        if view is not None:
            ours, raw = self._merger.set_cluster(view)
            self._server.publish(raw)
            self._learned(ours, raw)

    async def _as_worker(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._client.run(), name="feed client")
            group.create_task(self._gossip(), name="gossip")

    def _take_view(self, view: ClusterView) -> None:
        self._tell(self._merger.set_views(()))
        self._learned(*self._merger.set_cluster(view))

    def _take_change(self, raw: Change) -> None:
        self._learned(self._merger.apply(raw), raw)

    def _learned(self, ours: Change, raw: Change) -> None:
        if raw:
            self._saved.changed()
        self._tell(ours)

    async def _gossip(self) -> None:
        """Correct the last view while there is no manager."""
        last = time.monotonic()
        while True:
            await asyncio.sleep(GOSSIP_SECONDS)
            now = time.monotonic()
            if self._client.following:
                last, self._last_success = now, self._clock()
            elif now - last >= ALONE_SECONDS:
                await self._correct()

    async def _correct(self) -> None:
        ids = self._merger.overlays_here()
        found = [await self._engine.network(id_, verbose=True) for id_ in ids]
        views = [network_view(json) for json in found if json is not None]
        if not self._client.following:
            self._tell(self._merger.set_views(views))
            self._last_success = self._clock()

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


def _host(address: str) -> str:
    """192.168.2.60:2377 → 192.168.2.60"""
    return address.rpartition(":")[0].strip("[]")


def _signal_number(name: str) -> str:
    """SIGQUIT, QUIT or 3 → "3", as events have it."""
    if name.isdecimal():
        return name
    full = name.upper() if name.upper().startswith("SIG") else f"SIG{name.upper()}"
    return str(signal.Signals[full].value) if full in signal.Signals.__members__ else "15"
