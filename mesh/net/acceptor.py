"""Accepting from a listening socket, whatever is spoken there. It pauses where descriptors have run out."""

import asyncio
import socket
from collections.abc import Callable

from mesh.internal_errors import ERRORS
from mesh.net.limits.descriptors import OUT_OF_DESCRIPTORS, first_reserved, for_client
from mesh.net.netns import LISTEN_BACKLOG

ACCEPTS_AT_ONCE = 64  # then those who are accepted get their turn
PAUSE_SECONDS = 0.2  # when descriptors have run out; some connection will have ended by then

Peer = tuple[str, int]


class Accepting:
    """`take` gets each connection and its peer; `failed` is told why the kernel gave none ("fd_limit",
    "other"). It begins at once."""

    def __init__(
        self,
        listener: socket.socket,
        take: Callable[[socket.socket, Peer], None],
        failed: Callable[[str], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._listener = listener
        self._take = take
        self._failed = failed
        self._pause: asyncio.TimerHandle | None = None
        self._stopped = False
        self._loop.add_reader(listener, self._acceptable)

    def stop(self, *, take_waiting: bool) -> None:
        """No more, but for those who wait: they have been told that they are connected. Closes the socket."""
        self._stopped = True
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        else:
            self._loop.remove_reader(self._listener)
        if take_waiting:
            self._accept(LISTEN_BACKLOG)
        self._listener.close()

    def _acceptable(self) -> None:
        self._accept(ACCEPTS_AT_ONCE)

    def _accept(self, most: int) -> None:
        first = first_reserved()
        for _ in range(most):
            try:
                sock, peer = self._listener.accept()
                for_client(sock, first)
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionAbortedError:
                continue
            except OSError as error:
                self._refused(error)
                return
            try:
                self._take(sock, peer)
            except Exception as error:  # noqa: BLE001 - the boundary of a connection: the next one is accepted
                ERRORS.report("accepting", error)
                sock.close()

    def _refused(self, error: OSError) -> None:
        """Out of descriptors the listener stays readable: watching on would spin."""
        self._failed("fd_limit" if error.errno in OUT_OF_DESCRIPTORS else "other")
        if not self._stopped:
            self._loop.remove_reader(self._listener)
            self._pause = self._loop.call_later(PAUSE_SECONDS, self._resume)

    def _resume(self) -> None:
        self._pause = None
        self._loop.add_reader(self._listener, self._acceptable)
