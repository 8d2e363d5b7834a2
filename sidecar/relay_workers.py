"""The sidecar's side of its relay workers: one listening socket for all, one port made of their parts.

The sidecar opens a port's listening socket, accepts from it itself, and hands it to every worker, which does
the same. So there is one queue of connections that wait to be accepted, and whoever is free takes the next.
A socket for each with SO_REUSEPORT would be spread over more evenly (two idle processes got 50:50 of 400
connections, with one socket 55:45 to 80:20, under load 63:37), but then each process has a queue of its own:
the kernel resets what waits in it when the process dies or leaves, and holds it up while the process is held
up. And a port that another program holds could be taken all the same, if that program shares it too.
EPOLLEXCLUSIVE, which wakes one process instead of all, gave up to nine tenths to one of them; what it spares
is a wake-up in vain of processes that are idle anyway.

A worker that ends takes its own connections with it and nothing else. What it has counted is kept, but for
its last second.
"""

import asyncio
import socket
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import count

from mesh.balance.policies import Endpoint
from mesh.net.tasks import Tasks
from mesh.relay.carried import PortOpener
from mesh.relay.connection import Options
from mesh.relay.counts import PortStats, Seen
from mesh.relay.listener import Port
from mesh.relay.relaying import ConnectSocket
from sidecar.config import Log
from sidecar.relay_orders import Begin, Carry, Ended, Experience, Shut, Told, Way
from sidecar.workers.legacy import PickledMessages
from sidecar.workers.supervisor import Kind, Order, Workers

LATE_SECONDS = 1.0  # that a worker's word of a drained port may need, after the drain's time


class RelayWorkers:
    """`others` processes beside this one. `start` once, `close` at the end, when all ports are closed.

    `sandbox`: the path of the namespace that tasks are reached from; None: our own.
    """

    def __init__(self, others: int, log: Log, tasks: Tasks, sandbox: str | None) -> None:
        self._begin = Begin(sandbox, log.level, log.format)
        self._opener = PortOpener()
        self._ports: dict[int, SharedPort] = {}
        self._numbers = count(1)
        self._workers = Workers(
            Kind("relay", "sidecar.relay_worker", PickledMessages(), PickledMessages()),
            others,
            tasks,
            everything=self._everything,
            on_message=self._hear,
            ended=self._ended,
        )

    def start(self) -> None:
        self._workers.start()

    def open(
        self,
        listener: socket.socket,
        endpoints: Sequence[Endpoint],
        options: Options,
        connect: ConnectSocket,
        near: Collection[Endpoint],
    ) -> "SharedPort":
        """Carry a port from its listening socket on, here and in every worker."""
        way = Way(tuple(endpoints), tuple(near), options)
        port = self._opener.open(listener, way.endpoints, way.options, connect, way.near)
        number = next(self._numbers)
        shared = self._ports[number] = SharedPort(number, port, listener, way, self._tell, self._forget)
        self._workers.tell(shared.order, (listener,))
        shared.holders.update(self._workers.running)
        return shared

    async def close(self) -> None:
        await self._workers.close()
        self._opener.stop()

    def _tell(self, order: Carry | Shut) -> None:
        self._workers.tell(order)

    def _forget(self, number: int) -> None:
        self._ports.pop(number, None)

    def _everything(self, worker: int) -> Iterator[Order]:
        yield self._begin, ()
        for port in self._ports.values():
            if not port.closing:
                yield port.order, (port.listener,)
                port.holders.add(worker)

    def _hear(self, worker: int, told: object, _: tuple[socket.socket, ...]) -> None:
        if isinstance(told, Told):
            for number, one in told.ports.items():
                if number in self._ports:
                    self._ports[number].heard(worker, one)
        elif isinstance(told, Ended) and told.number in self._ports:
            self._ports[told.number].heard(worker, told.last)
            self._ports[told.number].left(worker)

    def _ended(self, worker: int) -> None:
        for port in self._ports.values():
            port.left(worker)


class SharedPort:
    """A port that several processes carry, like one `Port`."""

    def __init__(
        self,
        number: int,
        here: Port,
        listener: socket.socket,
        way: Way,
        tell: Callable[[Carry | Shut], None],
        forget: Callable[[int], None],
    ) -> None:
        self._number = number
        self._here = here
        self.listener = listener
        self._way = way
        self._version = 1
        self._tell = tell
        self._forget = forget
        self._past = PortStats()  # of workers that are gone
        self._elsewhere: dict[int, Experience] = {}  # by worker
        self.holders: set[int] = set()  # workers that have the socket
        self._alone = asyncio.Event()
        self.closing = False

    @property
    def order(self) -> Carry:
        """It as it is now, for a worker."""
        return Carry(self._number, self._version, self._way)

    @property
    def followed(self) -> bool:
        """Do all workers that have the port say that they go by what it is now?"""
        known = (self._elsewhere.get(worker) for worker in self.holders)
        return all(one is not None and one.version == self._version for one in known)

    @property
    def address(self) -> tuple[str, int]:
        return self._here.address

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        return self._here.endpoints

    @property
    def stats(self) -> PortStats:
        """In all, of the workers as they last told."""
        return sum((one.stats for one in self._elsewhere.values()), self._here.stats + self._past)

    def seen(self) -> tuple[Seen, ...]:
        """Connections in all; left alone for as long as the process that is most cautious does."""
        elsewhere = [seen for one in self._elsewhere.values() for seen in one.seen]
        found = []
        for here in self._here.seen():
            same = [here, *(one for one in elsewhere if one.endpoint == here.endpoint)]
            active, ejected = sum(one.active for one in same), max(one.ejected_for for one in same)
            found.append(Seen(here.endpoint, active, ejected))
        return tuple(found)

    def retarget(
        self, endpoints: Sequence[Endpoint], options: Options, near: Collection[Endpoint] = ()
    ) -> None:
        self._here.retarget(endpoints, options, near)
        way = Way(tuple(endpoints), tuple(near), options)
        if way != self._way:
            self._way = way
            self._version += 1
            self._tell(self.order)

    async def close(self, drain_seconds: float = 0.0) -> None:
        """All processes drain at the same time."""
        self.closing = True
        self._tell(Shut(self._number, drain_seconds))
        self._alone_if_left()
        await asyncio.gather(self._here.close(drain_seconds), self._until_alone(drain_seconds + LATE_SECONDS))
        self._forget(self._number)

    async def _until_alone(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._alone.wait()

    # --- told of workers ---

    def heard(self, worker: int, told: Experience) -> None:
        self._elsewhere[worker] = told

    def left(self, worker: int) -> None:
        """It does not carry the port any more."""
        last = self._elsewhere.pop(worker, None)
        if last is not None:
            self._past += replace(last.stats, active=0)
        self.holders.discard(worker)
        self._alone_if_left()

    def _alone_if_left(self) -> None:
        if self.closing and not self.holders:
            self._alone.set()
