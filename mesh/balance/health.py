"""Passive health: an endpoint that just refused connections is left alone for a while, never most of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from mesh.balance.policies import Endpoint

FAILURES_TO_EJECT = 3  # in a row; one may be a hiccup of the network
EJECT_SECONDS = 10.0  # the first time; doubled each time it fails again right after
EJECT_MAX_SECONDS = 300.0  # a task that comes back after hours is found within minutes


@dataclass(slots=True)
class _Record:
    """One endpoint's failures in a row."""

    failures: int = 0
    until: float = 0.0
    next_seconds: float = EJECT_SECONDS


@dataclass(slots=True)
class Health:
    """What recent connects said of a port's endpoints. `now` is monotonic seconds."""

    _records: dict[Endpoint, _Record] = field(default_factory=dict)

    def failed(self, endpoint: Endpoint, now: float) -> None:
        record = self._records.setdefault(endpoint, _Record())
        record.failures += 1
        if record.failures < FAILURES_TO_EJECT or record.until > now:
            return  # not yet; or already, and this connect was under way before
        record.until = now + record.next_seconds
        record.next_seconds = min(2 * record.next_seconds, EJECT_MAX_SECONDS)

    def succeeded(self, endpoint: Endpoint) -> None:
        if self._records:
            self._records.pop(endpoint, None)

    @property
    def known_bad(self) -> bool:
        """Is there any endpoint that failed lately?"""
        return bool(self._records)

    def ejected_for(self, endpoint: Endpoint, now: float) -> float:
        """Seconds more."""
        record = self._records.get(endpoint)
        return max(0.0, record.until - now) if record else 0.0

    def usable(self, endpoints: Sequence[Endpoint], now: float) -> Sequence[Endpoint]:
        """Those not ejected, and at least half of all: a wrong verdict must not pile everything on a few.

        Of the ejected those come back first whose time is over soonest.
        """
        if not self._records:
            return endpoints
        ejected = {one: left for one in endpoints if (left := self.ejected_for(one, now))}
        missing = (len(endpoints) + 1) // 2 - (len(endpoints) - len(ejected))
        if missing > 0:
            for one in sorted(ejected, key=ejected.__getitem__)[:missing]:
                del ejected[one]
        return [one for one in endpoints if one not in ejected] if ejected else endpoints

    def keep_only(self, endpoints: Sequence[Endpoint]) -> None:
        """Forget those that are no longer endpoints."""
        for gone in self._records.keys() - set(endpoints):
            del self._records[gone]
