"""To which task each new connection came, and when the last one was sent to a task that ends. Pure."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

QUIET = (
    2.0  # seconds without a connection to it after which there will be none; longer than a client's patience
)
NAMELESS, REFUSED, SILENT = (
    "nameless",
    "refused",
    "silent",
)  # why a connection failed; nameless: none was made


@dataclass(frozen=True, order=True)
class Attempt:
    """Begun when (seconds, monotonic); the task that answered, or why none did. `to`: the address, where the
    client has chosen it."""

    at: float
    task: str
    failure: str = ""
    to: str = ""


@dataclass(frozen=True)
class Victim:
    """`until`: when another one ended. `others`: there are tasks left; else rules refuse by themselves."""

    task: str
    address: str
    until: float
    others: bool

    def got(self, one: Attempt) -> bool:
        """Was it sent to this task, as far as can be told?"""
        if one.task:
            return one.task == self.task
        if one.failure == NAMELESS or one.at >= self.until:
            return False
        if one.to:
            return one.to == self.address
        return self.others or one.failure == SILENT


@dataclass
class Connections:
    """Each path's attempts, in order."""

    begun: dict[str, list[Attempt]] = field(default_factory=dict)

    def add(self, path: str, attempt: Attempt) -> None:
        """They are told when they end, which need not be as they began: some are late by a patience."""
        of_path = self.begun.setdefault(path, [])
        of_path.insert(bisect_left(of_path, attempt), attempt)

    def paths(self) -> tuple[str, ...]:
        return tuple(self.begun)

    def last(self, path: str, victim: Victim, since: float, now: float) -> float | None:
        """When the last connection to it was begun; `since` if none was since then. None: more may come."""
        latest = max((one.at for one in self._since(path, since) if victim.got(one)), default=since)
        return latest if now - latest >= QUIET else None

    def failed(self, path: str, victim: Victim, since: float) -> Mapping[str, int]:
        """Why → how many of those that were sent to it."""
        return Counter(one.failure for one in self._since(path, since) if not one.task and victim.got(one))

    def _since(self, path: str, since: float) -> Sequence[Attempt]:
        of_path = self.begun.get(path, [])
        return of_path[bisect_left(of_path, Attempt(since, "")) :]
