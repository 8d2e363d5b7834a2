"""The certificates that routes need from the certificate authority, kept up as routes come and go. Pure."""

from collections import Counter
from typing import TypeVar

from mesh.http.config.model import HttpRoute

T = TypeVar("T")
Names = tuple[str, ...]


class AcmeDomains:
    """`version` grows with every change."""

    def __init__(self) -> None:
        self._wanted: Counter[Names] = Counter()
        self._stacks: dict[Names, Counter[str]] = {}  # the stacks whose routes need it
        self._hosts: Counter[str] = Counter()
        self.version = 0

    @property
    def wanted(self) -> list[Names]:
        """The names of each certificate."""
        return list(self._wanted)

    def owner(self, names: Names) -> str:
        """The stack that the certificate is ordered for; of several that share it, the first by name."""
        return min(self._stacks.get(names, ()), default="")

    def has(self, host: str) -> bool:
        """Does a route need a certificate with this name?"""
        return host in self._hosts

    def add(self, route: HttpRoute) -> None:
        self._count(route, 1)

    def remove(self, route: HttpRoute) -> None:
        self._count(route, -1)

    def clear(self) -> None:
        self._wanted.clear()
        self._stacks.clear()
        self._hosts.clear()
        self.version += 1

    def _count(self, route: HttpRoute, by: int) -> None:
        for names in route.certificates:
            _add(self._wanted, names, by)
            _add(self._stacks.setdefault(names, Counter()), route.scope, by)
            if not self._stacks[names]:
                del self._stacks[names]
            for name in names:
                _add(self._hosts, name, by)
            self.version += 1


def _add(counts: Counter[T], one: T, by: int) -> None:
    counts[one] += by
    if not counts[one]:
        del counts[one]
