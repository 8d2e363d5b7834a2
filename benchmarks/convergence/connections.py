"""To which task each new connection came, and when the last one was sent to a task that ends. Pure."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field

QUIET = (
    2.0  # seconds without a connection to it after which there will be none; longer than a client's patience
)


@dataclass
class Connections:
    """Each path's connections: when begun (seconds, monotonic), and what the task said ("": none did)."""

    begun: dict[str, list[tuple[float, str]]] = field(default_factory=dict)

    def add(self, path: str, at: float, said: str) -> None:
        """They are told when they end, which need not be in order; some are late by a client's patience."""
        of_path = self.begun.setdefault(path, [])
        of_path.insert(bisect_left(of_path, (at, said)), (at, said))

    def paths(self) -> tuple[str, ...]:
        return tuple(self.begun)

    def last(self, path: str, task: str, since: float, until: float, now: float) -> float | None:
        """When the last connection to the task was begun, at `since` or later; None: more may come.

        One that failed counts as sent to it, unless it was begun after `until`, when another one ended.
        Without any, `since` itself.
        """
        mine = [at for at, said in self._since(path, since) if said == task or (not said and at < until)]
        latest = mine[-1] if mine else since
        return latest if now - latest >= QUIET else None

    def failed(self, path: str, since: float, until: float) -> int:
        return sum(not said and at < until for at, said in self._since(path, since))

    def _since(self, path: str, since: float) -> Sequence[tuple[float, str]]:
        of_path = self.begun.get(path, [])
        return of_path[bisect_left(of_path, (since, "")) :]
