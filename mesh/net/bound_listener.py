"""A listening TCP socket on an address of this node."""

import errno
import socket

from mesh.errors import KernelError
from mesh.net import proc
from mesh.net.netns import Namespace


def listen(address: str, port: int, namespace: Namespace | None = None) -> socket.socket:
    """The listening socket. KernelError names the port, and who holds it where that can be seen."""
    try:
        listener = (namespace or Namespace(None)).tcp_listener(address, port)
    except OSError as error:
        raise PortTaken(port, _explain(address, port, error)) from error
    # Accepted sockets inherit it: a call less for each.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


class PortTaken(KernelError):
    """A published port cannot be listened on."""

    def __init__(self, port: int, message: str) -> None:
        super().__init__(message)
        self.port = port


def _explain(address: str, port: int, error: OSError) -> str:
    holder = proc.listener_owner(port) if error.errno == errno.EADDRINUSE else None
    by = f", held by {holder}" if holder else ""
    where = f"[{address}]" if ":" in address else address
    return f"cannot listen on {where}:{port}: {error.strerror}{by}"
