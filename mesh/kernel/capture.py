"""Capturing this node's containers: DNS sockets and our table in each one's namespace, as the catalogue says.

Level-triggered: a change only marks the containers it concerns, with the services that changed; one task
works the marks off, comparing what is loaded with what the latest snapshot wants. A failure marks again,
later. Order matters for the container: first somebody answers on the sockets, then lookups are led there; on
the way out the table goes first. A namespace that vanishes took its table with it: only our handles remain.
"""

import asyncio
import logging
import socket
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from mesh.balance.hash_slots import Choice
from mesh.catalog.model import Container, Network, Service
from mesh.catalog.snapshot import Change, Snapshot
from mesh.errors import KernelError, NamespaceGone
from mesh.internal_errors import ERRORS
from mesh.kernel.flow_drain import Flows
from mesh.kernel.heartbeat import BEAT_SECONDS
from mesh.kernel.netfilter.interfaces import TableHandle, TableOpener
from mesh.kernel.rulesets import (
    ALIVE_SECONDS,
    DELETE,
    DOCKER_RESOLVER,
    NOT_ALIVE,
    DnsPorts,
    Vips,
    container_rules,
    container_vips,
    service_vips,
    vips_update,
)
from mesh.net import proc
from mesh.net.netns import Namespace
from mesh.net.reconciler import Reconciler
from mesh.net.tasks import Tasks

logger = logging.getLogger(__name__)

RETRIES = 10  # then the container waits for its next change: some kernels will never take the rules
FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS = 0.5, 30.0
# A resolver asks for A and AAAA from one socket, so the second question comes the way of the first.
LAST_ANSWERS_SECONDS = 0.3
BEATS_AT_ONCE = 32  # ≈ 0.5 ms of the event loop between two looks at other work

VipsByService = dict[str, dict[str, Choice]]


class CapturePolicy(StrEnum):
    """Which containers of the node are captured (`capture:` in the configuration)."""

    ALL = "all"
    LABELLED = "labelled"
    OFF = "off"


class Closable(Protocol):
    def close(self) -> None: ...


# Given the container as it was when captured and its two sockets on 127.0.0.11; owns the sockets until its
# close(). Its networks may change later: look the container up by id in the current snapshot.
OpenEndpoint = Callable[[Container, socket.socket, socket.socket], Closable]
OpenSockets = Callable[[Container], tuple[socket.socket, socket.socket]]


@dataclass(frozen=True, slots=True)
class CaptureStatus:
    """One local container for `mesh status`."""

    container: str
    name: str
    captured: bool
    reason: str = ""  # why not
    failed: bool = False  # it should be


@dataclass(slots=True)
class _HeldCapture:
    """What we keep in one container's namespace."""

    container: Container
    table: TableHandle
    endpoint: Closable
    dns: DnsPorts
    vips: VipsByService = field(default_factory=dict)
    loaded: bool = False  # False: what the kernel has is unknown, load the whole table


def why_not(
    container: Container, service: Service | None, policy: CapturePolicy, networks: Mapping[str, Network]
) -> str:
    """Why the container is left to Docker; "" when it is captured."""
    if not container.namespace:
        return "no network namespace of its own"
    if not container.running:
        return "not running"
    if not any(_user_defined(networks.get(a.network)) for a in container.attachments):
        return "on no user-defined network"
    return _unwanted(container, service, policy)


def _unwanted(container: Container, service: Service | None, policy: CapturePolicy) -> str:
    if policy is CapturePolicy.OFF:
        return "capture is off on this node"
    label = container.labels.get("mesh.capture") or (service.labels.get("mesh.capture") if service else None)
    if label is not None and label.strip().lower() in ("off", "false", "no", "0"):
        return "label mesh.capture=off"
    if label is None and service is not None and not service.enabled:
        return "label mesh.enable=false"
    if label is None and policy is CapturePolicy.LABELLED:
        return "no label mesh.capture=on"
    return ""


def _user_defined(network: Network | None) -> bool:
    """Docker resolves names only there. A network not known yet is taken as one."""
    if network is None:
        return True
    return not network.ingress and network.name not in ("bridge", "host", "none", "docker_gwbridge")


