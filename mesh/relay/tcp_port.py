"""A published port carried in user space: its listening socket, and what is accepted there relayed."""

import asyncio
import errno
import random
import socket
import time
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from mesh.balance.policies import Endpoint
from mesh.errors import KernelError
from mesh.net import proc
from mesh.net.acceptor import Accepting
from mesh.net.netns import Namespace
from mesh.net.poller import Poller
from mesh.net.timers import Deadlines
from mesh.relay.tcp_connection import RelayOptions
from mesh.relay.tcp_proxy import ConnectSocket, TcpProxy


def plain_socket() -> socket.socket:
    """An outgoing socket of our own namespace (tests, `demo`)."""
    return Namespace(None).tcp_socket()


class PollerAndTimers(NamedTuple):
    """What ports of a process share: a descriptor and a timer for all of their connections."""

    poller: Poller
    deadlines: Deadlines


class TcpPort(TcpProxy):
    """One listening socket and its connections. `shared`: not to be stopped by this port; None: it has its
    own poller and timers."""

    def __init__(
        self,
        listener: socket.socket,
        endpoints: Sequence[Endpoint],
        options: RelayOptions | None = None,
        connect: ConnectSocket = plain_socket,
        draw: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
        near: Collection[Endpoint] = (),
        shared: PollerAndTimers | None = None,
    ) -> None:
        poller, deadlines = shared or poller_and_timers()
        super().__init__(poller, deadlines, endpoints, options, connect, draw, clock, near)
        self._has_its_own = shared is None
        self._listener = listener
        self._accepting = Accepting(listener, self.begin, self._not_accepted)

    @property
    def listener(self) -> socket.socket:
        return self._listener

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens (the port the kernel chose, for port 0)."""
        host, port = self._listener.getsockname()[:2]
        return str(host), int(port)

    async def close(self, drain_seconds: float = 0.0) -> None:
        """Stop accepting, let connections end by themselves for so long, then reset them."""
        if not self._closing:
            self._closing = True
            self._accepting.stop(take_waiting=drain_seconds > 0)
        await self.drain(drain_seconds)
        if self._has_its_own:
            self.deadlines.stop()
            self.poller.stop()

    def _not_accepted(self, reason: str) -> None:
        self._stats.errors[reason] += 1


def poller_and_timers() -> PollerAndTimers:
    """On the running loop."""
    loop = asyncio.get_running_loop()
    return PollerAndTimers(Poller(loop), Deadlines(loop))


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
