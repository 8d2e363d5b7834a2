"""Host-routed HTTP: entry points shared by all services, as their labels say, kept as the catalogue changes.

A change of a task touches its own service's endpoints; a change of labels the routers that it declares, or
that name something of it. Nothing else is rebuilt, and no connection of others notices.
"""

import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from time import monotonic, time

from mesh.balance.health_state import Result
from mesh.balance.policies import Endpoint
from mesh.catalog.model import Service
from mesh.catalog.snapshot import Change, Snapshot
from mesh.errors import Problem
from mesh.http.codec.h1_head import RequestHead
from mesh.http.codec.path_check import DEFAULT, EncodedCharacters
from mesh.http.config.acme_domains import AcmeDomains
from mesh.http.config.matchers import Request
from mesh.http.config.model import Declared, HttpRoute, HttpService
from mesh.http.config.owner import owner_of
from mesh.http.exchange import Exchange
from mesh.http.faults import HttpFault, RequestRefused
from mesh.http.hosts.claims import Claims, areas_of, claims_of
from mesh.http.hosts.entitlement import HostRefusal, entitled
from mesh.http.hosts.ownership import HostOwnership
from mesh.http.interfaces import Downstream
from mesh.http.labels.http import read_labels
from mesh.http.labels.passthrough import PREFIX, read_tcp_labels
from mesh.http.local_reply import LocalReply, error_answer
from mesh.http.middleware.chain import build_handlers
from mesh.http.middleware.kinds.errors import ErrorPages
from mesh.http.middleware.kinds.forward_auth import ForwardAuth
from mesh.http.middleware.runner import MiddlewareRunner
from mesh.http.request_plan import MiddlewareHandler, RequestContext, RequestPlan
from mesh.http.routing.reference_resolver import ChangedReferences, ReferenceResolver
from mesh.http.routing.request_view import RequestView
from mesh.http.routing.route_table import RouteTable
from mesh.http.runtime import HttpRuntime
from mesh.http.upstream.external_client import ExternalClient
from mesh.http.upstream.mirror import Mirroring
from mesh.http.upstream.network_reach import NetworkReach
from mesh.http.upstream.routed_service import RoutedTarget
from mesh.http.upstream.service import UpstreamService
from mesh.http.upstream.service_lookup import ServiceLookup, ServiceUse
from mesh.http.upstream.service_registry import Targets, no_socket
from mesh.internal_errors import ERRORS
from mesh.net.isolation import report_fault, run

PROOF_PATH = "/.well-known/acme-challenge/"  # RFC 8555, section 8.3
PROOF_FIELDS = ((b"Content-Type", b"application/octet-stream"), (b"Cache-Control", b"no-store"))


@dataclass(frozen=True, slots=True)
class EntryPoint:
    """`name` as routers call it."""

    name: str
    tls: bool = False
    encoded_characters: EncodedCharacters = DEFAULT


@dataclass(frozen=True, slots=True)
class _Planned:
    """A route, ready to be taken. `served` is None where all that it claims is others'."""

    route: HttpRoute  # as resolved
    served: HttpRoute | None  # as its stack may serve it
    handlers: tuple[MiddlewareHandler, ...]
    refusals: tuple[HostRefusal, ...] = ()


@dataclass(slots=True)
class _KnownRoutes:
    """What was read of a service."""

    labels: Mapping[str, str]
    holds: Mapping[str, float] | None
    declared: Declared
    problems: tuple[Problem, ...] = ()
    unreachable: dict[str, Problem] = field(default_factory=dict)  # by HTTP service