def dns_sockets(container: Container, shared: bool = False) -> tuple[socket.socket, socket.socket]:
    """The UDP socket and TCP listener on 127.0.0.11 in the container's namespace.

    `shared`: other processes of ours will open the same UDP port (SO_REUSEPORT).
    """
    namespace = Namespace(container.namespace)
    try:
        udp = namespace.udp_socket(DOCKER_RESOLVER, shared=shared)
        try:
            return udp, namespace.tcp_listener(DOCKER_RESOLVER)
        except (OSError, KernelError):
            udp.close()
            raise
    except OSError as error:
        raise KernelError(f"cannot listen on {DOCKER_RESOLVER} in {container.name}: {error}") from error


def docker_resolver(container: Container, ours: DnsPorts) -> DnsPorts | None:
    """Where Docker's own resolver of the container listens: the other sockets on 127.0.0.11. None: none seen.

    Read from the namespace's socket tables, so it does not matter how Docker writes its NAT rule.
    """

    def others(protocol: str, own: int) -> list[int]:
        found = (sock for sock in proc.bound(protocol) if sock.address == DOCKER_RESOLVER)
        return [sock.port for sock in found if sock.port != own]

    udp, tcp = Namespace(container.namespace).call(lambda: (others("udp", ours.udp), others("tcp", ours.tcp)))
    return DnsPorts(udp[0], tcp[0] if tcp else udp[0]) if udp else None


