"""How each published port is carried: the service's labels read into a plan, with every fault named.

A bad label never breaks a service: its default applies and the problem is reported beside the plan.
"""

import re
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from ipaddress import ip_network
from typing import Any, TypeVar

from mesh.balance.policies import Endpoint, Policy
from mesh.catalog.model import Network, Port, Protocol, PublishMode, Service
from mesh.errors import Problem
from mesh.labels.reader import LabelReader
from mesh.labels.values import one_of, parse_flag, word
from mesh.labels.vips import Locality, vip_plan
from mesh.parsing import PORT_MAX, is_int, parse_duration, parse_port, shown

T = TypeVar("T")


class Carrier(StrEnum):
    """Who moves the bytes of a port."""

    KERNEL = "kernel"
    PROXY = "proxy"
    HTTP = "http"
    DOCKER = "docker"  # host-mode ports, and services with mesh.enable=false

    @property
    def in_user_space(self) -> bool:
        """We listen on the port ourselves."""
        return self in (Carrier.PROXY, Carrier.HTTP)


@dataclass(frozen=True, slots=True)
class PortPlan:
    """One published port as it will be carried. Times in seconds."""

    service: str  # id
    port: Port
    carrier: Carrier
    policy: Policy = Policy.ROUND_ROBIN
    source_ip: str = "preserve"  # preserve | masquerade, kernel only
    proxy_protocol: str = ""  # "" | v1 | v2, proxy only
    health: str = "off"  # tcp | http:/path | off
    connect_timeout: float = 2.0
    idle_timeout: float = 3600.0
    drain: float = 30.0
    locality: Locality = Locality.ANY
    trusted: tuple[str, ...] = ()  # CIDRs; who connects from there has to send a PROXY header, proxy only
    slow_start: float = 0.0  # until a new task gets its full share, proxy only
    health_interval: float = 5.0  # between two probes

    @property
    def key(self) -> str:
        return self.port.key


@dataclass(frozen=True, slots=True)
class Plans:
    """A service's ports and what is wrong with its labels (`file` is the service's name, `key` the label)."""

    ports: tuple[PortPlan, ...] = ()
    problems: tuple[Problem, ...] = ()


def plan(service: Service, default: Carrier = Carrier.KERNEL) -> Plans:
    """How each of the service's ports is carried; `default` is the node's configured mode."""
    labels = LabelReader(service.name, service.labels)
    if not labels.read("mesh.enable", parse_flag, True):
        return Plans(tuple(PortPlan(service.id, port, Carrier.DOCKER) for port in service.ports))
    _check_names(labels, {port.published for port in service.ports})
    unique = _without_duplicates(service.ports, labels)
    ports = tuple(_port_plan(service.id, port, default, labels) for port in unique)
    _check_udp(labels, ports)
    return Plans(ports, (*labels.problems, *vip_plan(service).problems))


def endpoints(
    service: Service, port: Port, ingress: Network | None, as_published: bool = False
) -> tuple[Endpoint, ...]:
    """Where the port's serving tasks are reached: on the ingress network, or, where there is none (a file's
    catalogue), on the first of the service's networks they are on. `as_published`: Docker's own ingress rules
    are in the tasks, which then take the published port and no other."""
    number = port.published if as_published else port.target
    order = [ingress.id] if ingress else [member.network for member in service.networks]
    found = (
        Endpoint(address, number, task.id)
        for task in service.serving()
        if (address := next((task.addresses[id_] for id_ in order if id_ in task.addresses), None))
    )
    return tuple(sorted(found, key=lambda endpoint: (endpoint.address, endpoint.task)))


_PROBE = re.compile(r"http:/[!-~]*")  # the path goes into a request line as it is
_parse_policy = one_of({policy.value: policy for policy in Policy}, any_case=False)
_parse_locality = one_of({locality.value: locality for locality in Locality}, any_case=False)
UDP_IDLE_SECONDS = 120.0  # as conntrack keeps flows that are answered
# No standard says which datagrams carry a PROXY header, so none does.
_STREAMS_ONLY: dict[str, Any] = {"proxy_protocol": "", "trusted": ()}
MAX_TRUSTED = 64  # networks of a port: every connection is compared with all of them


