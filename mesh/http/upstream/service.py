"""An HTTP service as exchanges use it: its endpoints, how they are reached, how long they are waited for."""

import errno
import socket
from collections.abc import Callable, Collection, Sequence
from time import monotonic

from mesh.balance.policies import Endpoint, Policy
from mesh.balance.retry_budget import RetryBudget
from mesh.errors import KernelError, NamespaceGone
from mesh.http import limits
from mesh.http.endpoint_pool import HttpEndpointPool, PooledEndpoint
from mesh.http.exchange import Exchange
from mesh.http.interfaces import Upstream
from mesh.http.runtime import HttpRuntime
from mesh.http.upstream.h1_connection import H1Upstream
from mesh.http.upstream.h1_tls_connection import SecuredUpstream
from mesh.http.upstream.h2_connection import H2Upstream, free_link
from mesh.http.upstream.tls import TaskTls
from mesh.net.limits.descriptors import for_client

RESPONSE_SECONDS = 300.0  # to a response's first byte: a report may take minutes, a hanging task for ever


class UpstreamService:
    """`service`: whose it is, the Swarm's id. `connect`: makes the non-blocking socket to a task."""

    def __init__(
        self,
        core: HttpRuntime,
        service: str,
        connect: Callable[[], socket.socket],
        policy: Policy = Policy.ROUND_ROBIN,
    ) -> None:
        self._core = core
        self._connect = connect
        self.connect_timeout = 2.0
        self.response_timeout = RESPONSE_SECONDS
        self.repeats_late = False
        self.attempts = limits.ATTEMPTS
        self.budget = RetryBudget()
        self.backend = HttpEndpointPool(policy, core.has_idle)
        self.stats = self.backend.stats = core.stats_of(service)
        self.h2 = False  # endpoints are asked in HTTP/2, with prior knowledge
        self.tls: TaskTls | None = None

    def update_endpoints(self, endpoints: Sequence[Endpoint], near: Collection[Endpoint] = ()) -> None:
        self.backend.update_endpoints(endpoints, near)

    def pick(self, exchange: Exchange) -> PooledEndpoint | None:
        """By the client's address, where the policy asks for it."""
        return self.backend.pick(exchange.source, exchange.tried)

    def may_repeat(self, exchange: Exchange) -> bool:
        """As long as not too many of the requests under way are repeated ones."""
        if exchange.repeating:
            return True  # it is counted already
        under_way = 1 + sum(server.active for server in self.backend.servers.values())
        exchange.repeating = self.budget.take(under_way)
        self.stats.retries_refused += not exchange.repeating
        return exchange.repeating

    def connection(self, server: PooledEndpoint, exchange: Exchange) -> Upstream:
        """Not connected yet."""
        if self.h2:
            return H2Upstream(self._core.poller, self._core.deadlines, server, exchange)
        if self.tls is not None:
            if not exchange.upgrades and free_link(server) is not None:
                return H2Upstream(self._core.poller, self._core.deadlines, server, exchange)
            return SecuredUpstream(self._core.poller, self._core.deadlines, server, exchange, self.tls)
        return H1Upstream(self._core.poller, self._core.deadlines, server, exchange)

    def on_close(self, exchange: Exchange) -> None:
        """Count it."""
        if exchange.repeating:
            self.budget.give_back()
        stats = self.stats
        stats.count(exchange.method, exchange.status, monotonic() - exchange.started)
        stats.received += exchange.received
        stats.sent += exchange.sent
        if len(exchange.tried) > 1:
            stats.retries += len(exchange.tried) - 1
        if exchange.fault is not None:
            stats.faults[exchange.fault.reason] += 1

    def close(self) -> None:
        self.backend.close()

    def socket(self) -> socket.socket:
        """Non-blocking, for a connection to a task. OSError when none can be had."""
        try:
            return for_client(self._connect())
        except NamespaceGone as error:
            raise OSError(errno.ENETUNREACH, str(error)) from error
        except KernelError as error:
            raise OSError(errno.EIO, str(error)) from error
