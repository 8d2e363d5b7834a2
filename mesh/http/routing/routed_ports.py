"""Which ports of which tasks layer 7 serves: what this node's sidecar opens to those of other nodes. Pure.

A port is served when the service's own labels make it an HTTP service that something leads to (a router, a
canary, a mirror, pages for errors) or a published port of `mode: http`, or when a router's `forwardauth`
names the service and the port. A service that no label names is never reached from another node.

The answer is kept up lazily: `serves` reads the labels of the services that have changed since the last
snapshot. It finds them by comparing identities, once for each snapshot.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from mesh.catalog.model import Service
from mesh.catalog.snapshot import Snapshot
from mesh.dns.names import TASKS, service_names
from mesh.http.config.model import Declared, HttpService
from mesh.http.labels.http import read_labels
from mesh.http.middleware.kinds.errors import ErrorPages
from mesh.http.middleware.kinds.forward_auth import ForwardAuth
from mesh.labels.ports import Carrier, plan

Reference = tuple[str, str, int]  # an HTTP service's name, "", 0; or "", host, port of a `forwardauth`


@dataclass(frozen=True, slots=True)
class _KnownPorts:
    service: Service
    declared: Declared
    references: frozenset[Reference]


class RoutedPorts:
    def __init__(self, exposed_by_default: bool = True) -> None:
        self._exposed = exposed_by_default
        self._services: Mapping[str, Service] = {}
        self._known: dict[str, _KnownPorts] = {}
        self._references: Counter[Reference] = Counter()

    def serves(self, snapshot: Snapshot, service: Service, network: str, port: int) -> bool:
        """Is this port of the service's tasks one that layer 7 reaches on this network (its id)?"""
        self._follow(snapshot.services)
        found, known = snapshot.networks.get(network), self._known.get(service.id)
        if found is None or found.ingress or known is None:
            return False
        if any(port in _ports(http) for http in self._routed(known, found.name)):
            return True
        published = (one.port.target for one in plan(service).ports if one.carrier is Carrier.HTTP)
        return port in published or self._is_asked(service, port)

    def _routed(self, known: _KnownPorts, network: str) -> Iterator[HttpService]:
        for http in known.declared.services.values():
            if self._references[http.name, "", 0] and http.network in ("", network):
                yield http

    def _is_asked(self, service: Service, port: int) -> bool:
        names = {service.name.lower()}.union(*(service_names(service, one) for one in service.networks))
        return any(self._references["", host, port] for name in names for host in (name, TASKS + name))

    # --- following ---

    def _follow(self, services: Mapping[str, Service]) -> None:
        if services is self._services:
            return
        before, self._services = self._known, services
        self._known = {}
        for id_, service in services.items():
            known = before.pop(id_, None)
            if known is None or known.service is not service:
                known = self._read(service, known)
            self._known[id_] = known
        for gone in before.values():
            self._count(gone.references, -1)

    def _read(self, service: Service, known: _KnownPorts | None) -> _KnownPorts:
        if known is not None and _alike(known.service, service):
            return _KnownPorts(service, known.declared, known.references)
        declared = read_labels(service, self._exposed).declared
        references = frozenset(_references(declared))
        if known is not None:
            self._count(known.references, -1)
        self._count(references, 1)
        return _KnownPorts(service, declared, references)

    def _count(self, references: Iterable[Reference], by: int) -> None:
        for one in references:
            self._references[one] += by
            if not self._references[one]:
                del self._references[one]


def _alike(one: Service, other: Service) -> bool:
    """Do the labels of both mean the same?"""
    return (one.name, one.labels, one.ports) == (other.name, other.labels, other.ports)


def _ports(http: HttpService) -> set[int]:
    return {http.port, http.check.port} - {0}


def _references(declared: Declared) -> Iterator[Reference]:
    for router in declared.routers.values():
        yield _named(router.service)
    for http in declared.services.values():
        if http.canary_of:
            yield _named(http.name)
            yield _named(http.canary_of)
        if http.mirror:
            yield _named(http.mirror)
    for one in declared.middlewares.values():
        if isinstance(one, ErrorPages):
            yield _named(one.service)
        elif isinstance(one, ForwardAuth) and not one.tls:
            yield "", one.host, one.port


def _named(reference: str) -> Reference:
    return reference.partition("@")[0], "", 0
