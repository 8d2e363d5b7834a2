"""What is counted of HTTP, as plain integers: exchanges add, telemetry reads. Label sets are bounded: methods
that no standard names count as "other", services are those of the catalogue."""

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field, fields
from typing import ClassVar

# Seconds: a cached page … a report that somebody waits for.
BOUNDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
METHODS = {
    name.encode(): name for name in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
}
OTHER = "other"


@dataclass(slots=True)
class HttpDurations:
    """A histogram. `counts` has one more than `bounds`: above them all."""

    bounds: ClassVar[tuple[float, ...]] = BOUNDS
    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    total: float = 0.0

    def __add__(self, other: "HttpDurations") -> "HttpDurations":
        counts = [one + two for one, two in zip(self.counts, other.counts, strict=True)]
        return HttpDurations(counts, self.total + other.total)

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds


@dataclass(slots=True)
class ServiceStats:
    """Of one service. All only grow."""

    requests: Counter[tuple[bytes, int]] = field(default_factory=Counter)  # method as sent, status
    durations: HttpDurations = field(default_factory=HttpDurations)  # to the end of the response
    faults: Counter[str] = field(default_factory=Counter)  # by `Fault.reason`
    retries: int = 0
    retries_refused: int = 0  # because too many others were under way
    checks: Counter[str] = field(default_factory=Counter)  # of endpoints, by what they found
    mirrored: Counter[str] = field(default_factory=Counter)  # copies, by what became of them
    ejections: int = 0  # of endpoints that kept failing
    received: int = 0  # bytes of bodies, client → endpoint
    sent: int = 0

    def by_method(self) -> dict[tuple[str, str], int]:
        """(method, code) → requests."""
        found = Counter[tuple[str, str]]()
        for (method, status), count in self.requests.items():
            found[METHODS.get(method, OTHER), str(status)] += count
        return dict(found)

    def __add__(self, other: "ServiceStats") -> "ServiceStats":
        both = ((getattr(self, one.name), getattr(other, one.name)) for one in fields(self))
        return ServiceStats(*(mine + theirs for mine, theirs in both))

    def copy(self) -> "ServiceStats":
        return self + ServiceStats()

    def count(self, method: bytes, status: int, seconds: float) -> None:
        self.requests[method if method in METHODS else b"", status] += 1
        self.durations.observe(seconds)
