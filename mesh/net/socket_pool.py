"""Unconnected sockets of another namespace, made in batches: entering it costs more than a socket.

Which namespace they belong to is known by its inode. The sockets themselves keep a namespace alive, so while
some are left its inode cannot become another one's. That is also why a batch is small, and smaller still
where few are taken; and why those that nobody takes for a while are closed: they would hold a namespace that
Docker has removed, for ever.
"""

import asyncio
import os
import socket
from collections.abc import Callable
from contextlib import suppress

from mesh.net.netns import Namespace, nonblocking_tcp_socket

BATCH = 32  # sockets per visit at most: with them the visit's share of one is small
FIRST_BATCH = 2  # after a pause; each further one is twice as large
IDLE_SECONDS = 10.0  # after the last one was taken: then who connects is in no hurry


class Sockets:
    """Non-blocking sockets of the namespace that `path` names at the time. None: our own. Use it on the
    loop's thread."""

    def __init__(
        self, path: Callable[[], str | None], make: Callable[[], socket.socket] = nonblocking_tcp_socket
    ) -> None:
        self._path = path
        self._make = make
        self._ready: list[socket.socket] = []
        self._namespace: tuple[int, int] | None = None  # that of `_ready`
        self._next_batch = FIRST_BATCH
        self._taken = False  # since the timer was set
        self._timer: asyncio.TimerHandle | None = None

    def take(self) -> socket.socket:
        """NamespaceGone, KernelError as `Namespace.call`; OSError when descriptors have run out."""
        path = self._path()
        if path is None:
            return self._make()
        namespace = _identity(path)
        if namespace != self._namespace:
            self.close()
            self._namespace = namespace
        if not self._ready:
            self._ready = Namespace(path).call(self._batch)
            self._next_batch = min(BATCH, 2 * self._next_batch)
        self._taken = True
        if self._timer is None:
            self._wait()
        return self._ready.pop()

    def close(self) -> None:
        """Close those that nobody has taken."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._next_batch = FIRST_BATCH
        unused, self._ready = self._ready, []
        for one in unused:
            one.close()

    def _wait(self) -> None:
        self._taken = False
        self._timer = asyncio.get_running_loop().call_later(IDLE_SECONDS, self._perhaps_idle)

    def _perhaps_idle(self) -> None:
        self._timer = None
        if self._taken:
            self._wait()
        else:
            self.close()

    def _batch(self) -> list[socket.socket]:
        """As many as there are descriptors for; OSError when there is none for a single one."""
        made = [self._make()]
        with suppress(OSError):
            while len(made) < self._next_batch:
                made.append(self._make())
        return made


def _identity(path: str) -> tuple[int, int] | None:
    """None when nothing can be seen there: entering it will say why."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
