"""The endpoints of one HTTP service: who is next, what is known of them, and their idle connections.

As `relay.upstreams` for connections, here for requests: the same policies and the same health, counted per
request. Of its connections the one used last is taken first, so that the rest grow old and go.
"""

import random
import ssl
from collections.abc import Callable, Collection, Sequence
from time import monotonic

from mesh.balance.candidates import candidates
from mesh.balance.outlier_detection import OutlierDetection
from mesh.balance.peak_ewma import Latency
from mesh.balance.policies import Draw, Endpoint, Policy, choose
from mesh.balance.rendezvous import Rendezvous
from mesh.balance.slow_start import Young
from mesh.http import limits
from mesh.http.codec.h1_head import ResponseReader
from mesh.http.config.model import BAD_STATUSES
from mesh.http.interfaces import IdleConnection, Link
from mesh.http.stats import ServiceStats


class PooledEndpoint:
    """One endpoint and its connections."""

    __slots__ = ("active", "backend", "endpoint", "idle", "leaving", "links", "reader", "requests", "session")

    def __init__(self, backend: "HttpEndpointPool", endpoint: Endpoint) -> None:
        self.backend = backend
        self.endpoint = endpoint
        self.idle: list[IdleConnection] = []
        self.links: list[Link] = []
        self.session: ssl.SSLSession | None = None  # of TLS, for the next connection
        self.active = 0  # requests under way
        self.requests = 0
        self.reader = ResponseReader()
        self.leaving = False  # no longer an endpoint: its connections are not kept

    def keep(self, connection: IdleConnection) -> None:
        """It is ready for another request."""
        if self.leaving or len(self.idle) >= limits.IDLE_PER_ENDPOINT:
            connection.discard()
            return
        connection.idle_since = monotonic()
        self.idle.append(connection)
        self.backend.has_idle()

    def leave(self) -> None:
        """It is no endpoint any more: what is under way goes on."""
        self.leaving = True
        self.forget_idle()
        for link in tuple(self.links):
            link.retire()

    def forget_idle(self, before: float = float("inf")) -> None:
        """Close those that were last used before then."""
        old = [one for one in self.idle if one.idle_since < before]
        self.idle = [one for one in self.idle if one.idle_since >= before]
        for one in old:
            one.discard()


class HttpEndpointPool:
    """`endpoints` may change at any time; requests under way go on where they are."""

    def __init__(
        self,
        policy: Policy = Policy.ROUND_ROBIN,
        has_idle: Callable[["HttpEndpointPool"], None] = lambda _: None,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.policy = policy
        self.slow_start = 0.0
        self.health = OutlierDetection()
        self.bad = BAD_STATUSES  # a response with one of these is a failure of its endpoint
        self.stats = ServiceStats()  # of whose it is
        self.servers: dict[Endpoint, PooledEndpoint] = {}
        self._endpoints: tuple[Endpoint, ...] = ()
        self._offered: tuple[Endpoint, ...] = ()  # those that are well, or all when none is
        self._unwell: frozenset[Endpoint] = frozenset()
        self._in_order: tuple[PooledEndpoint, ...] = ()
        self._near: frozenset[Endpoint] = frozenset()
        self._rendezvous = Rendezvous(())
        self._latency = Latency()
        self._young = Young()
        self._draw = draw
        self._turn = 0
        self._tell_idle = has_idle
        self._plain = True  # nothing but the turn decides
        self._swept = True

    def update_endpoints(self, endpoints: Sequence[Endpoint], near: Collection[Endpoint] = ()) -> None:
        left, joined = self.servers.keys() - set(endpoints), set(endpoints) - self.servers.keys()
        for gone in left:
            server = self.servers.pop(gone)
            server.leave()
        if self.slow_start and self.servers:
            self._young.joined(joined, monotonic())
        for new in joined:
            self.servers[new] = PooledEndpoint(self, new)
        self._endpoints = tuple(endpoints)
        self._offer()
        self._near = frozenset(near)
        self._rendezvous = Rendezvous(self._endpoints)
        for known in (self.health, self._latency, self._young):
            known.keep_only(self._endpoints)
        self._plain = self.policy is Policy.ROUND_ROBIN and not near and not self.slow_start

    def leave_out(self, unwell: Collection[Endpoint]) -> None:
        """These get no new request as long as there are others."""
        self._unwell = frozenset(unwell)
        self._offer()

    def _offer(self) -> None:
        well = tuple(one for one in self._endpoints if one not in self._unwell)
        self._offered = well or self._endpoints
        self._in_order = tuple(self.servers[one] for one in self._offered)

    @property
    def offered(self) -> Sequence[PooledEndpoint]:
        """Those among which is chosen."""
        return self._in_order

    def pick(self, source: str, tried: Sequence[PooledEndpoint]) -> PooledEndpoint | None:
        """The server for this key (an address, a header's value); None when there is none besides `tried`."""
        if self._plain and not tried and not self.health.known_bad:
            if not self._in_order:
                return None
            self._turn += 1
            return self._in_order[self._turn % len(self._in_order)]
        now = monotonic()
        among = candidates(self._offered, self._near, [one.endpoint for one in tried], self.health, now)
        if not among:
            return None
        if self.slow_start and self.policy is not Policy.SOURCE_HASH:
            among = self._young.taking_part(among, self.slow_start, now, self._draw)
        self._turn += 1
        draw = Draw(
            self._turn,
            self._draw,
            lambda endpoint: self.servers[endpoint].active,
            lambda endpoint: self._latency.cost(endpoint, self.servers[endpoint].active),
            lambda endpoints: self._rendezvous.choose(source, endpoints),
        )
        return self.servers[choose(self.policy, among, draw)]

    def takes(self, server: PooledEndpoint) -> bool:
        """May it get one more, if somebody asks for this one?"""
        if server.endpoint not in self._offered:
            return False
        return not self.health.known_bad or server.endpoint in self.health.usable(self._offered, monotonic())

    def answered(self, server: PooledEndpoint, asked: float, status: int) -> None:
        """It begins a response; it was asked at that time (monotonic)."""
        if status in self.bad:
            self.failed(server, str(status))
            return  # nor does it count how fast it fails
        if self.health.known_bad:
            self.health.answered(server.endpoint, asked, monotonic())
        if self.policy is Policy.P2C and not server.leaving:
            now = monotonic()
            self._latency.observe(server.endpoint, now - asked, now)

    def failed(self, server: PooledEndpoint, why: str) -> None:
        if not server.leaving and self.health.failed(server.endpoint, monotonic(), why):
            self.stats.ejections += 1

    def has_idle(self) -> None:
        if self._swept:
            self._swept = False
            self._tell_idle(self)

    def sweep(self) -> bool:
        """Close connections that have been idle for long. False when none is left."""
        before = monotonic() - limits.IDLE_ENDPOINT_SECONDS
        for server in self.servers.values():
            server.forget_idle(before)
        self._swept = not any(server.idle for server in self.servers.values())
        return not self._swept

    def close(self) -> None:
        self.update_endpoints(())
