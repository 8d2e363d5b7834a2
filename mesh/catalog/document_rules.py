"""Do the entities of a catalogue's document make sense together? Pure.

There is one rule for each thing that can be wrong: references to what is not there, subnets and addresses
that do not fit, ports, names and addresses given twice. `RULES` lists them all.
"""

import ipaddress
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from mesh.catalog.document_schema import CatalogDocument, TaskDocument
from mesh.catalog.documents import Location, suggestion
from mesh.catalog.model import EndpointMode, PublishMode, TaskState

K = TypeVar("K", bound=Hashable)

# (location, message), or with another location as the message's end
Faults: TypeAlias = Iterator[tuple[Location, str] | tuple[Location, str, Location]]


def _subnets_are_cidr(document: CatalogDocument) -> Faults:
    for name, network in document.networks.items():
        for subnet in network.subnet:
            if fault := _cidr_fault(subnet):
                yield ("networks", name, "subnet"), fault


def _askers_are_cidr(document: CatalogDocument) -> Faults:
    for index, asker in enumerate(document.askers):
        if fault := _cidr_fault(asker.source):
            yield ("askers", index, "source"), fault


def _networks_exist(document: CatalogDocument) -> Faults:
    for network, location in _network_references(document):
        if network not in document.networks:
            yield location, f"unknown network '{network}'{suggestion(network, document.networks)}"


def _nodes_exist(document: CatalogDocument) -> Faults:
    if document.nodes is None:  # nobody listed them: the tasks' nodes are taken as they come
        return
    for location, task in tasks_of(document):
        if task.node and task.node not in document.nodes:
            yield (
                (*location, "node"),
                f"unknown node '{task.node}'{suggestion(task.node, document.nodes)}",
            )


def _addresses_fit(document: CatalogDocument) -> Faults:
    for use in _addresses(document):
        try:
            address = ipaddress.IPv4Address(use.address)
        except ValueError:
            yield use.location, f"'{use.address}' is not an IPv4 address"
            continue
        subnets = _known_subnets(document, use.network)
        if subnets and not any(address in subnet for subnet in subnets):
            known = ", ".join(map(str, subnets))
            yield use.location, f"{address} is outside network '{use.network}' ({known})"


def _addresses_unique(document: CatalogDocument) -> Faults:
    uses = [use for use in _addresses(document) if use.held]
    for use, first in _repeated(uses, lambda use: (use.network, use.address)):
        yield use.location, f"{use.address} on '{use.network}' is already {first.owner}"


def _published_unique(document: CatalogDocument) -> Faults:
    ports = [  # host mode binds on the task's node only: two services may share the number
        (("services", name, "ports", index), name, port)
        for name, service in document.services.items()
        for index, port in enumerate(service.ports)
        if port.mode is PublishMode.INGRESS
    ]
    for (key, name, port), (_, first, _port) in _repeated(ports, lambda p: (p[2].published, p[2].protocol)):
        by = "twice by service" if first == name else f"by services '{first}' and"
        yield (*key, "published"), f"port {port.published}/{port.protocol} is published {by} '{name}'"


def _task_names_unique(document: CatalogDocument) -> Faults:
    for (location, task), (first, _) in _repeated(list(tasks_of(document)), lambda t: t[1].name):
        yield (*location, "name"), f"task '{task.name}' is already ", first


def _dnsrr_has_no_vip(document: CatalogDocument) -> Faults:
    for name, service in document.services.items():
        if service.mode is not EndpointMode.DNSRR:
            continue
        for network, membership in service.networks.items():
            if membership.vip:
                yield ("services", name, "networks", network, "vip"), "a dnsrr service has no VIP"
        for index, port in enumerate(service.ports):
            if port.mode is PublishMode.INGRESS:
                key = ("services", name, "ports", index, "mode")
                yield key, "a dnsrr service can publish in host mode only"


def _one_ingress(document: CatalogDocument) -> Faults:
    ingress = [name for name, network in document.networks.items() if network.ingress]
    for name in ingress[1:]:
        yield ("networks", name, "ingress"), f"'{ingress[0]}' is already the ingress network"


RULES: tuple[Callable[[CatalogDocument], Faults], ...] = (
    _subnets_are_cidr,
    _askers_are_cidr,
    _networks_exist,
    _nodes_exist,
    _addresses_fit,
    _addresses_unique,
    _published_unique,
    _task_names_unique,
    _dnsrr_has_no_vip,
    _one_ingress,
)


@dataclass(frozen=True, slots=True)
class _EncodedNetworkUse:
    """An address at its place in the document. `held`: nobody else may have it on that network."""

    location: Location
    network: str
    address: str
    owner: str
    held: bool = True


def _addresses(document: CatalogDocument) -> Iterator[_EncodedNetworkUse]:
    for name, service in document.services.items():
        for network, membership in service.networks.items():
            if membership.vip is not None:
                where: Location = ("services", name, "networks", network, "vip")
                yield _EncodedNetworkUse(where, network, membership.vip, f"the VIP of service '{name}'")
    for location, task in tasks_of(document):
        held = task.state is not TaskState.DEAD  # Docker gives a dead task's address away again
        for network, address in task.addresses.items():
            where = (*location, "addresses", network)
            yield _EncodedNetworkUse(where, network, address, f"the address of task '{task.name}'", held)
    for name, container in document.containers.items():
        held = not container.task and container.running  # a task's container has the task's address
        for network, attachment in container.networks.items():
            where = ("containers", name, "networks", network, "address")
            if attachment.address:
                yield _EncodedNetworkUse(
                    where, network, attachment.address, f"the address of container '{name}'", held
                )


def _network_references(document: CatalogDocument) -> Iterator[tuple[str, Location]]:
    for name, service in document.services.items():
        for network in service.networks:
            yield network, ("services", name, "networks", network)
    for location, task in tasks_of(document):
        for network in task.addresses:
            yield network, (*location, "addresses", network)
    for name, container in document.containers.items():
        for network in container.networks:
            yield network, ("containers", name, "networks", network)
    for index, asker in enumerate(document.askers):
        for place, network in enumerate(asker.networks):
            yield network, ("askers", index, "networks", place)


def tasks_of(document: CatalogDocument) -> Iterator[tuple[Location, TaskDocument]]:
    """Every task of every service, with its place."""
    for name, service in document.services.items():
        for index, task in enumerate(service.tasks):
            yield ("services", name, "tasks", index), task


def _repeated(items: Iterable[Any], key: Callable[[Any], K]) -> Iterator[tuple[Any, Any]]:
    """(item, the first with the same key) for every item but the first."""
    first: dict[K, Any] = {}
    for item in items:
        earlier = first.setdefault(key(item), item)
        if earlier is not item:
            yield item, earlier


def _cidr_fault(text: str) -> str:
    try:
        ipaddress.ip_network(text)
    except ValueError as error:
        return str(error) if "host bits" in str(error) else f"'{text}' is not a network in CIDR form"
    return ""


def _known_subnets(document: CatalogDocument, network: str) -> list[ipaddress.IPv4Network]:
    known = document.networks.get(network)
    subnets = [] if known is None else known.subnet
    if any(map(_cidr_fault, subnets)):
        return []  # told by its own rule; the addresses in it cannot be judged
    parsed = map(ipaddress.ip_network, subnets)
    return [subnet for subnet in parsed if isinstance(subnet, ipaddress.IPv4Network)]
