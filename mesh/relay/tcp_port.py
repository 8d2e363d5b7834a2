"""A published port carried in user space: its listening socket, and what is accepted there relayed."""

import asyncio
import random
import socket
import time
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from mesh.balance.policies import Endpoint
from mesh.net.acceptor import Accepting
from mesh.net.bound_listener import ListenerOwner
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


class TcpPort(TcpProxy, ListenerOwner):
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
