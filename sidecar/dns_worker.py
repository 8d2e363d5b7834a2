"""A process that answers DNS beside the sidecar (`dns.workers`).

The kernel spreads queries over all UDP sockets that share a port (SO_REUSEPORT), so a worker needs no
go-between: it opens its own sockets where the sidecar tells it to, and has a copy of the catalogue and a
cache of its own. TCP stays with the sidecar. Once a second it tells what it has counted. When the sidecar is
gone, however it went, the pair of sockets between them ends, and the worker with it.
"""

import asyncio
import logging
import socket
import sys
from contextlib import suppress

import uvloop

from mesh.catalog.store import Store
from mesh.dns.explicit import ExplicitResolver, Sharing
from mesh.dns.resolver import Resolver
from mesh.dns.server import Endpoint
from mesh.dns.stats import Counts
from mesh.errors import KernelError
from mesh.net.tasks import Tasks
from mesh.telemetry import logs
from sidecar.dns_orders import Begin, Join, Learn, Leave, packed, unpacked
from sidecar.endpoints import CapturedEndpoints

COUNTS_SECONDS = 1.0
BUG = 70  # exit status (sysexits.h: internal software error)

logger = logging.getLogger(__name__)


class Worker:
    """Does as it is told until it is told no more."""

    def __init__(self, begin: Begin) -> None:
        self.failed = asyncio.Event()
        self._tasks = Tasks(self._ended)
        self._store = Store(on_error=lambda error: self._ended("a change", error))
        self._resolver = Resolver(begin.dns, self._tasks)
        self._store.subscribe(self._resolver.update)
        self._captured = CapturedEndpoints(self._resolver, self._store, self._tasks)
        self._explicit = ExplicitResolver(self._resolver, self._tasks, begin.listen, sharing=Sharing.JOINED)
        self._endpoints: dict[str, Endpoint] = {}

    async def start(self) -> None:
        await self._explicit.start()

    def obey(self, order: object) -> None:
        if isinstance(order, Learn):
            self._store.publish(order.change)
        elif isinstance(order, Join):
            self._join(order)
        elif isinstance(order, Leave):
            self._leave(order.container)

    def counts(self) -> Counts:
        self._resolver.cache.settle()
        return self._resolver.stats.take()

    async def stop(self) -> None:
        self._explicit.close()
        for id_ in tuple(self._endpoints):
            self._leave(id_)
        await self._tasks.close()

    def _join(self, order: Join) -> None:
        self._leave(order.container)
        container = self._store.current.containers.get(order.container)
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

    def _ended(self, name: str, error: BaseException) -> None:
        logger.critical("%s failed: this is a bug of ours; the DNS worker ends", name, exc_info=error)
        self.failed.set()


async def serve(pair: socket.socket) -> int:
    """Until the other end closes. Returns the exit status."""
    reader, writer = await asyncio.open_unix_connection(sock=pair)
    begin = await unpacked(reader)
    assert isinstance(begin, Begin)
    logs.setup(begin.log_level, begin.log_format)
    worker = Worker(begin)
    talk = Tasks(lambda name, error: logger.debug("%s: %s", name, error))
    try:
        await worker.start()
        talk.start(_tell(worker, writer), "counts")
        obeying = talk.start(_obey(worker, reader), "orders")
        failed = talk.start(worker.failed.wait(), "failure")
        await asyncio.wait((obeying, failed), return_when=asyncio.FIRST_COMPLETED)
    finally:
        await talk.close()
        await worker.stop()
        writer.transport.abort()
    return BUG if worker.failed.is_set() else 0


async def _obey(worker: Worker, reader: asyncio.StreamReader) -> None:
    with suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            worker.obey(await unpacked(reader))


async def _tell(worker: Worker, writer: asyncio.StreamWriter) -> None:
    while True:
        await asyncio.sleep(COUNTS_SECONDS)
        writer.write(packed(worker.counts()))
        await writer.drain()


def main() -> int:
    """`python -m sidecar.dns_worker FD`: the pair's end that the sidecar has left open for us."""
    pair = socket.socket(fileno=int(sys.argv[1]))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(serve(pair))


if __name__ == "__main__":
    sys.exit(main())
