"""The sidecar's side of its DNS workers: what a new one is told, and what all are.

The sidecar itself answers on every port in any case, so nothing waits for a worker; between its end and the
kernel's noticing there is nothing, since its sockets close with it.
"""

import socket
from collections.abc import Callable, Iterator

from mesh.catalog.model import Container
from mesh.catalog.snapshot import Change, Snapshot
from mesh.catalog.store import Store
from mesh.dns.config import DnsConfig
from mesh.dns.node_listener import ExplicitResolver
from mesh.dns.stats import Counts
from mesh.kernel.rulesets import DnsPorts
from mesh.net.tasks import Tasks
from sidecar.config import Log
from sidecar.workers.dns_messages import TELLS, TOLD, BeginDns, Counted, Join, LearnDns, Leave
from sidecar.workers.supervisor import Kind, Order, Workers

KIND = Kind("DNS", "sidecar.processes.dns", TOLD, TELLS)


class DnsWorkers:
    """`count` processes beside this one. `start` once, subscribe `update` with `restart`, `close` at last."""

    def __init__(
        self,
        count: int,
        dns: DnsConfig,
        log: Log,
        store: Store,
        tasks: Tasks,
        counted: Callable[[Counts], None],
    ) -> None:
        self._dns, self._log = dns, log
        self._counted = counted
        self._learned = store.current  # what workers are told of the catalogue: without what is in quarantine
        self._listen: tuple[tuple[str, int], ...] = ()
        self._joined: dict[str, DnsPorts] = {}
        self._workers = Workers(
            KIND, count, tasks, everything=self._initial_messages, on_message=self._on_message
        )

    def start(self, explicit: ExplicitResolver) -> None:
        """Begin, on the addresses that `explicit` has or waits for."""
        self._listen = tuple(
            (place.host, place.bound[1] if place.bound else place.port) for place in explicit.places
        )
        self._workers.start()

    def update(self, _old: Snapshot, new: Snapshot, change: Change) -> None:
        """The catalogue's subscriber."""
        self._workers.tell(LearnDns.of(change))
        self._learned = new

    def restart(self, snapshot: Snapshot) -> None:
        """Some workers may know what others do not: all forget what they know, and take this."""
        self._workers.tell(LearnDns.all_of(snapshot))
        self._learned = snapshot

    def join(self, container: Container, ports: DnsPorts) -> None:
        """A captured container's port is open."""
        self._joined[container.id] = ports
        self._workers.tell(Join(container.id, ports))

    def leave(self, container: str) -> None:
        if self._joined.pop(container, None) is not None:
            self._workers.tell(Leave(container))

    async def close(self) -> None:
        """End all of them."""
        await self._workers.close()

    def _initial_messages(self, _: int) -> Iterator[Order]:
        yield BeginDns(self._dns, self._listen, self._log.level, self._log.format), ()
        yield LearnDns.all_of(self._learned), ()
        for id_, ports in self._joined.items():
            yield Join(id_, ports), ()

    def _on_message(self, _: int, message: object, _sockets: tuple[socket.socket, ...]) -> None:
        assert isinstance(message, Counted)
        self._counted(message.counts)
