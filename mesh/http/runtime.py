"""What all HTTP listeners share: one poller, one clock, ids of requests, the end of idle connections."""

import asyncio
import os
from itertools import count

from mesh.http import limits
from mesh.http.byte_budget import ByteBudget
from mesh.http.endpoint_pool import HttpEndpointPool
from mesh.http.password_queue import PasswordQueue
from mesh.http.stats import ServiceStats
from mesh.net.limits.semaphore import Semaphore, SharedRoom
from mesh.net.poller import Poller
from mesh.net.timers import Deadlines


class HttpRuntime:
    """Make it on the loop's thread; `close` when every listener is closed."""

    def __init__(self, per_address: int = 0) -> None:
        """`per_address`: connections of one client's address to one listener; 0: any."""
        loop = asyncio.get_running_loop()
        self.per_address = per_address
        self.bytes = ByteBudget()  # held for requests and responses under way
        self.poller = Poller(loop)
        self.deadlines = Deadlines(loop)
        self.stats: dict[str, ServiceStats] = {}  # by the Swarm's service id
        self._prefix = os.urandom(8).hex().encode()
        self._ids = count()
        self.checking = Semaphore(limits.CHECKS_AT_ONCE)
        self.checks = SharedRoom(self.checking)  # by the Swarm's service id
        self.passwords = PasswordQueue(loop)

    def request_id(self) -> bytes:
        """Unique among all nodes: this process's random number, and the request's."""
        return b"%b%08x" % (self._prefix, next(self._ids))

    def stats_of(self, service: str) -> ServiceStats:
        """Of all that is carried for it, on whatever port."""
        return self.stats.setdefault(service, ServiceStats())

    def forget(self, service: str) -> None:
        """It is no more."""
        self.stats.pop(service, None)

    def has_idle(self, backend: HttpEndpointPool) -> None:
        """From now on look after its idle connections, as long as there are some."""
        self.deadlines.add(_Sweep(self, backend), limits.IDLE_ENDPOINT_SECONDS / 2)

    def close(self) -> None:
        self.passwords.close()
        self.deadlines.stop()
        self.poller.stop()


class _Sweep:
    __slots__ = ("_backend", "_core")

    def __init__(self, core: HttpRuntime, backend: HttpEndpointPool) -> None:
        self._core = core
        self._backend = backend

    def on_fault(self) -> None:
        """At the next time, perhaps."""
        self._core.deadlines.add(self, limits.IDLE_ENDPOINT_SECONDS / 2)

    def on_due(self) -> None:
        if self._backend.sweep():
            self._core.deadlines.add(self, limits.IDLE_ENDPOINT_SECONDS / 2)
