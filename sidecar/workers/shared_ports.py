"""Published ports that restricted processes carry: one listening socket for all, one port of their parts.

The sidecar opens a port's listening socket and hands it to every process, and each accepts from it. So there
is one queue of connections that wait to be accepted, and whoever is free takes the next. A socket for each
with SO_REUSEPORT would be spread over more evenly (two idle processes got 50:50 of 400 connections, with one
socket 55:45 to 80:20, under load 63:37), but then each process has a queue of its own: the kernel resets what
waits in it when the process dies or leaves, and holds it up while the process is held up. And a port that
another program holds could be taken all the same, if that program shares it too. EPOLLEXCLUSIVE, which wakes
one process instead of all, gave up to nine tenths to one of them; what it spares is a wake-up in vain of
processes that are idle anyway.

A UDP port is one process's alone: a client's datagrams belong to one session.

The sidecar keeps the listening socket. So while a process is being replaced, clients wait for the next one
instead of being refused. One that ends takes its own connections with it and nothing else. What it has
counted is kept, but for its last second.
"""

import asyncio
import socket
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial

from mesh.balance.endpoint_pool import EndpointStatus
from mesh.balance.policies import Endpoint
from mesh.errors import WireError
from mesh.http.faults import HttpFault
from mesh.net.bound_listener import ListenerOwner
from mesh.relay.port_interface import OpenPort
from mesh.relay.stats import REASONS, PortStats
from mesh.relay.tcp_connection import RelayOptions
from mesh.relay.tcp_proxy import ConnectSocket
from sidecar.workers.port_messages import Carriage, Carry, Ended, PortReport, PortsReport, PortWay, Shut
from sidecar.workers.supervisor import Order, Workers

# Reasons of errors that a metric may name; what else a process says is "other".
KNOWN_REASONS = frozenset({*REASONS, *(fault.reason for fault in HttpFault), "per_address"})
LATE_SECONDS = 1.0  # that a process's word of a drained port may need, after the drain's time


class SharedPorts:
    """The ports of one kind of processes. `workers` has them; it is started with the first port."""

    def __init__(self, workers: Callable[[], Workers]) -> None:
        self._workers = workers
        self._ports: dict[int, SharedPort] = {}
        self._opened = 0  # ports, ever: their numbers go up to it

    def open(self, carriage: Carriage, service: str = "") -> OpenPort:
        """How a port of this kind is opened. `service`: the id of the service that it is for, for HTTP."""
        return partial(self._open, carriage, service)

    def _open(
        self,
        carriage: Carriage,
        service: str,
        listener: socket.socket,
        endpoints: Sequence[Endpoint],
        options: RelayOptions,
        connect: ConnectSocket,  # the processes have sockets of their own
        near: Collection[Endpoint],
    ) -> "SharedPort":
        way = PortWay(tuple(endpoints), tuple(near), options)
        self._opened = number = self._opened + 1
        port = SharedPort(number, carriage, service, listener, way, self._tell, self._forget)
        self._ports[number] = port
        self._workers().start()
        for worker in self._workers().running:
            if self._carries(worker, port):
                self._workers().tell_one(worker, port.order, (listener,))
                port.holders.add(worker)
        return port

    def _carries(self, worker: int, port: "SharedPort") -> bool:
        return port.carriage is not Carriage.UDP or port.number % self._workers().count == worker

    def _tell(self, port: "SharedPort", order: Carry | Shut) -> None:
        for worker in port.holders:
            self._workers().tell_one(worker, order)

    def _forget(self, number: int) -> None:
        self._ports.pop(number, None)

    # --- what the processes' supervisor asks and tells ---

    def initial_messages(self, worker: int) -> Iterator[Order]:
        """For a new process."""
        for port in self._ports.values():
            if not port.closing and self._carries(worker, port):
                yield port.order, (port.listener,)
                port.holders.add(worker)

    def on_message(self, worker: int, message: PortsReport | Ended) -> None:
        """Raises WireError for a port that the process does not have."""
        if isinstance(message, Ended):
            self._on_report(worker, message.last)
            if (port := self._ports.get(message.last.number)) is not None:
                port.on_left(worker)
            return
        for report in message.ports:
            self._on_report(worker, report)

    def _on_report(self, worker: int, report: PortReport) -> None:
        port = self._ports.get(report.number)
        if port is not None and worker in port.holders:
            port.on_report(worker, report)
        elif report.number > self._opened:
            raise WireError(f"a report of port {report.number}, which was never opened")

    def ended(self, worker: int) -> None:
        for port in self._ports.values():
            port.on_left(worker)


