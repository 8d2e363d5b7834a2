"""Resolves the names by which routers, services and middlewares refer to each other. Pure.

A name is looked up in the stack whose label has it, then in the others. Of several other stacks the one
counts that has had the name longest, so that nobody takes another's place by declaring the same name. If
several Swarm services of one stack declare a router or service of one name, the first service's counts; a
middleware that they declare differently is faulty.

A router that would be less guarded than its labels ask for (a middleware is missing or faulty, or an option
is not known) is closed: its requests are refused, and go to no wider router. A change of a service resolves
the routers again that depend on what has changed, and no others.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TypeVar

from mesh.errors import Problem
from mesh.http.config.model import Declared, HttpRoute, HttpService, Middleware, Router
from mesh.http.config.owner import shown_owner
from mesh.http.middleware.kinds.chain import Chain
from mesh.http.middleware.kinds.deny import Deny
from mesh.http.middleware.kinds.errors import ErrorPages
from mesh.http.middleware.kinds.forward_auth import ForwardAuth

T = TypeVar("T", Router, HttpService, Middleware)

CHAIN_MAX = 20  # middlewares of one router, chains resolved
PROVIDERS = ("swarm", "docker")  # what may stand behind the @ of a name: this is what it is
EVERYBODY = "*"  # in a list of stacks
Name = tuple[str, str]  # kind, name
ROUTER, SERVICE, MIDDLEWARE = "router", "service", "middleware"


def _unknown_since(_name: Name, _scopes: str) -> float:
    return 0.0


@dataclass(slots=True)
class ChangedReferences:
    """What is different after an update."""

    removed: list[HttpRoute] = field(default_factory=list)
    added: list[HttpRoute] = field(default_factory=list)
    opened: list[HttpRoute] = field(default_factory=list)  # closed routes that are removed
    closed: list[HttpRoute] = field(default_factory=list)  # closed routes that are added
    services: set[str] = field(default_factory=set)  # keys of services that may have changed


@dataclass(frozen=True, slots=True)
class _Resolved:
    route: HttpRoute | None
    names: frozenset[Name]  # that were looked up, found or not
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class _Links:
    """The services that a service is a canary or a mirror of."""

    names: frozenset[Name]  # that were looked up
    canary_of: str  # key; "": nobody's
    mirrored: str  # its own key, if somebody gets copies
    faults: tuple[tuple[str, str], ...]  # label, why


class ReferenceResolver:
    """Owners are Swarm services (ids); the scope of a name is the stack of its owner. `since(name, scope)`:
    the time since which the scope has had the name."""

    def __init__(self, since: Callable[[Name, str], float] = _unknown_since) -> None:
        self._since = since
        self._declared: dict[str, Declared] = {}  # by owner
        self._service_names: dict[str, str] = {}  # owner → the service's name
        self._scopes: dict[str, str] = {}  # owner → scope
        self._owners: dict[Name, set[str]] = {}
        self._users: dict[Name, set[tuple[str, str]]] = {}  # → routers (owner, name)
        self._resolved: dict[tuple[str, str], _Resolved] = {}
        self._links: dict[tuple[str, str], _Links] = {}  # of (owner, service name)
        self._linked: dict[Name, set[tuple[str, str]]] = {}  # name → services whose links lead there
        self._canaries: dict[str, dict[tuple[str, str], HttpService]] = {}  # key of a service → its canaries
        self._mirrors: dict[str, str] = {}  # key of a service → key of who gets copies

    def update(self, owner: str, name: str, declared: Declared) -> ChangedReferences:
        """Replace what the Swarm service (id, name) declares."""
        scope = declared.scope
        before = self._declared.get(owner, _NOTHING)
        moved = owner in self._scopes and self._scopes[owner] != scope
        touched = {
            one
            for one in _names_in(before) | _names_in(declared)
            if moved
            or _declared_as(before, one) != _declared_as(declared, one)
            or (one in before.faulty) != (one in declared.faulty)
        }
        for one in _names_in(before):
            self._owners[one].discard(owner)
            if not self._owners[one]:
                del self._owners[one]
        for one in _names_in(declared):
            self._owners.setdefault(one, set()).add(owner)
        self._declared[owner], self._service_names[owner], self._scopes[owner] = declared, name, scope
        if not _names_in(declared):
            del self._declared[owner], self._service_names[owner], self._scopes[owner]
        services = {one for one in touched if one[0] == SERVICE}
        both = [one.services.get(called) for _, called in services for one in (before, declared)]
        changed = ChangedReferences(services={one.key for one in both if one is not None})
        self._update_links(owner, services)
        for router in self._affected_routers(touched):
            self._resolve_again(router, changed)
        return changed

    def reconsider(self, name: Name) -> ChangedReferences:
        """Another scope turns out to have had this name longer."""
        changed = ChangedReferences()
        self._update_links("", {name} if name[0] == SERVICE else set())
        for router in self._affected_routers({name}):
            self._resolve_again(router, changed)
        return changed

    def service(self, key: str) -> HttpService | None:
        """The service of this key; the first owner's, if several of its stack declare it."""
        name, _, scope = key.partition("@")
        for owner in sorted(self._owners.get((SERVICE, name), ())):
            found = self._declared[owner].services.get(name)
            if found is not None and found.scope == scope:
                return found
        return None

    def services_of(self, owner: str) -> Iterator[HttpService]:
        yield from self._declared.get(owner, _NOTHING).services.values()

    def canaries_of(self, key: str) -> tuple[HttpService, ...]:
        """Services that take a share of this one's requests, by name. Called for every request."""
        found = self._canaries.get(key)
        return tuple(found[one] for one in sorted(found)) if found else ()

    def mirror_of(self, key: str) -> str:
        """Key of the service that gets copies of this one's requests; "" where there is none."""
        return self._mirrors.get(key, "")

    def problems(self) -> Iterator[Problem]:
        for one in self._resolved.values():
            yield from one.problems
        yield from self._duplicate_problems()
        for (owner, _), links in self._links.items():
            for where, why in links.faults:
                yield Problem(self._service_names[owner], where, why)

    def routes(self) -> Iterator[HttpRoute]:
        """The routes that are not closed."""
        for one in self._resolved.values():
            if one.route is not None and not one.route.closed:
                yield one.route

    def _duplicate_problems(self) -> Iterator[Problem]:
        """Services that several owners in one scope declare: the first one's counts."""
        for (kind, name), owners in self._owners.items():
            if kind != SERVICE or len(owners) == 1:
                continue
            firsts: dict[str, str] = {}
            for owner in sorted(owners):
                if name not in self._declared[owner].services:
                    continue
                first = firsts.setdefault(self._scopes[owner], owner)
                if first != owner:
                    message = f"{self._service_names[first]} declares this name too, and gets its requests"
                    yield Problem(self._service_names[owner], f"traefik.http.services.{name}", message)

    # --- canaries and mirrors ---

    def _update_links(self, owner: str, names: set[Name]) -> None:
        """Update the links of these services of the owner, and of all services whose links lead to them."""
        again = {(owner, called) for _, called in names if owner}
        for name in names:
            again |= self._linked.get(name, set())
        for one in again:
            self._unlink(one)
        for one in again:
            service = self._declared.get(one[0], _NOTHING).services.get(one[1])
            if service is not None and (service.canary_of or service.mirror):
                self._link(one, service)

    def _unlink(self, of: tuple[str, str]) -> None:
        old = self._links.pop(of, None)
        if old is None:
            return
        for name in old.names:
            self._linked[name].discard(of)
            if not self._linked[name]:
                del self._linked[name]
        if old.canary_of:
            self._canaries[old.canary_of].pop(of)
            if not self._canaries[old.canary_of]:
                del self._canaries[old.canary_of]
        if old.mirrored:
            self._mirrors.pop(old.mirrored, None)

    def _link(self, of: tuple[str, str], service: HttpService) -> None:
        names: set[Name] = set()
        faults: list[tuple[str, str]] = []
        base = mirror = None
        if self.service(service.key) == service:  # else it is another one's of its stack that counts
            if service.canary_of and service.weight:
                base = self._find_consenting("canary", service, service.canary_of, names, faults)
            if service.mirror:
                mirror = self._find_consenting("mirror", service, service.mirror, names, faults)
        if base is not None:
            self._canaries.setdefault(base.key, {})[of] = service
        if mirror is not None:
            self._mirrors[service.key] = mirror.key
        for name in names:
            self._linked.setdefault(name, set()).add(of)
        self._links[of] = _Links(
            frozenset(names), base.key if base else "", service.key if mirror else "", tuple(faults)
        )

    def _find_consenting(
        self,
        kind: str,
        service: HttpService,
        reference: str,
        names: set[Name],
        faults: list[tuple[str, str]],
    ) -> HttpService | None:
        """The service that is referred to, if it is of the same stack or allows this stack."""
        where = "mesh.http.canary_of" if kind == "canary" else f"mirror of {service.name}"
        nothing = "; no requests are taken" if kind == "canary" else "; no copies are sent"
        try:
            found = self._find(SERVICE, reference, service.scope, names)
        except _ReferenceFault:
            missing = f"there is no service {reference!r}"
            faults.append((where, missing if kind == "canary" else f"{reference!r} is no service{nothing}"))
            return None
        assert isinstance(found, HttpService)
        if found.key == service.key:
            faults.append((where, f"{reference!r} is the service itself{nothing}"))
            return None
        allowed = found.canary_from if kind == "canary" else found.mirror_from
        if found.scope != service.scope and service.scope not in allowed and EVERYBODY not in allowed:
            whose = f"{reference!r} is of {shown_owner(found.scope)}, which does not allow it"
            faults.append((where, f"{whose} (mesh.http.{kind}_from){nothing}"))
            return None
        return found

    # --- what has to be looked at again ---

    def _affected_routers(self, touched: set[Name]) -> set[tuple[str, str]]:
        affected: set[tuple[str, str]] = set()
        for one in touched:
            affected |= self._users.get(one, set())
            if one[0] == ROUTER:
                affected |= {(owner, one[1]) for owner in self._owners.get(one, ())}
        return affected

    def _resolve_again(self, router: tuple[str, str], changed: ChangedReferences) -> None:
        old = self._resolved.pop(router, None)
        if old is not None:
            for name in old.names:
                self._users[name].discard(router)
                if not self._users[name]:
                    del self._users[name]
        declared = self._declared.get(router[0], _NOTHING).routers.get(router[1])
        new = self._resolve(declared) if declared is not None else None
        if new is not None:
            self._resolved[router] = new
            for name in new.names:
                self._users.setdefault(name, set()).add(router)
        before, after = old.route if old else None, new.route if new else None
        if before != after:
            if before is not None:
                (changed.opened if before.closed else changed.removed).append(before)
            if after is not None:
                (changed.closed if after.closed else changed.added).append(after)

    # --- following names ---

    def _resolve(self, router: Router) -> _Resolved:
        names: set[Name] = {(ROUTER, router.name)}
        scope, guarded = self._scopes[router.owner], not router.fault
        faults: list[Problem] = []
        middlewares: tuple[Middleware, ...] = ()
        service = None
        if (why := self._why_another_counts(router)) is not None:
            return _Resolved(
                None, frozenset(names), (self._router_problem(router, "rule", why, "is left out"),)
            )
        try:
            service = self._find(SERVICE, router.service, scope, names)
        except _ReferenceFault as fault:
            faults.append(self._router_problem(router, "service", str(fault), "is left out"))
        try:
            middlewares = tuple(self._resolve_middlewares(router.middlewares, scope, names, ()))
            if len(middlewares) > CHAIN_MAX:
                raise _ReferenceFault(f"more than {CHAIN_MAX} middlewares")
        except _ReferenceFault as fault:
            faults.append(self._router_problem(router, "middlewares", str(fault), "is not served"))
            guarded = False
        if service is None and guarded:
            return _Resolved(None, frozenset(names), tuple(faults))
        assert service is None or isinstance(service, HttpService)
        route = HttpRoute(
            router.name,
            router.owner,
            router.rule,
            router.match,
            router.entrypoints,
            service.name if service is not None else router.service,
            middlewares if guarded else (Deny(),),
            router.priority,
            router.tls,
            _certificates(router) if guarded else (),
            service.key if service is not None else "",
            scope,
            closed=not guarded,
        )
        return _Resolved(route, frozenset(names), tuple(faults))

    def _router_problem(self, router: Router, option: str, why: str, what: str) -> Problem:
        where = f"traefik.http.routers.{router.name}.{option}"
        return Problem(self._service_names[router.owner], where, f"{why}; the router {what}")

    def _why_another_counts(self, router: Router) -> str | None:
        """Why a router of this name of another service of the stack counts; None: this one counts."""
        scope = self._scopes[router.owner]
        same = [one for one in self._owners[ROUTER, router.name] if self._scopes[one] == scope]
        first = min(same)
        if router.owner == first:
            return None
        other = self._declared[first].routers[router.name]
        differently = ", and differently" if _content(other) != _content(router) else ""
        return f"{self._service_names[first]} declares a router of this name too{differently}, which counts"

    def _find(
        self, kind: str, reference: str, scope: str, names: set[Name]
    ) -> Router | HttpService | Middleware:
        """What a name means in this scope. Raises _ReferenceFault."""
        name, at, provider = reference.partition("@")
        if at and provider not in PROVIDERS:
            raise _ReferenceFault(f"{reference!r} is not of the Swarm")
        names.add((kind, name))
        if not name:
            raise _ReferenceFault(f"no {kind} is named")
        owners = self._owners.get((kind, name), set())
        own = [one for one in owners if self._scopes[one] == scope]
        scopes = {self._scopes[one] for one in owners}
        first = min(scopes, key=lambda one: (self._since((kind, name), one), one), default=None)
        meant = sorted(own or [one for one in owners if self._scopes[one] == first])
        found = [
            one for owner in meant if (one := _declared_as(self._declared[owner], (kind, name))) is not None
        ]
        if (len(found) < len(meant) and kind == MIDDLEWARE) or (meant and not found):
            raise _ReferenceFault(f"the {kind} {name!r} is faulty")  # nobody else's is taken for it
        if not found:
            raise _ReferenceFault(f"there is no {kind} {name!r}")
        if kind == MIDDLEWARE and any(one != found[0] for one in found):
            raise _ReferenceFault(f"{name!r} is declared by several services of its stack, and differently")
        return found[0]

    def _scope_of(self, kind: str, reference: str, scope: str) -> str:
        """The scope in which a name was found that was looked up from this scope."""
        name = reference.partition("@")[0]
        scopes = {self._scopes[one] for one in self._owners.get((kind, name), ())}
        if scope in scopes:
            return scope
        return min(scopes, key=lambda one: (self._since((kind, name), one), one), default=scope)

    def _resolve_middlewares(
        self, references: tuple[str, ...], scope: str, names: set[Name], within: tuple[Name, ...]
    ) -> Iterator[Middleware]:
        for reference in references:
            found = self._find(MIDDLEWARE, reference, scope, names)
            whose = self._scope_of(MIDDLEWARE, reference, scope)
            place = whose, reference.partition("@")[0]
            if place in within or len(within) > CHAIN_MAX:
                raise _ReferenceFault(f"the chain {place[1]!r} is part of itself")
            if isinstance(found, Chain):
                yield from self._resolve_middlewares(found.names, whose, names, (*within, place))
            elif isinstance(found, ErrorPages):
                yield self._with_service_key(found, whose, names)
            elif isinstance(found, ForwardAuth):
                yield replace(found, scope=whose)
            elif not isinstance(found, Router | HttpService):
                yield found

    def _with_service_key(self, one: ErrorPages, scope: str, names: set[Name]) -> ErrorPages:
        """The middleware with the key of its service, if there is one."""
        try:
            service = self._find(SERVICE, one.service, scope, names)
        except _ReferenceFault:
            return one
        assert isinstance(service, HttpService)
        return replace(one, service=service.key)


def _certificates(router: Router) -> tuple[tuple[str, ...], ...]:
    """The names in each certificate. A rule without hosts, or with expressions, gives an empty group: it
    becomes a problem."""
    if not router.issued:
        return ()
    return router.domains or (tuple(sorted(router.match.hosts or ())),)


class _ReferenceFault(Exception):
    """A name that leads nowhere; the text says why."""


_NOTHING = Declared()


def _names_in(declared: Declared) -> set[Name]:
    return (
        {(ROUTER, name) for name in declared.routers}
        | {(SERVICE, name) for name in declared.services}
        | {(MIDDLEWARE, name) for name in declared.middlewares}
        | declared.faulty
    )


def _declared_as(declared: Declared, name: Name) -> Router | HttpService | Middleware | None:
    kind, called = name
    if kind == ROUTER:
        return declared.routers.get(called)
    if kind == SERVICE:
        return declared.services.get(called)
    return declared.middlewares.get(called)


def _content(one: Router | HttpService | Middleware) -> object:
    return replace(one, owner="") if isinstance(one, Router) else one
