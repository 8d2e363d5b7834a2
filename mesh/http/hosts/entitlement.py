"""Limits a router's rule to the hosts and paths that its stack holds. Pure.

This is decided when route tables are built. It costs requests nothing, except for hosts that several stacks
share.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from mesh.http.config.matchers import Hosts, Matcher, PathKey, Paths, Request
from mesh.http.config.model import HttpRoute
from mesh.http.config.owner import shown_owner
from mesh.http.hosts.claims import Area, Breadth, areas_of
from mesh.http.hosts.ownership import Holder, HostOwnership, Right

ANY_HOST = ""
PathKeys = tuple[PathKey | None, ...]


@dataclass(frozen=True, slots=True)
class PathSet:
    """Paths and prefixes, with a lookup that is fast for thousands of them: a stack may have claimed so
    many."""

    everything: bool
    exact: frozenset[str]
    prefixes: tuple[str, ...]

    @staticmethod
    def of(keys: PathKeys) -> "PathSet":
        known = [key for key in keys if key is not None]
        return PathSet(
            len(known) < len(keys),
            frozenset(key.text for key in known if key.exact),
            tuple(sorted({key.text for key in known if not key.exact})),
        )

    def have(self, path: str) -> bool:
        return self.everything or path in self.exact or path.startswith(self.prefixes)


@dataclass(frozen=True, slots=True)
class Entitled:
    """A rule that is limited to some hosts and, for each host (`ANY_HOST`: all), to paths that are not in
    `without` and, if it is in `alone`, to those in `alone`."""

    inner: Matcher
    hosts: Hosts
    paths: Paths
    without: Mapping[str, PathSet]
    alone: Mapping[str, PathSet]

    def matches(self, request: Request) -> bool:
        if self.hosts is not None and request.host not in self.hosts:
            return False
        path = request.path
        for host in (request.host, ANY_HOST):
            if (others := self.without.get(host)) is not None and others.have(path):
                return False
        own = self.alone.get(request.host)
        if own is not None and not own.have(path):
            return False
        return self.inner.matches(request)


@dataclass(frozen=True, slots=True)
class HostRefusal:
    """A part of a rule that another stack holds."""

    area: str  # for people
    holder: Holder

    def __str__(self) -> str:
        holder = self.holder
        if not holder.owner:
            return (
                f"the managers have not given {self.area} to this stack yet; this router is not served for it"
            )
        belongs = f"{self.area} belongs to {shown_owner(holder.owner)}"
        if holder.assigned:
            return f"{belongs} (http.hosts); this router is not served for it"
        since = datetime.fromtimestamp(holder.since, UTC).strftime("%Y-%m-%d %H:%M:%S")
        return f"{belongs} since {since} UTC; this router is not served for it until its owner releases it"


def entitled(route: HttpRoute, ownership: HostOwnership) -> tuple[HttpRoute | None, tuple[HostRefusal, ...]]:
    """(the route as it is served, None if nothing of it is; what of it is refused)."""
    rights = {area: ownership.right(route.scope, area) for area in areas_of(route.match)}
    refusals = tuple(
        HostRefusal(shown(area), right.refused_by)
        for area, right in rights.items()
        if right.refused_by is not None
    )
    granted = {area: right for area, right in rights.items() if right.refused_by is None}
    if not granted:
        return (None, refusals) if rights else (route, ())
    seniority = min(right.since for right in granted.values())
    open_ = max(area.breadth for area in rights)
    without, alone = _parts(rights)
    hosts = route.match.hosts
    if hosts is not None:
        hosts = frozenset(area.host for area in granted)
    certificates, uncertified = _certificates(route, ownership)
    refusals += uncertified
    route = replace(route, seniority=seniority, breadth=int(open_), certificates=certificates)
    if hosts == route.match.hosts and not without and not alone:
        return route, refusals
    return replace(route, match=Entitled(route.match, hosts, route.match.paths, without, alone)), refusals


def _parts(rights: Mapping[Area, Right]) -> tuple[dict[str, PathSet], dict[str, PathSet]]:
    """By host: the paths that others hold; and, where a part was refused, the paths that are the stack's
    own."""
    without: dict[str, PathKeys] = {}
    alone: dict[str, PathKeys] = {}
    for area, right in rights.items():
        place = area.host if area.breadth is Breadth.ONE else ANY_HOST
        if right.refused_by is None:
            without[place] = without.get(place, ()) + right.without
        elif place == ANY_HOST:
            without[place] = (*without.get(place, ()), area.path)
        else:
            alone[place] = ()
    for area, right in rights.items():
        if right.refused_by is None and area.breadth is Breadth.ONE and area.host in alone:
            alone[area.host] = (*alone[area.host], area.path)
    excluded = {host: PathSet.of(keys) for host, keys in without.items() if keys}
    return excluded, {host: PathSet.of(keys) for host, keys in alone.items()}


def _certificates(
    route: HttpRoute, ownership: HostOwnership
) -> tuple[tuple[tuple[str, ...], ...], tuple[HostRefusal, ...]]:
    """(the certificates without names that only another stack holds, the refusals for the others)."""
    granted, refused = [], []
    for names in route.certificates:
        found = [(name, ownership.sole_holder(name, route.scope)) for name in names]
        others = [HostRefusal(f"the certificate of {name}", one) for name, one in found if one is not None]
        refused += others
        if not others:
            granted.append(names)
    return tuple(granted), tuple(refused)


def shown(area: Area) -> str:
    """The area for people."""
    path = "" if area.path is None else f"{area.path.text}{'' if area.path.exact else '*'}"
    if area.breadth is Breadth.ONE:
        return f"{area.host}{path}"
    hosts = "every host" if area.breadth is Breadth.ALL else "the hosts that fit its expression"
    return f"{hosts} at {path}" if path else hosts
