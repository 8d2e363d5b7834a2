"""Passive health: an endpoint that just refused connections is left alone for a while, never all of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from mesh.balance.policies import Endpoint

FAILURES_TO_EJECT = 3  # in a row; one may be a hiccup of the network
EJECT_SECONDS = 10.0  # about a probe interval: long enough to spare clients, short enough to come back


@dataclass(slots=True)
class Health:
    """What recent connects said of a port's endpoints. `now` is monotonic seconds."""

    _failures: dict[Endpoint, int] = field(default_factory=dict)
    _until: dict[Endpoint, float] = field(default_factory=dict)

    def failed(self, endpoint: Endpoint, now: float) -> None:
        count = self._failures.get(endpoint, 0) + 1
        self._failures[endpoint] = count
        if count >= FAILURES_TO_EJECT:
            self._until[endpoint] = now + EJECT_SECONDS

    def succeeded(self, endpoint: Endpoint) -> None:
        if self._failures:
            self._failures.pop(endpoint, None)
            self._until.pop(endpoint, None)

    def ejected(self, endpoint: Endpoint, now: float) -> bool:
        return self._until.get(endpoint, now) > now

    def ejected_for(self, endpoint: Endpoint, now: float) -> float:
        """Seconds more."""
        return max(0.0, self._until.get(endpoint, now) - now)

    def usable(self, endpoints: Sequence[Endpoint], now: float) -> Sequence[Endpoint]:
        """Those not ejected; all of them when all are, since a wrong verdict must not close the port."""
        if not self._until:
            return endpoints
        return [endpoint for endpoint in endpoints if not self.ejected(endpoint, now)] or endpoints

    def keep_only(self, endpoints: Sequence[Endpoint]) -> None:
        """Forget those that are no longer endpoints."""
        for known in (self._failures, self._until):
            for gone in known.keys() - set(endpoints):
                known.pop(gone)
