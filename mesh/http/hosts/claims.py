"""What routers claim of hosts and paths: areas, read from their rules. Pure.

An area is one host, the hosts that fit an expression, or all hosts; and of these one path, the paths with a
prefix, or all paths. Other conditions of a rule (a method, a header field) limit the requests that match, not
the area that is claimed.
"""

from dataclasses import dataclass, field
from enum import IntEnum
from hashlib import blake2b

from mesh.http.config import matchers
from mesh.http.config.matchers import Matcher, PathKey
from mesh.http.config.model import Declared
from mesh.http.labels.passthrough import ANY, TcpDeclared

AREAS_MAX = 256  # of one rule; a rule with more claims all paths of its hosts
CLAIMS_MAX = 4096  # areas of one service; further ones are not served
Name = tuple[str, str]  # kind, name

# Hosts that have nothing in common: an expression that all of them fit stands for all hosts.
_UNLIKE = ("a", "xn--p1ai.invalid", "zz9.plural.example.net", "q-1.test", "www.example.org")


class Breadth(IntEnum):
    """How many hosts an area has."""

    ONE = 0
    SOME = 1  # that fit an expression
    ALL = 2


@dataclass(frozen=True, slots=True)
class Area:
    """`whole`: it is claimed for TLS passthrough, so no other stack can have a part of it."""

    breadth: Breadth
    host: str  # in lower case; for SOME a digest of the expressions
    path: PathKey | None = None  # None: all paths
    whole: bool = False
    fits: tuple[str, ...] = field(default=(), compare=False)  # for SOME: expressions that all have to fit

    @property
    def group(self) -> str:
        """Areas of different groups do not compete."""
        return {Breadth.ONE: self.host, Breadth.SOME: f"~{self.host}", Breadth.ALL: "*"}[self.breadth]

    @property
    def key(self) -> str:
        """The area in records."""
        sign = "" if self.path is None else f"{'=' if self.path.exact else ''}{self.path.text}"
        return f"{'tls ' if self.whole else ''}{self.group}{sign}"


def covers(outer: PathKey | None, inner: PathKey | None) -> bool:
    """All paths of `inner` are paths of `outer`."""
    if outer is None:
        return True
    if inner is None:
        return False
    return inner == outer if outer.exact else inner.text.startswith(outer.text)


def areas_of(match: Matcher) -> tuple[Area, ...]:
    """The areas that a rule claims, sorted by key."""
    found = _areas(match)
    if len(found) > AREAS_MAX:
        found = {_Raw(one.host, one.fits, None) for one in found}
    return tuple(sorted(map(_area, found), key=lambda one: one.key))


def tcp_area_of(name: str) -> Area:
    """The area that a name in HostSNI claims."""
    if name == ANY:
        return Area(Breadth.ALL, "", whole=True)
    if name.startswith("*."):
        return Area(Breadth.SOME, _digest(name), whole=True)
    return Area(Breadth.ONE, name, whole=True)


@dataclass(frozen=True, slots=True)
class Claims:
    """What one service's labels claim: areas, and names of services and middlewares."""

    areas: frozenset[Area] = frozenset()
    names: frozenset[Name] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.areas or self.names)


def claims_of(http: Declared, tcp: TcpDeclared | None = None) -> Claims:
    """The claims of one service, from what its labels declare."""
    areas = {area for router in http.routers.values() for area in areas_of(router.match)}
    if tcp is not None:
        areas |= {tcp_area_of(name) for router in tcp.routers.values() for name in router.names}
    names = {("service", name) for name in http.services} | {
        ("middleware", name) for name in http.middlewares
    }
    names |= {("tcp", name) for name in tcp.services} if tcp is not None else set()
    if len(areas) > CLAIMS_MAX:
        areas = set(sorted(areas, key=lambda one: one.key)[:CLAIMS_MAX])
    return Claims(frozenset(areas), frozenset(names))


def name_key(name: Name) -> str:
    """The name in records."""
    return " ".join(name)


# --- from rules to areas ---


@dataclass(frozen=True, slots=True)
class _Raw:
    host: str | None = None
    fits: tuple[str, ...] = ()  # expressions
    path: PathKey | None = None


def _areas(match: Matcher) -> set[_Raw]:
    match match:
        case matchers.HostMatcher():
            return {_Raw(match.name)}
        case matchers.HostRegexp() if not all(map(match.pattern.found, _UNLIKE)):
            return {_Raw(fits=(match.pattern.text,))}
        case matchers.Path() | matchers.PathPrefix():
            (key,) = match.paths or (None,)
            return {_Raw(path=None if key == PathKey("/", False) else key)}
        case matchers.Or():
            return _areas(match.left) | _areas(match.right)
        case matchers.And():
            return _both(_areas(match.left), _areas(match.right))
    return {_Raw()}


def _both(left: set[_Raw], right: set[_Raw]) -> set[_Raw]:
    if len(left) * len(right) > AREAS_MAX:
        left = {_Raw(one.host, one.fits, None) for one in left}
        right = {_Raw(one.host, one.fits, None) for one in right}
    if len(left) * len(right) > AREAS_MAX**2:  # hosts only: each side holds, so one of them is enough
        return min(left, right, key=len)
    pairs = ((one, other) for one in left for other in right)
    return {both for one, other in pairs if (both := _intersection(one, other)) is not None}


def _intersection(one: _Raw, other: _Raw) -> _Raw | None:
    """The area of requests that are in both; None: there are none."""
    if one.host is not None and other.host is not None and one.host != other.host:
        return None
    if covers(one.path, other.path):
        path = other.path
    elif covers(other.path, one.path):
        path = one.path
    else:
        return None
    host = one.host if one.host is not None else other.host
    fits = () if host is not None else tuple(sorted({*one.fits, *other.fits}))
    return _Raw(host, fits, path)


def _area(raw: _Raw) -> Area:
    if raw.host is not None:
        return Area(Breadth.ONE, raw.host, raw.path)
    if raw.fits:
        return Area(Breadth.SOME, _digest(*raw.fits), raw.path, fits=raw.fits)
    return Area(Breadth.ALL, "", raw.path)


def _digest(*texts: str) -> str:
    return blake2b("\n".join(texts).encode(), digest_size=12).hexdigest()
