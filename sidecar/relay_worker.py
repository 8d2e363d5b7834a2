"""A process that carries relayed TCP ports beside the sidecar (`ingress.workers`).

It accepts from the sidecar's own listening sockets (see `relay_workers` for why) and connects to tasks like
the sidecar does. Whom it has found not to answer, and how many connections it has to each task, it knows of
its own connections alone.
"""

import asyncio
import logging
import socket
import sys

from mesh.net.sockets import Sockets
from mesh.net.tasks import Tasks
from mesh.relay.carried import PortOpener
from mesh.relay.listener import Port
from sidecar.relay_orders import Begin, Carry, Ended, Experience, Shut, Told
from sidecar.worker import main, on_task_failed
from sidecar.workers.channel import Channel
from sidecar.workers.legacy import PickledMessages

TELL_SECONDS = 1.0

logger = logging.getLogger(__name__)


class RelayWorker:
    """Its sidecar is at the other end of the channel."""

    def __init__(self, begin: Begin, channel: Channel) -> None:
        self.failed = asyncio.Event()
        self._channel = channel
        self._tasks = Tasks(on_task_failed(self.failed))
        self._outgoing = Sockets(lambda: begin.sandbox)
        self._opener = PortOpener()
        self._ports: dict[int, Port] = {}
        self._versions: dict[int, int] = {}
        self._told: dict[int, Experience] = {}

    async def start(self) -> None:
        self._tasks.keep(self._tell, "experience")

    def handle(self, order: object, sockets: tuple[socket.socket, ...]) -> None:
        sock = sockets[0] if sockets else None
        if isinstance(order, Carry):
            self._carry(order, sock)
        elif isinstance(order, Shut):
            self._tasks.start(self._shut(order), f"relay-drain {order.number}")

    async def stop(self) -> None:
        """At once: who wants them drained has shut the ports before."""
        await self._tasks.close()
        await asyncio.gather(*(port.close() for port in self._ports.values()))
        self._opener.stop()
        self._outgoing.close()

    def _carry(self, order: Carry, listener: socket.socket | None) -> None:
        way, port = order.way, self._ports.get(order.number)
        if port is not None:
            port.retarget(way.endpoints, way.options, way.near)
        elif listener is not None:
            listener.setblocking(False)
            self._ports[order.number] = self._opener.open(
                listener, way.endpoints, way.options, self._outgoing.take, way.near
            )
        self._versions[order.number] = order.version

    async def _shut(self, order: Shut) -> None:
        port = self._ports[order.number]
        await port.close(order.drain)
        del self._ports[order.number]
        self._told.pop(order.number, None)
        version = self._versions.pop(order.number)
        self._channel.send(Ended(order.number, Experience(version, port.stats, ())))

    async def _tell(self) -> None:
        while True:
            await asyncio.sleep(TELL_SECONDS)
            now = {number: self._experience(number, port) for number, port in self._ports.items()}
            news = {number: one for number, one in now.items() if self._told.get(number) != one}
            self._told = now
            self._channel.send(Told(news))  # also when there is none: it says that we are here
            await self._channel.taken()

    def _experience(self, number: int, port: Port) -> Experience:
        return Experience(self._versions[number], port.stats, port.seen())


if __name__ == "__main__":
    sys.exit(main(RelayWorker, PickledMessages(), PickledMessages()))
