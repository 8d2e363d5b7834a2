"""Listening sockets on addresses of this node, also on those that somebody else holds for a while.

    listen          opens a TCP socket once
    BoundListener   what is wanted on one address: it is open there, or it is not and `fault` says why
    ListenerOwner   whoever serves a listening socket: its `listener` and its `address`

An owner of BoundListeners tries them all at its start, and those that failed again and again in a
`mesh.net.reconciler.Reconciler` with the pauses of `bind_backoff`.
"""

import errno
import socket
from collections.abc import Callable
from typing import Generic, TypeVar

from mesh.errors import KernelError
from mesh.net import proc
from mesh.net.backoff import Backoff
from mesh.net.netns import Namespace

T = TypeVar("T")

# The pause before an address that is taken is tried again, and how long it may become. A port that we have
# just left ourselves is free again in a moment, when the last process has closed its socket.
FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS = 0.1, 5.0

NOT_TRIED = "not tried yet"


class PortTaken(KernelError):
    """A published port cannot be listened on."""

    def __init__(self, port: int, message: str) -> None:
        super().__init__(message)
        self.port = port


class BoundListener(Generic[T]):
    """What is wanted on one address of this node.

    `bind` opens it, and raises KernelError with a sentence that names the address (`bind_fault`). What it
    returns belongs to the caller of `try_bind`, who closes it. `on_fault` gets each fault that is not the
    one before.
    """

    def __init__(self, bind: Callable[[], T], on_fault: Callable[[str], None]) -> None:
        self._bind = bind
        self._on_fault = on_fault
        self.fault = NOT_TRIED  # "" while it is open

    @property
    def is_open(self) -> bool:
        return not self.fault

    def try_bind(self) -> T | None:
        """Open it unless it is open. What this call has opened, or None: it was open, or `fault` says why it
        is not."""
        if self.is_open:
            return None
        try:
            opened = self._bind()
        except KernelError as error:
            self.report(str(error))
            return None
        self.fault = ""
        return opened

    def report(self, fault: str) -> None:
        """It is not open (any more), for this reason. The next `try_bind` opens it again."""
        if fault != self.fault:
            self.fault = fault
            self._on_fault(fault)


class ListenerOwner:
    """Whoever serves one listening socket, which it keeps in `_listener`."""

    _listener: socket.socket

    @property
    def listener(self) -> socket.socket:
        """The socket. It stays the owner's."""
        return self._listener

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens. For port 0 this is the port that the kernel chose."""
        host, port = self._listener.getsockname()[:2]
        return str(host), int(port)


def listen(address: str, port: int, namespace: Namespace | None = None) -> socket.socket:
    """The listening TCP socket. PortTaken names the port, and who holds it where that can be seen."""
    try:
        listener = (namespace or Namespace(None)).tcp_listener(address, port)
    except OSError as error:
        raise PortTaken(port, bind_fault(address, port, error)) from error
    # Accepted sockets inherit it: a call less for each.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def bind_backoff() -> Backoff:
    """The pauses between two tries of an address that is taken."""
    return Backoff(FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS)


def bind_fault(address: str, port: int, error: OSError) -> str:
    """A sentence for whoever is told that the address cannot be had. `port` 0: there is none."""
    holder = proc.listener_owner(port) if port and error.errno == errno.EADDRINUSE else None
    by = f", held by {holder}" if holder else ""
    where = f"[{address}]" if ":" in address and port else address
    return f"cannot listen on {where}{f':{port}' if port else ''}: {error.strerror}{by}"
