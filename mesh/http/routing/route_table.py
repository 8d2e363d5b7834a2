"""Finds the route of a request by host and path; the cost does not grow with the number of routes. Pure.

Between stacks the more specific route counts, whatever the priorities: one that names the host comes before
those with expressions for hosts, and those before the ones for all hosts. Of several stacks with expressions
the one that has been there longest counts. Within the stack that has the request, the first route in `order`
counts.

Routes are stored where their matchers must lead (`Matcher.hosts`, `Matcher.paths`): under each of their
hosts, or under none, and there under an exact path, a prefix, or neither. A lookup tries the place of its own
host and the places without host; in each it tries its path, one prefix for each length that there is, and the
rest.
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
    """Sort key within a stack: the lowest counts."""
    return 0.0, -route.priority, route.name


def seniority(route: HttpRoute) -> tuple[float, int, str]:
    """Sort key between stacks: the lowest counts."""
    return route.seniority, -route.priority, route.name


@dataclass(slots=True)
class _RoutePlace:
    """The routes of one host, or of those without."""

    compare: Order = order
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
        insort(self._list(key), route, key=self.compare)
        if key is not None and not key.exact:
            self.lengths[len(key.text)] += 1

    def remove(self, key: PathKey | None, route: HttpRoute) -> None:
        candidates = self._list(key)
        candidates.remove(route)
        if key is None:
            return
        if not key.exact:
            self.lengths[len(key.text)] -= 1
            if not self.lengths[len(key.text)]:
                del self.lengths[len(key.text)]
        if not candidates:
            del (self.exact if key.exact else self.prefixes)[key.text]

    def _list(self, key: PathKey | None) -> list[HttpRoute]:
        if key is None:
            return self.rest
        return (self.exact if key.exact else self.prefixes).setdefault(key.text, [])

    def find(self, request: Request, best: HttpRoute | None = None) -> HttpRoute | None:
        """The first in order that matches, or `best`, a match from elsewhere, if that comes before it."""
        compare = self.compare
        for candidates in self.lists(request.path):
            for route in candidates:
                if best is not None and compare(best) <= compare(route):
                    break  # nothing in this list can be better
                if route.match.matches(request):
                    best = route
                    break
        return best

    def __bool__(self) -> bool:
        return bool(self.exact or self.prefixes or self.rest)


def nobody_assigned(_host: str) -> str | None:
    """No host is assigned by configuration."""
    return None


class RouteTable:
    """The routes of one entry point. `assigned(host)`: the stack that has it by configuration."""

    def __init__(self, assigned: Callable[[str], str | None] = nobody_assigned) -> None:
        self._assigned = assigned
        self._places: dict[str, _RoutePlace] = {}  # by host
        self._by_expression = _RoutePlace(seniority)  # of hosts that fit an expression
        self._for_all_hosts = _RoutePlace()
        self._without_host: dict[str, _RoutePlace] = {}  # by stack: what it has in the two above

    def find(self, request: Request) -> HttpRoute | None:
        place = self._places.get(request.host)
        best = place.find(request) if place is not None else None
        if best is None:
            owner = self._assigned(request.host)
            if owner is not None:
                return self._without_host[owner].find(request) if owner in self._without_host else None
            best = self._by_expression.find(request)
            if best is None:
                return self._for_all_hosts.find(request)
        own = self._without_host.get(best.scope)
        return own.find(request, best) if own is not None else best

    def add(self, route: HttpRoute) -> None:
        for place in self._places_of(route):
            for key in _path_keys(route.match):
                place.add(key, route)

    def remove(self, route: HttpRoute) -> None:
        for place in self._places_of(route):
            for key in _path_keys(route.match):
                place.remove(key, route)
        for host in route.match.hosts or ():
            if not self._places[host]:
                del self._places[host]
        if route.match.hosts is None and not self._without_host[route.scope]:
            del self._without_host[route.scope]

    def clear(self) -> None:
        self._places.clear()
        self._by_expression, self._for_all_hosts = _RoutePlace(seniority), _RoutePlace()
        self._without_host.clear()

    def serves(self, host: str) -> bool:
        """Is there a route that names this host?"""
        return host in self._places

    def _places_of(self, route: HttpRoute) -> tuple[_RoutePlace, ...]:
        hosts = route.match.hosts
        if hosts is not None:
            return tuple(self._places.setdefault(host, _RoutePlace()) for host in hosts)
        breadth = route.breadth
        if breadth < 0:
            breadth = max((one.breadth for one in areas_of(route.match)), default=Breadth.ALL)
        own = self._without_host.setdefault(route.scope, _RoutePlace())
        return (self._by_expression if breadth == Breadth.SOME else self._for_all_hosts), own


def _path_keys(match: Matcher) -> tuple[PathKey | None, ...]:
    paths = match.paths
    return (None,) if paths is None else tuple(paths)
