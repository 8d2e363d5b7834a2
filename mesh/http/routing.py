"""Which router a request is for. Looked up by host and path, whatever the number of routers.

Routers are kept where their rules must lead (`Match.hosts`, `Match.paths`): under each of their hosts, or
under "any", and there under an exact path, a beginning of paths, or neither. A request looks at its own host
and at "any", there at its path, at as many beginnings of it as there are different lengths, and at the rest.
In each of these places the first in order that matches is the best of that place.
"""

from bisect import insort
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from mesh.http.matching import Match, PathKey, Request
from mesh.http.model import Route

ANY_HOST = ""


@dataclass(slots=True)
class _Place:
    """Routers under one host."""

    exact: dict[str, list[Route]] = field(default_factory=dict)
    prefixes: dict[str, list[Route]] = field(default_factory=dict)
    lengths: Counter[int] = field(default_factory=Counter)  # of the prefixes
    rest: list[Route] = field(default_factory=list)

    def lists(self, path: str) -> Iterator[list[Route]]:
        if self.exact and (found := self.exact.get(path)):
            yield found
        for length in self.lengths:
            if found := self.prefixes.get(path[:length]):
                yield found
        if self.rest:
            yield self.rest

    def add(self, key: PathKey | None, route: Route) -> None:
        insort(self._list(key), route, key=order)
        if key is not None and not key.exact:
            self.lengths[len(key.text)] += 1

    def remove(self, key: PathKey | None, route: Route) -> None:
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

    def _list(self, key: PathKey | None) -> list[Route]:
        if key is None:
            return self.rest
        return (self.exact if key.exact else self.prefixes).setdefault(key.text, [])

    def __bool__(self) -> bool:
        return bool(self.exact or self.prefixes or self.rest)


def order(route: Route) -> tuple[int, str]:
    """The first in it wins."""
    return -route.priority, route.name


class Table:
    """The routers of one entry point."""

    def __init__(self) -> None:
        self._places: dict[str, _Place] = {}

    def find(self, request: Request) -> Route | None:
        best: Route | None = None
        for host in (request.host, ANY_HOST) if request.host else (ANY_HOST,):
            place = self._places.get(host)
            if place is None:
                continue
            for among in place.lists(request.path):
                for route in among:
                    if best is not None and order(best) <= order(route):
                        break  # nothing in this list can be better
                    if route.match.matches(request):
                        best = route
                        break
        return best

    def add(self, route: Route) -> None:
        for host in _hosts(route.match):
            place = self._places.setdefault(host, _Place())
            for key in _paths(route.match):
                place.add(key, route)

    def remove(self, route: Route) -> None:
        for host in _hosts(route.match):
            place = self._places[host]
            for key in _paths(route.match):
                place.remove(key, route)
            if not place:
                del self._places[host]

    def clear(self) -> None:
        self._places.clear()

    def serves(self, host: str) -> bool:
        """Is there a router for this host in particular?"""
        return host in self._places


def _hosts(match: Match) -> tuple[str, ...]:
    hosts = match.hosts
    return (ANY_HOST,) if hosts is None else tuple(hosts)


def _paths(match: Match) -> tuple[PathKey | None, ...]:
    paths = match.paths
    return (None,) if paths is None else tuple(paths)
