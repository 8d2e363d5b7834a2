"""What is counted, as plain integers: the resolver adds, telemetry reads.

Labels are bounded: types outside `TYPES` count as "other", networks are those of the catalogue ("" when none
answered), upstreams those configured. A counter is a `Cell`, a list of one integer, so that a cache entry can
hold its own and a hit costs one addition without building or hashing a key.
"""

from bisect import bisect_left
from collections.abc import Container, Hashable, Mapping
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from mesh.dns.wire import QType, Rcode

Cell: TypeAlias = list[int]
Key = TypeVar("Key", bound=Hashable)

# Seconds: a cache hit … a local answer … an upstream's timeout.
BOUNDS = (0.00001, 0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0)

LOCAL, CACHE, FORWARD, STALE = "local", "cache", "forward", "stale"
TYPES: Mapping[int, str] = {qtype.value: qtype.name for qtype in QType if qtype is not QType.OPT}
RCODES: Mapping[int, str] = {rcode.value: rcode.name for rcode in Rcode}
OTHER = "other"


class DnsDurations:
    """A histogram. `counts` has one more than `bounds`: above them all."""

    __slots__ = ("counts", "total")
    bounds = BOUNDS

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.total = 0.0

    def observe(self, seconds: float, times: int = 1) -> None:
        """`times` requests that took `seconds` each."""
        self.counts[bisect_left(BOUNDS, seconds)] += times
        self.total += seconds * times


@dataclass(frozen=True, slots=True)
class Counts:
    """What was counted in some time, to be carried from one process to another. Names as in `DnsStats`."""

    requests: Mapping[tuple[str, str, str, str], int]
    durations: Mapping[str, tuple[list[int], float]]
    upstream_requests: Mapping[tuple[str, str], int]
    dropped: Mapping[str, int]
    rejected: Mapping[str, int]
    refused: Mapping[str, int]
    refreshes: Mapping[str, int]


class DnsStats:
    """All counters of one resolver.

    Requests that needed work are timed one by one. Hits are timed by the batch that a socket's loop drains
    at once, and each counted with the batch's mean: two looks at the clock per wake-up, not two per query.
    """

    __slots__ = (
        "_requests",
        "dropped",
        "durations",
        "faults",
        "refreshes",
        "refused",
        "rejected",
        "upstream_requests",
    )

    def __init__(self) -> None:
        self._requests: dict[tuple[str, str, str, str], Cell] = {}
        self.durations = {source: DnsDurations() for source in (LOCAL, CACHE, FORWARD, STALE)}
        self.upstream_requests: dict[tuple[str, str], int] = {}  # (upstream, rcode or what else came of it)
        self.dropped: dict[str, int] = {}  # reason → requests that got no reply
        self.rejected: dict[str, int] = {}  # reason → messages to us that were no reply to what we had asked
        self.refused: dict[str, int] = {}  # limit or "loop" → questions that were not forwarded
        self.refreshes: dict[str, int] = {}  # why → questions asked again with nobody waiting
        self.faults: dict[str, str] = {}  # what is wrong with forwarding now, in words; not a counter

    @property
    def requests(self) -> dict[tuple[str, str, str, str], int]:
        """(network, type, rcode, source) → requests answered. A copy."""
        return {key: cell[0] for key, cell in self._requests.items() if cell[0]}

    def cell(self, network: str, qtype: int, rcode: int, source: str) -> Cell:
        """The counter of requests with these labels."""
        key = (network, TYPES.get(qtype, OTHER), RCODES.get(rcode, OTHER), source)
        return self._requests.setdefault(key, [0])

    def keep_networks(self, names: Container[str]) -> None:
        """Forget what was counted of networks that are no more."""
        for key in [key for key in self._requests if key[0] and key[0] not in names]:
            del self._requests[key]

    def drop(self, reason: str, times: int = 1) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + times

    def reject(self, reason: str) -> None:
        self.rejected[reason] = self.rejected.get(reason, 0) + 1

    def refuse(self, limit: str) -> None:
        self.refused[limit] = self.refused.get(limit, 0) + 1

    def refresh(self, why: str) -> None:
        self.refreshes[why] = self.refreshes.get(why, 0) + 1

    def upstream(self, name: str, result: str) -> None:
        key = (name, result)
        self.upstream_requests[key] = self.upstream_requests.get(key, 0) + 1

    def take(self) -> Counts:
        """All that was counted since the last time; counting begins anew."""
        durations = {source: (one.counts, one.total) for source, one in self.durations.items()}
        taken = Counts(
            self.requests,
            durations,
            self.upstream_requests,
            self.dropped,
            self.rejected,
            self.refused,
            self.refreshes,
        )
        for cell in self._requests.values():  # cache entries hold them: they stay the same lists
            cell[0] = 0
        for one in self.durations.values():
            one.counts, one.total = [0] * len(one.counts), 0.0
        self.upstream_requests, self.dropped = {}, {}
        self.rejected, self.refused, self.refreshes = {}, {}, {}
        return taken

    def add(self, counts: Counts) -> None:
        """What another resolver counted, as if it had been this one."""
        for (network, qtype, rcode, source), count in counts.requests.items():
            self._requests.setdefault((network, qtype, rcode, source), [0])[0] += count
        for source, (buckets, total) in counts.durations.items():
            own = self.durations[source]
            own.counts = [mine + theirs for mine, theirs in zip(own.counts, buckets, strict=True)]
            own.total += total
        _add(self.upstream_requests, counts.upstream_requests)
        _add(self.dropped, counts.dropped)
        _add(self.rejected, counts.rejected)
        _add(self.refused, counts.refused)
        _add(self.refreshes, counts.refreshes)


def _add(to: dict[Key, int], counts: Mapping[Key, int]) -> None:
    for key, count in counts.items():
        to[key] = to.get(key, 0) + count
