"""Unconnected sockets of another namespace, made in batches: entering it costs more than a socket.

Which namespace they belong to is known by its inode. The sockets themselves keep a namespace alive, so while
some are left its inode cannot become another one's. That is also why a batch is small: the unused ones hold
a namespace that Docker has removed until the next one is asked for.
"""

import os
import socket
from collections.abc import Callable
from contextlib import suppress

from mesh.net.netns import Namespace, nonblocking_tcp_socket

BATCH = 32  # sockets per visit: with them the visit's share of one is small


class Sockets:
    """Non-blocking sockets of the namespace that `path` names at the time. None: our own."""

    def __init__(
        self, path: Callable[[], str | None], make: Callable[[], socket.socket] = nonblocking_tcp_socket
    ) -> None:
        self._path = path
        self._make = make
        self._ready: list[socket.socket] = []
        self._namespace: tuple[int, int] | None = None  # that of `_ready`

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
        return self._ready.pop()

    def close(self) -> None:
        """Close those that nobody has taken."""
        unused, self._ready = self._ready, []
        for one in unused:
            one.close()

    def _batch(self) -> list[socket.socket]:
        """As many as there are descriptors for; OSError when there is none for a single one."""
        made = [self._make()]
        with suppress(OSError):
            while len(made) < BATCH:
                made.append(self._make())
        return made


def _identity(path: str) -> tuple[int, int] | None:
    """None when nothing can be seen there: entering it will say why."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
