"""An HTTP service that labels declare, as exchanges use it: its policy, its cookie, its limits."""

import socket
from collections.abc import Callable, Collection, Sequence
from hashlib import blake2b

from mesh.balance.outlier_detection import Ejection, OutlierDetection
from mesh.balance.policies import Endpoint
from mesh.balance.retry_budget import RetryBudget
from mesh.http.config.model import HashBy, HttpService, Scheme, StickyCookie
from mesh.http.endpoint_pool import PooledEndpoint
from mesh.http.exchange import Exchange
from mesh.http.faults import HttpFault
from mesh.http.request_timeout import RequestTimeout
from mesh.http.runtime import HttpRuntime
from mesh.http.upstream.service import UpstreamService
from mesh.http.upstream.tls import TaskTls


class RoutedTarget(UpstreamService):
    def __init__(self, core: HttpRuntime, http: HttpService, connect: Callable[[], socket.socket]) -> None:
        """OSError when TLS to it cannot be as its labels say."""
        super().__init__(core, http.owner, connect, http.policy)
        if http.scheme is Scheme.HTTPS:
            self.tls = TaskTls(http)
        self.http = http
        self.response_timeout = http.try_timeout or http.response_timeout
        self.repeats_late = bool(http.try_timeout)
        self.attempts = http.attempts
        self.budget = RetryBudget(http.retry_budget, http.retry_min)
        self.backend.health = OutlierDetection(
            Ejection(http.outlier_failures, http.outlier_time, http.outlier_share)
        )
        self.backend.bad = http.outlier_statuses
        self.h2 = http.scheme is Scheme.H2C
        self._tokens: dict[str, PooledEndpoint] = {}  # what the cookie says → the endpoint
        self._hash_by = http.hash_by if http.hash_by != HashBy() else None
        self._cookie = _cookie_name(http) if http.sticky else ""

    def limit(self, exchange: Exchange) -> RequestTimeout | None:
        """From now on, as far as the service has one."""
        seconds = self.http.timeout
        return RequestTimeout(self._core.deadlines, seconds, exchange.on_timeout) if seconds else None

    def update_endpoints(self, endpoints: Sequence[Endpoint], near: Collection[Endpoint] = ()) -> None:
        super().update_endpoints(endpoints, near)
        if self._cookie:
            self._tokens = {_token(one): server for one, server in self.backend.servers.items()}

    def pick(self, exchange: Exchange) -> PooledEndpoint | None:
        server = self._picked(exchange)
        if server is not None and not self.http.pass_host:
            exchange.address_to(str(server.endpoint))
        return server

    def _picked(self, exchange: Exchange) -> PooledEndpoint | None:
        if not self._cookie:
            return self._free(self._chosen(exchange), exchange)
        kept = self._tokens.get(_cookie_value(exchange, self._cookie))
        if kept is not None and kept not in exchange.tried and self.backend.takes(kept):
            return self._free(kept, exchange)
        server = self._free(self._chosen(exchange), exchange)
        if server is not None and self.http.sticky is not None:
            exchange.set_cookie(_cookie(self._cookie, _token(server.endpoint), self.http.sticky))
        return server

    def _chosen(self, exchange: Exchange) -> PooledEndpoint | None:
        by = self._hash_by
        if by is None:
            return super().pick(exchange)
        key = _cookie_value(exchange, by.cookie) if by.cookie else _header(exchange, by.header)
        return self.backend.pick(key or exchange.source, exchange.tried)

    def _free(self, server: PooledEndpoint | None, exchange: Exchange) -> PooledEndpoint | None:
        """It, or another one if it has as many requests as it may; None when all have."""
        most = self.http.max_requests
        if server is None or not most or server.active < most:
            return server
        free = [one for one in self.backend.offered if one.active < most]
        if not free:
            exchange.fault = HttpFault.OVERLOADED
        return min(free, key=lambda one: one.active, default=None)


def _token(endpoint: Endpoint) -> str:
    """Of the endpoint; it tells nothing of its address."""
    return blake2b(str(endpoint).encode(), digest_size=8).hexdigest()


def _cookie_name(http: HttpService) -> str:
    assert http.sticky is not None
    return http.sticky.name or "_" + blake2b(http.name.encode(), digest_size=4).hexdigest()


def _cookie_value(exchange: Exchange, name: str) -> str:
    for line in exchange.head.fields.all(b"cookie"):
        for pair in line.decode("latin-1").split(";"):
            found, _, value = pair.strip().partition("=")
            if found == name:
                return value
    return ""


def _header(exchange: Exchange, name: str) -> str:
    return (exchange.head.fields.get(name.encode()) or b"").decode("latin-1")


def _cookie(name: str, token: str, sticky: StickyCookie) -> str:
    parts = [f"{name}={token}", f"Path={sticky.path}"]
    if sticky.domain:
        parts.append(f"Domain={sticky.domain}")
    if sticky.max_age:
        parts.append(f"Max-Age={sticky.max_age}")
    if sticky.same_site:
        parts.append(f"SameSite={sticky.same_site}")
    parts += ["Secure"] * sticky.secure + ["HttpOnly"] * sticky.http_only
    return "; ".join(parts)
