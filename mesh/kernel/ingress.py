"""Published ports in kernel mode: host → ingress namespace → task, kept as the catalogue says.

Where things are (the ingress namespace, its addresses, the bridge) is looked up, not assumed: Docker makes
`ingress_sbox` with the first published port and anew whenever the node rejoins. As long as the place stays
the same, a change of ports is two small transactions; when it differs, everything is loaded afresh.
"""

import asyncio
import logging
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from ipaddress import IPv4Interface

from mesh.catalog.model import NO_RETURN_PATH, ReturnPath
from mesh.catalog.snapshot import Change, Snapshot
from mesh.errors import KernelError, NamespaceGone
from mesh.kernel.counters import CountedPort, Totals, read_counters
from mesh.kernel.devconf import InterfaceSetting, read, write
from mesh.kernel.firewall.forward_chain import Firewall
from mesh.kernel.flow_drain import Flows
from mesh.kernel.heartbeat import BEAT_SECONDS
from mesh.kernel.ingress_state import Ports, Published, as_published
from mesh.kernel.loopback_rules import (
    DELETE_LOOPBACK,
    LIST_KEPT,
    LIST_LOOPBACK,
    LOOPBACK_TABLE,
    loopback_rules,
)
from mesh.kernel.netfilter.interfaces import TableHandle, TableOpener
from mesh.kernel.return_rules import NO_ENTRY, ReturnEntry
from mesh.kernel.rulesets import (
    ALIVE_SECONDS,
    DELETE,
    LIST_COUNTERS,
    NOT_ALIVE,
    RELAY_ZONE,
    TABLE,
    HostPath,
    host_rules,
    host_update,
    ingress_rules,
    ingress_update,
)
from mesh.labels.ports import Carrier
from mesh.net import netlink
from mesh.net.backoff import Backoff
from mesh.net.netns import NamespaceWorker
from mesh.net.reconciler import Reconciler
from mesh.net.routes import hardware_address
from mesh.net.tasks import Tasks

logger = logging.getLogger(__name__)

NETNS_DIR = "/var/run/docker/netns"
SANDBOX = "ingress_sbox"
BRIDGE = "docker_gwbridge"
COUNT_SECONDS = 1.0  # between two readings of the counters, however often they are asked for
ACTIVE_SECONDS = 5.0  # the same of open connections: a look at each of them, so it takes longer
FIRST_RETRY_SECONDS = 1.0  # after the kernel has refused something; the pause grows up to RECHECK_SECONDS
RECHECK_SECONDS = 5.0  # how late a recreated ingress namespace may be noticed
FIREWALL_SECONDS = 10.0  # between two looks at our passage through FORWARD without a reason
IPVS_MARKS = ("/proc/net/ip_vs", "/proc/sys/net/ipv4/vs")


@dataclass(frozen=True, slots=True)
class SandboxPlace:
    """Where published ports pass, as found; compared to notice that it changed."""

    path: str  # of the ingress namespace
    identity: tuple[int, int]  # device and inode: the same path may lead to a new namespace
    host: HostPath
    gateway_interface: str  # of the ingress namespace, on the bridge
    ingress_interface: str
    ipvs: bool
    entry: ReturnEntry = NO_ENTRY  # where published ports enter the ingress network


def ipvs_here() -> bool:
    """Has this kernel (with its modules as loaded now) Docker's own load balancing?"""
    return any(map(os.path.exists, IPVS_MARKS))


