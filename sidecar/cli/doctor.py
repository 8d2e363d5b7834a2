"""`mesh doctor`: reads the state of this node and its cluster, and prints a finding for each check.

A command of its own that blocks; it asks the sidecar of this node where there is one, and sees the rest by
itself, so it is of use before the first sidecar runs. Whatever cannot be looked at is a check that says so:
one missing permission must not hide the other findings. Every look at the network is bounded in number and
time.
"""

import asyncio
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from mesh.discovery.engine_client import EngineClient
from mesh.dns.forward.host_servers import resolv_conf_file
from mesh.dns.forward.resolvconf import parse_resolv_conf
from mesh.errors import DiscoveryError, KernelError, MeshError
from mesh.kernel.feature_probe import tried
from mesh.kernel.firewall.forward_chain import Firewall
from mesh.kernel.firewall.review import Review, review
from mesh.kernel.firewall.rule_walk import Obstacle
from mesh.kernel.ingress import BRIDGE, SANDBOX, SandboxPlace, ipvs_here, locate
from mesh.net import netlink, proc
from mesh.net.limits import descriptors
from mesh.net.netns import Namespace
from mesh.peers.swarm_tls import SwarmCertificates
from mesh.telemetry import doctor, doctor_cluster, doctor_limits
from mesh.telemetry.doctor import Check
from sidecar.admin import client
from sidecar.admin.tables import Document
from sidecar.cli import node_facts
from sidecar.cli.peer_checks import OtherNode, check_node, nodes_to_check
from sidecar.config import Config, DiscoveryKind, ListenAddress
from sidecar.version import mesh_version
from sidecar.wiring.first_packets import first_packets

VXLAN_PORT = 4789
LIMITS = (doctor_limits.descriptors, doctor_limits.memory, doctor_limits.processes)
CALL_SECONDS = 5.0  # for the engine's answer
AT_ONCE = 8  # nodes looked at at the same time


@dataclass(frozen=True, slots=True)
class EngineAnswer:
    """By the engine."""

    info: Document  # `docker info`
    networks: Mapping[str, str] = field(default_factory=dict)  # the id's first ten characters → name


def ask_engine(socket_path: str) -> EngineAnswer:
    """Raises EngineUnavailable, DiscoveryError."""

    async def ask() -> EngineAnswer:
        engine = EngineClient(socket_path, CALL_SECONDS)
        try:
            info, networks = await engine.info(), await engine.networks()
        finally:
            engine.close()
        return EngineAnswer(info, {str(one["Id"])[:10]: str(one["Name"]) for one in networks})

    return asyncio.run(ask())


def ask_names(socket_path: str) -> Mapping[str, str]:
    """Name of a container's namespace → name of the container. Raises EngineUnavailable, DiscoveryError."""

    async def ask() -> Mapping[str, Any]:
        engine = EngineClient(socket_path, CALL_SECONDS)
        try:
            return await engine.containers()
        finally:
            engine.close()

    found = (one for one in asyncio.run(ask()).values() if one is not None)
    return {
        os.path.basename(str(one["NetworkSettings"]["SandboxKey"])): str(one["Name"]).lstrip("/")
        for one in found
    }


