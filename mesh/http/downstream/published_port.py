"""A published port in `mode: http`: every request is for the port's service. `relay.port_reconciler` opens
it."""

import asyncio
import socket
from collections.abc import Callable, Collection, Sequence

from mesh.balance.endpoint_pool import EndpointStatus
from mesh.balance.policies import Endpoint
from mesh.http.codec.h1_head import RequestHead
from mesh.http.downstream.listener import HttpListener
from mesh.http.exchange import Exchange
from mesh.http.interfaces import Downstream
from mesh.http.runtime import HttpRuntime
from mesh.http.upstream.service import UpstreamService
from mesh.net.bound_listener import ListenerOwner
from mesh.relay.proxy_protocol import trusts
from mesh.relay.stats import PortStats
from mesh.relay.tcp_connection import RelayOptions


class HttpPort(ListenerOwner):
    """The counterpart of `relay.tcp_port` for HTTP."""

    def __init__(
        self,
        runtime: HttpRuntime,
        service: str,
        listener: socket.socket,
        endpoints: Sequence[Endpoint],
        options: RelayOptions,
        connect: Callable[[], socket.socket],
        near: Collection[Endpoint] = (),
    ) -> None:
        self.options = options
        self.target = UpstreamService(runtime, service, connect)
        self._listener = listener
        self._http_listener = HttpListener(runtime, listener, self, self._trusts)
        self.update_endpoints(endpoints, options, near)

    def exchange(self, client: Downstream, head: RequestHead) -> Exchange:
        return Exchange(client, head, self.target, self.target.on_close)

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        return tuple(self.target.backend.servers)

    @property
    def stats(self) -> PortStats:
        """Counts of connections and of bodies' bytes. Requests are counted in `target.stats`."""
        stats, listener = self.target.stats, self._http_listener
        return PortStats(
            listener.connections,
            listener.active,
            stats.received,
            stats.sent,
            stats.faults + listener.refusals,
            stats.retries,
            "http",
        )

    def seen(self) -> tuple[EndpointStatus, ...]:
        """The endpoints with their active requests."""
        backend, now = self.target.backend, asyncio.get_running_loop().time()
        return tuple(
            EndpointStatus(one, server.active, backend.health.ejected_for(one, now))
            for one, server in backend.servers.items()
        )

    def update_endpoints(
        self,
        endpoints: Sequence[Endpoint],
        options: RelayOptions | None = None,
        near: Collection[Endpoint] = (),
    ) -> None:
        """Changes endpoints and options. New requests go to these endpoints, first to those in `near`;
        requests under way stay where they are."""
        self.options = options or self.options
        self.target.connect_timeout = self.options.connect_timeout
        self.target.backend.policy = self.options.policy
        self.target.backend.slow_start = self.options.slow_start
        self.target.update_endpoints(endpoints, near)

    async def close(self, drain_seconds: float = 0.0) -> None:
        await self._http_listener.close(drain_seconds)
        self.target.close()

    def _trusts(self, address: str) -> bool:
        return trusts(self.options.trusted, address)
