"""A restricted process that relays published ports, TCP and UDP.

It accepts from listening sockets that the sidecar has opened, and connects with sockets that the sidecar has
made. Whom it has found not to answer, and how many connections it has to each task, it knows of its own
connections alone.
"""

import asyncio
import socket

from mesh.net.tasks import Tasks
from mesh.relay.port_interface import PortHandle, PortOpener, open_udp_here
from mesh.relay.tcp_port import plain_socket
from mesh.relay.udp_port import plain_udp_socket
from sidecar.workers import worker_main
from sidecar.workers.carried_ports import CarriedPorts
from sidecar.workers.channel import Channel
from sidecar.workers.port_messages import Carriage, Carry, Shut
from sidecar.workers.relay_messages import TELLS, TOLD, BeginRelay
from sidecar.workers.socket_stock import SocketStock

REPORT_SECONDS = 1.0


class RelayProcess:
    """The sidecar is at the other end of the channel."""

    def __init__(self, begin: BeginRelay, sockets: tuple[socket.socket, ...], channel: Channel) -> None:
        self.failed = asyncio.Event()
        self._channel = channel
        self._tasks = Tasks(worker_main.on_task_failed(self.failed))
        self._opener = PortOpener()
        self._ports = CarriedPorts(self._tasks, channel, self._open)
        self._stock = SocketStock(sockets[0], self.failed.set) if sockets else None
        self._connect = self._stock.connect("") if self._stock else plain_socket
        self._connect_udp = self._stock.connect("", udp=True) if self._stock else plain_udp_socket

    async def start(self) -> None:
        self._tasks.keep(self._report, "reports")

    def handle(self, message: object, sockets: tuple[socket.socket, ...]) -> None:
        if isinstance(message, Carry):
            self._ports.carry(message, sockets)
        elif isinstance(message, Shut):
            self._ports.shut(message)

    async def stop(self) -> None:
        await self._tasks.close()
        await self._ports.close()
        self._opener.stop()
        if self._stock is not None:
            self._stock.close()

    def _open(self, order: Carry, listener: socket.socket) -> PortHandle:
        way = order.way
        if order.carriage is Carriage.UDP:
            return open_udp_here(listener, way.endpoints, way.options, self._connect_udp, way.near)
        return self._opener.open(listener, way.endpoints, way.options, self._connect, way.near)

    async def _report(self) -> None:
        while True:
            self._channel.send(self._ports.report())  # also when there is no news: it says that we are here
            await self._channel.taken()
            await asyncio.sleep(REPORT_SECONDS)


def run(descriptor: int) -> int:
    """Returns the exit status."""
    return worker_main.run(descriptor, RelayProcess, TOLD, TELLS)
