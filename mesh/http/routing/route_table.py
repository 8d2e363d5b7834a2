"""Which router a request is for. Looked up by host and path, whatever the number of routers.

Between stacks the more specific router has a request, whatever the priorities: one that names the host before
those that go by expressions, and those before the ones for all hosts; of several that go by expressions the
one of the stack that has been there longest. Within the stack that has it the first in order has it.

Routers are kept where their rules must lead (`Match.hosts`, `Match.paths`): under each of their hosts, or
under "any", and there under an exact path, a beginning of paths, or neither. A request looks at its own host
and at "any", there at its path, at as many beginnings of it as there are different lengths, and at the rest.
In each of these places the first in order that matches is the best of that place.
"""

from bisect import insort
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from mesh.http.config.matchers import Matcher, PathKey, Request
from mesh.http.config.model import HttpRoute
from mesh.http.hosts.claims import Breadth, areas_of

Order = Callable[[HttpRoute], tuple[float, int, str]]


def order(route: HttpRoute) -> tuple[float, int, str]:
    """The first in it wins."""
    return 0.0, -route.priority, route.name


def seniority(route: HttpRoute) -> tuple[float, int, str]:
    """Between stacks."""
    return route.seniority, -route.priority, route.name


@dataclass(slots=True)
class _RoutePlace:
    """Routers under one host."""

    by: Order = order
    exact: dict[str, list[HttpRoute]] = field(default_factory=dict)
    prefixes: dict[str, list[HttpRoute]] = field(default_factory=dict)
    lengths: Counter[int] = field(default_factory=Counter)  # of the prefixes
    rest: list[HttpRoute] = field(default_factory=list)

    def lists(self, path: str) -> Iterator[list[HttpRoute]]:
        if self.exact and (found := self.exact.get(path)):
            yield found
        for length in self.lengths:
            if found := self.prefixes.get(path[:length]):
                yield found
        if self.rest:
            yield self.rest

    def add(self, key: PathKey | None, route: HttpRoute) -> None:
        insort(self._list(key), route, key=self.by)
        if key is not None and not key.exact:
            self.lengths[len(key.text)] += 1

    def remove(self, key: PathKey | None, route: HttpRoute) -> None:
        among = self._list(key)
        among.remove(route)
        if key is None:
            return
        if not key.exact:
            self.lengths[len(key.text)] -= 1
            if not self.lengths[len(key.text)]:
                del self.lengths[len(key.text)]
        if not among:
            del (self.exact if key.exact else self.prefixes)[key.text]

    def _list(self, key: PathKey | None) -> list[HttpRoute]:
        if key is None:
            return self.rest
        return (self.exact if key.exact else self.prefixes).setdefault(key.text, [])

    def find(self, request: Request, best: HttpRoute | None = None) -> HttpRoute | None:
        """The first in order that matches; `best` is one that does."""
        by = self.by
        for among in self.lists(request.path):
            for route in among:
                if best is not None and by(best) <= by(route):
                    break  # nothing in this list can be better
                if route.match.matches(request):
                    best = route
                    break
        return best

    def __bool__(self) -> bool:
        return bool(self.exact or self.prefixes or self.rest)


def nobody_assigned(_host: str) -> str | None:
    """No host is anybody's by configuration."""
    return None


class RouteTable:
    """The routers of one entry point. `assigned`: whose a host is by configuration."""

    def __init__(self, assigned: Callable[[str], str | None] = nobody_assigned) -> None:
        self._assigned = assigned
        self._places: dict[str, _RoutePlace] = {}  # by host
        self._some = _RoutePlace(seniority)  # of hosts that fit an expression
        self._all = _RoutePlace()
        self._open_of: dict[str, _RoutePlace] = {}  # by stack: what it has in either of these

    def find(self, request: Request) -> HttpRoute | None:
        place = self._places.get(request.host)
        best = place.find(request) if place is not None else None
        if best is None:
            owner = self._assigned(request.host)
            if owner is not None:
                return self._open_of[owner].find(request) if owner in self._open_of else None
            best = self._some.find(request)
            if best is None:
                return self._all.find(request)
        own = self._open_of.get(best.scope)
        return own.find(request, best) if own is not None else best

    def add(self, route: HttpRoute) -> None:
        for place in self._places_of(route):
            for key in _paths(route.match):
                place.add(key, route)

    def remove(self, route: HttpRoute) -> None:
        for place in self._places_of(route):
            for key in _paths(route.match):
                place.remove(key, route)
        for host in route.match.hosts or ():
            if not self._places[host]:
                del self._places[host]
        if route.match.hosts is None and not self._open_of[route.scope]:
            del self._open_of[route.scope]

    def clear(self) -> None:
        self._places.clear()
        self._some, self._all = _RoutePlace(seniority), _RoutePlace()
        self._open_of.clear()

    def serves(self, host: str) -> bool:
        """Is there a router for this host in particular?"""
        return host in self._places

    def _places_of(self, route: HttpRoute) -> tuple[_RoutePlace, ...]:
        hosts = route.match.hosts
        if hosts is not None:
            return tuple(self._places.setdefault(host, _RoutePlace()) for host in hosts)
        breadth = route.breadth
        if breadth < 0:
            breadth = max((one.breadth for one in areas_of(route.match)), default=Breadth.ALL)
        own = self._open_of.setdefault(route.scope, _RoutePlace())
        return (self._some if breadth == Breadth.SOME else self._all), own


def _paths(match: Matcher) -> tuple[PathKey | None, ...]:
    paths = match.paths
    return (None,) if paths is None else tuple(paths)
