"""The routes of all services' labels, as this node serves them, kept up as the catalogue changes.

A change of a task touches its own service's endpoints; a change of labels the routers that it declares, or
that name something of it. Nothing else is rebuilt, and no connection of others notices.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from mesh.balance.health_state import Result
from mesh.balance.policies import Endpoint
from mesh.catalog.model import Service
from mesh.catalog.snapshot import Change, Snapshot
from mesh.errors import Problem
from mesh.http.codec.path_check import DEFAULT, EncodedCharacters
from mesh.http.config.acme_domains import AcmeDomains
from mesh.http.config.model import Declared, HttpRoute, HttpService
from mesh.http.config.owner import owner_of
from mesh.http.hosts.claims import Claims, areas_of, claims_of
from mesh.http.hosts.entitlement import HostRefusal, entitled
from mesh.http.hosts.ownership import HostOwnership
from mesh.http.labels.http import read_labels
from mesh.http.labels.passthrough import PREFIX, read_tcp_labels
from mesh.http.middleware.chain import build_handlers
from mesh.http.middleware.kinds.forward_auth import ForwardAuth
from mesh.http.request_plan import MiddlewareHandler
from mesh.http.routing.reference_resolver import ChangedReferences, ReferenceResolver
from mesh.http.routing.route_table import RouteTable
from mesh.http.runtime import HttpRuntime
from mesh.http.upstream.network_reach import NetworkReach
from mesh.http.upstream.routed_service import RoutedTarget
from mesh.http.upstream.service_lookup import ServiceLookup, ServiceUse
from mesh.http.upstream.service_registry import Targets


@dataclass(frozen=True, slots=True)
class EntryPoint:
    """`name`: as routers call it."""

    name: str
    tls: bool = False
    encoded_characters: EncodedCharacters = DEFAULT


@dataclass(frozen=True, slots=True)
class PreparedRoute:
    """A route and its handlers. `served` is None where other stacks have all its hosts."""

    route: HttpRoute  # as resolved
    served: HttpRoute | None  # without the hosts that other stacks have
    handlers: tuple[MiddlewareHandler, ...]
    refusals: tuple[HostRefusal, ...] = ()


@dataclass(slots=True)
class _KnownRoutes:
    """What was read of a Swarm service's labels."""

    labels: Mapping[str, str]
    holds: Mapping[str, float] | None
    declared: Declared
    problems: tuple[Problem, ...] = ()
    unreachable: dict[str, Problem] = field(default_factory=dict)  # by HTTP service


