"""Tunnels for restricted processes: they have no certificate of the Swarm, so the sidecar dials for them.

A process gives one end of a pair of sockets and says where it is to lead. What may be asked for is what the
catalogue has: a task's address on a network, of which the other node decides whether HTTP is routed to it.
"""

import socket
from collections.abc import Callable
from dataclasses import dataclass

from mesh.errors import WireError
from mesh.net.tasks import Tasks
from mesh.peers.tunnel.client import TUNNELS_MAX, Tunnels
from mesh.peers.tunnel.protocol import TunnelRequest
from sidecar.workers.http_messages import ConnectionBroken, Cut, Dial, TunnelDialled

# Sends a message, with sockets, to the process with this number.
Send = Callable[[int, object, tuple[socket.socket, ...]], None]


@dataclass(slots=True)
class _OpenTunnel:
    cut: bool = False


class TunnelBroker:
    """`on_dial` and `on_cut` take what processes say. They raise WireError for what makes no sense."""

    def __init__(self, tasks: Tasks, tunnels: Tunnels, send: Send) -> None:
        self._tasks, self._tunnels, self._send = tasks, tunnels, send
        self._open: dict[tuple[int, int], _OpenTunnel] = {}  # process, number of the tunnel

    def on_dial(self, process: int, message: Dial, sockets: tuple[socket.socket, ...]) -> None:
        key = process, message.number
        if len(sockets) != 1 or not _is_stream_of_a_pair(sockets[0]):
            _close(sockets)
            raise WireError("a tunnel needs one end of a pair")
        if key in self._open or sum(one == process for one, _ in self._open) >= TUNNELS_MAX:
            _close(sockets)
            raise WireError("too many tunnels, or one with the number of another")
        self._open[key] = _OpenTunnel()
        wanted = TunnelRequest(message.network, message.address, message.port)
        self._tasks.start(self._lead(key, sockets[0], wanted), "tunnel")

    def on_cut(self, process: int, message: Cut, sockets: tuple[socket.socket, ...]) -> None:
        """The end closes with the socket that came: it is known by then that it is none in order."""
        found = self._open.get((process, message.number))
        if found is not None:
            found.cut = True
        _close(sockets)

    async def _lead(self, key: tuple[int, int], end: socket.socket, wanted: TunnelRequest) -> None:
        process, number = key
        state = self._open[key]
        try:
            with end.dup() as kept:  # so that the process hears of a break before it sees the end
                orderly = await self._tunnels.lead(
                    end,
                    wanted,
                    lambda code: self._send(process, TunnelDialled(number, code), ()),
                    lambda: state.cut,
                )
                if not orderly:
                    self._send(process, ConnectionBroken(number), (kept,))
        finally:
            self._open.pop(key, None)


def _is_stream_of_a_pair(sock: socket.socket) -> bool:
    return (sock.family, sock.type & ~socket.SOCK_NONBLOCK) == (socket.AF_UNIX, socket.SOCK_STREAM)


def _close(sockets: tuple[socket.socket, ...]) -> None:
    for one in sockets:
        one.close()
