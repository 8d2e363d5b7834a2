"""A relayed port as its owner knows it, whoever carries it: one `Port`, a `UdpPort`, several processes."""

import socket
from collections.abc import Collection, Sequence
from typing import Protocol

from mesh.balance.endpoint_pool import EndpointStatus
from mesh.balance.policies import Endpoint
from mesh.relay.stats import PortStats
from mesh.relay.tcp_connection import RelayOptions
from mesh.relay.tcp_port import PollerAndTimers, TcpPort, poller_and_timers
from mesh.relay.tcp_proxy import ConnectSocket
from mesh.relay.udp_port import UdpPort


class PortHandle(Protocol):
    """See `Port` for what these mean."""

    @property
    def listener(self) -> socket.socket: ...
    @property
    def address(self) -> tuple[str, int]: ...
    @property
    def endpoints(self) -> tuple[Endpoint, ...]: ...
    @property
    def stats(self) -> PortStats: ...
    def seen(self) -> tuple[EndpointStatus, ...]: ...
    def update_endpoints(
        self, endpoints: Sequence[Endpoint], options: RelayOptions, near: Collection[Endpoint]
    ) -> None: ...
    async def close(self, drain_seconds: float) -> None: ...


class OpenPort(Protocol):
    """Carries a port from its listening socket on. The port owns the socket."""

    def __call__(
        self,
        listener: socket.socket,
        endpoints: Sequence[Endpoint],
        options: RelayOptions,
        connect: ConnectSocket,
        near: Collection[Endpoint],
    ) -> PortHandle: ...


class PortOpener:
    """Opens TCP ports that this process alone carries. They share one poller and one set of timers, so a port
    takes one descriptor. `stop` when all of them are closed."""

    def __init__(self) -> None:
        self._shared: PollerAndTimers | None = None

    def open(
        self,
        listener: socket.socket,
        endpoints: Sequence[Endpoint],
        options: RelayOptions,
        connect: ConnectSocket,
        near: Collection[Endpoint],
    ) -> TcpPort:
        """An `OpenPort`."""
        if self._shared is None:
            self._shared = poller_and_timers()
        return TcpPort(listener, endpoints, options, connect, near=near, shared=self._shared)

    def stop(self) -> None:
        if self._shared is not None:
            self._shared.deadlines.stop()
            self._shared.poller.stop()
            self._shared = None


def open_here(
    listener: socket.socket,
    endpoints: Sequence[Endpoint],
    options: RelayOptions,
    connect: ConnectSocket,
    near: Collection[Endpoint],
) -> TcpPort:
    """A TCP port with a poller of its own."""
    return TcpPort(listener, endpoints, options, connect, near=near)


def open_udp_here(
    listener: socket.socket,
    endpoints: Sequence[Endpoint],
    options: RelayOptions,
    connect: ConnectSocket,
    near: Collection[Endpoint],
) -> UdpPort:
    """In this process alone."""
    return UdpPort(listener, endpoints, options, connect, near=near)
