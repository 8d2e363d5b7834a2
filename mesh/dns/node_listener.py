"""The explicit resolver: addresses of the node on which whoever is pointed at us may ask.

Listening is level-triggered: an address that cannot be had yet (no docker_gwbridge so far, a port that is
taken) is said so and tried again, the others serve meanwhile. The asker is known by its source address: a
container of this node, an asker of the catalogue file, or the node itself; nobody else is answered.
"""

import asyncio
import errno
import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from ipaddress import ip_address

from mesh.dns import mmsg
from mesh.dns.config import BRIDGE, GATEWAY
from mesh.dns.resolver import Resolver
from mesh.dns.scope import Scope
from mesh.dns.udp_server import DnsEndpoint
from mesh.errors import KernelError
from mesh.net import netlink, proc
from mesh.net.tasks import Tasks

logger = logging.getLogger(__name__)

RETRY_SECONDS = 5.0  # between two tries of an address that could not be had, and looks at a moved gateway

NODE = Scope()  # the node is on no overlay: for it we are a forwarder


class Sharing(Enum):
    """Whether several processes answer on the same address (SO_REUSEPORT)."""

    NONE = "none"
    OPENED = "opened"  # ours is the first of them, and the one that answers over TCP
    JOINED = "joined"


@dataclass(slots=True)
class ListenPlace:
    """One address asked for: what came of it."""

    host: str  # or GATEWAY
    port: int
    bound: tuple[str, int] | None = None
    fault: str = "not tried yet"
    endpoint: DnsEndpoint | None = None


def gateway_address() -> str | None:
    """The node's own address on docker_gwbridge, None as long as there is none."""
    own = [one.address for one in netlink.addresses() if one.interface == BRIDGE]
    return own[0] if own else None


class ExplicitResolver:
    """Keeps one endpoint on each address. `start` tries all once; a task goes on with those that failed."""

    def __init__(
        self,
        resolver: Resolver,
        tasks: Tasks,
        addresses: tuple[tuple[str, int], ...],
        gateway: Callable[[], str | None] = gateway_address,
        sharing: Sharing = Sharing.NONE,
    ) -> None:
        self._resolver = resolver
        self._tasks = tasks
        self._sharing = sharing
        self._gateway = gateway
        self._own: frozenset[str] = frozenset()
        self.places = [ListenPlace(host, port) for host, port in addresses]

    async def start(self) -> None:
        """Try every address once, and go on with those that could not be had."""
        await self._look()
        self._tasks.keep(self._keep, "explicit-resolver")

    def close(self) -> None:
        for place in self.places:
            self._shut(place)

    def scope(self, source: str) -> Scope | None:
        """Who asks from this address; None: nobody that we answer."""
        known = self._resolver.scope_by_source(source)
        if known is not None:
            return known
        return NODE if source in self._own else None

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(RETRY_SECONDS)
            await self._look()

    async def _look(self) -> None:
        try:
            self._own = frozenset(one.address for one in netlink.addresses())
        except (KernelError, OSError, AttributeError) as error:  # no netlink outside Linux
            logger.debug("own addresses are not known: %s", error)
        for place in self.places:
            await self._try(place)

    async def _try(self, place: ListenPlace) -> None:
        host = self._gateway() if place.host == GATEWAY else place.host
        if place.bound is not None and host == place.bound[0]:
            return
        self._shut(place)
        if host is None:
            self._report(place, f"no {BRIDGE} with an address yet")
            return
        try:
            udp, tcp = _sockets(host, place.port, self._sharing)
        except OSError as error:
            self._report(place, _explain(host, place.port, error))
            return
        place.bound, place.fault = udp.getsockname()[:2], ""
        place.endpoint = DnsEndpoint(self._resolver, udp, tcp, self.scope)
        await place.endpoint.start()

    def _shut(self, place: ListenPlace) -> None:
        if place.endpoint is not None:
            place.endpoint.close()
        place.endpoint = place.bound = None

    def _report(self, place: ListenPlace, fault: str) -> None:
        if fault != place.fault:
            logger.warning("%s", fault)
        place.fault = fault


def _sockets(host: str, port: int, sharing: Sharing) -> tuple[socket.socket, socket.socket | None]:
    """UDP and TCP on the same port; port 0: whatever both can have."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    tcp: socket.socket | None = None
    if sharing is not Sharing.JOINED:
        tcp = _bound(family, socket.SOCK_STREAM, host, port)
    try:
        if tcp is not None:
            tcp.listen()
            port = tcp.getsockname()[1]
        udp = _bound(family, socket.SOCK_DGRAM, host, port, shared=sharing is not Sharing.NONE)
    except OSError:
        if tcp is not None:
            tcp.close()
        raise
    if mmsg.available() and int(ip_address(host)) == 0:
        mmsg.tell_own_address(udp)
    return udp, tcp


def _bound(family: int, kind: int, host: str, port: int, shared: bool = False) -> socket.socket:
    made = socket.socket(family, kind)
    try:
        made.setblocking(False)
        if shared:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if kind == socket.SOCK_STREAM:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
    except OSError:
        made.close()
        raise
    return made


def _explain(host: str, port: int, error: OSError) -> str:
    holder = proc.listener_owner(port) if error.errno == errno.EADDRINUSE else None
    by = f", held by {holder}" if holder else ""
    return f"cannot answer DNS on {host}:{port}: {error.strerror}{by}"