class ServedRoutes:
    """`start` it and subscribe `update` to the store."""

    def __init__(
        self,
        runtime: HttpRuntime,
        networks: NetworkReach,
        entries: tuple[EntryPoint, ...],
        *,
        exposed_by_default: bool,
        as_published: Callable[[], bool],
        checks: bool,
        ownership: HostOwnership | None,
        clock: Callable[[], float],
    ) -> None:
        """`as_published`: tasks take their published port; `checks`: this process checks endpoints; `clock`:
        seconds since 1970."""
        self._networks = networks
        self._entries = {entry.name: entry for entry in entries}
        self._exposed = exposed_by_default
        self._snapshot = Snapshot()
        self.ownership = ownership or HostOwnership()
        self._clock = clock
        self._resolver = ReferenceResolver(self.ownership.since_of)
        self._known: dict[str, _KnownRoutes] = {}  # by Swarm service
        self._tables = {name: RouteTable(self.ownership.assigned) for name in self._entries}
        self._claiming: dict[str, set[tuple[str, str]]] = {}  # group of areas → routes (owner, name)
        self._prepared: dict[tuple[str, str], PreparedRoute] = {}  # by owner, name
        self._targets = Targets(runtime, networks, as_published, checks=checks)
        self._lookup = ServiceLookup(runtime, networks, as_published)
        self.acme_domains = AcmeDomains()

    def start(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._refresh(snapshot.services)

    def update(self, old: Snapshot, new: Snapshot, change: Change) -> None:
        """Store subscriber."""
        self._snapshot = new
        # What comes or goes on this node may make a network reachable, or end that.
        touched = set(change.services) | self._services_on_moved_networks(old, new, change)
        self._refresh(touched)
        self._lookup.update(old, new, touched)

    def restart(self, snapshot: Snapshot) -> None:
        """Forget what was read of labels, and read all labels again. Endpoints and connections stay."""
        self.ownership.restart()
        self._resolver = ReferenceResolver(self.ownership.since_of)
        self._known, self._prepared, self._claiming = {}, {}, {}
        self.acme_domains.clear()
        for table in self._tables.values():
            table.clear()
        self._lookup.forget()
        self.start(snapshot)
        for target in tuple(self._targets):
            if self._resolver.service(target.http.key) is None:
                self._targets.drop(target.http.key)

    def _services_on_moved_networks(self, old: Snapshot, new: Snapshot, change: Change) -> set[str]:
        """Services on networks of which something has come to this node, or gone."""
        networks = set(change.networks)
        for id_ in change.containers:
            for snapshot in (old, new):
                if (container := snapshot.containers.get(id_)) is not None:
                    networks.update(one.network for one in container.attachments)
        # Of the ingress network, which tasks may be on without their service, nothing can change that way.
        members = (new.members.get(network, ()) for network in networks)
        return {id_ for found in members for id_ in found if id_ in self._known or self._lookup.concerns(id_)}

    def _refresh(self, ids: Iterable[str]) -> None:
        """Read the labels of these services. First settle who has which host, then change the routes."""
        ids = tuple(ids)
        different = [id_ for id_ in ids if self._read(id_)]
        groups = self.ownership.settle(self._clock())
        for id_ in different:
            known, service = self._known.get(id_), self._snapshot.services.get(id_)
            declared = known.declared if known is not None else Declared()
            self._apply(self._resolver.update(id_, service.name if service else "", declared))
        for key in {one for group in groups for one in self._claiming.get(group, ())}:
            self._serve_again(key)
        for id_ in ids:
            known, service = self._known.get(id_), self._snapshot.services.get(id_)
            if known is not None and service is not None:
                for http in self._resolver.services_of(id_):
                    self._set_endpoints(http, service, known)

    def _read(self, id_: str) -> bool:
        """Read a service's labels, and claim its hosts. True if they declare other things than before."""
        service, known = self._snapshot.services.get(id_), self._known.get(id_)
        if service is None:
            self.ownership.withdraw(id_)
            return self._known.pop(id_, None) is not None
        if known is not None and known.labels == service.labels:
            if known.holds != service.holds:
                known.holds = service.holds
                self._claim(service, known.declared)
            return False
        read = read_labels(service, self._exposed)
        self._claim(service, read.declared)
        if known is None and not read.declared and not read.problems:
            return False
        self._known[id_] = _KnownRoutes(service.labels, service.holds, read.declared, read.problems)
        return True

    def _claim(self, service: Service, declared: Declared) -> None:
        tcp = None
        if any(key.lower().startswith(PREFIX) for key in service.labels):
            tcp = read_tcp_labels(service)
        claims = claims_of(declared, tcp) if declared or tcp is not None else Claims()
        # Who is there without a claim is still of its stack: that goes on while one of it is there.
        self.ownership.claim(service.id, owner_of(service), claims, service.holds)

    def _apply(self, changed: ChangedReferences) -> None:
        for route in (*changed.removed, *changed.opened):
            self._remove(self._prepared.pop((route.owner, route.name)))
            for use in _services_named_by(route):
                self._lookup.drop(use)
        for route in (*changed.added, *changed.closed):
            served, refusals = entitled(route, self.ownership)
            self._add(PreparedRoute(route, served, build_handlers(route.middlewares), refusals))
            for use in _services_named_by(route):
                self._lookup.use(use, self._snapshot)
        for key in changed.services:
            http = self._resolver.service(key)
            if http is None:
                self._targets.drop(key)
            elif http.owner in self._known and (owner := self._snapshot.services.get(http.owner)):
                self._set_endpoints(http, owner, self._known[http.owner])  # it may be another's from now on

    def _serve_again(self, key: tuple[str, str]) -> None:
        """Other stacks have taken or released hosts of this route. Its handlers keep their counts."""
        prepared = self._prepared[key]
        served, refusals = entitled(prepared.route, self.ownership)
        if served == prepared.served and refusals == prepared.refusals:
            return
        self._remove(prepared)
        self._add(replace(prepared, served=served, refusals=refusals))

    def _add(self, prepared: PreparedRoute) -> None:
        route, served = prepared.route, prepared.served
        self._prepared[route.owner, route.name] = prepared
        for group in _groups_of(route):
            self._claiming.setdefault(group, set()).add((route.owner, route.name))
        if served is not None:
            self.acme_domains.add(served)
            for name in self.entry_points_of(served):
                self._tables[name].add(served)

    def _remove(self, prepared: PreparedRoute) -> None:
        route, served = prepared.route, prepared.served
        for group in _groups_of(route):
            if (there := self._claiming.get(group)) is not None:
                there.discard((route.owner, route.name))
                if not there:
                    del self._claiming[group]
        if served is not None:
            self.acme_domains.remove(served)
            for name in self.entry_points_of(served):
                self._tables[name].remove(served)

    def entry_points_of(self, route: HttpRoute) -> Iterator[str]:
        """The entry points that it is served on: a router with TLS is not for those without."""
        for name in route.entrypoints or self._entries:
            entry = self._entries.get(name)
            if entry is not None and (entry.tls or not route.tls):
                yield name

    def _set_endpoints(self, http: HttpService, service: Service, known: _KnownRoutes) -> None:
        if self._resolver.service(http.key) != http:
            return  # another service's of the same name counts
        if why := self._targets.set_endpoints(http, service, self._snapshot):
            known.unreachable[http.name] = Problem(service.name, http.name, f"cannot be reached: {why}")
        else:
            known.unreachable.pop(http.name, None)

    # --- what is shown to people ---

    @property
    def entry_point_names(self) -> tuple[str, ...]:
        return tuple(self._entries)

    def owner_name(self, id_: str) -> str:
        """The name of a Swarm service; "" when it has gone."""
        service = self._snapshot.services.get(id_)
        return service.name if service else ""

    def has_service(self, key: str) -> bool:
        """Is there an HTTP service of this key?"""
        return self._resolver.service(key) is not None

    def open_routes(self) -> Iterator[HttpRoute]:
        """The routes that let somebody through."""
        return self._resolver.routes()

    def label_problems(self) -> Iterator[Problem]:
        """Labels that cannot be read, references that lead nowhere, services that cannot be reached."""
        for known in self._known.values():
            yield from known.problems
            yield from known.unreachable.values()
        yield from self._resolver.problems()
        yield from self._lookup.problems(self._snapshot)

    def failing_endpoints(self) -> Iterator[tuple[RoutedTarget, Endpoint, Result | None]]:
        """Endpoints that do not pass their check, with the last result; None: not checked yet."""
        for target in self._targets:
            for endpoint, last in self._targets.unwell(target.http.key).items():
                yield target, endpoint, last

    def refusals(self) -> Iterator[tuple[HttpRoute, HostRefusal]]:
        """Hosts of routes that other stacks have."""
        for prepared in self._prepared.values():
            for refusal in prepared.refusals:
                yield prepared.route, refusal


def _groups_of(route: HttpRoute) -> set[str]:
    """The groups of areas that the route claims: who has them decides what of it is served."""
    return {area.group for area in areas_of(route.match)}.union(*route.certificates)


def _services_named_by(route: HttpRoute) -> Iterator[ServiceUse]:
    """Swarm services that its middlewares name in an address."""
    for one in route.middlewares:
        if isinstance(one, ForwardAuth) and not one.tls:
            yield ServiceUse(route.owner, one.host, one.port, one.scope)