@dataclass
class Doctor:
    """One run of all checks. `host` is the path of the host's namespace; None: that of this process."""

    config: Config
    admin: ListenAddress
    host: str | None = None
    firewall: Firewall = field(default_factory=Firewall)
    ask: Callable[[str], EngineAnswer] = ask_engine
    names: Callable[[str], Mapping[str, str]] = ask_names
    review: Review | None = None  # None: of the host's rules

    def checks(self) -> Iterator[Check]:
        """All checks, in an order in which each depends only on earlier ones."""
        yield self._guarded("kernel features", lambda: doctor.features(tried()))
        yield doctor.ipvs(ipvs_here())
        yield self._guarded("conntrack table", lambda: doctor_limits.conntrack(*node_facts.conntrack()))
        yield from self._of_limits()
        yield self._guarded("upstream resolvers", self._resolv_conf)
        if self.config.discovery.kind is DiscoveryKind.DOCKER:
            yield from self._of_docker()
        yield from self._of_sidecar()

    def _of_limits(self) -> Iterator[Check]:
        """Of the sidecar that runs; without one, what it would be given here."""
        told = self._status.get("limits") if self._status is not None else None
        if not told:
            soft, hard = descriptors.limits()
            yield doctor.descriptors(hard or soft or doctor.DESCRIPTORS_MIN)
            return
        most = told["descriptors_max"]
        seen = doctor_limits.ProcessLimits(
            told["descriptors"],
            most,
            0 if most is None else descriptors.reserved(most),
            told["memory"],
            told["memory_max"],
            told["processes"],
            told["processes_max"],
        )
        yield from (judge(seen) for judge in LIMITS)

    def _guarded(self, name: str, work: Callable[[], Check]) -> Check:
        try:
            return work()
        except (MeshError, OSError, ValueError) as error:
            return doctor.unseen(name, str(error))

    def _of_docker(self) -> Iterator[Check]:
        try:
            engine = self._engine()
        except DiscoveryError as error:
            yield doctor_cluster.no_engine(str(error))
            return
        yield engine
        if engine.verdict is doctor.Verdict.FAIL:
            return
        yield self._certificate()
        yield self._guarded("forwarding", lambda: doctor.forwarding(self._settings))
        yield self._guarded("published ports on 127.0.0.1", lambda: doctor.localhost(self._settings))
        yield self._guarded("reverse path filter", lambda: doctor.reverse_paths(self._settings))
        yield self._guarded("way back to clients", lambda: doctor.ways_back(self._settings))
        yield self._guarded("MTU", self._mtu)
        yield self._guarded("VXLAN", self._vxlan)
        peers = self._peers
        yield doctor_cluster.gossip(peers)
        yield doctor_cluster.control(peers)
        if self._status is not None:
            yield self._guarded("firewall", self._passage)
            yield self._guarded("clashing listeners", self._listeners)
            yield doctor_cluster.feed_ports(peers, self.config.feed.listen.port)
            yield doctor_cluster.versions(mesh_version(), peers)
            yield doctor_cluster.clocks(peers)

    def _of_sidecar(self) -> Iterator[Check]:
        if self._status is None:
            yield doctor_cluster.NO_SIDECAR
            return
        seen = _sidecar(self._status)
        yield doctor_cluster.catalogue(seen)
        yield doctor_cluster.capture(seen)
        yield doctor_cluster.problems(seen)

    # --- who is asked, once ---

    @cached_property
    def _status(self) -> Document | None:
        try:
            return client.get(self.admin, "/v1/status")
        except client.AdminError:
            return None

    @cached_property
    def _told(self) -> EngineAnswer:
        return self.ask(self.config.docker.socket)

    @property
    def _info(self) -> Document:
        return self._told.info

    @property
    def _swarm(self) -> Document:
        found = self._info.get("Swarm")
        return found if isinstance(found, dict) else {}

    @cached_property
    def _place(self) -> SandboxPlace | None:
        """The ingress namespace, which published ports pass; None where there is none."""
        path = os.path.join(self.config.docker.netns, SANDBOX)
        if not os.path.exists(path):
            return None
        host = Namespace(self.host).call(netlink.addresses)
        inside = Namespace(path).call(netlink.addresses)
        try:
            return locate(path, (0, 0), host, inside, BRIDGE, ipvs_here())
        except KernelError:
            return None  # half made, for a moment

    @cached_property
    def _settings(self) -> doctor.DoctorSettings:
        seen = node_facts.settings(self.config.docker.netns, self._place, self.host)
        tasks = seen.task_rp_filter or {}
        if doctor.STRICT not in tasks.values() and not seen.broken_ways:
            return seen
        names = self.names(self.config.docker.socket)  # only for what is to be named
        return replace(
            seen,
            task_rp_filter={names.get(one, one): value for one, value in tasks.items()},
            broken_ways=[names.get(one, one) for one in seen.broken_ways],
        )

    @cached_property
    def _peers(self) -> tuple[doctor_cluster.Peer, ...]:
        try:
            others = self._others()
        except MeshError:
            others = []
        ports = self.config.feed.listen.port, self.config.metrics.listen.port
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="mesh-doctor") as pool:
            return tuple(pool.map(lambda one: check_node(one, *ports), nodes_to_check(others)))

    def _others(self) -> list[OtherNode]:
        own = str(self._swarm.get("NodeAddr", ""))
        if self._status is None:
            managers = self._swarm.get("RemoteManagers") or []
            addresses = [str(one.get("Addr", "")).rpartition(":")[0] for one in managers]
            return [OtherNode(address, address, manager=True) for address in addresses if address != own]
        nodes = client.get(self.admin, "/v1/nodes")["nodes"]
        return [
            OtherNode(name, node["address"], node.get("role") == "manager", node.get("state") == "down")
            for name, node in nodes.items()
            if node.get("address") not in ("", None, "0.0.0.0", own) and name != self._info.get("Name")
        ]

    # --- checks ---

    def _engine(self) -> Check:
        return doctor_cluster.engine(
            doctor_cluster.EngineSeen(
                str(self._info.get("ServerVersion", "")),
                str(self._swarm.get("LocalNodeState", "")),
                bool(self._swarm.get("ControlAvailable")),
                str(self._info.get("Name", "")),
            )
        )

    def _certificate(self) -> Check:
        certificates = SwarmCertificates(self.config.docker.certificates)
        try:
            role, expires = certificates.identity().role, certificates.expires()
        except DiscoveryError as error:
            return doctor_cluster.no_certificate(str(error))
        return doctor_cluster.certificates(role, expires - time.time())

    def _resolv_conf(self) -> Check:
        file = self.config.dns.resolv_conf
        found = parse_resolv_conf(Path(resolv_conf_file(file)).read_text(encoding="utf-8", errors="replace"))
        return doctor.resolv_conf(file, found.nameservers, self.config.dns.upstreams)

    def _passage(self) -> Check:
        place = self._place
        published = place is not None and any(port["mode"] == "kernel" for port in self._ports)
        allowed = False
        if place is not None and published:
            try:
                allowed = asyncio.run(self.firewall.lets_pass(place.host.sandbox, place.host.bridge))
            except KernelError as error:
                return doctor.passage(doctor.Passage(published=True, fault=str(error)))
        return doctor.passage(doctor.Passage(published, allowed, dropped=self._dropped(place)))

    def _dropped(self, place: SandboxPlace | None) -> list[doctor.Dropped]:
        entries = {entry.name: entry.address.port for entry in self.config.http.entrypoints}
        looking = self.review or partial(review, namespace=self.host)
        found = asyncio.run(looking(first_packets(self._ports, entries, place)))
        ports = defaultdict[Obstacle, list[str]](list)
        for port, obstacles in found.items():
            for one in obstacles:
                ports[one].append(port)
        return [doctor.Dropped(one.rule, one.everybody, tuple(names)) for one, names in ports.items()]

    def _mtu(self) -> Check:
        own = str(self._swarm.get("NodeAddr", ""))
        host = Namespace(self.host)
        interface = next((a.interface for a in host.call(netlink.addresses) if a.address == own), "")
        if not interface:
            return doctor.unseen("MTU", f"no interface has this node's address {own or '(unknown)'}")
        names = self._told.networks
        overlays = {
            f"network {names.get(id_, id_)}": mtu
            for id_, mtu in node_facts.overlay_mtus(self.config.docker.netns).items()
        }
        return doctor.mtu(interface, host.call(netlink.mtus)[interface], overlays)

    def _vxlan(self) -> Check:
        def look() -> tuple[bool, str]:
            found = [one for one in proc.bound("udp") if one.port == VXLAN_PORT]
            owners = (proc.owner(one.inode) for one in found)
            return bool(found), next(filter(None, owners), "")

        bound, holder = Namespace(self.host).call(look)
        overlays = bool(node_facts.overlay_mtus(self.config.docker.netns))
        return doctor.vxlan(VXLAN_PORT, bound, holder, overlays)

    @property
    def _ports(self) -> list[Any]:
        return list(self._status["ports"]) if self._status is not None else []

    def _listeners(self) -> Check:
        seen = Namespace(self.host).call(lambda: tuple(map(node_facts.published_port, self._ports)))
        return doctor.listeners(seen, ipvs_here())


def _sidecar(status: Document) -> doctor_cluster.SidecarSeen:
    source, feed = status["source"], status["feed"] or {}
    containers = status["containers"]
    faults = tuple(f"{one['name']}: {one['reason']}" for one in containers if one["failed"])
    return doctor_cluster.SidecarSeen(
        bool(source["connected"]),
        source["age"],
        feed.get("last_error") or source["last_error"],
        str(status["role"]),
        str(feed.get("following", "")),
        bool(feed.get("serving")),
        sum(bool(one["captured"]) for one in containers),
        faults,
        tuple(status["problems"]),
    )


def report(checks: list[Check]) -> Document:
    """The checks as a document for JSON."""
    return {"checks": [asdict(one) for one in checks]}
