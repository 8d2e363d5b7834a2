"""All that labels declare, joined: routers with the services and middlewares that they name. Pure.

Names are the whole Swarm's, as with Traefik: a middleware that one service declares may be used by another. A
name that two services declare differently is nobody's. A router whose middleware is missing is not served:
it may be what keeps others out.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TypeVar

from mesh.errors import Problem
from mesh.http.model import Chain, Declared, HttpService, Middleware, Route, Router

T = TypeVar("T", Router, HttpService, Middleware)

CHAIN_MAX = 20  # middlewares of one router, chains resolved
PROVIDERS = ("swarm", "docker")  # what may stand behind the @ of a name: this is what it is
Name = tuple[str, str]  # kind, name
ROUTER, SERVICE, MIDDLEWARE = "router", "service", "middleware"


@dataclass(slots=True)
class Changed:
    """What is different after an update."""

    removed: list[Route] = field(default_factory=list)
    added: list[Route] = field(default_factory=list)
    services: set[str] = field(default_factory=set)  # names to be looked at again


@dataclass(frozen=True, slots=True)
class _Resolved:
    route: Route | None
    names: frozenset[Name]  # that were looked at, found or not
    problem: Problem | None = None


class Directory:
    def __init__(self) -> None:
        self._declared: dict[str, Declared] = {}  # by owner
        self._file: dict[str, str] = {}  # owner → the service's name
        self._owners: dict[Name, set[str]] = {}
        self._users: dict[Name, set[tuple[str, str]]] = {}  # → routers (owner, name)
        self._resolved: dict[tuple[str, str], _Resolved] = {}
        self._canary_of: dict[str, str] = {}  # canary → whose requests it takes a share of
        self._canaries: dict[str, tuple[HttpService, ...]] = {}  # the other way round

    def update(self, owner: str, name: str, declared: Declared) -> Changed:
        """This is what the service (id, name) declares from now on."""
        before = self._declared.get(owner, _NOTHING)
        touched = {
            one for one in _names(before) | _names(declared) if _get(before, one) != _get(declared, one)
        }
        for one in _names(before):
            self._owners[one].discard(owner)
            if not self._owners[one]:
                del self._owners[one]
        for one in _names(declared):
            self._owners.setdefault(one, set()).add(owner)
        self._declared[owner], self._file[owner] = declared, name
        if not _names(declared):
            del self._declared[owner], self._file[owner]
        changed = Changed(services={called for kind, called in touched if kind == SERVICE})
        self._look_for_canaries(changed.services)
        for router in self._affected(touched):
            self._resolve_again(router, changed)
        return changed

    def service(self, name: str) -> HttpService | None:
        """By its name; the first owner's, if several declare it."""
        return next((one for one in self._all(SERVICE, name) if isinstance(one, HttpService)), None)

    def services_of(self, owner: str) -> Iterator[HttpService]:
        yield from self._declared.get(owner, _NOTHING).services.values()

    def canaries_of(self, name: str) -> tuple[HttpService, ...]:
        """Services that take a share of this one's requests, by name. Asked for every request."""
        return self._canaries.get(name, ())

    def problems(self) -> Iterator[Problem]:
        for one in self._resolved.values():
            if one.problem is not None:
                yield one.problem
        yield from self._taken()
        for base, canaries in self._canaries.items():
            if (SERVICE, base) not in self._owners:
                for canary in canaries:
                    message = f"there is no service {base!r}"
                    yield Problem(self._file[canary.owner], "mesh.http.canary_of", message)

    def routes(self) -> Iterator[Route]:
        for one in self._resolved.values():
            if one.route is not None:
                yield one.route

    def _taken(self) -> Iterator[Problem]:
        """What only the first of several owners gets."""
        for (kind, name), owners in self._owners.items():
            if kind == SERVICE and len(owners) > 1:
                first, *others = sorted(owners)
                for owner in others:
                    message = f"{self._file[first]} declares this name too, and gets its requests"
                    yield Problem(self._file[owner], f"traefik.http.services.{name}", message)

    # --- what has to be looked at again ---

    def _look_for_canaries(self, names: set[str]) -> None:
        bases: set[str] = set()
        for name in names:
            if (before := self._canary_of.pop(name, None)) is not None:
                bases.add(before)
            service = self.service(name)
            if service is not None and service.canary_of and service.weight:
                self._canary_of[name] = service.canary_of
                bases.add(service.canary_of)
        for base in bases:
            known = {one.name for one in self._canaries.pop(base, ())} | names
            canaries = [self.service(name) for name in sorted(known) if self._canary_of.get(name) == base]
            if canaries:
                self._canaries[base] = tuple(one for one in canaries if one is not None)

    def _affected(self, touched: set[Name]) -> set[tuple[str, str]]:
        affected: set[tuple[str, str]] = set()
        for one in touched:
            affected |= self._users.get(one, set())
            if one[0] == ROUTER:
                affected |= {(owner, one[1]) for owner in self._owners.get(one, ())}
        return affected

    def _resolve_again(self, router: tuple[str, str], changed: Changed) -> None:
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
                changed.removed.append(before)
            if after is not None:
                changed.added.append(after)

    # --- following names ---

    def _resolve(self, router: Router) -> _Resolved:
        names: set[Name] = {(ROUTER, router.name)}
        try:
            self._only_owner(router)
            service = self._followed(SERVICE, router.service, names)
            middlewares = tuple(self._followed_middlewares(router.middlewares, names, ()))
            if len(middlewares) > CHAIN_MAX:
                raise _Fault("middlewares", f"more than {CHAIN_MAX} middlewares")
        except _Fault as fault:
            problem = Problem(
                self._file[router.owner],
                f"traefik.http.routers.{router.name}.{fault.option}",
                f"{fault}; the router is left out",
            )
            return _Resolved(None, frozenset(names), problem)
        route = Route(
            router.name,
            router.owner,
            router.rule,
            router.match,
            router.entrypoints,
            service,
            middlewares,
            router.priority,
            router.tls,
            _certificates(router),
        )
        return _Resolved(route, frozenset(names))

    def _only_owner(self, router: Router) -> None:
        same = list(self._all(ROUTER, router.name))
        if any(_content(one) != _content(router) for one in same):
            raise _Fault("rule", "another service declares a router of this name, and differently")
        if router.owner != min(self._owners[ROUTER, router.name]):
            raise _Fault("rule", "another service declares the same router")

    def _followed(self, kind: str, reference: str, names: set[Name]) -> str:
        name, at, provider = reference.partition("@")
        if at and provider not in PROVIDERS:
            raise _Fault(kind, f"{reference!r} is not of the Swarm")
        names.add((kind, name))
        if not name or (kind, name) not in self._owners:
            raise _Fault(kind, f"there is no {kind} {name!r}" if name else f"no {kind} is named")
        return name

    def _followed_middlewares(
        self, references: tuple[str, ...], names: set[Name], within: tuple[str, ...]
    ) -> Iterator[Middleware]:
        for reference in references:
            try:
                name = self._followed(MIDDLEWARE, reference, names)
            except _Fault as fault:
                raise _Fault("middlewares", str(fault)) from fault
            if name in within or len(within) > CHAIN_MAX:
                raise _Fault("middlewares", f"the chain {name!r} is part of itself")
            found = list(self._all(MIDDLEWARE, name))
            if any(one != found[0] for one in found):
                raise _Fault("middlewares", f"{name!r} is declared by several services, and differently")
            (first, *_) = found
            if isinstance(first, Chain):
                yield from self._followed_middlewares(first.names, names, (*within, name))
            elif not isinstance(first, Router | HttpService):
                yield first

    def _all(self, kind: str, name: str) -> Iterator[Router | HttpService | Middleware]:
        for owner in sorted(self._owners.get((kind, name), ())):
            found = _get(self._declared[owner], (kind, name))
            if found is not None:
                yield found


def _certificates(router: Router) -> tuple[tuple[str, ...], ...]:
    """A rule without hosts, or with expressions for them, has an empty one: that is told of."""
    if not router.issued:
        return ()
    return router.domains or (tuple(sorted(router.match.hosts or ())),)


class _Fault(Exception):
    def __init__(self, option: str, message: str) -> None:
        super().__init__(message)
        self.option = option


_NOTHING = Declared()


def _names(declared: Declared) -> set[Name]:
    return (
        {(ROUTER, name) for name in declared.routers}
        | {(SERVICE, name) for name in declared.services}
        | {(MIDDLEWARE, name) for name in declared.middlewares}
    )


def _get(declared: Declared, name: Name) -> Router | HttpService | Middleware | None:
    kind, called = name
    if kind == ROUTER:
        return declared.routers.get(called)
    if kind == SERVICE:
        return declared.services.get(called)
    return declared.middlewares.get(called)


def _content(one: Router | HttpService | Middleware) -> object:
    return replace(one, owner="") if isinstance(one, Router) else one