class ContainerCapture:
    """Reconciler of this node's containers: `start`, subscribe `update` to the store, `close` at the end."""

    def __init__(
        self,
        tasks: Tasks,
        tables: TableOpener,
        open_endpoint: OpenEndpoint,
        policy: CapturePolicy = CapturePolicy.ALL,
        ipvs: bool = False,
        open_sockets: OpenSockets = dns_sockets,
        flows: Flows | None = None,
        on_flushed: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._tasks = tasks
        self._tables = tables
        self._open_endpoint = open_endpoint
        self._open_sockets = open_sockets
        self._flows = flows
        self._on_flushed = on_flushed  # told the container whose rules somebody has flushed
        self._policy = policy
        self._ipvs = ipvs
        self._snapshot = Snapshot()
        self._on_network: defaultdict[str, set[str]] = defaultdict(set)  # network id → local containers
        self._of_service: defaultdict[str, set[str]] = defaultdict(set)  # service id → local containers
        self._held: dict[str, _HeldCapture] = {}
        self._marked: dict[str, set[str] | None] = {}  # container → services that changed, None: look at all
        self._attempts: dict[str, int] = {}
        self._faults: dict[str, str] = {}
        self._cleared: set[str] = set()  # uncaptured containers that hold no table of an earlier sidecar
        self._reconciler = Reconciler(tasks, "capture", self._work, on_restart=self._mark_all)
        self._heartbeat: asyncio.Task[None] | None = None

    @property
    def count(self) -> int:
        """Captured containers."""
        return sum(held.loaded for held in self._held.values())

    @property
    def pending(self) -> bool:
        """Is anything marked that has not been looked at yet?"""
        return bool(self._marked)

    def start(self, snapshot: Snapshot) -> None:
        """Begin with what is known; later changes come through `update`."""
        self._snapshot = snapshot
        for container in snapshot.containers.values():
            self._index(None, container)
            self._mark(container.id)
        self._reconciler.wake()
        self._reconciler.start()
        self._heartbeat = self._tasks.keep(self._beat, "capture-heartbeat")

    def update(self, old: Snapshot, new: Snapshot, change: Change) -> None:
        """Store subscriber: O(changed services × their local containers), no I/O."""
        self._snapshot = new
        for id_, container in change.containers.items():
            self._index(old.containers.get(id_), container)
            self._mark(id_)
        for id_, service in change.services.items():
            self._mark_service(id_, old.services.get(id_), service)
        for network in change.networks:
            for container_id in self._on_network.get(network, ()):
                self._mark(container_id)

    def status(self) -> Iterator[CaptureStatus]:
        """Every local container: captured, or why not."""
        for container in self._snapshot.containers.values():
            held = self._held.get(container.id)
            if held is not None and held.loaded:
                yield CaptureStatus(container.short_id, container.name, True)
            else:
                left, fault = self._reason(container), self._faults.get(container.id, "")
                reason = left or fault or "in progress"
                yield CaptureStatus(
                    container.short_id, container.name, False, reason, bool(fault and not left)
                )

    async def settled(self) -> None:
        """Wait until everything marked so far has been looked at (for readiness and tests)."""
        await self._reconciler.settled()

    def docker_resolver(self, container: str) -> DnsPorts | None:
        """Docker's own resolver inside a captured container, for names left to Docker."""
        held = self._held.get(container)
        return None if held is None else docker_resolver(held.container, held.dns)

    async def close(self, *, leave: bool = False) -> None:
        """Stop, take our tables out of every namespace and close what we opened there. With `leave`, virtual
        IPs stay as they are for the next sidecar, and names go back to Docker's resolver."""
        await self._reconciler.close()
        if self._heartbeat is not None:
            self._heartbeat.cancel()
            await asyncio.gather(self._heartbeat, return_exceptions=True)
        if leave:
            await self._stop_redirects()
        for id_ in tuple(self._held):
            await self._release(id_, remove_table=not leave)

    async def _stop_redirects(self) -> None:
        """No new lookup comes to us; those that are under way are still answered."""
        for id_, held in self._held.items():
            try:
                await held.table.load(NOT_ALIVE)
            except KernelError as error:
                logger.warning("container %s: lookups fail for %d s: %s", id_[:12], ALIVE_SECONDS, error)
        if self._held:
            await asyncio.sleep(LAST_ANSWERS_SECONDS)
        for held in self._held.values():
            await self._forget_lookups(held.container)

    async def _forget_lookups(self, container: Container) -> None:
        """An application that keeps its socket would ask whom it has asked before, for ever."""
        if self._flows is not None:
            await self._flows.forget(container.namespace, DOCKER_RESOLVER)

    # --- marks ---

    def _index(self, old: Container | None, new: Container | None) -> None:
        for container, present in ((old, False), (new, True)):
            if container is None:
                continue
            keys = [(self._on_network, a.network) for a in container.attachments]
            if container.service:
                keys.append((self._of_service, container.service))
            for index, key in keys:
                if present:
                    index[key].add(container.id)
                elif key in index:
                    index[key].discard(container.id)
                    if not index[key]:
                        del index[key]

    def _mark(self, container: str, service: str | None = None) -> None:
        if service is None:
            self._marked[container] = None
            self._attempts.pop(container, None)
        elif (services := self._marked.setdefault(container, set())) is not None:
            services.add(service)
        self._reconciler.wake()

    def _mark_all(self) -> None:
        for container in self._snapshot.containers:
            self._mark(container)

    def _mark_service(self, id_: str, old: Service | None, new: Service | None) -> None:
        networks = {member.network for service in (old, new) if service for member in service.networks}
        for network in networks:
            for container in self._on_network.get(network, ()):
                self._mark(container, id_)
        if (old.labels if old else None) != (new.labels if new else None):
            for container in self._of_service.get(id_, ()):
                self._mark(container)

    # --- work ---

    async def _work(self) -> bool:
        """One round: every marked container. Each one that fails has a timer of its own."""
        while self._marked:
            id_ = next(iter(self._marked))
            await self._try(id_, self._marked.pop(id_))
        return True

    async def _try(self, id_: str, services: set[str] | None) -> None:
        try:
            await self._reconcile(id_, services)
        except NamespaceGone:
            await self._release(id_, remove_table=False)
        except KernelError as error:
            self._failed(id_, error)
        except Exception as error:  # noqa: BLE001 - the boundary of a container: others are captured all the same
            ERRORS.report("capture of a container", error, f"container {id_[:12]}", "it is not captured")
            self._failed(id_, KernelError(f"fault of ours: {error}"))
        else:
            ERRORS.mended("capture of a container", f"container {id_[:12]}")
            self._attempts.pop(id_, None)
            self._faults.pop(id_, None)

    def _failed(self, id_: str, error: KernelError) -> None:
        attempt = self._attempts[id_] = self._attempts.get(id_, 0) + 1
        self._faults[id_] = str(error)
        if (held := self._held.get(id_)) is not None:
            held.loaded = False
        if attempt > RETRIES:
            logger.error("container %s: given up until it changes: %s", id_[:12], error)
            return
        logger.warning("container %s: %s", id_[:12], error)
        delay = min(LAST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2 ** (attempt - 1))
        asyncio.get_running_loop().call_later(delay, self._again, id_)

    def _again(self, id_: str) -> None:
        self._marked[id_] = None
        self._reconciler.wake()

    def _reason(self, container: Container) -> str:
        service = self._snapshot.services.get(container.service)
        return why_not(container, service, self._policy, self._snapshot.networks)

    async def _reconcile(self, id_: str, services: set[str] | None) -> None:
        container = self._snapshot.containers.get(id_)
        if container is None or self._reason(container):
            await self._let_be(id_, container)
            return
        if not Namespace(container.namespace).exists():
            raise NamespaceGone(container.namespace)
        held = self._held.get(id_)
        if held is not None and held.container.namespace != container.namespace:
            await self._release(id_, remove_table=False)  # restarted: the old namespace is gone
            held = None
        if held is None:
            held = self._held[id_] = await self._open(container)
            services = None
        await self._load(held, container, services)

    async def _let_be(self, id_: str, container: Container | None) -> None:
        """Not ours (any more): no table may stay, neither this sidecar's nor an earlier one's."""
        here = container is not None and container.running and bool(container.namespace)
        if id_ in self._held:
            await self._release(id_, remove_table=here)
        elif here and container is not None and id_ not in self._cleared:
            await self._tables.clear(container.namespace)
        self._cleared.discard(id_)
        if here:
            self._cleared.add(id_)

    async def _open(self, container: Container) -> _HeldCapture:
        table = await self._tables.open(container.namespace)
        try:
            udp, tcp = self._open_sockets(container)
        except KernelError:
            await table.close()
            raise
        dns = DnsPorts(udp.getsockname()[1], tcp.getsockname()[1])
        return _HeldCapture(container, table, self._open_endpoint(container, udp, tcp), dns)

    async def _load(self, held: _HeldCapture, container: Container, services: set[str] | None) -> None:
        if services is None or not held.loaded or held.container.attachments != container.attachments:
            await self._load_all(held, container)
        else:
            await self._load_services(held, container, services)
        held.container, held.loaded = container, True

    async def _load_all(self, held: _HeldCapture, container: Container) -> None:
        wanted = container_vips(container, self._snapshot)
        if held.loaded:
            await self._change(held, _merged(held.vips), _merged(wanted))
        else:
            await held.table.load(container_rules(_merged(wanted), held.dns, self._ipvs))
            await self._forget_lookups(container)
            if self._flows is not None:
                self._flows.left(container.namespace, None)
        held.vips = wanted

    async def _change(self, held: _HeldCapture, before: Vips, after: Vips) -> None:
        if differs := vips_update(before, after):
            await held.table.change(differs)
            if self._flows is not None:
                was, now = ({a for choice in vips.values() for a in choice.slots} for vips in (before, after))
                self._flows.left(held.container.namespace, was - now)

    async def _load_services(self, held: _HeldCapture, container: Container, services: set[str]) -> None:
        """Only what the changed services contribute. (If another one's VIP is in the way, the kernel refuses
        the transaction and the retry loads the whole table.)"""
        before = {id_: held.vips.get(id_, {}) for id_ in services}
        known, here = self._snapshot.services, self._snapshot.this_node
        after = {id_: service_vips(container, known.get(id_), here) for id_ in services}
        await self._change(held, _merged(before), _merged(after))
        for id_, vips in after.items():
            if vips:
                held.vips[id_] = vips
            else:
                held.vips.pop(id_, None)

    async def _release(self, id_: str, remove_table: bool) -> None:
        held = self._held.pop(id_, None)
        self._faults.pop(id_, None)
        if held is None:
            return
        try:
            if remove_table:
                await held.table.load(DELETE)
        except KernelError as error:
            logger.warning("container %s: its table stays behind: %s", id_[:12], error)
        finally:
            held.endpoint.close()
            await held.table.close()

    # --- heartbeat ---

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            for number, (id_, held) in enumerate(tuple(self._held.items()), 1):
                if held.loaded:
                    self._beat_one(id_, held)
                if number % BEATS_AT_ONCE == 0:
                    await asyncio.sleep(0)

    def _beat_one(self, id_: str, held: _HeldCapture) -> None:
        try:
            if not Namespace(held.container.namespace).exists():
                raise NamespaceGone(held.container.namespace)
            held.table.beat()
        except KernelError:
            # Table flushed by somebody, or the container's end not told yet: the reconciler finds out which.
            held.loaded = False
            self._mark(id_)
            self._on_flushed(id_)


def _merged(by_service: VipsByService) -> dict[str, Choice]:
    return {vip: tasks for vips in by_service.values() for vip, tasks in vips.items()}