class IngressRules:
    """Reconciler of kernel-carried ports. Everything namespace-like is injected for the tests."""

    def __init__(
        self,
        tasks: Tasks,
        tables: TableOpener,
        worker: NamespaceWorker,
        *,
        netns_dir: str = NETNS_DIR,
        host: str | None = None,
        bridge: str = BRIDGE,
        default: Carrier = Carrier.KERNEL,
        firewall: Firewall | None = None,
        ipvs: Callable[[], bool] = ipvs_here,
        on_entry: Callable[[ReturnEntry | None], None] = lambda _: None,
        flows: Flows | None = None,
    ) -> None:
        self._tasks = tasks
        self._tables = tables
        self._worker = worker
        self._sandbox = os.path.join(netns_dir, SANDBOX)
        self._host = host
        self._bridge = bridge
        self._default = default
        self._wanted = Published(default)
        self._firewall = firewall or Firewall()
        self._ipvs = ipvs
        self._on_entry = on_entry
        self._flows = flows
        self._totals = Totals()
        self._counting: TableHandle | None = None  # the ingress namespace's, from when our rules are in it
        self._counted_at = -COUNT_SECONDS  # loop time
        self._active: Mapping[str, int] = {}
        self._active_at = -ACTIVE_SECONDS  # loop time
        self._snapshot = Snapshot()
        self._redirected: dict[int, int] = {}
        self._place: SandboxPlace | None = None  # None: what is loaded is unknown
        self._identity: tuple[int, int] | None = None  # of the ingress namespace that holds a table
        self._opened: list[TableHandle] = []  # [host's, ingress namespace's] while loaded
        self._led: dict[int, int] = {}  # of `redirected`, what is loaded
        self._localnet = ""  # the bridge whose `route_localnet` we turned on
        self._fault = "no published port yet"
        self._reconciler = Reconciler(
            tasks,
            "ingress",
            self._work,
            backoff=Backoff(FIRST_RETRY_SECONDS, RECHECK_SECONDS),
            interval=RECHECK_SECONDS,
            on_interval=self._on_interval,
            on_restart=self._load_anew,
        )
        self._firewall_due = 0.0  # loop time of the next look at the firewall
        self._recheck = True
        self._cleared = False  # no table of an earlier sidecar is left in the host's namespace
        self._beating = True
        self._heartbeat: asyncio.Task[None] | None = None

    @property
    def status(self) -> str:
        """ "" when published ports are carried; else why not."""
        return self._fault

    @property
    def place(self) -> SandboxPlace | None:
        """Where published ports pass; None while that is not known."""
        return self._place

    async def count(self) -> Mapping[str, CountedPort]:
        """What the kernel has carried: port ("80/tcp") → totals, COUNT_SECONDS old at most."""
        now = asyncio.get_running_loop().time()
        if now >= self._counted_at + COUNT_SECONDS:
            self._counted_at = now
            await self._count()
        return self._totals.ports

    async def active(self) -> Mapping[str, int]:
        """Port ("80/tcp") → connections open now, ACTIVE_SECONDS old at most."""
        now, place = asyncio.get_running_loop().time(), self._place
        if self._flows is None or place is None:
            return {}
        if now >= self._active_at + ACTIVE_SECONDS:
            self._active_at = now
            try:
                self._active = await self._flows.open_to(place.path, place.host.sandbox)
            except KernelError as error:
                logger.debug("open connections: %s", error)  # as they were, until the kernel tells again
        return self._active

    async def _count(self) -> None:
        if self._counting is None:
            return
        try:
            listed = await self._counting.ask(*LIST_COUNTERS)
        except KernelError as error:
            logger.debug("counters: %s", error)  # the reconciler finds out why, and says so
        else:
            self._totals.take(read_counters(listed))

    @property
    def kept(self) -> Collection[str]:
        """Ingress addresses of the tasks that are sent clients' own addresses from this node."""
        return self._wanted.kept

    @property
    def sandbox_path(self) -> str:
        """Path of the ingress namespace, for the relay's outgoing sockets."""
        return self._sandbox

    def start(self, snapshot: Snapshot) -> None:
        """Begin with what is known; later changes come through `update`."""
        self._want(snapshot)
        self._reconciler.wake()
        self._reconciler.start()
        self._heartbeat = self._tasks.keep(self._beat, "ingress-heartbeat")

    def restart(self, snapshot: Snapshot) -> None:
        """Plan everything anew, and load all of it."""
        self._wanted = Published(self._default)
        self._want(snapshot)
        self._load_anew()

    def _want(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._wanted.identify(snapshot.this_node, {}, None)
        for id_, service in snapshot.services.items():
            self._wanted.set_service(id_, service, snapshot.ingress_network())

    def _load_anew(self) -> None:
        """What is loaded is unknown."""
        self._place, self._recheck = None, True
        self._reconciler.wake()

    def update(self, old: Snapshot, new: Snapshot, change: Change) -> None:
        """Store subscriber: plans the changed services anew, no I/O."""
        self._snapshot = new
        ingress = new.ingress_network()
        ingress_changed = old.ingress_network() != ingress if change.networks else False
        changed = new.services if ingress_changed else change.services
        for id_, service in changed.items():
            self._wanted.set_service(id_, service, ingress)
        self._wanted.identify(new.this_node, new.services, ingress)
        moved = [id_ for id_ in change.nodes if _return_path(old, id_) != _return_path(new, id_)]
        for id_ in moved:
            self._wanted.heed_node(id_)
        if changed or moved:
            self._reconciler.wake()

    def redirect(self, published: int, local: int | None) -> None:
        """Lead a TCP port to a relay on a local one, where Docker holds the real one. None: no longer."""
        if local is None:
            self._redirected.pop(published, None)
        else:
            self._redirected[published] = local
        self._reconciler.wake()

    def look_at_firewall(self, gone: Collection[str] = ()) -> None:
        """Somebody has changed the host's rules: see at once whether ours are there. `gone`: tables that
        are not ("ip mesh")."""
        self._firewall_due = 0.0
        self._beat_all()
        if f"ip {LOOPBACK_TABLE}" in gone:
            self._place, self._recheck = None, True
        self._reconciler.wake()

    async def carry_all(self) -> None:
        """Carry relayed ports as well, from now on: nobody will be here to relay. Where Docker's IPVS is, it
        takes over all ports instead."""
        self._beating = False
        if self._opened:
            try:
                await self._opened[0].load(NOT_ALIVE)
            except KernelError as error:
                logger.warning("published ports: relayed ones fail for %d s: %s", ALIVE_SECONDS, error)

    async def close(self, *, leave: bool = False) -> None:
        """Stop and take out everything that was put in; or leave it for the next sidecar to go on from."""
        await self._reconciler.close()
        if self._heartbeat is not None:
            self._heartbeat.cancel()
            await asyncio.gather(self._heartbeat, return_exceptions=True)
        await self._leave(host=not leave, sandbox=not leave)

    # --- work ---

    def _on_interval(self) -> bool:
        """Docker makes and removes the ingress namespace without a word, so it is looked for now and then."""
        self._recheck = True
        return True

    async def _work(self) -> bool:
        """One round. False: the kernel refused something, so everything is looked at again soon."""
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
            return False
        return True

    async def _reconcile(self) -> None:
        if self._recheck or self._place is None:
            place = await self._find()
            if place != self._place:
                # Where it is the same namespace, what is there is replaced in one transaction.
                moved = place.identity != self._identity
                await self._leave(host=moved, sandbox=moved)
                await self._enter(place)
            self._recheck = False
        else:
            place = self._place
        await self._load(place)
        await self._let_pass(place)  # last: a host without iptables still gets its rules

    async def _let_pass(self, place: SandboxPlace) -> None:
        """Look after the firewall's rule now and then: each look is two or three processes."""
        now = asyncio.get_running_loop().time()
        if now >= self._firewall_due:
            await self._firewall.allow(place.host.sandbox, place.host.bridge)
            self._firewall_due = now + FIREWALL_SECONDS

    async def _enter(self, place: SandboxPlace) -> None:
        for interface in (place.gateway_interface, place.ingress_interface):
            await self._worker.run(place.path, partial(write, interface, {InterfaceSetting.forwarding: 1}))
        for path in (self._host, place.path):
            self._opened.append(await self._tables.open(path))
        self._identity = place.identity
        wanted = self._adapted(place, self._wanted.everything(place.entry.address, self._snapshot.nodes))
        redirected = dict(self._redirected)
        host, sandbox = self._opened
        await sandbox.load(
            ingress_rules(
                wanted.targets, place.host.sandbox, place.ingress_interface, place.ipvs, wanted.kept
            )
        )
        self._counting = sandbox
        bridge = place.host.bridge
        kept = await self._localnet_kept(host, bridge)
        await self._load_host(host, place, wanted, redirected, loopback_rules(kept))
        # Only now: the rules that keep containers away from 127.0.0.1 are there.
        await self._worker.run(self._host, lambda: write(bridge, {InterfaceSetting.route_localnet: 1}))
        self._localnet = "" if kept else bridge
        self._place, self._led = place, redirected
        self._firewall_due = 0.0
        self._on_entry(place.entry)
        if self._flows is not None:
            self._flows.left(place.path, None)

    async def _load_host(
        self,
        host: TableHandle,
        place: SandboxPlace,
        wanted: Ports,
        redirected: Mapping[int, int],
        loopback: str,
    ) -> None:
        """A kernel without conntrack zones does not track what the relay gets by UDP."""
        rules = partial(host_rules, place.host, wanted.targets, redirected, place.ipvs)
        try:
            await host.load(loopback + rules(RELAY_ZONE))
        except KernelError as error:
            logger.debug("relayed datagrams are not tracked: %s", error)
            await host.load(loopback + rules())

    async def _localnet_kept(self, host: TableHandle, bridge: str) -> bool:
        """Had somebody else turned `route_localnet` on, before us and any sidecar before us?"""
        if self._localnet == bridge:
            return False  # we had; what noted it was flushed
        if not await self._worker.run(self._host, lambda: read(bridge, InterfaceSetting.route_localnet)):
            return False
        if await _has(host, LIST_LOOPBACK):
            return await _has(host, LIST_KEPT)
        return not await _has(host, f"list table ip {TABLE}\n")  # versions before left no note

    async def _load(self, place: SandboxPlace) -> None:
        """What has changed since the last time."""
        host, sandbox = self._opened
        differs = self._wanted.settle(place.entry.address, self._snapshot.nodes)
        before, after = (self._adapted(place, ports) for ports in differs)
        redirected = dict(self._redirected)
        try:
            if inside := ingress_update(before.targets, after.targets, before.kept, after.kept):
                await sandbox.change(inside)
                self._tell_flows(place, before, after)
            if outside := host_update(before.targets, after.targets, self._led, redirected):
                await host.change(outside)
        except KernelError:
            self._place = None  # what the kernel holds is unknown: load all of it at the recheck
            raise
        self._led = redirected

    def _tell_flows(self, place: SandboxPlace, before: Ports, after: Ports) -> None:
        if self._flows is not None:
            was, now = (
                {address for target in ports.targets.values() for address in target.choice.slots}
                for ports in (before, after)
            )
            self._flows.left(place.path, was - now)

    def _adapted(self, place: SandboxPlace, ports: Ports) -> Ports:
        return as_published(ports) if place.ipvs else ports

    async def _gone(self) -> None:
        """Nothing may lead to a namespace that is not there, neither our table nor an earlier sidecar's."""
        had = bool(self._opened)
        await self._leave(host=True, sandbox=False)
        if not had and not self._cleared:
            try:
                await self._tables.clear(self._host)
            except KernelError as error:
                logger.warning("published ports: %s", error)
        self._cleared = True

    async def _leave(self, *, host: bool, sandbox: bool) -> None:
        """Close our handles. `host`, `sandbox`: whose table is to be taken out; with the host's goes the
        firewall's rule, unless the ingress namespace is merely gone."""
        opened, self._opened = self._opened, []
        self._place, self._led = None, {}
        await self._count()  # what came since the last time
        self._counting = None
        self._totals.begin_anew()
        if host:
            self._identity = None
            self._on_entry(None)
            await self._end_localnet()
        texts = DELETE + DELETE_LOOPBACK if host else "", DELETE if sandbox else ""
        for table, text in zip(opened, texts, strict=False):
            try:
                if text:
                    await table.load(text)
            except KernelError as error:
                logger.warning("published ports: a table stays behind: %s", error)
            finally:
                await table.close()
        if host and sandbox and opened:
            try:
                await self._firewall.remove()
            except KernelError as error:
                logger.warning("published ports: %s", error)

    async def _end_localnet(self) -> None:
        """What we turned on is turned off before the rules go that make it safe."""
        bridge, self._localnet = self._localnet, ""
        if bridge:
            try:
                await self._worker.run(
                    self._host, lambda: write(bridge, {InterfaceSetting.route_localnet: 0})
                )
            except KernelError as error:
                logger.debug("route_localnet: %s", error)  # the bridge is gone, and the setting with it

    # --- where things are ---

    async def _find(self) -> SandboxPlace:
        try:
            status = os.stat(self._sandbox)
        except OSError as error:
            raise NamespaceGone(f"{self._sandbox}: {error.strerror}") from error
        host = await self._worker.run(self._host, netlink.addresses)
        inside = await self._worker.run(self._sandbox, netlink.addresses)
        place = locate(
            self._sandbox, (status.st_dev, status.st_ino), host, inside, self._bridge, ipvs=self._ipvs()
        )
        mac = await self._worker.run(self._sandbox, lambda: hardware_address(place.ingress_interface))
        return replace(place, entry=ReturnEntry(place.entry.address, mac))

    # --- heartbeat ---

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            self._beat_all()

    def _beat_all(self) -> None:
        try:
            for table in self._opened if self._beating else ():
                table.beat()
        except KernelError:
            # Somebody flushed the ruleset.
            self._place, self._recheck = None, True
            self._reconciler.wake()


async def _has(table: TableHandle, listing: str) -> bool:
    try:
        await table.ask(listing)
    except KernelError:
        return False
    return True


def locate(
    path: str,
    identity: tuple[int, int],
    host: list[netlink.InterfaceAddress],
    inside: list[netlink.InterfaceAddress],
    bridge: str,
    ipvs: bool,
) -> SandboxPlace:
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
    return SandboxPlace(
        path,
        identity,
        HostPath(on_bridge.address, bridge, str(subnet)),
        on_bridge.interface,
        other.interface,
        ipvs,
        ReturnEntry(other.address, ""),
    )


def _return_path(snapshot: Snapshot, node: str) -> ReturnPath:
    found = snapshot.nodes.get(node)
    return found.return_path if found else NO_RETURN_PATH
