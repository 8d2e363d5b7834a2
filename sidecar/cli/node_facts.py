"""What `mesh doctor` reads of this node's kernel: settings, MTUs, conntrack's fill, listeners. It blocks."""

import os
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path
from typing import Any

from mesh.errors import KernelError, NamespaceGone
from mesh.kernel import inspect
from mesh.kernel.devconf import InterfaceSetting, read
from mesh.kernel.ingress import BRIDGE, SANDBOX, SandboxPlace
from mesh.net import netlink, proc
from mesh.net.netns import Namespace
from mesh.parsing import is_int
from mesh.telemetry import doctor

NETFILTER = Path("/proc/sys/net/netfilter")
NAMESPACES_MAX = 256  # that one visit looks into
OURS = "mesh ("  # how a process of the sidecar is named


def conntrack() -> tuple[int, int]:
    """(entries, limit) of the host's conntrack table. Raises OSError where there is none."""
    count, limit = (int((NETFILTER / f"nf_conntrack_{name}").read_text()) for name in ("count", "max"))
    return count, limit


def settings(netns_dir: str, place: SandboxPlace | None, host: str | None) -> doctor.DoctorSettings:
    def on_host() -> tuple[int, int | None, dict[str, int]]:
        forward = int(Path("/proc/sys/net/ipv4/ip_forward").read_text(encoding="ascii"))
        return forward, _read(BRIDGE, InterfaceSetting.route_localnet), _rp_filters()

    ip_forward, route_localnet, rp_filter = Namespace(host).call(on_host)
    if place is None:
        return doctor.DoctorSettings(ip_forward, route_localnet, rp_filter)
    interfaces = (place.gateway_interface, place.ingress_interface)
    sandbox = Namespace(place.path).call(
        lambda: {
            one: value for one in interfaces if (value := _read(one, InterfaceSetting.forwarding)) is not None
        }
    )
    subnet = Namespace(place.path).call(lambda: _subnet(place.ingress_interface))
    tasks, broken = _tasks(netns_dir, subnet) if subnet else ({}, [])
    return doctor.DoctorSettings(ip_forward, route_localnet, rp_filter, sandbox, tasks, broken)


def _read(interface: str, setting: InterfaceSetting) -> int | None:
    try:
        return read(interface, setting)
    except NamespaceGone:
        return None


def _rp_filters() -> dict[str, int]:
    """Interface → rp_filter in force: the larger one of `all` and the interface's own, as in the kernel."""
    everywhere = _read("all", InterfaceSetting.rp_filter) or 0
    names = {one.interface for one in netlink.addresses()}
    return {one: max(everywhere, _read(one, InterfaceSetting.rp_filter) or 0) for one in names}


def _subnet(interface: str) -> IPv4Network | None:
    found = (
        IPv4Interface(f"{a.address}/{a.prefix}").network
        for a in netlink.addresses()
        if a.interface == interface
    )
    return next(found, None)


def _tasks(netns_dir: str, subnet: IPv4Network) -> tuple[dict[str, int], list[str]]:
    """(rp_filter of tasks that are sent clients' own addresses, those whose way back is broken), by the names
    of their namespaces."""

    def look() -> tuple[int | None, bool]:
        inside = [a.interface for a in netlink.addresses() if IPv4Address(a.address) in subnet]
        if not inside:
            return None, False
        way = inspect.way_back()
        return _rp_filters()[inside[0]] if way.table else None, bool(way.routed) and not way.table

    strictness, broken = dict[str, int](), list[str]()
    for name in _namespaces(netns_dir):
        if name == SANDBOX or "-" in name or name.startswith("lb_"):
            continue
        try:
            value, lost = Namespace(os.path.join(netns_dir, name)).call(look)
        except KernelError:
            continue  # ended meanwhile
        if value is not None:
            strictness[name] = value
        if lost:
            broken.append(name)
    return strictness, broken


def overlay_mtus(netns_dir: str) -> Mapping[str, int]:
    """First characters of an overlay network's id → MTU in its namespace, which is called `1-NETWORK`."""
    found = dict[str, int]()
    for name in _namespaces(netns_dir):
        number, dash, network = name.partition("-")
        if not dash or not is_int(number):
            continue
        try:
            mtus = Namespace(os.path.join(netns_dir, name)).call(netlink.mtus)
        except KernelError:
            continue  # the last container has left the network meanwhile
        if "br0" in mtus:
            found[network] = mtus["br0"]
    return found


def _namespaces(netns_dir: str) -> list[str]:
    try:
        return sorted(os.listdir(netns_dir))[:NAMESPACES_MAX]
    except OSError:
        return []


def published_port(port: Mapping[str, Any]) -> doctor.PublishedPort:
    """One port of `mesh status`, and whether another program on this node has a socket on it."""
    number, protocol = int(port["published"]), str(port["protocol"])
    tcp = protocol == "tcp"
    sockets = [one for one in (*proc.bound(protocol), *(proc.bound6() if tcp else ())) if one.port == number]
    holder = (proc.listener_owner(number) or "") if tcp and sockets else ""
    if holder.startswith(OURS):
        sockets, holder = [], ""  # the relay's, for what comes over IPv6
    return doctor.PublishedPort(
        f"{number}/{protocol}",
        str(port["service"]),
        str(port["mode"]),
        str(port["note"]),
        bool(sockets),
        holder,
    )
