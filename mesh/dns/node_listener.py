"""The explicit resolver: addresses of the node on which whoever is pointed at us may ask.

Listening is level-triggered: an address that cannot be had yet (no docker_gwbridge so far, a port that is
taken) is said so and tried again, the others serve meanwhile. The asker is known by its source address: a
container of this node, an asker of the catalogue file, or the node itself; nobody else is answered.
"""

import logging
import socket
from collections.abc import Callable
from enum import Enum
from ipaddress import ip_address

from mesh.dns import mmsg
from mesh.dns.config import BRIDGE, GATEWAY
from mesh.dns.resolver import Resolver
from mesh.dns.scope import Scope
from mesh.dns.udp_server import DnsEndpoint
from mesh.errors import KernelError
from mesh.net import netlink
from mesh.net.bound_listener import BoundListener, bind_backoff, bind_fault
from mesh.net.reconciler import Reconciler
from mesh.net.tasks import Tasks

logger = logging.getLogger(__name__)

LOOK_SECONDS = 5.0  # between two looks at the node's addresses: the gateway's may have moved

NODE = Scope()  # the node is on no overlay: for it we are a forwarder


class Sharing(Enum):
    """Whether several processes answer on the same address (SO_REUSEPORT)."""

    NONE = "none"
    OPENED = "opened"  # ours is the first of them, and the one that answers over TCP
    JOINED = "joined"


Sockets = tuple[socket.socket, socket.socket | None]  # UDP and TCP on one port; no TCP where another has it


class ListenPlace:
    """One address of the configuration, and what is open there."""

    def __init__(self, host: str, port: int, gateway: Callable[[], str | None], sharing: Sharing) -> None:
        self.host = host  # or GATEWAY
        self.port = port
        self.bound: tuple[str, int] | None = None
        self.endpoint: DnsEndpoint | None = None
        self._gateway = gateway
        self._sharing = sharing
        self._listener: BoundListener[Sockets] = BoundListener(
            self._bind, lambda fault: logger.warning("%s", fault)
        )

    @property
    def fault(self) -> str:
        """Why nothing is open here; "" when it is."""
        return self._listener.fault

    async def try_open(self, resolver: Resolver, scope: Callable[[str], Scope | None]) -> bool:
        """Serve here, unless it is served already; where the gateway has moved, at its new address. True: it
        is served."""
        if self.bound is not None and self._wanted() != self.bound[0]:
            self.close()
            self._listener.report("its address has changed")
        sockets = self._listener.try_bind()
        if sockets is not None:
            self.bound = sockets[0].getsockname()[:2]
            self.endpoint = DnsEndpoint(resolver, *sockets, scope)
            await self.endpoint.start()
        return self._listener.is_open

    def close(self) -> None:
        if self.endpoint is not None:
            self.endpoint.close()
        self.endpoint = self.bound = None

    def _wanted(self) -> str | None:
        return self._gateway() if self.host == GATEWAY else self.host

    def _bind(self) -> Sockets:
        host = self._wanted()
        if host is None:
            raise KernelError(f"no {BRIDGE} with an address yet")
        try:
            return _sockets(host, self.port, self._sharing)
        except OSError as error:
            raise KernelError(bind_fault(host, self.port, error)) from error


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
        self._own: frozenset[str] = frozenset()
        self.places = [ListenPlace(host, port, gateway, sharing) for host, port in addresses]
        self._reconciler = Reconciler(
            tasks, "explicit-resolver", self._look, backoff=bind_backoff(), interval=LOOK_SECONDS
        )

    async def start(self) -> None:
        """Try every address once, and go on with those that could not be had."""
        self._reconciler.start(failed=not await self._look())

    def close(self) -> None:
        for place in self.places:
            place.close()

    def scope(self, source: str) -> Scope | None:
        """Who asks from this address; None: nobody that we answer."""
        known = self._resolver.scope_by_source(source)
        if known is not None:
            return known
        return NODE if source in self._own else None

    async def _look(self) -> bool:
        """One round. True: every address is served."""
        try:
            self._own = frozenset(one.address for one in netlink.addresses())
        except (KernelError, OSError, AttributeError) as error:  # no netlink outside Linux
            logger.debug("own addresses are not known: %s", error)
        return all([await place.try_open(self._resolver, self.scope) for place in self.places])


def _sockets(host: str, port: int, sharing: Sharing) -> Sockets:
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
