"""The published ports of one restricted process, as the sidecar tells it."""

import socket
from collections.abc import Callable

from mesh.net.tasks import Tasks
from mesh.relay.port_interface import PortHandle
from sidecar.workers.channel import Channel
from sidecar.workers.port_messages import Carry, Ended, PortReport, PortsReport, Shut

# Carries a port from its listening socket on.
Open = Callable[[Carry, socket.socket], PortHandle]


class CarriedPorts:
    def __init__(self, tasks: Tasks, channel: Channel, open_: Open) -> None:
        self._tasks, self._channel, self._open = tasks, channel, open_
        self._ports: dict[int, PortHandle] = {}
        self._versions: dict[int, int] = {}
        self._told: dict[int, PortReport] = {}

    def carry(self, order: Carry, sockets: tuple[socket.socket, ...]) -> None:
        way, port = order.way, self._ports.get(order.number)
        if port is not None:
            port.update_endpoints(way.endpoints, way.options, way.near)
        elif sockets:
            sockets[0].setblocking(False)
            self._ports[order.number] = self._open(order, sockets[0])
        self._versions[order.number] = order.version

    def shut(self, order: Shut) -> None:
        self._tasks.start(self._shut(order), f"drain {order.number}")

    def report(self) -> PortsReport:
        """Of ports that have something new since the last one."""
        now = {number: self._report(number, port) for number, port in self._ports.items()}
        news = tuple(one for number, one in now.items() if self._told.get(number) != one)
        self._told = now
        return PortsReport(news)

    async def close(self) -> None:
        """At once: who wants them drained has shut them before."""
        for port in tuple(self._ports.values()):
            await port.close(0.0)

    async def _shut(self, order: Shut) -> None:
        port = self._ports.get(order.number)
        if port is None:
            return
        await port.close(order.drain)
        last = PortReport.of(order.number, self._versions[order.number], port.stats, ())
        for known in (self._ports, self._told, self._versions):
            known.pop(order.number, None)
        self._channel.send(Ended(last))

    def _report(self, number: int, port: PortHandle) -> PortReport:
        return PortReport.of(number, self._versions[number], port.stats, port.seen())
