"""The endpoints among which a connection's one is chosen, whatever the policy. Pure."""

from collections.abc import Collection, Sequence

from mesh.balance.outlier_detection import OutlierDetection
from mesh.balance.policies import Endpoint


def candidates(
    endpoints: Sequence[Endpoint],
    near: Collection[Endpoint],
    tried: Collection[Endpoint],
    health: OutlierDetection,
    now: float,
) -> Sequence[Endpoint]:
    """Usable ones that this connection has not tried, of them the near ones if there are any. A connection
    that has tried all usable ones goes on with the ejected: better a doubtful task than none."""
    fresh = health.usable(endpoints, now)
    if tried:
        fresh = _without(fresh, tried) or _without(endpoints, tried)
    if not near:
        return fresh
    return [one for one in fresh if one in near] or fresh


def _without(endpoints: Sequence[Endpoint], tried: Collection[Endpoint]) -> list[Endpoint]:
    return [one for one in endpoints if one not in tried]
