"""Published ports in kernel mode: host → ingress namespace → task, kept as the catalogue says.

Where things are (the ingress namespace, its addresses, the bridge) is looked up, not assumed: Docker makes
`ingress_sbox` with the first published port and anew whenever the node rejoins. As long as the place stays
the same, a change of ports is two small transactions; when it differs, everything is loaded afresh.
"""

import asyncio
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Interface

from mesh.balance.ports import Carrier, plan
from mesh.catalog.model import Service
from mesh.catalog.snapshot import Change, Snapshot
from mesh.errors import KernelError, NamespaceGone
from mesh.kernel.capture import Table, Tables
from mesh.kernel.devconf import Setting, write
from mesh.kernel.firewall import Firewall
from mesh.kernel.heartbeat import BEAT_SECONDS
from mesh.kernel.rules import (
    DELETE,
    PICKS,
    HostPath,
    PortTarget,
    host_rules,
    host_update,
    ingress_rules,
    ingress_update,
    task_addresses,
)
from mesh.net import netlink
from mesh.net.netns import NamespaceWorker
from mesh.net.tasks import Tasks

logger = logging.getLogger(__name__)

NETNS_DIR = "/var/run/docker/netns"
SANDBOX = "ingress_sbox"
BRIDGE = "docker_gwbridge"
RECHECK_SECONDS = 5.0  # how late a recreated ingress namespace may be noticed
FIREWALL_SECONDS = 30.0  # how late a flushed DOCKER-USER chain may be noticed
IPVS_MARKS = ("/proc/net/ip_vs", "/proc/sys/net/ipv4/vs")


@dataclass(frozen=True, slots=True)
class Place:
    """Where published ports pass, as found; compared to notice that it changed."""

    path: str  # of the ingress namespace
    identity: tuple[int, int]  # device and inode: the same path may lead to a new namespace
    host: HostPath
    gateway_interface: str  # of the ingress namespace, on the bridge
    ingress_interface: str
    ipvs: bool


@dataclass(frozen=True, slots=True)
class Ports:
    """What is to be loaded, or has been."""

    targets: Mapping[str, PortTarget]
    redirected: Mapping[int, int]


NO_PORTS = Ports({}, {})


def ipvs_here() -> bool:
    """Has this kernel (with its modules as loaded now) Docker's own load balancing?"""
    return any(map(os.path.exists, IPVS_MARKS))


