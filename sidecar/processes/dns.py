"""A process that answers DNS beside the sidecar (`dns.workers`).

The kernel spreads queries over all UDP sockets that share a port (SO_REUSEPORT), so a worker needs no
go-between: it opens its own sockets where the sidecar tells it to, and has a copy of the catalogue and a
cache of its own. TCP stays with the sidecar. Once a second it tells what it has counted.
"""

import asyncio
import logging
import socket
import sys

from mesh.catalog.store import Store
from mesh.dns.node_listener import ExplicitResolver, Sharing
from mesh.dns.resolver import Resolver
from mesh.dns.udp_server import DnsEndpoint
from mesh.errors import KernelError
from mesh.net.tasks import Tasks
from sidecar.wiring.container_dns import CapturedEndpoints
from sidecar.workers.channel import Channel
from sidecar.workers.dns_messages import TELLS, TOLD, BeginDns, Counted, Join, LearnDns, Leave
from sidecar.workers.worker_main import later, main, on_task_failed

COUNTS_SECONDS = 1.0

logger = logging.getLogger(__name__)


class DnsWorker:
    """Its sidecar is at the other end of the channel."""

    def __init__(self, begin: BeginDns, _: tuple[socket.socket, ...], channel: Channel) -> None:
        self.failed = asyncio.Event()
        self._channel = channel
        self._tasks = Tasks(on_task_failed(self.failed))
        self.store = Store(later=later)
        self._resolver = Resolver(begin.dns, self._tasks)
        self.store.subscribe(self._resolver.update, "dns", self._resolver.restart)
        self._captured = CapturedEndpoints(self._resolver, self.store, self._tasks)
        self._explicit = ExplicitResolver(self._resolver, self._tasks, begin.listen, sharing=Sharing.JOINED)
        self._endpoints: dict[str, DnsEndpoint] = {}

    async def start(self) -> None:
        await self._explicit.start()
        self._tasks.keep(self._tell, "counts")

    def handle(self, message: object, _: tuple[socket.socket, ...]) -> None:
        if isinstance(message, LearnDns):
            self.store.publish(message.change(self.store.current))
        elif isinstance(message, Join):
            self._join(message)
        elif isinstance(message, Leave):
            self._leave(message.container)

    async def stop(self) -> None:
        self._explicit.close()
        for id_ in tuple(self._endpoints):
            self._leave(id_)
        await self._tasks.close()

    async def _tell(self) -> None:
        while True:
            await asyncio.sleep(COUNTS_SECONDS)
            self._resolver.cache.settle()
            self._channel.send(Counted.of(self._resolver.stats.take()))
            await self._channel.taken()

    def _join(self, order: Join) -> None:
        self._leave(order.container)
        container = self.store.current.containers.get(order.container)
        if container is None:
            return
        try:
            self._endpoints[order.container] = self._captured.join(container, order.ports)
        except (KernelError, OSError) as error:  # it has ended meanwhile; the sidecar answers in any case
            logger.debug("container %s: %s", order.container[:12], error)

    def _leave(self, container: str) -> None:
        endpoint = self._endpoints.pop(container, None)
        if endpoint is not None:
            endpoint.close()


if __name__ == "__main__":
    sys.exit(main(DnsWorker, TOLD, TELLS))
