"""Processes beside this one: started, told everything, started again when they end.

A worker is a process of its own program (`python -m MODULE FD`), with one channel to it. It begins with all
that is true by then and is told what changes from there on. One that ends, does not keep up (`BEHIND_MAX`) or
is not heard of (`SILENT_SECONDS`) is replaced. So whoever has workers tells them twice: `everything` to a new
one, `tell` to those that are there.
"""

import asyncio
import logging
import signal
import socket
import sys
from collections.abc import Callable, Iterable

from mesh.net.tasks import Tasks
from sidecar.channel import Channel, packed

BEHIND_MAX = 64 * 1024 * 1024  # bytes of orders that a worker may leave unread; a large catalogue is 10 MB
SILENT_SECONDS = 30.0  # each tells something every second; on a machine that is busy it may start slowly
RETRY_SECONDS = 1.0  # before a worker that ended is replaced
STOP_SECONDS = 2.0  # for a worker to end by itself

# An order, and the socket that goes with it.
Order = tuple[object, socket.socket | None]

logger = logging.getLogger(__name__)


class Workers:
    """`count` of them, numbered. `start` once, `close` at the end.

    `everything`: what a new one has to know, `hear`: what one has told, `ended`: one is gone.
    """

    def __init__(
        self,
        kind: str,
        module: str,
        count: int,
        tasks: Tasks,
        *,
        everything: Callable[[int], Iterable[Order]],
        hear: Callable[[int, object], None],
        ended: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._kind, self._module, self._count, self._tasks = kind, module, count, tasks
        self._everything, self._hear, self._ended = everything, hear, ended
        self._channels: dict[int, Channel] = {}
        self._running: list[asyncio.Task[None]] = []

    @property
    def running(self) -> frozenset[int]:
        """The numbers of those that are told what changes."""
        return frozenset(self._channels)

    def start(self) -> None:
        self._running = [
            self._tasks.start(self._keep(number), f"{self._kind}-worker-{number}")
            for number in range(self._count)
        ]

    def tell(self, message: object, sock: socket.socket | None = None) -> None:
        """To all of them."""
        if not self._channels:
            return
        body = packed(message)
        for channel in self._channels.values():
            channel.send(body, sock)
            if channel.behind > BEHIND_MAX:
                logger.error("a %s worker does not keep up; it is replaced", self._kind)
                channel.abort()

    async def close(self) -> None:
        """End all of them."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _keep(self, number: int) -> None:
        while True:
            try:
                status = await self._run(number)
                logger.error(
                    "%s worker %d ended with status %s; another one is started", self._kind, number, status
                )
            except OSError as error:  # no process, no descriptors for it
                logger.error("%s worker %d cannot be started: %s", self._kind, number, error)
            await asyncio.sleep(RETRY_SECONDS)

    async def _run(self, number: int) -> int | None:
        ours, theirs = socket.socketpair()
        with theirs:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", self._module, str(theirs.fileno()), pass_fds=(theirs.fileno(),)
            )
        channel = Channel(ours)
        try:
            for message, sock in self._everything(number):
                channel.send(packed(message), sock)
            self._channels[number] = channel
            await self._listen(number, channel)
        finally:
            self._channels.pop(number, None)
            channel.close()
            await _end(process)
            self._ended(number)
        return process.returncode

    async def _listen(self, number: int, channel: Channel) -> None:
        try:
            while True:
                async with asyncio.timeout(SILENT_SECONDS):
                    message, _ = await channel.receive()
                self._hear(number, message)
        except EOFError:
            pass
        except TimeoutError:
            logger.error("%s worker %d was not heard of for %.0f s", self._kind, number, SILENT_SECONDS)


async def _end(process: asyncio.subprocess.Process) -> None:
    """It ends when it sees that the pair has; one that does not is killed."""
    try:
        await asyncio.wait_for(process.wait(), STOP_SECONDS)
    except TimeoutError:
        process.send_signal(signal.SIGKILL)
        await process.wait()
