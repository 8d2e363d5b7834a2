"""The ports this node carries in user space, kept as the catalogue says.

A change marks its services; one task opens, retargets and closes listeners. A port that is taken does not
stop the others: it is tried again, and, where Docker's engine itself holds it (kernels with IPVS), the relay
listens elsewhere and the host's table leads the port there.

Over IPv6, which Docker does not publish, all TCP and UDP ports are carried here, whatever carries them over
IPv4: an instance of its own listens for that (`over_ipv6`).
"""

import asyncio
import logging
import socket
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Protocol as Interface
from typing import TypeVar

from mesh.balance.endpoint_pool import EndpointStatus
from mesh.balance.policies import Endpoint
from mesh.catalog.model import Protocol
from mesh.catalog.snapshot import Change, Snapshot
from mesh.errors import KernelError, Problem
from mesh.internal_errors import ERRORS
from mesh.labels.ports import Carrier, PortPlan, endpoints, plan
from mesh.labels.vips import Locality
from mesh.net.bound_listener import bind_backoff, listen
from mesh.net.reconciler import Reconciler
from mesh.net.tasks import Tasks
from mesh.relay.port_interface import OpenPort, PortHandle, open_here, open_udp_here
from mesh.relay.stats import PortStats
from mesh.relay.tcp_connection import RelayOptions
from mesh.relay.tcp_port import plain_socket
from mesh.relay.tcp_proxy import ConnectSocket
from mesh.relay.udp_port import listen_udp, plain_udp_socket

logger = logging.getLogger(__name__)

T = TypeVar("T")

# Places of `mesh.internal_errors`.
PLANS, CARRIED = "plan of a relayed port", "relayed port"
FAULT_OF_OURS = "fault of ours"

# Told (published port, local port): lead the one to the other; local None ends it. `Ingress.redirect`.
Redirect = Callable[[int, int | None], None]


class ListenerGuard(Interface):
    """`mesh.kernel.firewall.listeners.ListenerFirewall`."""

    async def cover(self, owner: str, listeners: Collection[tuple[str, int]]) -> None:
        """When it returns, packets to these ("tcp", 80) are asked of the operator's rules. KernelError."""


class NoGuard:
    """Where there is no Docker, and so no chain of its operator's."""

    async def cover(self, owner: str, listeners: Collection[tuple[str, int]]) -> None: ...


@dataclass(frozen=True, slots=True)
class PortStatus:
    """One relayed port for `mesh status`."""

    service: str  # name
    key: str  # "80/tcp"
    address: str  # where the relay listens, "" when it does not
    endpoints: tuple[str, ...] = ()
    fault: str = ""


@dataclass(slots=True)
class _PortState:
    plan: PortPlan
    port: PortHandle
    redirected: bool


