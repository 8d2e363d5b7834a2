"""Hosts, and path prefixes of them, that the configuration assigns to stacks (`http.hosts`). Pure."""

import re
from collections.abc import Iterator, Mapping

EVERY = "*"
PATH_MAX = 1024  # characters
_PATTERN = re.compile(r"(?=.{1,253}$)(?:\*\.)?(?:[a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}")
_PATH = re.compile(r"/[!-~]{0,1023}")


def pattern(text: str) -> str:
    """The normal form of `shop.example`, `*.shop.example` (all hosts with that ending) or `*`, perhaps
    followed by a path prefix (`shop.example/api`). Raises ValueError."""
    host, slash, rest = text.strip().partition("/")
    found = host.lower().rstrip(".")
    path = f"/{rest}" if slash and rest else ""
    good = found == EVERY or _PATTERN.fullmatch(found) is not None
    if not good or (path and _PATH.fullmatch(path) is None):
        raise ValueError(
            f"must be a host such as shop.example, *.shop.example, shop.example/api, not {text!r}"
        )
    return found + path


class AssignedHosts:
    """`hosts`: the patterns of each stack. Of several that fit a host the most specific one counts."""

    def __init__(self, hosts: Mapping[str, tuple[str, ...]]) -> None:
        self._stacks: dict[str, str] = {}
        self._parts: dict[str, list[tuple[str, str]]] = {}  # host pattern → (path prefix, stack)
        for stack, patterns in hosts.items():
            for one in patterns:
                host, slash, rest = one.partition("/")
                if slash:
                    self._parts.setdefault(host, []).append((f"/{rest}", stack))
                else:
                    self._stacks[host] = stack

    def __call__(self, host: str) -> str | None:
        """The stack to which the host is assigned, apart from its `parts`."""
        if not self._stacks:
            return None
        return next((self._stacks[one] for one in _fitting(host) if one in self._stacks), None)

    def parts(self, host: str) -> list[tuple[str, str]]:
        """(path prefix of the host, the stack to which it is assigned), the longest first."""
        if not self._parts:
            return []
        found: dict[str, str] = {}
        for one in _fitting(host):
            for path, stack in self._parts.get(one, ()):
                found.setdefault(path, stack)
        return sorted(found.items(), key=lambda part: -len(part[0]))


def _fitting(host: str) -> Iterator[str]:
    """All patterns that fit a host, the most specific first."""
    yield host
    rest = host
    while rest:
        rest = rest.partition(".")[2]
        if rest:
            yield f"*.{rest}"
    yield EVERY


NOBODY = AssignedHosts({})
