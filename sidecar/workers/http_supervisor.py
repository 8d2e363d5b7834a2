"""The sidecar's side of the processes that serve HTTP. They start with the first port or entry point.

A port has one listening socket that all accept from (`shared_ports` says why). What they have counted is
added up; what one had when it ended is kept, but for its last second.
"""

import asyncio
import socket
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace

from mesh.balance.health_state import Result
from mesh.balance.policies import Endpoint
from mesh.catalog.snapshot import Change, Snapshot
from mesh.catalog.store import Store
from mesh.http.stats import ServiceStats
from mesh.http.tls.certificate_store import KeyPair
from mesh.net.tasks import Tasks
from mesh.peers.tunnel.client import Tunnels
from sidecar.config import Http, Log
from sidecar.workers.http_messages import (
    TELLS,
    TOLD,
    AcmeProof,
    BeginHttp,
    Cut,
    Dial,
    Done,
    EndpointSeen,
    Here,
    HttpReport,
    HttpSettings,
    KeyPairs,
    LearnHttp,
    Listen,
    ShutAll,
)
from sidecar.workers.port_messages import Ended, PortsReport
from sidecar.workers.privileges import Restriction
from sidecar.workers.shared_ports import SharedPorts, known_reasons
from sidecar.workers.socket_broker import Brokers, PathOf
from sidecar.workers.supervisor import Kind, Order, Workers
from sidecar.workers.tunnel_broker import TunnelBroker

LATE_SECONDS = 1.0  # that a process's word of its end may need, after the drain's time
CHECKED = frozenset(Result)
MIRRORED = frozenset({"answered", "failed", "no_endpoint", "upgrade", "body", "full"})
REFUSED_MAX = 32  # reasons for which targets are refused; there are fewer than ten


@dataclass(slots=True)
class _Told:
    """What a process has reported, in all."""

    stats: dict[str, ServiceStats] = field(default_factory=dict)  # by service id
    seen: dict[tuple[str, Endpoint], EndpointSeen] = field(default_factory=dict)
    passed: Counter[tuple[str, str]] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)