class RelayPorts:
    """Reconciler of `mode: proxy` ports: `start`, subscribe `update` to the store, `close` at the end."""

    def __init__(
        self,
        tasks: Tasks,
        *,
        listen_address: str = "0.0.0.0",
        connect: ConnectSocket = plain_socket,
        connect_udp: ConnectSocket = plain_udp_socket,
        default: Carrier = Carrier.KERNEL,
        as_published: Callable[[], bool] = lambda: False,
        redirect: Redirect | None = None,
        over_ipv6: bool = False,
        open_tcp: OpenPort = open_here,
        open_udp: OpenPort = open_udp_here,
        open_http: Callable[[str], OpenPort] | None = None,
        guard: ListenerGuard | None = None,
        permitted: Callable[[], bool] = lambda: True,
    ) -> None:
        """`guard` is told of each port before it is listened on. `permitted`: may any be (`look_again`)?"""
        self._tasks = tasks
        self._listen_address = listen_address
        self._connect = connect
        self._connect_udp = connect_udp
        self._default = default
        self._as_published = as_published
        self._redirect = redirect
        self._over_ipv6 = over_ipv6
        self._open_tcp = open_tcp
        self._open_udp = open_udp
        self._open_http = open_http  # told the service's id
        self._guard = guard or NoGuard()
        self._permitted = permitted
        self._uncovered = ""  # why the guard could not cover what is to be opened
        self._snapshot = Snapshot()
        self._plans: dict[str, dict[str, PortPlan]] = {}  # service id → "80/tcp" → its plan
        self._problems: dict[str, tuple[Problem, ...]] = {}
        self._open: dict[str, _PortState] = {}
        self._faults: dict[str, str] = {}
        self._marked: set[str] = set()
        self._backoff = bind_backoff()
        self._reconciler = Reconciler(
            tasks, "relay-ports", self._work, backoff=self._backoff, on_restart=self._mark_all
        )

    def start(self, snapshot: Snapshot) -> None:
        """Begin with what is known; later changes come through `update`."""
        self._snapshot = snapshot
        self._mark(set(snapshot.services))
        self._reconciler.start()

    def update(self, old: Snapshot, new: Snapshot, change: Change) -> None:
        """Store subscriber: marks what changed, no I/O."""
        self._snapshot = new
        all_of_them = bool(change.networks) and old.ingress_network() != new.ingress_network()
        if marked := set(new.services if all_of_them else change.services):
            self._mark(marked)

    @property
    def permitted(self) -> bool:
        """May any of them be opened now?"""
        return self._permitted()

    def look_again(self) -> None:
        """What `permitted` says has changed."""
        self._reconciler.wake()

    async def settled(self) -> None:
        """Wait until every change so far has been worked off."""
        await self._reconciler.settled()

    def problems(self) -> tuple[Problem, ...]:
        """What is wrong with services' port labels, all services."""
        return tuple(problem for found in self._problems.values() for problem in found)

    def status(self) -> Iterator[PortStatus]:
        for key, one in sorted(self._wanted().items(), key=_by_number):
            opened = self._open.get(key)
            service = self._snapshot.services.get(one.service)
            yield PortStatus(
                service.name if service else one.service,
                key,
                "{}:{}".format(*opened.port.address) if opened else "",
                tuple(map(str, opened.port.endpoints)) if opened else (),
                self._faults.get(key, ""),
            )

    def seen(self, key: str) -> tuple[EndpointStatus, ...]:
        """The endpoints of a port, as it has experienced them."""
        opened = self._open.get(key)
        return opened.port.seen() if opened else ()

    def stats(self) -> Iterator[tuple[str, str, PortStats]]:
        """(service name, "80/tcp", counters) of every open port."""
        for key, opened in self._open.items():
            service = self._snapshot.services.get(opened.plan.service)
            yield (service.name if service else opened.plan.service, key, opened.port.stats)

    def address(self, key: str) -> tuple[str, int] | None:
        """Where a port is really listened on."""
        opened = self._open.get(key)
        return opened.port.address if opened else None

    async def close(self, drain_seconds: float = 0.0) -> None:
        """Stop accepting everywhere, drain together, then reset what is left."""
        await self._reconciler.close()
        opened, self._open = self._open, {}
        for one in opened.values():
            self._undo_redirect(one)
        await asyncio.gather(*(one.port.close(drain_seconds) for one in opened.values()))
        await self._cover(set())

    # --- work ---

    def _mark(self, services: set[str]) -> None:
        self._marked |= services
        self._reconciler.wake()

    def _mark_all(self) -> None:
        self._mark({*self._snapshot.services, *self._plans})

    async def _work(self) -> bool:
        """One round. False: some ports have faults, such as one that is taken, and are tried again."""
        marked, self._marked = self._marked, set()
        for id_ in marked:
            self._plan(id_)
        known = set(self._faults)
        await self._cover(_listeners(self._open) | {_listener(one) for one in self._wanted().values()})
        self._reconcile(marked)
        await self._cover(_listeners(self._open))
        if self._faults.keys() - known:
            self._backoff.reset()
        return not self._faults

    async def _cover(self, listeners: set[tuple[str, int]]) -> None:
        try:
            await self._guard.cover("relay over IPv6" if self._over_ipv6 else "relay", listeners)
            self._uncovered = ""
        except KernelError as error:
            self._uncovered = f"not opened, because the firewall cannot be asked: {error}"

    def _plan(self, id_: str) -> None:
        service = self._snapshot.services.get(id_)
        try:
            plans = plan(service, self._default) if service else None
        except Exception as error:  # noqa: BLE001 - the boundary of a service: others' ports are carried
            ERRORS.report(PLANS, error, f"service {service.name if service else id_}", "its ports are closed")
            plans = None
        else:
            ERRORS.mended(PLANS, f"service {service.name if service else id_}")
        relayed = {one.key: one for one in (plans.ports if plans else ()) if self._is_ours(one)}
        _keep(self._plans, id_, relayed)
        _keep(self._problems, id_, plans.problems if plans else ())

    def _is_ours(self, one: PortPlan) -> bool:
        if self._over_ipv6:
            return one.carrier is not Carrier.DOCKER and one.port.protocol is not Protocol.SCTP
        return one.carrier.in_user_space

    def _wanted(self) -> dict[str, PortPlan]:
        if not self._permitted():
            return {}
        return {key: one for plans in self._plans.values() for key, one in plans.items()}

    def _reconcile(self, marked: set[str]) -> None:
        wanted = self._wanted()
        for key in self._open.keys() - wanted.keys():
            self._shut(key)
        for key in self._faults.keys() - wanted.keys():
            del self._faults[key]
        for key, one in wanted.items():
            try:
                self._carry(one, marked)
            except Exception as error:  # noqa: BLE001 - the boundary of a port: others are carried
                ERRORS.report(CARRIED, error, f"port {key}", "it is as it was")
                self._faults[key] = f"{FAULT_OF_OURS}: {error}"  # so it is tried again
                self._marked.add(one.service)
            else:
                ERRORS.mended(CARRIED, f"port {key}")
                if self._faults.get(key, "").startswith(FAULT_OF_OURS):
                    del self._faults[key]

    def _carry(self, one: PortPlan, marked: set[str]) -> None:
        opened = self._open.get(one.key)
        if opened is None:
            self._try_open(one)
        elif self._speaks_http(opened.plan) is not self._speaks_http(one):
            self._hand_over(opened, one)
        elif one.service in marked or opened.plan != one:
            opened.plan = one
            found = self._endpoints(one)
            opened.port.update_endpoints(found, _options(one), self._near(one, found))

    def _try_open(self, one: PortPlan) -> None:
        published, udp = one.port.published, one.port.protocol is Protocol.UDP
        redirected = False
        if self._uncovered:
            self._report(one.key, self._uncovered)
            return
        try:
            listener = (listen_udp if udp else listen)(self._listen_address, published)
        except KernelError as error:
            # Only where Docker's own ingress is at work is it the engine that holds the port, and the host's
            # table redirects TCP only: a UDP port stays Docker's there.
            if udp or self._redirect is None or not self._as_published():
                self._report(one.key, str(error))
                return
            listener, redirected = listen(self._listen_address, 0), True
        self._begin(one, listener, redirected)
        if redirected and self._redirect is not None:
            self._redirect(published, listener.getsockname()[1])

    def _begin(self, one: PortPlan, listener: socket.socket, redirected: bool) -> None:
        found = self._endpoints(one)
        options, near = _options(one), self._near(one, found)
        port: PortHandle
        if self._open_http is not None and self._speaks_http(one):
            port = self._open_http(one.service)(listener, found, options, self._connect, near)
        elif one.port.protocol is Protocol.UDP:
            port = self._open_udp(listener, found, options, self._connect_udp, near)
        else:
            port = self._open_tcp(listener, found, options, self._connect, near)
        self._open[one.key] = _PortState(one, port, redirected)
        self._faults.pop(one.key, None)

    def _speaks_http(self, one: PortPlan) -> bool:
        return one.carrier is Carrier.HTTP and self._open_http is not None

    def _hand_over(self, opened: _PortState, one: PortPlan) -> None:
        """Another protocol on the same port: who waits to be accepted is accepted by the next one."""
        self._begin(one, opened.port.listener.dup(), opened.redirected)
        self._tasks.start(opened.port.close(opened.plan.drain), f"relay-drain {one.key}")

    def _report(self, key: str, fault: str) -> None:
        if self._faults.get(key) != fault:
            logger.error("%s", fault)
        self._faults[key] = fault

    def _shut(self, key: str) -> None:
        opened = self._open.pop(key)
        self._undo_redirect(opened)
        self._tasks.start(opened.port.close(opened.plan.drain), f"relay-drain {key}")

    def _undo_redirect(self, opened: _PortState) -> None:
        if opened.redirected and self._redirect is not None:
            self._redirect(opened.plan.port.published, None)

    def _endpoints(self, one: PortPlan) -> tuple[Endpoint, ...]:
        service = self._snapshot.services.get(one.service)
        if service is None:
            return ()
        return endpoints(service, one.port, self._snapshot.ingress_network(), self._as_published())

    def _near(self, one: PortPlan, found: tuple[Endpoint, ...]) -> tuple[Endpoint, ...]:
        """Those on this node, where the port prefers them."""
        service = self._snapshot.services.get(one.service)
        if service is None or one.locality is not Locality.NODE:
            return ()
        here = {task.id for task in service.tasks if task.node == self._snapshot.this_node}
        return tuple(endpoint for endpoint in found if endpoint.task in here)


def _listener(one: PortPlan) -> tuple[str, int]:
    return str(one.port.protocol), one.port.published


def _listeners(opened: dict[str, _PortState]) -> set[tuple[str, int]]:
    """Of what is open, the published port, and the local one where Docker's socket holds that."""
    found = {_listener(one.plan) for one in opened.values()}
    return found | {("tcp", one.port.address[1]) for one in opened.values() if one.redirected}


def _by_number(item: tuple[str, PortPlan]) -> tuple[int, str]:
    return item[1].port.published, item[0]


def _keep(store: dict[str, T], id_: str, value: T) -> None:
    """Entries only for what has something to say."""
    if value:
        store[id_] = value
    else:
        store.pop(id_, None)


def _options(one: PortPlan) -> RelayOptions:
    return RelayOptions(
        one.policy,
        one.connect_timeout,
        one.idle_timeout,
        one.drain,
        one.proxy_protocol,
        tuple(map(ip_network, one.trusted)),
        one.slow_start,
    )
