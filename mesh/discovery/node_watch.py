"""What the engine of this node tells: its containers and networks, first listed, then event by event.

Events say what happened to whom; everything else is inspected then, one after the other. What tells that a
container ends needs no inspection and waits for none: its task leaves when the event arrives, ahead of all
that is still to be looked at.
"""

import asyncio
import signal
import time
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any

from mesh.catalog.model import Container
from mesh.catalog.snapshot import Change
from mesh.discovery.engine_client import Engine, Events
from mesh.discovery.engine_json import (
    GATEWAY_NETWORK,
    NOWHERE,
    SERVICE_LABEL,
    TASK_LABEL,
    EngineEndpoint,
    container,
    gateway_place,
)
from mesh.discovery.merge import Merger
from mesh.discovery.stopping_tasks import StoppingTasks
from mesh.discovery.swarm_json import NOT_UNDERSTOOD, network, read_each
from mesh.errors import DiscoveryError, EngineUnavailable
from mesh.internal_errors import ERRORS
from mesh.parsing import is_int, parse_int
from mesh.peers.report.codec import ENDINGS_MAX

Json = Mapping[str, Any]

LOOK_AGAIN = frozenset({"start", "unpause", "rename"})
ENDED = frozenset({"die", "destroy"})
ENDING = frozenset({"stop", "health_status: unhealthy"})  # Swarm shuts an unhealthy task down
SIFT_SECONDS = 1.0  # between two looks at what has survived
ALWAYS_FATAL = frozenset({str(signal.SIGKILL.value)})


