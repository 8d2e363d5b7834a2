"""Hosts that the configuration gives to stacks (`http.hosts`). Pure."""

import re
from collections.abc import Iterator, Mapping

EVERY = "*"
_PATTERN = re.compile(r"(?=.{1,253}$)(?:\*\.)?(?:[a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}")


def pattern(text: str) -> str:
    """`shop.example`, `*.shop.example` (whatever ends so) or `*`, as it is compared. Raises ValueError."""
    found = text.strip().lower().rstrip(".")
    if found != EVERY and _PATTERN.fullmatch(found) is None:
        raise ValueError(f"must be a host such as shop.example, or *.shop.example, not {text!r}")
    return found


class AssignedHosts:
    """By stack: its patterns. Of several that fit a host the most particular one counts."""

    def __init__(self, hosts: Mapping[str, tuple[str, ...]]) -> None:
        self._stacks = {one: stack for stack, patterns in hosts.items() for one in patterns}

    def __call__(self, host: str) -> str | None:
        """Whose it is, if it is anybody's."""
        if not self._stacks:
            return None
        return next((self._stacks[one] for one in _fitting(host) if one in self._stacks), None)


def _fitting(host: str) -> Iterator[str]:
    yield host
    rest = host
    while rest:
        rest = rest.partition(".")[2]
        if rest:
            yield f"*.{rest}"
    yield EVERY
