"""Passive health: an endpoint that just kept failing is left alone for a while, never most of them.

Failures are counted in a row, because a service that is asked for nonsense fails now and then at all of its
endpoints alike. Each time it is left alone for longer; that is forgotten when it has been well for as long.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from mesh.balance.policies import Endpoint

FAILURES_TO_EJECT = 3  # in a row; one may be a hiccup of the network
EJECT_SECONDS = 10.0  # the first time; doubled each time it fails again right after
EJECT_MAX_SECONDS = 300.0  # a task that comes back after hours is found within minutes
EJECT_SHARE = 50  # per cent: a wrong verdict must not pile everything on a few


@dataclass(frozen=True, slots=True)
class Ejection:
    """When endpoints are left alone, and how many."""

    failures: int = FAILURES_TO_EJECT  # in a row; 0: they never are
    seconds: float = EJECT_SECONDS
    share: int = EJECT_SHARE  # per cent of the endpoints, at once; one stays, whatever it says


@dataclass(slots=True)
class _EndpointRecord:
    """One endpoint's failures in a row."""

    next_seconds: float
    failures: int = 0
    since: float = 0.0
    until: float = 0.0
    why: str = ""  # the last failure


@dataclass(slots=True)
class OutlierDetection:
    """What recent connects and answers said of some endpoints. `now` is monotonic seconds."""

    ejection: Ejection = Ejection()
    _records: dict[Endpoint, _EndpointRecord] = field(default_factory=dict)

    def failed(self, endpoint: Endpoint, now: float, why: str = "") -> bool:
        """True: from now on it is left alone."""
        rules = self.ejection
        if not rules.failures:
            return False
        record = self._records.get(endpoint)
        if record is None:
            record = self._records[endpoint] = _EndpointRecord(rules.seconds)
        record.failures += 1
        record.why = why
        if record.failures < rules.failures or record.until > now:
            return False  # not yet; or already, and this one was under way before
        record.since, record.until = now, now + record.next_seconds
        record.next_seconds = min(2 * record.next_seconds, max(EJECT_MAX_SECONDS, rules.seconds))
        return True

    def succeeded(self, endpoint: Endpoint) -> None:
        """It takes connections: all is well."""
        if self._records:
            self._records.pop(endpoint, None)

    def answered(self, endpoint: Endpoint, asked: float, now: float) -> None:
        """It answered as it should what it was asked then. One good answer among bad ones does not bring it
        back, nor does it say that the next failures will be the first."""
        record = self._records.get(endpoint)
        if record is None or asked < record.since:
            return
        record.failures = 0
        if not record.until or now >= record.until + record.next_seconds:
            del self._records[endpoint]

    @property
    def known_bad(self) -> bool:
        """Is there any endpoint that failed lately?"""
        return bool(self._records)

    def ejected_for(self, endpoint: Endpoint, now: float) -> float:
        """Seconds more."""
        record = self._records.get(endpoint)
        return max(0.0, record.until - now) if record else 0.0

    def why(self, endpoint: Endpoint) -> str:
        """Its last failure, as it was told."""
        record = self._records.get(endpoint)
        return record.why if record else ""

    def usable(self, endpoints: Sequence[Endpoint], now: float) -> Sequence[Endpoint]:
        """Those not ejected, and never too few. Of the ejected those come back first whose time is over
        soonest."""
        if not self._records:
            return endpoints
        ejected = {one: left for one in endpoints if (left := self.ejected_for(one, now))}
        most = min(len(endpoints) * self.ejection.share // 100, len(endpoints) - 1)
        if len(ejected) > most:
            for one in sorted(ejected, key=ejected.__getitem__)[: len(ejected) - most]:
                del ejected[one]
        return [one for one in endpoints if one not in ejected] if ejected else endpoints

    def keep_only(self, endpoints: Sequence[Endpoint]) -> None:
        """Forget those that are no longer endpoints."""
        for gone in self._records.keys() - set(endpoints):
            del self._records[gone]