class HttpSupervisor:
    """`path_of`: see `socket_broker`; None: processes make sockets themselves, in our namespace. `start` when
    `networks_here` is known; `close` drains the entry points, `end` ends the processes."""

    def __init__(
        self,
        config: Http,
        log: Log,
        tasks: Tasks,
        store: Store,
        restriction: Restriction,
        path_of: PathOf | None,
    ) -> None:
        self._begin = BeginHttp(HttpSettings.of(config), log.level, log.format)
        self._with_entries = bool(config.entrypoints)
        self._store, self._tasks = store, tasks
        self._learned = Snapshot()  # what processes are told of the catalogue: without what is in quarantine
        self._listeners: list[tuple[str, socket.socket]] = []
        self._pairs, self._proof = KeyPairs({}), AcmeProof("")
        self._here = Here((), False)
        self._tunnels: TunnelBroker | None = None
        self._now: dict[int, _Told] = {}  # by process
        self._past = _Told()
        self._draining: set[int] = set()
        self._drained = asyncio.Event()
        self._closing = False
        self.ports = SharedPorts(lambda: self.workers)
        self.workers = Workers(
            Kind("HTTP", "sidecar.processes.http", TOLD, TELLS, restriction),
            config.workers,
            tasks,
            everything=self._initial_messages,
            on_message=self._on_message,
            ended=self._on_ended,
        )
        self._brokers = Brokers(tasks, path_of, self.workers.end) if path_of is not None else None
        if self._with_entries:
            store.subscribe(self._learn, "http-workers", self._learn_anew, begin=True)

    # --- what they are told ---

    def lead_through(self, tunnels: Tunnels) -> None:
        """Other nodes are asked for what is not on this one."""
        self._tunnels = TunnelBroker(self._tasks, tunnels, self.workers.tell_one)

    def set_here(self, networks: frozenset[str], *, as_published: bool) -> None:
        here = Here(tuple(sorted(networks)), as_published)
        if here != self._here:
            self._here = here
            self.workers.tell(here)

    def set_certificates(self, pairs: Mapping[str, KeyPair]) -> None:
        told = KeyPairs(
            {file: (one.chain.decode("latin-1"), one.key.decode("latin-1")) for file, one in pairs.items()}
        )
        if told != self._pairs:
            self._pairs = told
            self.workers.tell(told)

    def set_thumbprint(self, thumbprint: str) -> None:
        if thumbprint != self._proof.thumbprint:
            self._proof = AcmeProof(thumbprint)
            self.workers.tell(self._proof)

    def opened(self, name: str, listener: socket.socket) -> None:
        """An entry point's socket, for all of them."""
        self.workers.start()
        self._listeners.append((name, listener))
        self.workers.tell(Listen(name), (listener,))

    def forget(self, service: str) -> None:
        """It is no more."""
        for told in (self._past, *self._now.values()):
            told.stats.pop(service, None)
            for key in [key for key in told.passed if key[0] == service]:
                del told.passed[key]

    async def close(self, drain_seconds: float) -> None:
        """All drain at the same time."""
        self._closing = True
        self._draining = set(self.workers.running)
        self.workers.tell(ShutAll(drain_seconds))
        if self._draining:
            with suppress(TimeoutError):
                async with asyncio.timeout(drain_seconds + LATE_SECONDS):
                    await self._drained.wait()

    async def end(self) -> None:
        await self.workers.close()

    # --- what they have told ---

    def stats(self) -> Iterator[tuple[str, ServiceStats]]:
        """Of each process, and of those that are gone."""
        for told in self._all():
            yield from told.stats.items()

    def seen(self, http: str, endpoint: Endpoint) -> list[EndpointSeen]:
        """An endpoint of an HTTP service, as those have it who have anything to say of it."""
        found = (told.seen.get((http, endpoint)) for told in self._now.values())
        return [one for one in found if one is not None]

    def targets_refused(self) -> Counter[str]:
        return sum((one.refused for one in self._all()), Counter[str]())

    def passed(self) -> Counter[tuple[str, str]]:
        return sum((one.passed for one in self._all()), Counter[tuple[str, str]]())

    def _all(self) -> tuple[_Told, ...]:
        return self._past, *self._now.values()

    # --- processes ---

    def _learn(self, _old: Snapshot, new: Snapshot, change: Change) -> None:
        if change.networks or change.services:
            self.workers.tell(LearnHttp(new.this_node, dict(change.networks), dict(change.services)))
        self._learned = new

    def _learn_anew(self, snapshot: Snapshot) -> None:
        """Some processes may know what others don't: all forget what they know, and take this."""
        self.workers.tell(LearnHttp.all_of(snapshot))
        self._learned = snapshot

    def _initial_messages(self, number: int) -> Iterator[Order]:
        if self._brokers is None:
            yield self._begin, ()
        else:
            with self._brokers.begin(number) as theirs:
                yield self._begin, (theirs,)
        yield self._here, ()
        if self._with_entries:
            yield LearnHttp.all_of(replace(self._learned, this_node=self._store.current.this_node)), ()
        yield self._pairs, ()
        yield self._proof, ()
        if not self._closing:
            for name, listener in self._listeners:
                yield Listen(name), (listener,)
        yield from self.ports.initial_messages(number)

    def _on_message(self, number: int, message: object, sockets: tuple[socket.socket, ...]) -> None:
        if self._tunnels is not None and isinstance(message, Dial):
            self._tunnels.on_dial(number, message, sockets)
            return
        if self._tunnels is not None and isinstance(message, Cut):
            self._tunnels.on_cut(number, message, sockets)
            return
        for one in sockets:
            one.close()
        if isinstance(message, PortsReport | Ended):
            self.ports.on_message(number, message)
        elif isinstance(message, HttpReport):
            self._on_report(number, message)
        elif isinstance(message, Done):
            self._on_report(number, message.last)
            self._on_left(number)

    def _on_report(self, number: int, report: HttpReport) -> None:
        """Of services that there are: what else it says is of ones that have just gone, or made up."""
        told, known = self._now.setdefault(number, _Told()), self._store.current.services
        for one in report.stats:
            if not one.service or one.service in known:
                told.stats[one.service] = _plausible(one.stats)
        told.seen = {(one.http, one.endpoint): one.seen for one in report.seen}
        told.passed = Counter()
        for service, result, count in report.passed:
            if service in known:
                told.passed[service, next(iter(_passed_result(result)))] += count
        told.refused = Counter(report.refused)

    def _on_ended(self, number: int) -> None:
        if self._brokers is not None:
            self._brokers.end(number)
        self.ports.ended(number)
        last = self._now.pop(number, _Told())
        stats = self._past.stats
        for id_, one in last.stats.items():
            stats[id_] = stats[id_] + one if id_ in stats else one
        self._past.passed += last.passed
        self._past.refused = Counter(dict((self._past.refused + last.refused).most_common(REFUSED_MAX)))
        self._on_left(number)

    def _on_left(self, number: int) -> None:
        self._draining.discard(number)
        if self._closing and not self._draining:
            self._drained.set()


def _plausible(stats: ServiceStats) -> ServiceStats:
    """With names that there are: a metric has a bounded number of them, whatever a process says."""
    stats.faults = known_reasons(stats.faults)
    stats.checks = _known(stats.checks, CHECKED)
    stats.mirrored = _known(stats.mirrored, MIRRORED)
    return stats


def _known(counted: Mapping[str, int], names: frozenset[str]) -> Counter[str]:
    found = Counter[str]()
    for name, number in counted.items():
        found[name if name in names else "other"] += number
    return found


def _passed_result(result: str) -> Counter[str]:
    return Counter({"relayed": 1}) if result == "relayed" else known_reasons({result: 1})
