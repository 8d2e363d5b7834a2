"""A histogram as plain counters: what the hot side adds to, and what a scrape reads.

`prometheus_client`'s own costs a lock and a dictionary look-up per observation; this one a bisection.
"""

from bisect import bisect_left
from collections.abc import Sequence
from typing import Protocol

SECONDS = (
    0.00001,
    0.0001,
    0.0005,
    0.001,
    0.005,
    0.01,
    0.05,
    0.1,
    0.5,
    1.0,
    5.0,
)  # cache hit … upstream timeout


class Distribution(Protocol):
    """What a scrape needs of anybody's histogram. `counts` has one more than `bounds`: above them all."""

    @property
    def bounds(self) -> Sequence[float]: ...
    @property
    def counts(self) -> Sequence[int]: ...
    @property
    def total(self) -> float: ...


class Histogram:
    """Counts of observations per bucket, each up to and including its bound. Not thread-safe."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float] = SECONDS) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def copy(self) -> "Histogram":
        """For a scrape, which is rendered while observing goes on."""
        twin = Histogram(self.bounds)
        twin.counts, twin.total = list(self.counts), self.total
        return twin
