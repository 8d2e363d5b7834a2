"""How a restricted process reaches tasks: sockets and tunnels come from the sidecar."""

import errno
import socket
from collections.abc import Callable
from itertools import count

from mesh.catalog.model import Network
from mesh.catalog.snapshot import Snapshot
from mesh.errors import NamespaceGone
from mesh.http.config.internal_targets import InternalTargets, TargetRefused, why_internal
from mesh.http.upstream.network_reach import Connect
from mesh.peers.tunnel.client import TUNNELS_MAX
from mesh.peers.tunnel.client import DialledTunnel as DialledSocket
from sidecar.workers.channel import Channel
from sidecar.workers.http_messages import ConnectionBroken, Cut, Dial, TunnelDialled
from sidecar.workers.socket_stock import SocketStock


class EdgeReach:
    """As `mesh.http.upstream.network_reach.Namespaces`. `networks`: ids of those that are here, as the
    sidecar last said.
    """

    def __init__(
        self,
        stock: SocketStock,
        internal: InternalTargets,
        networks: Callable[[], frozenset[str]],
        ingress: Callable[[str], bool],
        lead: Callable[[str], socket.socket] | None = None,
    ) -> None:
        self._stock, self._internal, self._networks = stock, internal, networks
        self._ingress, self._lead = ingress, lead

    def here(self, network: Network, snapshot: Snapshot) -> bool:
        return network.ingress or network.id in self._networks()

    @property
    def elsewhere(self) -> bool:
        return self._lead is not None

    def connect(self, network: str) -> Connect:
        take, lead = self._stock.connect(network), self._lead
        if lead is None or self._ingress(network):
            return take

        def take_or_lead() -> socket.socket:
            if network in self._networks():
                try:
                    return take()
                except NamespaceGone:
                    pass  # it has just left this node
            return lead(network)

        return take_or_lead

    def why_refused(self, address: str) -> str:
        reason = why_internal(address, self._internal.allowed)
        return str(TargetRefused(address, reason)) if reason else ""


class _EdgeDialled(DialledSocket):
    """One end of a pair, whose other end the sidecar has."""

    def __init__(self, end: socket.socket, begin: Callable[["_EdgeDialled", str, int], None]) -> None:
        super().__init__(end, lambda _, address, port: begin(self, address, port))
        self.ended: Callable[[], None] = lambda: None

    def close(self) -> None:
        ended, self.ended = self.ended, lambda: None
        ended()
        super().close()


class EdgeTunnels:
    """Asks the sidecar to lead sockets to other nodes. `on_dialled` and `on_broken` take its answers."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._numbers = count(1)
        self._open: dict[int, _EdgeDialled] = {}

    def to(self, network: str) -> socket.socket:
        """As `mesh.peers.tunnel.client.Tunnels.to`."""
        if len(self._open) >= TUNNELS_MAX:
            raise OSError(errno.EMFILE, "too many tunnels")
        ours, theirs = socket.socketpair()

        def begin(dialled: _EdgeDialled, address: str, port: int) -> None:
            number = next(self._numbers)
            self._open[number] = dialled
            dialled.ended = lambda: self._end(number, dialled)
            with theirs:
                self._channel.send(Dial(number, network, address, port), (theirs,))

        return _EdgeDialled(ours, begin)

    def on_dialled(self, message: TunnelDialled) -> None:
        dialled = self._open.get(message.number)
        if dialled is not None:
            dialled.opened(message.code)

    def on_broken(self, message: ConnectionBroken, sockets: tuple[socket.socket, ...]) -> None:
        """Its end closes with the socket that came: whoever reads knows by then what that means."""
        dialled = self._open.get(message.number)
        if dialled is not None:
            dialled.broken = True
        for one in sockets:
            one.close()

    def _end(self, number: int, dialled: _EdgeDialled) -> None:
        del self._open[number]
        if dialled.cut:
            self._channel.send(Cut(number), (dialled,))  # open until the sidecar has read this
