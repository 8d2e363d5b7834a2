"""The sidecar's side of the processes that relay published ports. They start with the first port."""

import socket
from collections.abc import Iterator

from mesh.net.tasks import Tasks
from mesh.relay.port_interface import OpenPort
from sidecar.config import Log
from sidecar.workers.port_messages import Carriage, Ended, PortsReport
from sidecar.workers.privileges import Restriction
from sidecar.workers.relay_messages import TELLS, TOLD, BeginRelay
from sidecar.workers.shared_ports import SharedPorts
from sidecar.workers.socket_broker import Brokers, PathOf
from sidecar.workers.supervisor import Kind, Order, Workers


class RelaySupervisor:
    """`count` processes. `path_of`: see `socket_broker`; None: they make sockets themselves, in our
    namespace. `close` at the end, when all ports are closed."""

    def __init__(
        self, count: int, log: Log, tasks: Tasks, restriction: Restriction, path_of: PathOf | None
    ) -> None:
        self._begin = BeginRelay(log.level, log.format)
        self._ports = SharedPorts(lambda: self.workers)
        self.workers = Workers(
            Kind("relay", "sidecar.processes.relay", TOLD, TELLS, restriction),
            count,
            tasks,
            everything=self._initial_messages,
            on_message=self._on_message,
            ended=self._on_ended,
        )
        self._brokers = Brokers(tasks, path_of, self.workers.end) if path_of is not None else None

    @property
    def open_tcp(self) -> OpenPort:
        return self._ports.open(Carriage.TCP)

    @property
    def open_udp(self) -> OpenPort:
        return self._ports.open(Carriage.UDP)

    async def close(self) -> None:
        await self.workers.close()

    def _initial_messages(self, number: int) -> Iterator[Order]:
        if self._brokers is None:
            yield self._begin, ()
        else:
            with self._brokers.begin(number) as theirs:
                yield self._begin, (theirs,)
        yield from self._ports.initial_messages(number)

    def _on_message(self, number: int, message: object, sockets: tuple[socket.socket, ...]) -> None:
        for one in sockets:  # it has none to give
            one.close()
        assert isinstance(message, PortsReport | Ended)
        self._ports.on_message(number, message)

    def _on_ended(self, number: int) -> None:
        if self._brokers is not None:
            self._brokers.end(number)
        self._ports.ended(number)
