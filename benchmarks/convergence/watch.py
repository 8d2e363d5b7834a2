"""What both resolvers have said, and when they stopped or began to name an address. Pure."""

from dataclasses import dataclass, field

HOLD = 1.0  # seconds without an address after which it counts as gone: an answer may come back


@dataclass
class Watch:
    """Every change of each resolver's answer, in order of time (seconds, monotonic)."""

    changes: dict[str, list[tuple[float, frozenset[str]]]] = field(default_factory=dict)

    def add(self, who: str, at: float, addresses: frozenset[str]) -> None:
        self.changes.setdefault(who, []).append((at, addresses))

    def now(self, who: str) -> frozenset[str]:
        said = self.changes.get(who)
        return said[-1][1] if said else frozenset()

    def gone(self, who: str, address: str, now: float) -> float | None:
        """When the last answer that named it was followed by one that did not; None: not yet, or never named.

        A moment without it does not count: whoever asks then is told of it again.
        """
        said = self.changes.get(who, [])
        last = max((index for index, (_, named) in enumerate(said) if address in named), default=len(said))
        if last + 1 >= len(said):
            return None
        at = said[last + 1][0]
        return at if now - at >= HOLD else None

    def known(self, who: str, address: str, since: float) -> float | None:
        """When the first answer after `since` named it that did not before; None: not yet."""
        said = self.changes.get(who, [])
        before = frozenset[str]()
        for at, named in said:
            if at >= since and address in named and address not in before:
                return at
            before = named
        return None
