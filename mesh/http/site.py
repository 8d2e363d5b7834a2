"""Host-routed HTTP: entry points shared by all services, as their labels say, kept as the catalogue changes.

A change of a task touches its own service's endpoints; a change of labels the routers that it declares, or
that name something of it. Nothing else is rebuilt, and no connection of others notices.
"""

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from time import monotonic

from mesh.balance.policies import Endpoint
from mesh.balance.probing import Result
from mesh.catalog.model import Service
from mesh.catalog.snapshot import Change, Snapshot
from mesh.errors import Problem
from mesh.http.asked import AskedHead
from mesh.http.certified import Certified
from mesh.http.core import Core
from mesh.http.directory import Changed, Directory
from mesh.http.exchange import Downstream, Exchange
from mesh.http.faults import Fault, Refused
from mesh.http.head import RequestHead
from mesh.http.labels import read_labels
from mesh.http.matching import Request
from mesh.http.mirroring import Mirroring
from mesh.http.model import Declared, ErrorPages, ForwardAuth, HttpService, Route
from mesh.http.named import Named, Use
from mesh.http.outside import Outside
from mesh.http.pages import Answer, error_answer
from mesh.http.path_check import DEFAULT, EncodedCharacters
from mesh.http.reach import Reach
from mesh.http.routed import RoutedTarget
from mesh.http.routing import Table
from mesh.http.steps import Asked, Step, Treatment, steps
from mesh.http.target import Target
from mesh.http.targets import Targets, no_socket
from mesh.http.treating import Treating

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
    """A route, ready to be taken."""

    route: Route
    steps: tuple[Step, ...]


@dataclass(slots=True)
class _Known:
    """What was read of a service."""

    labels: Mapping[str, str]
    problems: tuple[Problem, ...] = ()
    unreachable: dict[str, Problem] = field(default_factory=dict)  # by HTTP service