class NodeWatch:
    """Keeps the merger's picture of this node. `on_cluster_news`: the Swarm itself has changed;
    `on_endings`: what ends here is not what it was.
    """

    def __init__(
        self,
        engine: Engine,
        merger: Merger,
        tell: Callable[[Change], None],
        on_cluster_news: Callable[[], None],
        on_endings: Callable[[], None],
    ) -> None:
        self._engine = engine
        self._merger = merger
        self._tell = tell
        self._on_cluster_news = on_cluster_news
        self._on_endings = on_endings
        self._endings = StoppingTasks()
        self._unwell: Mapping[str, str] = {}  # tasks that do not pass their probes, with their services' ids
        self._gateway_id = ""
        self._stop_signals: dict[str, frozenset[str]] = {}  # container id → signals that end it
        self._last_event: float | None = None

    @property
    def ending(self) -> Mapping[str, str]:
        """Tasks of this node that take no new work, with their services' ids. ENDINGS_MAX at most."""
        both = {**self._endings.report, **self._unwell}
        return both if len(both) <= ENDINGS_MAX else dict(islice(both.items(), ENDINGS_MAX))

    @property
    def unwell(self) -> frozenset[str]:
        """Those of `ending` that do not end, but fail their probes."""
        return frozenset(self._unwell.keys() - self._endings.report.keys())

    def set_unwell(self, tasks: Mapping[str, str]) -> None:
        """All tasks of this node that do not pass their probes, with their services' ids."""
        before, self._unwell = self._unwell, dict(tasks)
        self._endings_changed(before != self._unwell)

    async def listen(self) -> Events:
        """From the last event seen on: a short loss of the engine loses nothing that it still remembers."""
        since = time.time() if self._last_event is None else self._last_event
        events = await self._engine.events(since)
        events.at_once = self._heed_ending
        return events

    async def list(self) -> None:
        """Everything of this node, from scratch."""
        await self._list_networks()
        place = await self._gateway()
        found = [
            # what the engine cannot describe stays as it was known
            self._merger.containers.get(id_) if json is None else self._container(json, place)
            for id_, json in (await self._engine.containers()).items()
        ]
        running = {one.id: one for one in found if one is not None and one.running}
        self._stop_signals = {id_: s for id_, s in self._stop_signals.items() if id_ in running}
        for id_, one in self._merger.containers.items():
            if id_ not in running:
                self._end(one.task, one.service)
        self._tell(self._merger.set_containers(running))

    async def follow(self, events: Events) -> None:
        """Heed events until the stream ends, which raises EngineUnavailable."""
        while True:
            event = await events.next()
            if events.lost:
                events.lost = False
                await self.list()
                self._on_cluster_news()
            try:
                self._last_event = event.get("timeNano", 0) / 1e9 or self._last_event
                await self._heed(event)
            except NOT_UNDERSTOOD as error:
                ERRORS.report("Docker's event", error)

    async def sift_endings(self) -> None:
        """Take back what has survived, forget what the cluster has forgotten, until cancelled."""
        while True:
            await asyncio.sleep(SIFT_SECONDS)
            self._endings_changed(self._endings.sift(time.monotonic(), self._merger.lists))

    # --- looking ---

    async def _list_networks(self) -> None:
        found = {one.id: one for one in read_each("network", await self._engine.networks(), network)}
        self._gateway_id = next((id_ for id_, one in found.items() if one.name == GATEWAY_NETWORK), "")
        self._tell(self._merger.set_local_networks(found))

    async def _gateway(self) -> EngineEndpoint:
        """By id: for a name a manager asks the Swarm too, which may take long."""
        json = await self._engine.network(self._gateway_id) if self._gateway_id else None
        try:
            return NOWHERE if json is None else gateway_place(json)
        except NOT_UNDERSTOOD as error:
            ERRORS.report("Docker's JSON of a network", error)
            return NOWHERE

    def _container(self, json: Json, place: EngineEndpoint) -> Container | None:
        """None for one whose JSON can't be understood: it is named, and the others are what they are."""
        return next(read_each("container", (json,), lambda one: self._read(one, place)), None)

    def _read(self, json: Json, place: EngineEndpoint) -> Container:
        name = (json.get("Config") or {}).get("StopSignal") or "SIGTERM"
        self._stop_signals[json["Id"]] = ALWAYS_FATAL | {_signal_number(name)}
        return container(json, place)

    async def _look_at(self, id_: str) -> None:
        """One container that started or changed."""
        try:
            json = await self._engine.container(id_)
        except EngineUnavailable:
            raise
        except DiscoveryError:  # about this one: listed, it is named, and the others are heeded
            await self.list()
        else:
            found = None if json is None else self._container(json, await self._gateway())
            self._put(id_, found if found is not None and found.running else None)

    def _put(self, id_: str, found: Container | None) -> None:
        if found is None and (known := self._merger.containers.get(id_)) is not None:
            self._end(known.task, known.service)
        self._tell(self._merger.put_container(id_, found))

    # --- events ---

    async def _heed(self, event: Json) -> None:
        kind = event.get("Type")
        if event.get("scope") == "swarm":
            self._on_cluster_news()
        elif kind == "container":
            await self._heed_container(event)
        elif kind == "network":
            await self._heed_network(event)

    async def _heed_container(self, event: Json) -> None:
        action, id_, _ = _told(event)
        self._heed_ending(event)  # again: a container that had only just started has been looked at meanwhile
        if action in LOOK_AGAIN:
            await self._look_at(id_)
        elif action in ENDED:
            self._stop_signals.pop(id_, None)
            self._put(id_, None)

    async def _heed_network(self, event: Json) -> None:
        action, network_id, attributes = _told(event)
        if action in ("create", "destroy"):
            await self._list_networks()
        elif action in ("connect", "disconnect"):
            id_ = attributes.get("container", "")
            if network_id not in self._merger.known_networks:
                await self._list_networks()
            if id_ in self._stop_signals:  # one that runs; a starting one is looked at when it has started
                await self._look_at(id_)

    # --- endings ---

    def _heed_ending(self, event: Json) -> None:
        """On arrival, whatever is looked at meanwhile; it is idempotent."""
        if event.get("Type") != "container":
            return
        action, id_, attributes = _told(event)
        task, service = attributes.get(TASK_LABEL, ""), attributes.get(SERVICE_LABEL, "")
        if action in ENDED:
            self._end(task, service)
        elif action in ENDING or (action == "kill" and self._ends(id_, str(attributes.get("signal", "")))):
            self._begin_to_end(task, service)

    def _end(self, task: str, service: str) -> None:
        if task and service:
            self._endings_changed(self._endings.end(task, service, time.monotonic()))

    def _begin_to_end(self, task: str, service: str) -> None:
        if task and service:
            self._endings_changed(self._endings.begin(task, service, time.monotonic()))

    def _endings_changed(self, changed: bool) -> None:
        if changed:
            self._on_endings()
            self._tell(self._merger.set_leaving(self.ending, self.unwell))

    def _ends(self, id_: str, number: str) -> bool:
        """Is it a signal that ends this container? Others (HUP, USR1) only talk to it."""
        return number in self._stop_signals.get(id_, ALWAYS_FATAL)


def _told(event: Json) -> tuple[str, str, Json]:
    """What happened, to whom (id), and the attributes."""
    actor = event.get("Actor") or {}
    return event.get("Action", ""), actor.get("ID", ""), actor.get("Attributes") or {}


SIGNAL_MAX = 64  # SIGRTMAX
DEFAULT_SIGNAL = "15"  # SIGTERM


def _signal_number(name: str) -> str:
    """SIGQUIT, QUIT or 3 → "3", as events have it."""
    if is_int(name):
        return str(parse_int(name, 0, SIGNAL_MAX)) if is_int(name, 0, SIGNAL_MAX) else DEFAULT_SIGNAL
    full = name.upper() if name.upper().startswith("SIG") else f"SIG{name.upper()}"
    return str(signal.Signals[full].value) if full in signal.Signals.__members__ else DEFAULT_SIGNAL
