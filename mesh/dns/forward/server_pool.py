"""The servers that were asked: the health of each, and probes of those that fail.

A try that fails may be the fault of the name that was asked for, so the server is probed at once with a
question that any resolver answers from memory; any reply, be it a refusal, ends the matter. Only when the
probe fails too is it said (log, `faults`), and probed again ever less often, as long as somebody needs it.

Servers of containers are kept apart: what one namespace reaches another may not.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import NamedTuple

from mesh.dns.config import SERVER_UNUSED, SERVERS_KNOWN_MAX
from mesh.dns.forward.route import DnsServer, UpstreamRoute
from mesh.dns.forward.self_check import is_ourselves
from mesh.dns.forward.server_health import ServerHealth
from mesh.errors import KernelError, WireError
from mesh.net.tasks import Tasks

logger = logging.getLogger(__name__)

# Sends a probe and waits for any reply to it. Raises OSError, TimeoutError, KernelError, WireError.
Probe = Callable[[UpstreamRoute, DnsServer], Awaitable[None]]


class ServerPlace(NamedTuple):
    """A server as it is reached from a container's namespace, "" for our own."""

    server: DnsServer
    container: str

    def __str__(self) -> str:
        inside = f" of container {self.container[:12]}" if self.container else ""
        return f"DNS server {self.server}{inside}"


class ServerPool:
    """Not thread-safe. `faults` is kept up to date: place → what is wrong with it, in words.

    `listen`: the addresses on which we answer ourselves.
    """

    def __init__(
        self, tasks: Tasks, probe: Probe, faults: dict[str, str], listen: tuple[tuple[str, int], ...]
    ) -> None:
        self._tasks, self._probe, self._faults, self._listen = tasks, probe, faults, listen
        self._health: dict[ServerPlace, ServerHealth] = {}
        self._probing: set[ServerPlace] = set()

    def health(self, route: UpstreamRoute, server: DnsServer) -> ServerHealth:
        place = ServerPlace(server, route.container)
        known = self._health.get(place)
        if known is None:
            if len(self._health) >= SERVERS_KNOWN_MAX:
                self._forget_one()
            known = self._health[place] = ServerHealth()
        return known

    def replied(self, route: UpstreamRoute, server: DnsServer, health: ServerHealth, seconds: float) -> None:
        health.replied(seconds)
        if self._faults and not health.loops(monotonic()):
            self._well(ServerPlace(server, route.container))

    def failed(self, route: UpstreamRoute, server: DnsServer) -> None:
        """A try has failed: probe it, unless that is being done."""
        self.health(route, server).failed(monotonic())
        self._begin_probing(route, server)

    def overtaken(self, route: UpstreamRoute, server: DnsServer, seconds: float) -> None:
        health = self.health(route, server)
        health.overtaken(seconds, monotonic())
        if health.failing:
            self._begin_probing(route, server)

    def led_back(self, route: UpstreamRoute, server: DnsServer) -> None:
        """A question that was sent there came back to us."""
        ourselves = is_ourselves(server, self._listen)
        self.health(route, server).note_loop(monotonic(), ourselves)
        what = "is this resolver itself: it is left out" if ourselves else "asks this resolver in its turn"
        self._ill(ServerPlace(server, route.container), what)

    def usable(self, route: UpstreamRoute) -> dict[DnsServer, ServerHealth]:
        """The servers of the route that are not ourselves, in their order."""
        now = monotonic()
        known = {server: self.health(route, server) for server in route.servers}
        return {server: health for server, health in known.items() if not health.left_out(now)}

    def all_failing(self, route: UpstreamRoute) -> bool:
        """Is there little hope for a question that goes this way?"""
        return all(health.failing for health in self.usable(route).values())

    # --- probing --------------------------------------------------------------------------------------------

    def _begin_probing(self, route: UpstreamRoute, server: DnsServer) -> None:
        place = ServerPlace(server, route.container)
        if place not in self._probing:
            self._probing.add(place)
            self._tasks.start(self._probe_until_well(route, place), "dns-probe")

    async def _probe_until_well(self, route: UpstreamRoute, place: ServerPlace) -> None:
        health = self.health(route, place.server)
        try:
            while health.failing and monotonic() - health.used_at < SERVER_UNUSED:
                began = monotonic()
                try:
                    await self._probe(route, place.server)
                except (OSError, WireError) as error:
                    health.failed(monotonic())
                    self._ill(place, f"does not answer ({str(error) or 'no reply'})")
                    await asyncio.sleep(health.rests_until - monotonic())
                else:
                    health.replied(monotonic() - began)
        except KernelError:  # the container is gone, and with it whoever needs this server
            pass
        finally:
            self._probing.discard(place)
            if not health.loops(monotonic()):
                self._well(place)

    def _ill(self, place: ServerPlace, what: str) -> None:
        if str(place) not in self._faults:
            logger.warning("%s %s", place, what)
        self._faults[str(place)] = f"{place} {what}"

    def _well(self, place: ServerPlace) -> None:
        if self._faults.pop(str(place), None) is not None:
            logger.info("%s is fine again, or not needed any more", place)

    def _forget_one(self) -> None:
        """The one that has not been used for longest, and is not in use."""
        idle = (place for place, health in self._health.items() if not health.outstanding)
        oldest = min(idle, key=lambda place: self._health[place].used_at, default=None)
        if oldest is not None and oldest not in self._probing:
            del self._health[oldest]
