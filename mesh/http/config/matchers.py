"""The conditions of a router's rule, as values. Pure.

A matcher also says which hosts and paths a request must have to match at all (`hosts`, `paths`), so that the
route table can look routes up instead of trying each.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Protocol
from urllib.parse import quote, unquote_plus

from mesh.http.codec.path_check import _escape
from mesh.http.config.regex import Expression


class Request(Protocol):
    """A request as rules see it."""

    @property
    def method(self) -> str: ...
    @property
    def host(self) -> str:
        """Lower case, without port and final dot."""
        ...

    @property
    def path(self) -> str:
        """Normalised (`normal_path`, `routing_path`), without query."""
        ...

    @property
    def query(self) -> str: ...
    @property
    def client(self) -> str:
        """The client's IP address."""
        ...

    def header(self, name: str) -> list[str]:
        """The values of a field; its name in lower case."""
        ...


@dataclass(frozen=True, slots=True)
class PathKey:
    """A condition on the path: it is this text (`exact`), or begins with it."""

    text: str
    exact: bool


# None: every host, or every path.
Hosts = frozenset[str] | None
Paths = frozenset[PathKey] | None


class Matcher(Protocol):
    def matches(self, request: Request) -> bool: ...
    @property
    def hosts(self) -> Hosts:
        """Every request that matches has one of these hosts."""
        ...

    @property
    def paths(self) -> Paths:
        """The path of every request that matches meets one of these conditions."""
        ...


class _AnyHostAndPath:
    """Base of matchers that can match any host and path."""

    __slots__ = ()

    @property
    def hosts(self) -> Hosts:
        return None

    @property
    def paths(self) -> Paths:
        return None


@dataclass(frozen=True, slots=True)
class Always(_AnyHostAndPath):
    def matches(self, request: Request) -> bool:
        return True


@dataclass(frozen=True, slots=True)
class HostMatcher(_AnyHostAndPath):
    name: str  # lower case

    def matches(self, request: Request) -> bool:
        return request.host == self.name

    @property
    def hosts(self) -> Hosts:
        return frozenset((self.name,))


@dataclass(frozen=True, slots=True)
class HostRegexp(_AnyHostAndPath):
    pattern: Expression

    def matches(self, request: Request) -> bool:
        return self.pattern.found(request.host)


@dataclass(frozen=True, slots=True)
class Path(_AnyHostAndPath):
    path: str

    def matches(self, request: Request) -> bool:
        return request.path == self.path

    @property
    def paths(self) -> Paths:
        return frozenset((PathKey(self.path, True),))


@dataclass(frozen=True, slots=True)
class PathPrefix(_AnyHostAndPath):
    """A prefix of the text, as with Traefik: `/api` also matches `/apis`."""

    prefix: str

    def matches(self, request: Request) -> bool:
        return request.path.startswith(self.prefix)

    @property
    def paths(self) -> Paths:
        return frozenset((PathKey(self.prefix, False),))


@dataclass(frozen=True, slots=True)
class PathRegexp(_AnyHostAndPath):
    pattern: Expression

    def matches(self, request: Request) -> bool:
        return self.pattern.found(request.path)


@dataclass(frozen=True, slots=True)
class Method(_AnyHostAndPath):
    name: str

    def matches(self, request: Request) -> bool:
        return request.method == self.name


@dataclass(frozen=True, slots=True)
class HeaderMatcher(_AnyHostAndPath):
    name: str  # lower case
    value: str

    def matches(self, request: Request) -> bool:
        return self.value in request.header(self.name)


@dataclass(frozen=True, slots=True)
class HeaderRegexp(_AnyHostAndPath):
    name: str
    pattern: Expression

    def matches(self, request: Request) -> bool:
        return any(self.pattern.found(value) for value in request.header(self.name))


@dataclass(frozen=True, slots=True)
class QueryMatcher(_AnyHostAndPath):
    name: str
    value: str | None  # None: any

    def matches(self, request: Request) -> bool:
        return _query_has(request.query, self.name, lambda value: self.value in (None, value))


@dataclass(frozen=True, slots=True)
class QueryRegexp(_AnyHostAndPath):
    name: str
    pattern: Expression

    def matches(self, request: Request) -> bool:
        return _query_has(request.query, self.name, lambda value: self.pattern.found(value))


@dataclass(frozen=True, slots=True)
class ClientIP(_AnyHostAndPath):
    network: IPv4Network | IPv6Network

    def matches(self, request: Request) -> bool:
        return ip_address(request.client) in self.network


@dataclass(frozen=True, slots=True)
class Not(_AnyHostAndPath):
    inner: Matcher

    def matches(self, request: Request) -> bool:
        return not self.inner.matches(request)


@dataclass(frozen=True, slots=True)
class And:
    left: Matcher
    right: Matcher

    def matches(self, request: Request) -> bool:
        return self.left.matches(request) and self.right.matches(request)

    @property
    def hosts(self) -> Hosts:
        left, right = self.left.hosts, self.right.hosts
        if left is None or right is None:
            return right if left is None else left
        return left & right

    @property
    def paths(self) -> Paths:
        """Both conditions hold; the one with fewer and longer texts is found less often in vain."""
        known = [paths for paths in (self.left.paths, self.right.paths) if paths is not None]
        return min(known, key=_looseness, default=None)


@dataclass(frozen=True, slots=True)
class Or:
    left: Matcher
    right: Matcher

    def matches(self, request: Request) -> bool:
        return self.left.matches(request) or self.right.matches(request)

    @property
    def hosts(self) -> Hosts:
        left, right = self.left.hosts, self.right.hosts
        return None if left is None or right is None else left | right

    @property
    def paths(self) -> Paths:
        left, right = self.left.paths, self.right.paths
        return None if left is None or right is None else left | right


def _looseness(paths: frozenset[PathKey]) -> tuple[int, int]:
    return len(paths), -min((len(key.text) for key in paths), default=0)


def _query_has(query: str, name: str, accepts: Callable[[str], bool]) -> bool:
    for pair in query.split("&"):
        key, _, value = pair.partition("=")
        if unquote_plus(key) == name and accepts(unquote_plus(value)):
            return True
    return False


_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
_PRINTABLE = "".join(map(chr, range(0x21, 0x7F)))

_STRUCTURAL = frozenset("/\\;%?#")  # what changes the segments of a path when it is decoded
_ROUTED = frozenset(_PRINTABLE) - _STRUCTURAL


def escaped(path: str) -> str:
    """The path of a rule, spelled as requests have it after `normal_path`: what a target cannot have is
    escaped."""
    return routing_path(_ESCAPE.sub(_escape, quote(path, safe=_PRINTABLE)))


def routing_path(path: str) -> str:
    """A normal path, spelled as rules have it: escapes of printable characters that separate nothing are
    decoded, since every server takes `%3A` for `:`."""
    return _ESCAPE.sub(_routed, path) if "%" in path else path


def _routed(found: re.Match[str]) -> str:
    meant = chr(int(found[1], 16))
    return meant if meant in _ROUTED else found[0].upper()
