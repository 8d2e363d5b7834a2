"""How long endpoints take: a moving average that believes bad news at once and good news slowly. Pure.

Peak-EWMA, as in Finagle and Linkerd: a connect slower than the average replaces it, a faster one pulls it
down by the time that has passed. Times the connections that are open it is what one more would cost.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from mesh.balance.policies import Endpoint

DECAY_SECONDS = 10.0  # after which two thirds of a peak are forgotten


@dataclass(slots=True)
class Latency:
    """Of a port's endpoints. Times in seconds, `now` is monotonic."""

    _known: dict[Endpoint, tuple[float, float]] = field(default_factory=dict)  # average, and as of when

    def observe(self, endpoint: Endpoint, took: float, now: float) -> None:
        average = self._average(endpoint, now)
        if took < average:
            _, since = self._known[endpoint]
            average = took + (average - took) * math.exp((since - now) / DECAY_SECONDS)
        else:
            average = took
        self._known[endpoint] = (average, now)

    def cost(self, endpoint: Endpoint, active: int) -> float:
        """Of one more connection. An endpoint of which nothing is known is tried, but not by many at once."""
        known = self._known.get(endpoint)
        if known is None:
            return math.inf if active else 0.0
        return known[0] * (active + 1)

    def keep_only(self, endpoints: Sequence[Endpoint]) -> None:
        for gone in self._known.keys() - set(endpoints):
            del self._known[gone]

    def _average(self, endpoint: Endpoint, now: float) -> float:
        known = self._known.get(endpoint)
        return known[0] if known else 0.0