class Ingress:
    """Reconciler of kernel-carried ports. Everything namespace-like is injected for the tests."""

    def __init__(
        self,
        tasks: Tasks,
        tables: Tables,
        worker: NamespaceWorker,
        *,
        netns_dir: str = NETNS_DIR,
        host: str | None = None,
        bridge: str = BRIDGE,
        default: Carrier = Carrier.KERNEL,
        firewall: Firewall | None = None,
        ipvs: Callable[[], bool] = ipvs_here,
    ) -> None:
        self._tasks = tasks
        self._tables = tables
        self._worker = worker
        self._sandbox = os.path.join(netns_dir, SANDBOX)
        self._host = host
        self._bridge = bridge
        self._default = default
        self._firewall = firewall or Firewall()
        self._ipvs = ipvs
        self._snapshot = Snapshot()
        self._by_service: dict[str, dict[str, PortTarget]] = {}
        self._redirected: dict[int, int] = {}
        self._place: Place | None = None
        self._opened: list[Table] = []  # [host's, ingress namespace's] while loaded
        self._loaded = NO_PORTS
        self._fault = "no published port yet"
        self._wake = asyncio.Event()
        self._firewall_due = 0.0  # loop time of the next look at the firewall
        self._recheck = True
        self._cleared = False  # no table of an earlier sidecar is left in the host's namespace
        self._running: list[asyncio.Task[None]] = []

    @property
    def status(self) -> str:
        """ "" when published ports are carried; else why not."""
        return self._fault

    @property
    def sandbox_path(self) -> str:
        """Path of the ingress namespace, for the relay's outgoing sockets."""
        return self._sandbox

    def start(self, snapshot: Snapshot) -> None:
        """Begin with what is known; later changes come through `update`."""
        self._snapshot = snapshot
        for service in snapshot.services.values():
            self._plan(service.id, service)
        self._wake.set()
        self._running = [
            self._tasks.start(self._work(), "ingress"),
            self._tasks.start(self._beat(), "ingress-heartbeat"),
        ]

    def update(self, old: Snapshot, new: Snapshot, change: Change) -> None:
        """Store subscriber: plans the changed services anew, no I/O."""
        self._snapshot = new
        ingress_changed = old.ingress_network() != new.ingress_network() if change.networks else False
        changed = new.services if ingress_changed else change.services
        for id_, service in changed.items():
            self._plan(id_, service)
        if changed:
            self._wake.set()

    def redirect(self, published: int, local: int | None) -> None:
        """Lead a TCP port to a relay on a local one, where Docker holds the real one. None: no longer."""
        if local is None:
            self._redirected.pop(published, None)
        else:
            self._redirected[published] = local
        self._wake.set()

    async def close(self) -> None:
        """Stop and take out everything that was put in."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        await self._leave(remove=True)

    # --- what is wanted ---

    def _plan(self, id_: str, service: Service | None) -> None:
        ports = self._targets(service) if service else {}
        if ports:
            self._by_service[id_] = ports
        else:
            self._by_service.pop(id_, None)

    def _targets(self, service: Service) -> dict[str, PortTarget]:
        ingress = self._snapshot.ingress_network()
        addresses = task_addresses(service, ingress.id) if ingress else ()
        return {
            one.key: PortTarget(
                one.port.published,
                one.port.protocol,
                one.port.target,
                addresses,
                PICKS.get(one.policy, "numgen inc"),
            )
            for one in plan(service, self._default).ports
            if one.carrier is Carrier.KERNEL
        }

    def _wanted(self, place: Place) -> Ports:
        targets = {key: target for ports in self._by_service.values() for key, target in ports.items()}
        if place.ipvs:
            targets = {key: _as_published(target) for key, target in targets.items()}
        return Ports(targets, dict(self._redirected))

    # --- work ---

    async def _work(self) -> None:
        while True:
            try:
                async with asyncio.timeout(RECHECK_SECONDS):
                    await self._wake.wait()
            except TimeoutError:
                self._recheck = True
            self._wake.clear()
            await self._try()

    async def _try(self) -> None:
        try:
            await self._reconcile()
            self._fault = ""
        except NamespaceGone as error:
            self._fault = f"no ingress namespace: {error}"
            await self._gone()
        except KernelError as error:
            if str(error) != self._fault:  # the recheck repeats it until it is mended; the log need not
                logger.warning("published ports: %s", error)
            self._fault = str(error)
            self._recheck = True

    async def _reconcile(self) -> None:
        if self._recheck or self._place is None:
            place = await self._find()
            if place != self._place:
                await self._leave(remove=True)
                await self._enter(place)
            self._recheck = False
        else:
            place = self._place
        wanted = self._wanted(place)
        await self._load(wanted)
        self._loaded = wanted
        await self._let_pass(place)  # last: a host without iptables still gets its rules

    async def _let_pass(self, place: Place) -> None:
        """Look after the firewall's rule now and then: each look is two or three processes."""
        now = asyncio.get_running_loop().time()
        if now >= self._firewall_due:
            await self._firewall.allow(place.host.sandbox, place.host.bridge)
            self._firewall_due = now + FIREWALL_SECONDS

    async def _enter(self, place: Place) -> None:
        for interface in (place.gateway_interface, place.ingress_interface):
            await self._worker.run(place.path, partial(write, interface, {Setting.forwarding: 1}))
        await self._worker.run(self._host, lambda: write(place.host.bridge, {Setting.route_localnet: 1}))
        for path in (self._host, place.path):
            self._opened.append(await self._tables.open(path))
        wanted = self._wanted(place)
        host, sandbox = self._opened
        await sandbox.load(
            ingress_rules(wanted.targets, place.host.sandbox, place.ingress_interface, place.ipvs)
        )
        await host.load(host_rules(place.host, wanted.targets, wanted.redirected, place.ipvs))
        self._place, self._loaded = place, wanted
        self._firewall_due = 0.0

    async def _load(self, wanted: Ports) -> None:
        host, sandbox = self._opened
        before = self._loaded
        try:
            if text := ingress_update(before.targets, wanted.targets):
                await sandbox.load(text)
            if text := host_update(before.targets, wanted.targets, before.redirected, wanted.redirected):
                await host.load(text)
        except KernelError:
            self._place = None  # what the kernel holds is unknown: load all of it at the recheck
            raise

    async def _gone(self) -> None:
        """Nothing may lead to a namespace that is not there, neither our table nor an earlier sidecar's."""
        had = bool(self._opened)
        await self._leave(remove=False)
        if not had and not self._cleared:
            try:
                await self._tables.clear(self._host)
            except KernelError as error:
                logger.warning("published ports: %s", error)
        self._cleared = True

    async def _leave(self, remove: bool) -> None:
        """Close our handles; with `remove` take out tables and the firewall's rule too."""
        opened, self._opened = self._opened, []
        self._place, self._loaded = None, NO_PORTS
        for table in opened:
            try:
                # The host's table must go in any case: what it leads to is no longer there.
                if remove or table is opened[0]:
                    await table.load(DELETE)
            except KernelError as error:
                logger.warning("published ports: a table stays behind: %s", error)
            finally:
                await table.close()
        if remove and opened:
            try:
                await self._firewall.remove()
            except KernelError as error:
                logger.warning("published ports: %s", error)

    # --- where things are ---

    async def _find(self) -> Place:
        try:
            status = os.stat(self._sandbox)
        except OSError as error:
            raise NamespaceGone(f"{self._sandbox}: {error.strerror}") from error
        host = await self._worker.run(self._host, netlink.addresses)
        inside = await self._worker.run(self._sandbox, netlink.addresses)
        return locate(
            self._sandbox, (status.st_dev, status.st_ino), host, inside, self._bridge, ipvs=self._ipvs()
        )

    # --- heartbeat ---

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            try:
                for table in tuple(self._opened):
                    table.beat()
            except KernelError:
                # Somebody flushed the ruleset.
                self._place, self._recheck = None, True
                self._wake.set()


def locate(
    path: str,
    identity: tuple[int, int],
    host: list[netlink.InterfaceAddress],
    inside: list[netlink.InterfaceAddress],
    bridge: str,
    ipvs: bool,
) -> Place:
    """Which interface of the ingress namespace is which, told by the bridge's subnet. Pure."""
    gateway = next((one for one in host if one.interface == bridge), None)
    if gateway is None:
        raise KernelError(f"the host has no {bridge} with an address")
    subnet = IPv4Interface(f"{gateway.address}/{gateway.prefix}").network
    own = [one for one in inside if one.interface != "lo"]
    on_bridge = next((one for one in own if IPv4Interface(one.address).ip in subnet), None)
    other = next((one for one in own if on_bridge and one.interface != on_bridge.interface), None)
    if on_bridge is None or other is None:
        raise KernelError("the ingress namespace is not yet on both its networks")
    return Place(
        path,
        identity,
        HostPath(on_bridge.address, bridge, str(subnet)),
        on_bridge.interface,
        other.interface,
        ipvs,
    )


def _as_published(target: PortTarget) -> PortTarget:
    """With Docker's ingress rules a task's ingress address takes only the published port (and maps it on)."""
    return PortTarget(target.published, target.protocol, target.published, target.addresses, target.pick)
