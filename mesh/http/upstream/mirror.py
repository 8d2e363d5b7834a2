"""Copies of a service's requests for another one, whose answers nobody gets: how does a new version do?

A copy is sent when its request is over, and from then on nothing connects the two: whatever becomes of it,
the client has what it gets already. So nobody waits for a copy; its body is the one that was kept for a
repetition; and requests that middlewares have answered are not copied.
"""

import random
from collections.abc import Callable

from mesh.http import limits
from mesh.http.exchange import Exchange
from mesh.http.faults import RequestRefused
from mesh.http.runtime import HttpRuntime
from mesh.http.upstream.routed_service import RoutedTarget
from mesh.http.upstream.service_registry import Targets
from mesh.http.upstream.subrequest import Subrequest
from mesh.net.limits.semaphore import Semaphore


class Mirroring:
    def __init__(
        self, core: HttpRuntime, targets: Targets, draw: Callable[[], float] = random.random
    ) -> None:
        self._core = core
        self._targets = targets
        self._draw = draw
        self._room = Semaphore(limits.MIRRORS_MAX)
        self._copies: set[Subrequest] = set()

    def look_at(self, exchange: Exchange, target: RoutedTarget, mirror: str) -> None:
        """It is over, and was for a service that wants copies to go to this one (key; "": there is none)."""
        if not exchange.tried or self._draw() * 100 >= target.http.mirror_percent:
            return
        result = self._copied(exchange, self._targets.get(mirror), target)
        if result:
            target.stats.mirrored[result] += 1

    def close(self) -> None:
        for copy in tuple(self._copies):
            copy.drop()
        self._copies.clear()

    def _copied(self, exchange: Exchange, mirror: RoutedTarget | None, target: RoutedTarget) -> str:
        """Why not, or "": it is on its way."""
        body = exchange.request_body
        if mirror is None or mirror is target or not mirror.backend.servers:
            return "no_endpoint"
        if exchange.upgrades:
            return "upgrade"
        if body is None:
            return "body"
        if not self._room.take():
            return "full"
        lines, client = exchange.request_lines(), exchange.client

        def told(copy: Subrequest) -> None:
            self._copies.discard(copy)
            self._room.give_back()
            target.stats.mirrored["answered" if copy.head is not None else "failed"] += 1

        def send() -> None:
            if copy.done:
                return  # all is closed
            try:
                copy.ask(mirror, exchange.method, exchange.target, lines, body)
            except (
                RequestRefused
            ):  # a middleware has set what a request cannot have; its own task may take it
                told(copy)

        copy = _Copy(
            self._core.deadlines, Semaphore(1), client.edge, client.request_id, told, limits.MIRROR_SECONDS
        )
        self._copies.add(copy)
        # Not at once: the response may still have to be written.
        self._core.poller.again(send)
        return ""


class _Copy(Subrequest):
    """The response is read, so that the connection can be used again, and thrown away."""

    def write(self, data: bytes) -> None:
        """Nobody wants it."""

    def flush(self) -> bool:
        return True
