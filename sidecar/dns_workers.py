"""The sidecar's side of its DNS workers: started, told everything, started again when they end.

A worker that cannot keep up with the catalogue (`BEHIND_MAX`) or ends is replaced by a new one, which begins
with the catalogue as it is then. The sidecar itself answers on every port in any case, so nothing waits for a
worker; between its end and the kernel's noticing there is nothing, since its sockets close with it.
"""

import asyncio
import logging
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress

from mesh.catalog.model import Container
from mesh.catalog.snapshot import Change, Snapshot
from mesh.catalog.store import Store
from mesh.dns.config import DnsConfig
from mesh.dns.explicit import ExplicitResolver
from mesh.dns.stats import Counts
from mesh.kernel.rules import DnsPorts
from mesh.net.tasks import Tasks
from sidecar.config import Log
from sidecar.dns_orders import Begin, Join, Learn, Leave, Order, packed, unpacked

BEHIND_MAX = 64 * 1024 * 1024  # bytes of orders that a worker may leave unread; a large catalogue is 10 MB
RETRY_SECONDS = 1.0  # before a worker that ended is replaced
STOP_SECONDS = 2.0  # for a worker to end by itself

logger = logging.getLogger(__name__)


class DnsWorkers:
    """`count` processes beside this one. `start` once, subscribe `update`, `close` at the end."""

    def __init__(
        self,
        count: int,
        dns: DnsConfig,
        log: Log,
        store: Store,
        tasks: Tasks,
        counted: Callable[[Counts], None],
    ) -> None:
        self._count, self._dns, self._log = count, dns, log
        self._store, self._tasks, self._counted = store, tasks, counted
        self._listen: tuple[tuple[str, int], ...] = ()
        self._joined: dict[str, DnsPorts] = {}
        self._writers: set[asyncio.StreamWriter] = set()
        self._running: list[asyncio.Task[None]] = []

    @property
    def running(self) -> int:
        return len(self._writers)

    def start(self, explicit: ExplicitResolver) -> None:
        """Begin, on the addresses that `explicit` has or waits for."""
        self._listen = tuple(
            (place.host, place.bound[1] if place.bound else place.port) for place in explicit.places
        )
        self._running = [
            self._tasks.start(self._keep(number), f"dns-worker-{number}") for number in range(self._count)
        ]

    def update(self, _old: Snapshot, _new: Snapshot, change: Change) -> None:
        """The catalogue's subscriber."""
        self._tell(Learn(change))

    def join(self, container: Container, ports: DnsPorts) -> None:
        """A captured container's port is open."""
        self._joined[container.id] = ports
        self._tell(Join(container.id, ports))

    def leave(self, container: str) -> None:
        if self._joined.pop(container, None) is not None:
            self._tell(Leave(container))

    async def close(self) -> None:
        """End all of them."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def _tell(self, order: Order) -> None:
        if not self._writers:
            return
        message = packed(order)
        for writer in self._writers:
            writer.write(message)
            if writer.transport.get_write_buffer_size() > BEHIND_MAX:
                logger.error("a DNS worker does not keep up with the catalogue; it is replaced")
                writer.transport.abort()

    async def _keep(self, number: int) -> None:
        while True:
            status = await self._run()
            logger.error("DNS worker %d ended with status %s; another one is started", number, status)
            await asyncio.sleep(RETRY_SECONDS)

    async def _run(self) -> int | None:
        ours, theirs = socket.socketpair()
        with theirs:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "sidecar.dns_worker", str(theirs.fileno()), pass_fds=(theirs.fileno(),)
            )
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        try:
            for order in self._everything():
                writer.write(packed(order))
            self._writers.add(writer)
            await self._hear(reader)
        finally:
            self._writers.discard(writer)
            writer.transport.abort()
            await self._ended(process)
        return process.returncode

    def _everything(self) -> list[Order]:
        """What a new worker needs to know. What comes later is told to it like to the others."""
        now = self._store.current
        whole = Change(now.nodes, now.networks, now.services, now.containers, now.askers, now.neighbours)
        begin = Begin(self._dns, self._listen, self._log.level, self._log.format)
        return [begin, Learn(whole), *(Join(id_, ports) for id_, ports in self._joined.items())]

    async def _hear(self, reader: asyncio.StreamReader) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while isinstance(counts := await unpacked(reader), Counts):
                self._counted(counts)

    async def _ended(self, process: asyncio.subprocess.Process) -> None:
        """It ends when it sees that the pair has; one that does not is killed."""
        try:
            await asyncio.wait_for(process.wait(), STOP_SECONDS)
        except TimeoutError:
            process.send_signal(signal.SIGKILL)
            await process.wait()