class RequestRouter:
    """`start`, subscribe `update` to the store; `serving(entry)` answers a listener's requests."""

    def __init__(
        self,
        core: HttpRuntime,
        reach: NetworkReach,
        entries: tuple[EntryPoint, ...],
        *,
        exposed_by_default: bool = True,
        as_published: Callable[[], bool] = lambda: False,
        draw: Callable[[], float] = random.random,
        over: Callable[[Exchange, HttpRoute | None], None] = lambda _exchange, _route: None,
        outside: ExternalClient | None = None,
        checks: bool = True,
        ownership: HostOwnership | None = None,
        clock: Callable[[], float] = time,
    ) -> None:
        self._reach = reach
        self._entries = {entry.name: entry for entry in entries}
        self._exposed = exposed_by_default
        self._draw = draw
        self._over = over
        self._snapshot = Snapshot()
        self.ownership = ownership or HostOwnership()
        self._clock = clock
        self._directory = ReferenceResolver(self.ownership.since_of)
        self._known: dict[str, _KnownRoutes] = {}  # by Swarm service
        self._tables = {name: RouteTable(self.ownership.assigned) for name in self._entries}
        self._claiming: dict[str, set[tuple[str, str]]] = {}  # group of areas → routes (owner, name)
        self._planned: dict[tuple[str, str], _Planned] = {}
        self._targets = Targets(core, reach, as_published, checks=checks)
        self._named = ServiceLookup(core, reach, as_published)
        self._outside = outside
        self._runner = MiddlewareRunner(core, self._targets, self._named, outside)
        self._mirroring = Mirroring(core, self._targets, draw)
        self._nobody = UpstreamService(core, "", no_socket)
        self.certified = AcmeDomains()
        # What is answered to an authority that asks for this token at this host; None: nothing.
        self.proof: Callable[[str, str], str | None] = lambda _host, _token: None

    # --- the catalogue ---

    def start(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._look_at_all(snapshot.services)

    def update(self, old: Snapshot, new: Snapshot, change: Change) -> None:
        """Store subscriber."""
        self._snapshot = new
        # What comes or goes on this node may make a network reachable, or end that.
        touched = set(change.services) | self._moved(old, new, change)
        self._look_at_all(touched)
        self._named.update(old, new, touched)

    def restart(self, snapshot: Snapshot) -> None:
        """Forget what was read of labels, and read all of them anew. Endpoints and connections stay."""
        self.ownership.restart()
        self._directory = ReferenceResolver(self.ownership.since_of)
        self._known, self._planned, self._claiming = {}, {}, {}
        self.certified.clear()
        for table in self._tables.values():
            table.clear()
        self._named.forget()
        self.start(snapshot)
        for target in tuple(self._targets):
            if self._directory.service(target.http.key) is None:
                self._targets.drop(target.http.key)

    def _moved(self, old: Snapshot, new: Snapshot, change: Change) -> set[str]:
        """Services on networks of which something has come to this node, or gone."""
        networks = set(change.networks)
        for id_ in change.containers:
            for snapshot in (old, new):
                if (container := snapshot.containers.get(id_)) is not None:
                    networks.update(one.network for one in container.attachments)
        # Of the ingress network, which tasks may be on without their service, nothing can change that way.
        members = (new.members.get(network, ()) for network in networks)
        return {id_ for found in members for id_ in found if id_ in self._known or self._named.concerns(id_)}

    def _look_at_all(self, ids: Iterable[str]) -> None:
        """First who claims what and who has it, then what that makes of the routers."""
        ids = tuple(ids)
        different = [id_ for id_ in ids if self._read(id_)]
        groups = self.ownership.settle(self._clock())
        for id_ in different:
            known, service = self._known.get(id_), self._snapshot.services.get(id_)
            declared = known.declared if known is not None else Declared()
            self._apply(self._directory.update(id_, service.name if service else "", declared))
        for place in {one for group in groups for one in self._claiming.get(group, ())}:
            self._serve_again(place)
        for id_ in ids:
            known, service = self._known.get(id_), self._snapshot.services.get(id_)
            if known is not None and service is not None:
                for http in self._directory.services_of(id_):
                    self._set_endpoints(http, service, known)

    def _read(self, id_: str) -> bool:
        """Its labels, and what they claim. True if they declare other things than before."""
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
            self._take_out(self._planned.pop((route.owner, route.name)))
            for use in _named_by(route):
                self._named.drop(use)
        for route in (*changed.added, *changed.closed):
            served, refusals = entitled(route, self.ownership)
            self._put_in(_Planned(route, served, build_handlers(route.middlewares), refusals))
            for use in _named_by(route):
                self._named.use(use, self._snapshot)
        for key in changed.services:
            http = self._directory.service(key)
            if http is None:
                self._targets.drop(key)
            elif http.owner in self._known and (owner := self._snapshot.services.get(http.owner)):
                self._set_endpoints(http, owner, self._known[http.owner])  # it may be another's from now on

    def _serve_again(self, place: tuple[str, str]) -> None:
        """Somebody has, or has let go of, what this route claims. Its counts and limits go on."""
        planned = self._planned[place]
        served, refusals = entitled(planned.route, self.ownership)
        if served == planned.served and refusals == planned.refusals:
            return
        self._take_out(planned)
        self._put_in(replace(planned, served=served, refusals=refusals))

    def _put_in(self, planned: _Planned) -> None:
        route, served = planned.route, planned.served
        self._planned[route.owner, route.name] = planned
        for group in _groups_of(route):
            self._claiming.setdefault(group, set()).add((route.owner, route.name))
        if served is not None:
            self.certified.add(served)
            for name in self._on(served):
                self._tables[name].add(served)

    def _take_out(self, planned: _Planned) -> None:
        route, served = planned.route, planned.served
        for group in _groups_of(route):
            if (there := self._claiming.get(group)) is not None:
                there.discard((route.owner, route.name))
                if not there:
                    del self._claiming[group]
        if served is not None:
            self.certified.remove(served)
            for name in self._on(served):
                self._tables[name].remove(served)

    def _on(self, route: HttpRoute) -> Iterator[str]:
        """The entry points that it is served on: a router with TLS is not for those without."""
        for name in route.entrypoints or self._entries:
            entry = self._entries.get(name)
            if entry is not None and (entry.tls or not route.tls):
                yield name

    def _set_endpoints(self, http: HttpService, service: Service, known: _KnownRoutes) -> None:
        if self._directory.service(http.key) != http:
            return  # another service's of the same name counts
        if why := self._targets.set_endpoints(http, service, self._snapshot):
            known.unreachable[http.name] = Problem(service.name, http.name, f"cannot be reached: {why}")
        else:
            known.unreachable.pop(http.name, None)

    # --- requests ---

    def serving(self, entry: str) -> "_Entry":
        """For the `HttpListener` of this entry point."""
        return _Entry(self, self._entries[entry], self._tables[entry])

    def exchange(
        self, table: RouteTable, client: Downstream, head: RequestHead, allowed: EncodedCharacters = DEFAULT
    ) -> Exchange:
        """Never raises: what fails of ours is answered with 500."""
        try:
            return self._exchange(table, client, head, allowed)
        except Exception as error:  # noqa: BLE001 - the boundary of a request
            ERRORS.report("routing a request", error)
            return self._refused(client, head, HttpFault.INTERNAL)

    def _exchange(
        self, table: RouteTable, client: Downstream, head: RequestHead, allowed: EncodedCharacters
    ) -> Exchange:
        try:
            request = RequestView(head, client.edge, allowed)
        except RequestRefused as refused:
            return self._refused(client, head, refused.fault)
        if request.path.startswith(PROOF_PATH) and (proof := self._proof(request)) is not None:
            return self._answered(client, head, RequestPlan("", "", answer=proof))
        route = table.find(request)
        if request.readings and any(
            table.find(request.read_as(one)) is not route for one in request.readings
        ):
            return self._refused(client, head, HttpFault.BAD_PATH)
        if route is None or route.closed:
            return self._refused(client, head, HttpFault.NO_ROUTE)
        planned = self._planned[route.owner, route.name]
        target = self._target(route)
        if target is None:
            return self._refused(client, head, HttpFault.NO_ENDPOINT)
        treatment = RequestPlan(request.sent_path, request.query)

        def over(exchange: Exchange) -> None:
            for end in treatment.on_end:
                run(end)
            try:  # here and below as `run` does, without its price for each request
                target.on_close(exchange)
            except Exception as error:  # noqa: BLE001 - the boundary of a callback
                report_fault(target.on_close, error)
            if target.http.mirror:
                mirror = self._directory.mirror_of(target.http.key)
                run(self._mirroring.look_at, exchange, target, mirror)
            try:
                self._over(exchange, route)
            except Exception as error:  # noqa: BLE001 - the boundary of a callback
                report_fault(self._over, error)

        exchange = Exchange(client, head, target, over, treatment)
        exchange.source = request.client
        if (limit := target.limit(exchange)) is not None:
            treatment.on_end.append(limit.end)
        if planned.handlers:  # most routes have no middlewares
            self._runner.run(
                route.owner, planned.handlers, _asked(request, client, head), treatment, exchange
            )
        return exchange

    def _target(self, route: HttpRoute) -> RoutedTarget | None:
        key = route.target
        if canaries := self._directory.canaries_of(key):
            drawn = self._draw() * 100
            for canary in canaries:
                drawn -= canary.weight
                if drawn < 0 and (target := self._targets.get(canary.key)) is not None:
                    return target
        return self._targets.get(key)

    def _refused(self, client: Downstream, head: RequestHead, fault: HttpFault) -> Exchange:
        answer = error_answer(fault, client.request_id)
        return self._answered(client, head, RequestPlan("", "", answer=answer, fault=fault))

    def _proof(self, request: Request) -> LocalReply | None:
        """Ahead of all routers: one that redirects everything must not keep its own certificate away."""
        text = self.proof(request.host, request.path.removeprefix(PROOF_PATH))
        return LocalReply(200, PROOF_FIELDS, text.encode("ascii")) if text is not None else None

    def _answered(self, client: Downstream, head: RequestHead, treatment: RequestPlan) -> Exchange:
        """By us."""

        def over(exchange: Exchange) -> None:
            self._nobody.on_close(exchange)
            self._over(exchange, None)

        return Exchange(client, head, self._nobody, over, treatment)

    # --- telling ---

    @property
    def entries(self) -> tuple[str, ...]:
        return tuple(self._entries)

    def problems(self) -> Iterator[Problem]:
        for known in self._known.values():
            yield from known.problems
            yield from known.unreachable.values()
        yield from self._directory.problems()
        yield from self._named.problems(self._snapshot)
        yield from self._unwell()
        yield from self._refusals()
        for route in self._directory.routes():
            for one in route.middlewares:
                if isinstance(one, ForwardAuth) and (why := self._not_asked(one)):
                    yield Problem(
                        self._snapshot.services[route.owner].name,
                        f"traefik.http.routers.{route.name}.middlewares",
                        f"forwardauth {one.url}: {why}",
                    )
                if isinstance(one, ErrorPages) and self._directory.service(one.service) is None:
                    yield Problem(
                        self._snapshot.services[route.owner].name,
                        f"traefik.http.routers.{route.name}.middlewares",
                        f"there is no service {one.service!r} for error pages",
                    )
            for name in route.entrypoints:
                if name not in self._entries:
                    yield Problem(
                        self._snapshot.services[route.owner].name,
                        f"traefik.http.routers.{route.name}.entrypoints",
                        f"there is no entry point {name!r} (known are {', '.join(self._entries)})",
                    )

    def _unwell(self) -> Iterator[Problem]:
        for target in self._targets:
            owner = self._snapshot.services.get(target.http.owner)
            for endpoint, last in self._targets.unwell(target.http.key).items():
                yield Problem(
                    owner.name if owner else "",
                    target.http.name,
                    f"task at {endpoint} does not pass its check ({last or 'not yet checked'})",
                )

    def _not_asked(self, one: ForwardAuth) -> str:
        """Why we do not connect to where this leads, if we do not."""
        return (
            self._outside.internal.refusal(one.host)
            if one.may_be_external and self._outside is not None
            else ""
        )

    def _refusals(self) -> Iterator[Problem]:
        for planned in self._planned.values():
            owner = self._snapshot.services.get(planned.route.owner)
            for refusal in planned.refusals:
                where = f"traefik.http.routers.{planned.route.name}.rule"
                yield Problem(owner.name if owner else "", where, str(refusal))

    def targets(self) -> Iterator[RoutedTarget]:
        """All HTTP services that are reached from here."""
        return iter(self._targets)

    def targets_of(self, id_: str) -> Iterator[RoutedTarget]:
        """A Swarm service's HTTP services, also those that no router leads to."""
        return (one for one in self._targets if one.http.owner == id_)

    def unwell(self, name: str) -> Mapping[Endpoint, Result | None]:
        """Endpoints of an HTTP service (key) that do not pass their check; None: they were not asked yet."""
        return self._targets.unwell(self._key(name))

    def routes(self) -> Iterator[tuple[HttpRoute, tuple[str, ...], RoutedTarget | None]]:
        """Each with its entry points, and where it leads. One that is closed, or whose hosts others have, is
        served at none."""
        for planned in sorted(self._planned.values(), key=lambda one: (one.route.name, one.route.owner)):
            route = planned.served or planned.route
            open_ = planned.served is not None and not route.closed
            yield route, tuple(self._on(route) if open_ else ()), self._targets.get(route.target)

    def encoded_characters(self, entry: str) -> EncodedCharacters:
        """Those that this entry point lets through."""
        return self._entries[entry].encoded_characters

    def would_take(self, entry: str, request: Request) -> HttpRoute | None:
        """The route of a request to this entry point, as it would be taken now."""
        route = self._tables[entry].find(request)
        return None if route is None or route.closed else route

    def _key(self, name: str) -> str:
        """Of an HTTP service by its name alone: the key of the first that is called so."""
        if "@" in name or name in self._targets:
            return name
        return next((one.http.key for one in self._targets if one.http.name == name), name)

    def network_of(self, name: str) -> str:
        """Where an HTTP service's tasks are reached from here, by name; "" where they are not."""
        network = self._snapshot.networks.get(self._targets.network(self._key(name)))
        return network.name if network else ""

    def serves(self, entry: str, host: str) -> bool:
        """Is there a router for this host in particular?"""
        return bool(host) and self._tables[entry].serves(host)

    def is_elsewhere(self, name: str) -> bool:
        """Does the way to its tasks lead through other nodes' sidecars?"""
        network = self._snapshot.networks.get(self._targets.network(self._key(name)))
        return network is not None and not self._reach.here(network, self._snapshot)

    def close(self) -> None:
        self._mirroring.close()
        self._targets.close()
        self._named.close()


@dataclass(frozen=True, slots=True)
class _Entry:
    site: RequestRouter
    entry: EntryPoint
    table: RouteTable

    def exchange(self, client: Downstream, head: RequestHead) -> Exchange:
        return self.site.exchange(self.table, client, head, self.entry.encoded_characters)


def _asked(request: RequestView, client: Downstream, head: RequestHead) -> RequestContext:
    """As the route's middlewares see it."""
    return RequestContext(
        request,
        request.scheme,
        (head.about.authority or b"").decode("latin-1"),
        client.request_id,
        head.fields.get(b"authorization"),
        monotonic(),
        request.forwarded_for,
    )


def _groups_of(route: HttpRoute) -> set[str]:
    """Of areas: what becomes of the route depends on who has what there."""
    return {area.group for area in areas_of(route.match)}.union(*route.certificates)


def _named_by(route: HttpRoute) -> Iterator[ServiceUse]:
    """Services that its middlewares call by an address."""
    for one in route.middlewares:
        if isinstance(one, ForwardAuth) and not one.tls:
            yield ServiceUse(route.owner, one.host, one.port, one.scope)
