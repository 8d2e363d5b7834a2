"""Makes sockets in other namespaces for one restricted process, which may not enter any.

It gets unconnected TCP and UDP sockets of places that the catalogue knows, in batches, and no faster than a
proxy on one core could use them. What the sockets are for is its own business: it is what it is there for.
"""

import asyncio
import errno
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from time import monotonic

from mesh.errors import KernelError, NamespaceGone, WireError
from mesh.internal_errors import ERRORS
from mesh.net.netns import Namespace, nonblocking_tcp_socket, nonblocking_udp_socket
from mesh.net.tasks import Tasks
from sidecar.workers.channel import Channel
from sidecar.workers.socket_messages import ANSWERS, WANTS, Made, NotMade, Stale, Wanted

SOCKETS_PER_SECOND_MAX = 40_000  # of one process; a core relays 10,000 connections in a second
LOOK_SECONDS = 1.0  # between two looks whether the places are still what they were
REQUEST_BYTES_MAX = 1024  # a request has 100
BEHIND_MAX = 1024 * 1024  # bytes of answers that it may leave unread: 10,000 of them

# The path of a place's namespace, None: our own. Raises NamespaceGone.
PathOf = Callable[[str], str | None]


class SocketBroker:
    """`run` it with our end of the pair. `path_of` knows the places."""

    def __init__(self, pair: socket.socket, path_of: PathOf) -> None:
        self._channel = Channel(pair, ANSWERS, WANTS, body_max=REQUEST_BYTES_MAX, descriptors_max=0)
        self._path_of = path_of
        self._given: dict[str, tuple[int, int] | None] = {}  # place → its namespace at the last batch
        self._since, self._made = 0.0, 0
        self._loop = asyncio.get_running_loop()
        self._looking = self._loop.call_later(LOOK_SECONDS, self._look)

    async def run(self) -> None:
        """Until the other end is gone. WireError when it wants what it may not."""
        try:
            while True:
                wanted, _ = await self._channel.receive()
                assert isinstance(wanted, Wanted)
                self._answer(wanted)
        except EOFError:
            return
        finally:
            self._looking.cancel()
            self._channel.close()

    def _answer(self, wanted: Wanted) -> None:
        self._count(wanted.count)
        place, udp = wanted.place, wanted.udp
        try:
            made = self._sockets(wanted)
        except NamespaceGone as error:
            self._channel.send(NotMade(place, udp, True, errno.ENETUNREACH, str(error)))
            return
        except (KernelError, OSError) as error:
            number = error.errno if isinstance(error, OSError) and error.errno else errno.EIO
            self._channel.send(NotMade(place, udp, False, number, str(error)))
            return
        try:
            self._channel.send(Made(place, udp), made)
        finally:
            for one in made:
                one.close()
        if self._channel.behind > BEHIND_MAX:
            raise WireError("it does not take the sockets that it wanted")

    def _sockets(self, wanted: Wanted) -> list[socket.socket]:
        """NamespaceGone, KernelError; OSError when there is no descriptor for a single one."""
        path = self._path_of(wanted.place)
        now, before = _identity(path), self._given.get(wanted.place)
        self._given[wanted.place] = now
        if before is not None and now != before:
            self._channel.send(Stale(wanted.place))
        make = nonblocking_udp_socket if wanted.udp else nonblocking_tcp_socket
        return Namespace(path).call(partial(_batch, make, wanted.count))

    def _count(self, sockets: int) -> None:
        now = monotonic()
        if now - self._since >= 1.0:
            self._since, self._made = now, 0
        self._made += sockets
        if self._made > SOCKETS_PER_SECOND_MAX:
            raise WireError(f"more than {SOCKETS_PER_SECOND_MAX} sockets in a second")

    def _look(self) -> None:
        for place, was in tuple(self._given.items()):
            try:
                now = _identity(self._path_of(place))
            except NamespaceGone:
                now = None
            if now is None or now != was:
                del self._given[place]
                self._channel.send(Stale(place))
        self._looking = self._loop.call_later(LOOK_SECONDS, self._look)


def _batch(make: Callable[[], socket.socket], count: int) -> list[socket.socket]:
    made = [make()]
    with suppress(OSError):  # no more descriptors: those there are
        while len(made) < count:
            made.append(make())
    return made


def _identity(path: str | None) -> tuple[int, int] | None:
    """Of the namespace; None when nothing can be seen there."""
    if path is None:
        return 0, 0
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


class Brokers:
    """One for each restricted process of a kind. `refused` is told what one of them did that it may not."""

    def __init__(self, tasks: Tasks, path_of: PathOf, refused: Callable[[int, WireError], None]) -> None:
        self._tasks, self._path_of, self._refused = tasks, path_of, refused
        self._running: dict[int, asyncio.Task[None]] = {}

    def begin(self, number: int) -> socket.socket:
        """For the process with this number. Returns its end of the pair, which is the caller's."""
        ours, theirs = socket.socketpair()
        self.end(number)
        self._running[number] = self._tasks.start(
            self._run(number, SocketBroker(ours, self._path_of)), f"sockets {number}"
        )
        return theirs

    def end(self, number: int) -> None:
        task = self._running.pop(number, None)
        if task is not None:
            task.cancel()

    async def _run(self, number: int, broker: SocketBroker) -> None:
        try:
            await broker.run()
        except WireError as error:
            self._refused(number, error)
        except Exception as error:  # noqa: BLE001 - the boundary of a process: another one gets another broker
            ERRORS.report("socket broker", error)
            self._refused(number, WireError("its broker has failed"))
