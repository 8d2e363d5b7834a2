"""Relayed connections that share their endpoints: whose turn it is, what was counted, how they end.

Callbacks on raw sockets all the way, as in `splice`: a coroutine per connection would cost more than that.
What a client may see: its bytes relayed; a reset at once when no task can be reached; never a silent wait.
"""

import asyncio
import random
import socket
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from itertools import islice
from operator import itemgetter

from mesh.balance.endpoint_pool import EndpointPool, EndpointStatus
from mesh.balance.policies import Endpoint, Policy
from mesh.net.isolation import run
from mesh.net.limits.descriptors import for_client
from mesh.net.limits.fair_shares import share_key
from mesh.net.poller import Poller
from mesh.net.timers import Deadlines
from mesh.relay.proxy_protocol import trusts
from mesh.relay.splice import reset_on_close
from mesh.relay.stats import PortStats
from mesh.relay.tcp_connection import RelayConnection, RelayOptions

MAX_CONNECTIONS = 20_000  # here: each holds 2 descriptors, a bulk one 6; more are reset and counted
CONNECTIONS_PER_ADDRESS = 5000  # of these of one client's address (IPv6: its /64), but of trusted proxies
GIVING_WAY_AT_ONCE = 64  # connections that end when all places are taken: to find them takes a millisecond

# Makes the non-blocking socket that goes out to a task: in the ingress namespace, or a plain one.
ConnectSocket = Callable[[], socket.socket]


class TcpProxy:
    """`begin` gets the clients, whoever accepted them."""

    def __init__(
        self,
        poller: Poller,
        deadlines: Deadlines,
        endpoints: Sequence[Endpoint],
        options: RelayOptions | None,
        connect: ConnectSocket,
        draw: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
        near: Collection[Endpoint] = (),
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.poller = poller
        self.deadlines = deadlines
        self._upstreams = EndpointPool(endpoints, near, draw)
        self.options = options or RelayOptions()
        self._connect = connect
        self._stats = PortStats()
        self._clock = clock  # finer than the loop's, which stands still while callbacks run
        self._open: dict[RelayConnection, Callable[[], None] | None] = {}  # with whom to tell of the end
        self._per_address: dict[str, int] = {}  # connections of each address that has any
        self._empty = asyncio.Event()  # set when the last connection of a closing one is over
        self._closing = False

    @property
    def active(self) -> int:
        """Connections."""
        return len(self._open)

    @property
    def stats(self) -> PortStats:
        """Counters as of now, bytes of open connections included."""
        total, counted = self._stats, self._open
        return PortStats(
            total.connections,
            len(counted),
            total.received + sum(one.received for one in counted),
            total.sent + sum(one.sent for one in counted),
            total.errors.copy(),
            total.retries,
        )

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        return self._upstreams.endpoints

    def seen(self) -> tuple[EndpointStatus, ...]:
        return self._upstreams.seen(self._loop.time())

    def update_endpoints(
        self,
        endpoints: Sequence[Endpoint],
        options: RelayOptions | None = None,
        near: Collection[Endpoint] = (),
    ) -> None:
        """New connections go to these, to the `near` first. Those to endpoints that left may go on for the
        drain time."""
        self.options = options or self.options
        if self._upstreams.update_endpoints(endpoints, near, self.options.slow_start, self._loop.time()):
            self._loop.call_later(self.options.drain, self._abort_left)

    async def drain(self, seconds: float) -> None:
        """Let connections end by themselves for so long, then reset them."""
        self._closing = True
        if self._open and seconds > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._empty.wait()
        for connection in tuple(self._open):
            connection.abort("drained")

    def _abort_left(self) -> None:
        for connection in tuple(self._open):
            if connection.endpoint not in self._upstreams.current:
                connection.abort("drained")

    def begin(
        self, client: socket.socket, peer: tuple[str, int], ended: Callable[[], None] | None = None
    ) -> None:
        """`ended` is called once, when the connection is over, also if it was refused."""
        self._stats.connections += 1
        client.setblocking(False)
        # Whoever wants to be told of the end has accepted it, and has counted its address.
        shared = ended is not None or trusts(self.options.trusted, peer[0])
        address = "" if shared else share_key(peer[0])
        if reason := self._no_room(address):
            self.refuse(client, reason)
            if ended is not None:
                ended()
            return
        connection = RelayConnection(self, client, peer, address)
        self._open[connection] = ended
        if address:
            self._per_address[address] = self._per_address.get(address, 0) + 1
        run(connection.begin)

    def _no_room(self, address: str) -> str:
        """Why there is no place for one more of this address ("": one that has no share); "" if there is."""
        if address and self._per_address.get(address, 0) >= CONNECTIONS_PER_ADDRESS:
            return "per_address"
        if len(self._open) < MAX_CONNECTIONS:
            return ""
        largest, count = max(self._per_address.items(), key=itemgetter(1), default=("", 0))
        if count <= self._per_address.get(address, 0) + 1:
            return "full"
        theirs = (one for one in self._open if one.address == largest)  # the oldest first
        for connection in tuple(islice(theirs, min(GIVING_WAY_AT_ONCE, count // 2))):
            connection.abort("gave_way")
        return ""

    # --- what connections ask of it ---

    def pick(self, source: str, tried: Sequence[Endpoint]) -> Endpoint | None:
        """The endpoint to try next; None when there is none left."""
        options = self.options
        return self._upstreams.pick(source, tried, options.policy, options.slow_start, self._loop.time())

    @property
    def clock(self) -> Callable[[], float]:
        return self._clock

    def out_socket(self) -> socket.socket:
        return for_client(self._connect())

    def connected(self, endpoint: Endpoint, took: float) -> None:
        self._upstreams.health.succeeded(endpoint)
        if self.options.policy is Policy.P2C:
            self._upstreams.took(endpoint, took, self._loop.time())

    def failed(self, endpoint: Endpoint, reason: str) -> None:
        self._stats.errors[reason] += 1
        if reason in ("fd_limit", "other"):
            return  # our own state (descriptors, the namespace): it says nothing of the endpoint
        now = self._loop.time()
        self._upstreams.failed(endpoint, now)
        if self.options.policy is Policy.P2C:  # however fast it refused
            self._upstreams.took(endpoint, self.options.connect_timeout, now)

    def retried(self) -> None:
        self._stats.retries += 1

    def occupy(self, endpoint: Endpoint, by: int) -> None:
        self._upstreams.occupy(endpoint, by)

    def on_close(self, connection: RelayConnection, reason: str) -> None:
        ended = self._open.pop(connection, None)
        if address := connection.address:
            if left := self._per_address[address] - 1:
                self._per_address[address] = left
            else:
                del self._per_address[address]
        if self._closing and not self._open:
            self._empty.set()
        self._stats.received += connection.received
        self._stats.sent += connection.sent
        if reason:
            self._stats.errors[reason] += 1
        if ended is not None:
            ended()

    def refuse(self, client: socket.socket, reason: str) -> None:
        self._stats.errors[reason] += 1
        reset_on_close(client)
        client.close()
