"""The local engine's JSON → this node's containers, and its own view of the networks it takes part in. Pure.

Every engine, a worker's too, knows its containers and, by gossip, the tasks of all nodes on the networks it
takes part in (`network inspect --verbose`). The latter names neither service ids nor states, and lists tasks
until their endpoint is gone: good for what a cut-off worker needs, to notice that something is gone or new.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mesh.catalog.model import Attachment, Container
from mesh.discovery.swarm_json import bare

Json = Mapping[str, Any]

SERVICE_LABEL = "com.docker.swarm.service.id"
SERVICE_NAME_LABEL = "com.docker.swarm.service.name"
TASK_LABEL = "com.docker.swarm.task.id"
GATEWAY_NETWORK = "docker_gwbridge"
WITHOUT_NAMESPACE = frozenset({"host", "none"})


@dataclass(frozen=True, slots=True)
class EngineEndpoint:
    """A container's endpoint on docker_gwbridge, which its own inspection does not list."""

    network: str
    addresses: Mapping[str, str]  # container id → address


NDOTS = re.compile(r"ndots:\d+")  # resolv.conf(5)
NOWHERE = EngineEndpoint("", {})


def container(json: Json, gateway: EngineEndpoint = NOWHERE) -> Container:
    """A container as inspected; `gateway` adds its address on docker_gwbridge."""
    config, host = json.get("Config") or {}, json.get("HostConfig") or {}
    settings, labels = json.get("NetworkSettings") or {}, config.get("Labels") or {}
    shared = host.get("NetworkMode", "") in WITHOUT_NAMESPACE or "host" in (settings.get("Networks") or {})
    attachments = [*_attachments(json["Id"], json.get("Name", ""), settings.get("Networks") or {})]
    if address := gateway.addresses.get(json["Id"]):
        attachments.append(Attachment(gateway.network, address, gateway=True))
    return Container(
        id=json["Id"],
        name=json.get("Name", "").lstrip("/"),
        namespace="" if shared else settings.get("SandboxKey", ""),
        attachments=tuple(attachments),
        hostname=config.get("Hostname", ""),
        service=labels.get(SERVICE_LABEL, ""),
        task=labels.get(TASK_LABEL, ""),
        labels=dict(labels),
        running=bool((json.get("State") or {}).get("Running")),
        dns=tuple(host.get("Dns") or ()),
        ndots=any(NDOTS.fullmatch(option) for option in host.get("DnsOptions") or ()),
    )


def _attachments(id_: str, name: str, networks: Mapping[str, Json]) -> Iterable[Attachment]:
    own = {name.lstrip("/"), id_[:12]}
    for one in networks.values():
        if one.get("NetworkID") and one.get("IPAddress"):
            yield Attachment(
                network=one["NetworkID"],
                address=one["IPAddress"],
                aliases=tuple(a for a in one.get("DNSNames") or one.get("Aliases") or () if a not in own),
                address6=one.get("GlobalIPv6Address") or "",
                gateway=bool(one.get("Gateway")),
                priority=one.get("GwPriority") or 0,
                links=tuple(dict(map(_link, one.get("Links") or ())).items()),
            )


def _link(text: str) -> tuple[str, str]:
    """`NAME:ALIAS`, `NAME`, or `/NAME:/OWN/ALIAS` as older engines tell it → (alias, name)."""
    name, _, alias = text.partition(":")
    if name.startswith("/"):
        name, alias = name[1:], alias.rpartition("/")[2]
    return alias or name, name


def gateway_place(json: Json) -> EngineEndpoint:
    """docker_gwbridge as inspected → who has which address on it."""
    members = json.get("Containers") or {}
    return EngineEndpoint(json["Id"], {id_: bare(one.get("IPv4Address", "")) for id_, one in members.items()})


@dataclass(frozen=True, slots=True)
class SeenTask:
    name: str
    address: str
    host: str = ""  # address of its node


@dataclass(frozen=True, slots=True)
class SeenService:
    vip: str  # "" for dnsrr
    tasks: tuple[SeenTask, ...]


@dataclass(frozen=True, slots=True)
class NetworkView:
    """What this engine's gossip says is on a network. `services` by name; plain containers are left out."""

    network: str
    services: Mapping[str, SeenService]


def network_view(json: Json) -> NetworkView:
    """`network inspect --verbose`."""
    services = json.get("Services") or {}
    return NetworkView(json["Id"], {name: _seen(one) for name, one in services.items() if name})


def _seen(json: Json) -> SeenService:
    vip = json.get("VIP") or ""
    tasks: Sequence[Json] = json.get("Tasks") or ()
    return SeenService(
        "" if vip == "<nil>" else vip,
        tuple(_seen_task(one) for one in tasks if one.get("EndpointIP")),
    )


def _seen_task(json: Json) -> SeenTask:
    return SeenTask(json.get("Name", ""), json["EndpointIP"], (json.get("Info") or {}).get("Host IP", ""))