def _port_plan(service: str, port: Port, default: Carrier, labels: LabelReader) -> PortPlan:
    if port.mode is PublishMode.HOST:
        return PortPlan(service, port, Carrier.DOCKER)
    prefix = f"mesh.port.{port.published}."
    base = PortPlan(service, port, _carrier(port, default, prefix, labels))
    if port.protocol is Protocol.UDP:
        base = replace(base, idle_timeout=UDP_IDLE_SECONDS)
    planned = replace(
        base,
        policy=labels.read(prefix + "policy", _parse_policy, base.policy),
        source_ip=labels.read(prefix + "source_ip", word("preserve", "masquerade"), base.source_ip),
        proxy_protocol=labels.read(prefix + "proxy_protocol", word("v1", "v2"), base.proxy_protocol),
        health=labels.read(prefix + "health", _parse_health, base.health),
        connect_timeout=labels.read(prefix + "connect_timeout", parse_duration, base.connect_timeout),
        idle_timeout=labels.read(prefix + "idle_timeout", parse_duration, base.idle_timeout),
        drain=labels.read(prefix + "drain", parse_duration, base.drain),
        locality=labels.read(prefix + "locality", _parse_locality, base.locality),
        trusted=labels.read(prefix + "trusted", _parse_trusted, base.trusted),
        slow_start=labels.read(prefix + "slow_start", parse_duration, base.slow_start),
        health_interval=labels.read(prefix + "health_interval", parse_duration, base.health_interval),
    )
    if port.protocol is Protocol.UDP:
        planned = replace(planned, **_STREAMS_ONLY)
    return planned


def _carrier(port: Port, default: Carrier, prefix: str, labels: LabelReader) -> Carrier:
    key = prefix + "mode"
    wanted = labels.read(key, word("kernel", "proxy", "http"), str(default))
    if wanted == "http" and port.protocol is Protocol.UDP:
        wanted = "proxy"  # the TCP port of the same number is meant; if there is none, `_check_udp` says so
    if wanted in ("proxy", "http") and port.protocol is Protocol.SCTP:
        if key in labels.labels:
            labels.fault(key, f"{port.protocol} cannot be relayed in user space; kernel is used")
        wanted = "kernel"
    return Carrier(wanted)


def _check_udp(labels: LabelReader, ports: tuple[PortPlan, ...]) -> None:
    """Name the labels that a relayed UDP port cannot follow; a TCP port of the same number may."""
    streams = {one.port.published for one in ports if one.port.protocol is Protocol.TCP}
    for one in ports:
        if one.port.protocol is not Protocol.UDP or one.carrier is not Carrier.PROXY:
            continue
        key = f"mesh.port.{one.port.published}.mode"
        if labels.labels.get(key, "").strip() == "http" and one.port.published not in streams:
            labels.fault(key, "http is spoken over tcp; proxy is used")
        if one.port.published in streams:
            continue
        for option in _STREAMS_ONLY:
            key = f"mesh.port.{one.port.published}.{option}"
            if key in labels.labels:
                labels.fault(key, "datagrams have no PROXY header; ignored")


def _without_duplicates(ports: tuple[Port, ...], labels: LabelReader) -> list[Port]:
    unique: dict[tuple[str, PublishMode], Port] = {}
    for port in ports:
        if port.published == 0:
            continue  # not allocated yet
        if unique.setdefault((port.key, port.mode), port) is not port:
            labels.fault(f"port {port.key}", "published twice; the first one counts")
    return list(unique.values())


_OPTIONS = {f.name for f in fields(PortPlan)} - {"service", "port", "carrier"} | {"mode"}


def _check_names(labels: LabelReader, published: set[int]) -> None:
    for key in sorted(labels.labels):
        if not key.startswith("mesh.port."):
            continue
        number, _, option = key.removeprefix("mesh.port.").partition(".")
        if not is_int(number, 1, PORT_MAX) or parse_port(number) not in published:
            labels.fault(key, "no such published port; ignored")
        elif option not in _OPTIONS:
            labels.fault(key, f"unknown option, known are {', '.join(sorted(_OPTIONS))}; ignored")


def _parse_health(text: str) -> str:
    if text in ("tcp", "off") or _PROBE.fullmatch(text):
        return text
    raise ValueError(f"{shown(text)} is not tcp, http:/path or off")


def _parse_trusted(text: str) -> tuple[str, ...]:
    """CIDRs. One that cannot be read makes the list unreadable: half of it is not what its author trusts."""
    parts = [part.strip() for part in text.split(",")]
    if len(parts) > MAX_TRUSTED:
        raise ValueError(f"{len(parts)} networks are more than {MAX_TRUSTED}")
    return tuple(str(ip_network(part)) for part in parts)