class SharedPort(ListenerOwner):
    """A port that processes carry, like one `mesh.relay.tcp_port.TcpPort`."""

    def __init__(
        self,
        number: int,
        carriage: Carriage,
        service: str,
        listener: socket.socket,
        way: PortWay,
        tell: Callable[["SharedPort", Carry | Shut], None],
        forget: Callable[[int], None],
    ) -> None:
        self.number, self.carriage, self._listener = number, carriage, listener
        self._service, self._way = service, way
        self._version = 1
        self._tell, self._forget = tell, forget
        self._mode = "http" if carriage is Carriage.HTTP else "proxy"
        self._past = PortStats(mode=self._mode)  # of processes that are gone
        self._now: dict[int, PortStats] = {}  # by process
        self._versions: dict[int, int] = {}
        self._seen: dict[int, dict[Endpoint, EndpointStatus]] = {}
        self.holders: set[int] = set()  # processes that have the socket
        self._left_by_all = asyncio.Event()
        self.closing = False

    @property
    def order(self) -> Carry:
        """It as it is now, for a process."""
        return Carry(self.number, self._version, self.carriage, self._service, self._way)

    @property
    def followed(self) -> bool:
        """Do all processes that have the port say that they go by what it is now?"""
        return all(self._versions.get(worker) == self._version for worker in self.holders)

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        return self._way.endpoints

    @property
    def stats(self) -> PortStats:
        """In all, of the processes as they last told."""
        return sum(self._now.values(), self._past)

    def seen(self) -> tuple[EndpointStatus, ...]:
        """Connections in all; left alone for as long as the process that is most cautious does."""
        found = []
        for endpoint in self._way.endpoints:
            same = [seen[endpoint] for seen in self._seen.values() if endpoint in seen]
            active = sum(one.active for one in same)
            found.append(
                EndpointStatus(endpoint, active, max((one.ejected_for for one in same), default=0.0))
            )
        return tuple(found)

    def update_endpoints(
        self, endpoints: Sequence[Endpoint], options: RelayOptions, near: Collection[Endpoint] = ()
    ) -> None:
        way = PortWay(tuple(endpoints), tuple(near), options)
        if way != self._way:
            self._way = way
            self._version += 1
            self._tell(self, self.order)

    async def close(self, drain_seconds: float = 0.0) -> None:
        """All processes drain at the same time."""
        self.closing = True
        self._tell(self, Shut(self.number, drain_seconds))
        self._listener.close()
        self._tell_if_left_by_all()
        with suppress(TimeoutError):
            async with asyncio.timeout(drain_seconds + LATE_SECONDS):
                await self._left_by_all.wait()
        self._forget(self.number)

    # --- told of processes ---

    def on_report(self, worker: int, report: PortReport) -> None:
        self._versions[worker] = report.version
        self._now[worker] = PortStats(
            report.connections,
            report.active,
            report.received,
            report.sent,
            known_reasons(report.errors),
            report.retries,
            self._mode,
        )
        known = set(self._way.endpoints)
        seen = (one.seen for one in report.endpoints)
        self._seen[worker] = {one.endpoint: one for one in seen if one.endpoint in known}

    def on_left(self, worker: int) -> None:
        """It does not carry the port any more."""
        self._past += replace(self._now.pop(worker, PortStats(mode=self._mode)), active=0)
        self._seen.pop(worker, None)
        self._versions.pop(worker, None)
        self.holders.discard(worker)
        self._tell_if_left_by_all()

    def _tell_if_left_by_all(self) -> None:
        if self.closing and not self.holders:
            self._left_by_all.set()


def known_reasons(counted: Mapping[str, int]) -> Counter[str]:
    """By reasons that there are: a metric has a bounded number of them, whatever a process says."""
    found = Counter[str]()
    for reason, number in counted.items():
        found[reason if reason in KNOWN_REASONS else "other"] += number
    return found
