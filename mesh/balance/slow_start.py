"""Slow start: a task that has just come gets its share little by little. Pure.

An endpoint at weight w takes part in a choice with probability w, whatever the policy. Those that a port
began with are not new: a sidecar that starts must not treat every task as cold.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from mesh.balance.policies import Endpoint

LEAST_WEIGHT = 0.1  # even a cold one gets some connections: they are what warms it


def weight(age: float, duration: float) -> float:
    """Share of a full one's connections at this age; both in seconds, `duration` not 0."""
    return min(1.0, max(LEAST_WEIGHT, age / duration))


@dataclass(slots=True)
class Young:
    """The endpoints that have not their full weight yet. `now` is monotonic seconds."""

    _since: dict[Endpoint, float] = field(default_factory=dict)

    def joined(self, endpoints: Iterable[Endpoint], now: float) -> None:
        self._since |= dict.fromkeys(endpoints, now)

    def keep_only(self, endpoints: Sequence[Endpoint]) -> None:
        for gone in self._since.keys() - set(endpoints):
            del self._since[gone]

    def taking_part(
        self, endpoints: Sequence[Endpoint], duration: float, now: float, draw: Callable[[], float]
    ) -> Sequence[Endpoint]:
        """Those of `endpoints` among which this connection's one is chosen; all of them rather than none."""
        if not self._since:
            return endpoints
        for grown in [one for one, since in self._since.items() if now - since >= duration]:
            del self._since[grown]
        waiting = {one for one, since in self._since.items() if draw() >= weight(now - since, duration)}
        return [one for one in endpoints if one not in waiting] or endpoints
