"""Entry points in several processes: this one's part of it. The others have copies of the catalogue.

A port has one listening socket that all accept from, as relayed ports have (`relay_workers`). What workers
have counted is added to what this process has; what one had when it ended is kept, but for its last second.
"""

import asyncio
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

from mesh.balance.policies import Endpoint
from mesh.catalog.snapshot import Change, Snapshot
from mesh.catalog.store import Store
from mesh.http.stats import ServiceStats
from mesh.net.tasks import Tasks
from sidecar.http_orders import Begin, Done, Learn, Listen, Seen, Shut, Told
from sidecar.workers.legacy import PickledMessages
from sidecar.workers.supervisor import Kind, Order, Workers

LATE_SECONDS = 1.0  # that a worker's word of its end may need, after the drain's time


class HttpWorkers:
    """`others` processes. `start` once; `close` drains them, `end` ends them."""

    def __init__(self, others: int, begin: Begin, tasks: Tasks, store: Store) -> None:
        self._begin = begin
        self._store = store
        self._listeners: list[tuple[str, socket.socket]] = []
        self._now: dict[int, Told] = {}  # by worker
        self._past = Told({}, {})
        self._draining: set[int] = set()
        self._drained = asyncio.Event()
        self._closing = False
        self._workers = Workers(
            Kind("HTTP", "sidecar.http_worker", PickledMessages(), PickledMessages()),
            others,
            tasks,
            everything=self._everything,
            on_message=self._hear,
            ended=self._ended,
        )

    def start(self) -> None:
        self._store.subscribe(self._learn, "http-workers")
        self._workers.start()

    def opened(self, name: str, listener: socket.socket) -> None:
        """An entry point's socket, for all of them."""
        self._listeners.append((name, listener))
        self._workers.tell(Listen(name), (listener,))

    def forget(self, service: str) -> None:
        """It is no more."""
        for told in (self._past, *self._now.values()):
            told.stats.pop(service, None)
        passed = {key: count for key, count in self._past.passed.items() if key[0] != service}
        self._past = replace(self._past, passed=passed)

    async def close(self, drain_seconds: float) -> None:
        """All drain at the same time."""
        self._closing = True
        self._draining = set(self._workers.running)
        self._workers.tell(Shut(drain_seconds))
        if self._draining:
            with suppress(TimeoutError):
                async with asyncio.timeout(drain_seconds + LATE_SECONDS):
                    await self._drained.wait()

    async def end(self) -> None:
        await self._workers.close()

    # --- telling ---

    def stats(self) -> Iterator[tuple[str, ServiceStats]]:
        """Of each worker, and of those that are gone."""
        for told in (self._past, *self._now.values()):
            yield from told.stats.items()

    def seen(self, http: str, endpoint: Endpoint) -> list[Seen]:
        """An endpoint of an HTTP service, as those have it who have anything to say of it."""
        found = (told.seen.get((http, endpoint)) for told in self._now.values())
        return [one for one in found if one is not None]

    def tunnels(self) -> Counter[tuple[str, ...]]:
        return sum((Counter(one.tunnels) for one in self._now.values()), Counter(self._past.tunnels))

    def targets_refused(self) -> Counter[str]:
        return sum((Counter(one.refused) for one in self._now.values()), Counter(self._past.refused))

    def passed(self) -> Counter[tuple[str, str]]:
        return sum((Counter(one.passed) for one in self._now.values()), Counter(self._past.passed))

    # --- workers ---

    def _learn(self, _old: Snapshot, new: Snapshot, change: Change) -> None:
        self._workers.tell(Learn(new.this_node, change))

    def _everything(self, _worker: int) -> Iterator[Order]:
        now = self._store.current
        yield self._begin, ()
        yield Learn(now.this_node, now.as_change()), ()
        if not self._closing:
            for name, listener in self._listeners:
                yield Listen(name), (listener,)

    def _hear(self, worker: int, told: object, _: tuple[socket.socket, ...]) -> None:
        last = told.last if isinstance(told, Done) else told
        assert isinstance(last, Told)
        before = self._now.get(worker, Told({}, {}))
        known = self._store.current.services
        stats = {id_: one for id_, one in {**before.stats, **last.stats}.items() if not id_ or id_ in known}
        self._now[worker] = replace(last, stats=stats)
        if isinstance(told, Done):
            self._left(worker)

    def _ended(self, worker: int) -> None:
        last = self._now.pop(worker, Told({}, {}))
        stats = dict(self._past.stats)
        for id_, one in last.stats.items():
            stats[id_] = stats[id_] + one if id_ in stats else one
        self._past = Told(
            stats,
            {},
            dict(Counter(self._past.tunnels) + Counter(last.tunnels)),
            dict(Counter(self._past.passed) + Counter(last.passed)),
            dict(Counter(self._past.refused) + Counter(last.refused)),
        )
        self._left(worker)

    def _left(self, worker: int) -> None:
        self._draining.discard(worker)
        if self._closing and not self._draining:
            self._drained.set()