class Site:
    """`start`, subscribe `update` to the store; `serving(entry)` answers a listener's requests."""

    def __init__(
        self,
        core: Core,
        reach: Reach,
        entries: tuple[EntryPoint, ...],
        *,
        exposed_by_default: bool = True,
        as_published: Callable[[], bool] = lambda: False,
        draw: Callable[[], float] = random.random,
        over: Callable[[Exchange, Route | None], None] = lambda _exchange, _route: None,
        outside: Outside | None = None,
    ) -> None:
        self._reach = reach
        self._entries = {entry.name: entry for entry in entries}
        self._exposed = exposed_by_default
        self._draw = draw
        self._over = over
        self._snapshot = Snapshot()
        self._directory = Directory()
        self._known: dict[str, _Known] = {}  # by Swarm service
        self._tables = {name: Table() for name in self._entries}
        self._planned: dict[tuple[str, str], _Planned] = {}
        self._targets = Targets(core, reach, as_published)
        self._named = Named(core, reach, as_published)
        self._treating = Treating(core, self._targets, self._named, outside)
        self._mirroring = Mirroring(core, self._targets, draw)
        self._nobody = Target(core, "", no_socket)
        self.certified = Certified()
        # What is answered to an authority that asks for this token at this host; None: nothing.
        self.proof: Callable[[str, str], str | None] = lambda _host, _token: None

    # --- the catalogue ---

    def start(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        for id_ in snapshot.services:
            self._look(id_)

    def update(self, old: Snapshot, new: Snapshot, change: Change) -> None:
        """Store subscriber."""
        self._snapshot = new
        # What comes or goes on this node may make a network reachable, or end that.
        touched = set(change.services) | self._moved(old, new, change)
        for id_ in touched:
            self._look(id_)
        self._named.update(old, new, touched)

    def restart(self, snapshot: Snapshot) -> None:
        """Forget what was read of labels, and read all of them anew. Endpoints and connections stay."""
        self._directory, self._known, self._planned = Directory(), {}, {}
        self.certified.clear()
        for table in self._tables.values():
            table.clear()
        self._named.forget()
        self.start(snapshot)
        for target in tuple(self._targets):
            if self._directory.service(target.http.name) is None:
                self._targets.drop(target.http.name)

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

    def _look(self, id_: str) -> None:
        service, known = self._snapshot.services.get(id_), self._known.get(id_)
        if service is None:
            if known is not None:
                del self._known[id_]
                self._apply(self._directory.update(id_, "", Declared()))
            return
        if known is None or known.labels != service.labels:
            read = read_labels(service, self._exposed)
            if known is None and read.declared == Declared() and not read.problems:
                return
            known = self._known[id_] = _Known(service.labels, read.problems)
            self._apply(self._directory.update(id_, service.name, read.declared))
        for http in self._directory.services_of(id_):
            self._aim(http, service, known)

    def _apply(self, changed: Changed) -> None:
        for route in changed.removed:
            for name in self._on(route):
                self._tables[name].remove(route)
            del self._planned[route.owner, route.name]
            self.certified.remove(route)
            for use in _named_by(route):
                self._named.drop(use)
        for route in changed.added:
            self._planned[route.owner, route.name] = _Planned(route, steps(route.middlewares))
            self.certified.add(route)
            for name in self._on(route):
                self._tables[name].add(route)
            for use in _named_by(route):
                self._named.use(use, self._snapshot)
        for name in changed.services:
            http = self._directory.service(name)
            if http is None:
                self._targets.drop(name)
            elif http.owner in self._known and (owner := self._snapshot.services.get(http.owner)):
                self._aim(http, owner, self._known[http.owner])  # it may be another's from now on

    def _on(self, route: Route) -> Iterator[str]:
        """The entry points that it is served on: a router with TLS is not for those without."""
        for name in route.entrypoints or self._entries:
            entry = self._entries.get(name)
            if entry is not None and (entry.tls or not route.tls):
                yield name

    def _aim(self, http: HttpService, service: Service, known: _Known) -> None:
        if self._directory.service(http.name) != http:
            return  # another service's of the same name counts
        if why := self._targets.aim(http, service, self._snapshot):
            known.unreachable[http.name] = Problem(service.name, http.name, f"cannot be reached: {why}")
        else:
            known.unreachable.pop(http.name, None)

    # --- requests ---

    def serving(self, entry: str) -> "_Entry":
        """For the `Front` of this entry point."""
        return _Entry(self, self._entries[entry], self._tables[entry])

    def exchange(
        self, table: Table, client: Downstream, head: RequestHead, allowed: EncodedCharacters = DEFAULT
    ) -> Exchange:
        try:
            request = AskedHead(head, client.edge, allowed)
        except Refused as refused:
            return self._refused(client, head, refused.fault)
        if request.path.startswith(PROOF_PATH) and (proof := self._proof(request)) is not None:
            return self._answered(client, head, Treatment("", "", answer=proof))
        route = table.find(request)
        if any(table.find(request.read_as(path)) is not route for path in request.readings):
            return self._refused(client, head, Fault.BAD_PATH)
        if route is None:
            return self._refused(client, head, Fault.NO_ROUTE)
        planned = self._planned[route.owner, route.name]
        target = self._target(route)
        if target is None:
            return self._refused(client, head, Fault.NO_ENDPOINT)
        asked = Asked(
            request,
            request.scheme,
            (head.about.authority or b"").decode("latin-1"),
            client.request_id,
            head.fields.get(b"authorization"),
            monotonic(),
            request.forwarded_for,
        )
        treatment = Treatment(request.sent_path, request.query)

        def over(exchange: Exchange) -> None:
            for end in treatment.at_end:
                end()
            target.over(exchange)
            if target.http.mirror:
                self._mirroring.look_at(exchange, target)
            self._over(exchange, route)

        exchange = Exchange(client, head, target, over, treatment)
        exchange.source = request.client
        if (limit := target.limit(exchange)) is not None:
            treatment.at_end.append(limit.end)
        self._treating.treat(route.owner, planned.steps, asked, treatment, exchange)
        return exchange

    def _target(self, route: Route) -> RoutedTarget | None:
        name = route.service
        if canaries := self._directory.canaries_of(name):
            drawn = self._draw() * 100
            for canary in canaries:
                drawn -= canary.weight
                if drawn < 0 and (target := self._targets.get(canary.name)) is not None:
                    return target
        return self._targets.get(name)

    def _refused(self, client: Downstream, head: RequestHead, fault: Fault) -> Exchange:
        answer = error_answer(fault, client.request_id)
        return self._answered(client, head, Treatment("", "", answer=answer, fault=fault))

    def _proof(self, request: Request) -> Answer | None:
        """Ahead of all routers: one that redirects everything must not keep its own certificate away."""
        text = self.proof(request.host, request.path.removeprefix(PROOF_PATH))
        return Answer(200, PROOF_FIELDS, text.encode("ascii")) if text is not None else None

    def _answered(self, client: Downstream, head: RequestHead, treatment: Treatment) -> Exchange:
        """By us."""

        def over(exchange: Exchange) -> None:
            self._nobody.over(exchange)
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
        yield from self._without_mirror()
        for route in self._directory.routes():
            for one in route.middlewares:
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
            for endpoint, last in self._targets.unwell(target.http.name).items():
                yield Problem(
                    owner.name if owner else "",
                    target.http.name,
                    f"task at {endpoint} does not pass its check ({last or 'not yet checked'})",
                )

    def _without_mirror(self) -> Iterator[Problem]:
        for target in self._targets:
            http = target.http
            if not http.mirror or (http.mirror in self._targets and http.mirror != http.name):
                continue
            why = "is the service itself" if http.mirror == http.name else "is no service"
            owner = self._snapshot.services.get(http.owner)
            yield Problem(
                owner.name if owner else "",
                f"mirror of {http.name}",
                f"{http.mirror!r} {why}; no copies are sent",
            )

    def targets(self) -> Iterator[RoutedTarget]:
        """All HTTP services that are reached from here."""
        return iter(self._targets)

    def targets_of(self, id_: str) -> Iterator[RoutedTarget]:
        """A Swarm service's HTTP services, also those that no router leads to."""
        return (one for one in self._targets if one.http.owner == id_)

    def unwell(self, name: str) -> Mapping[Endpoint, Result | None]:
        """Endpoints of an HTTP service that do not pass their check; None: they were not asked yet."""
        return self._targets.unwell(name)

    def routes(self) -> Iterator[tuple[Route, tuple[str, ...], RoutedTarget | None]]:
        """Each with its entry points, and where it leads."""
        for route in sorted(self._directory.routes(), key=lambda one: one.name):
            yield route, tuple(self._on(route)), self._targets.get(route.service)

    def encoded_characters(self, entry: str) -> EncodedCharacters:
        """Those that this entry point lets through."""
        return self._entries[entry].encoded_characters

    def would_take(self, entry: str, request: Request) -> Route | None:
        """The route of a request to this entry point, as it would be taken now."""
        return self._tables[entry].find(request)

    def network_of(self, name: str) -> str:
        """Where an HTTP service's tasks are reached from here, by name; "" where they are not."""
        network = self._snapshot.networks.get(self._targets.network(name))
        return network.name if network else ""

    def serves(self, entry: str, host: str) -> bool:
        """Is there a router for this host in particular?"""
        return bool(host) and self._tables[entry].serves(host)

    def is_elsewhere(self, name: str) -> bool:
        """Does the way to its tasks lead through other nodes' sidecars?"""
        network = self._snapshot.networks.get(self._targets.network(name))
        return network is not None and not self._reach.here(network, self._snapshot)

    def close(self) -> None:
        self._mirroring.close()
        self._targets.close()
        self._named.close()


@dataclass(frozen=True, slots=True)
class _Entry:
    site: Site
    entry: EntryPoint
    table: Table

    def exchange(self, client: Downstream, head: RequestHead) -> Exchange:
        return self.site.exchange(self.table, client, head, self.entry.encoded_characters)


def _named_by(route: Route) -> Iterator[Use]:
    """Services that its middlewares call by an address."""
    for one in route.middlewares:
        if isinstance(one, ForwardAuth) and not one.tls:
            yield Use(route.owner, one.host, one.port)
