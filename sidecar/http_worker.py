"""A process that serves entry points beside the sidecar (`http.workers`).

It accepts from the sidecar's own listening sockets (`relay_workers` says why), and has a copy of the
catalogue: routers, endpoints and certificates are what they are in the sidecar. What it knows of endpoints,
clients and limits it knows of its own requests alone.
"""

import asyncio
import logging
import socket
import sys
from pathlib import Path

from mesh.catalog.store import Store
from mesh.discovery.feed_tls import Certificates
from mesh.http.reach import Namespaces, OwnNamespace
from mesh.http.stats import ServiceStats
from mesh.kernel.ingress import ipvs_here
from mesh.net.tasks import Tasks
from mesh.relay.listener import plain_socket
from sidecar.http_orders import Begin, Done, Learn, Listen, OnSwarm, Shut, Told
from sidecar.http_side import HttpSide
from sidecar.issued import IssuedElsewhere
from sidecar.worker import later, main, on_task_failed
from sidecar.workers.channel import Channel
from sidecar.workers.legacy import PickledMessages

TELL_SECONDS = 1.0

logger = logging.getLogger(__name__)


class HttpWorker:
    """Its sidecar is at the other end of the channel."""

    def __init__(self, begin: Begin, _: tuple[socket.socket, ...], channel: Channel) -> None:
        self.failed = asyncio.Event()
        self._channel = channel
        self._tasks = Tasks(on_task_failed(self.failed))
        self._store = Store(later=later)
        issued = IssuedElsewhere(Path(begin.issued)) if begin.issued else None
        self._side = HttpSide(begin.http, self._tasks, self._store, issued, listens=False)
        self._swarm = begin.swarm
        self._reach: Namespaces | None = None
        self._told: dict[str, ServiceStats] = {}
        self._concerned: set[str] = set()  # services (ids) of which something was seen

    async def start(self) -> None:
        if self._swarm is None:
            self._side.start(OwnNamespace(plain_socket))
        else:
            self._reach = self._on_swarm(self._swarm)
        self._tasks.keep(self._tell, "experience")

    def _on_swarm(self, swarm: OnSwarm) -> Namespaces:
        return self._side.start_on_swarm(
            Certificates(swarm.certificates), swarm.netns, lambda: swarm.sandbox, ipvs_here
        )

    def handle(self, order: object, sockets: tuple[socket.socket, ...]) -> None:
        sock = sockets[0] if sockets else None
        if isinstance(order, Learn):
            if order.node != self._store.current.this_node:
                self._store.identify(order.node)
            self._store.publish(order.change)
        elif isinstance(order, Listen) and sock is not None:
            sock.setblocking(False)
            self._side.listen_too(order.name, sock)
        elif isinstance(order, Shut):
            self._tasks.start(self._shut(order.drain), "http-drain")

    async def stop(self) -> None:
        """At once: who wants requests drained has said so before."""
        await self._tasks.close()
        await self._side.close(0.0)
        if self._reach is not None:
            self._reach.close()
        self._side.stop()

    async def _shut(self, drain: float) -> None:
        await self._side.close(drain)
        self._channel.send(Done(self._news()))

    async def _tell(self) -> None:
        while True:
            await asyncio.sleep(TELL_SECONDS)
            self._channel.send(self._news())  # also when there is none: it says that we are here
            await self._channel.taken()

    def _news(self) -> Told:
        now = self._side.counts.own_stats()
        news = {id_: one for id_, one in now.items() if self._told.get(id_) != one}
        self._told = {id_: one.copy() for id_, one in now.items()}
        # Only what was asked for something can be other than it was, or what was left out before.
        seen, self._concerned = self._side.counts.own_seen({*news, *self._concerned})
        counts = self._side.counts
        return Told(news, seen, counts.own_tunnels(), counts.own_passed_on(), counts.own_targets_refused())


if __name__ == "__main__":
    sys.exit(main(HttpWorker, PickledMessages(), PickledMessages()))
