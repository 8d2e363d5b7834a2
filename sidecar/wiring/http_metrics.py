"""What the HTTP side has counted and knows of endpoints: of this process, and of all together."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from time import monotonic
from typing import TYPE_CHECKING

from mesh.balance.health_state import Result
from mesh.balance.policies import Endpoint
from mesh.http.stats import ServiceStats
from mesh.http.upstream.routed_service import RoutedTarget
from sidecar import status_model
from sidecar.workers.http_messages import EndpointSeen

if TYPE_CHECKING:
    from sidecar.wiring.http import HttpEdge


Endpoints = dict[tuple[str, Endpoint], EndpointSeen]  # by HTTP service


class HttpCounts:
    """`own_…`: of this process alone."""

    def __init__(self, side: "HttpEdge") -> None:
        self._side = side

    def own_stats(self) -> dict[str, ServiceStats]:
        """Of this process, by service id; by "" what was for no service."""
        found = dict(self._side.core.stats)
        if self._side.entries is not None and (refusals := self._side.entries.refusals):
            nobodys = found[""] = found.get("", ServiceStats()).copy()
            nobodys.faults += refusals
        return found

    def stats(self) -> dict[str, ServiceStats]:
        """Of all processes."""
        found = self.own_stats()
        for id_, one in self._side.workers.stats() if self._side.workers is not None else ():
            found[id_] = found[id_] + one if id_ in found else one
        return found

    def tunnels(self) -> dict[tuple[str, ...], int]:
        """(side, result) → how many. Whoever serves, the sidecar dials."""
        found: dict[tuple[str, ...], int] = {}
        if (asked := self._side.tunnels) is not None:
            found["asked", "open"] = asked.opened
            found |= {("asked", reason): count for reason, count in asked.failed.items()}
        if (answered := self._side.tunnel_server) is not None:
            found["answered", "open"] = answered.opened
            found |= {("answered", reason): count for reason, count in answered.refused.items()}
        return found

    def claims_refused(self) -> dict[tuple[str, ...], int]:
        """(stack) → claims. All processes decide the same, so this one's count."""
        site = self._side.site
        return {(owner,): count for owner, count in site.ownership.refusals.items()} if site else {}

    def own_targets_refused(self) -> dict[str, int]:
        """Of this process, by reason."""
        return dict(self._side.internal.refused)

    def targets_refused(self) -> dict[tuple[str, ...], int]:
        """Of all processes."""
        found = Counter(self.own_targets_refused())
        if self._side.workers is not None:
            found += self._side.workers.targets_refused()
        return {(reason,): count for reason, count in found.items()}

    def own_passed_on(self) -> dict[tuple[str, str], int]:
        """Of this process: (service id, result) → TLS connections that were passed on."""
        found = Counter[tuple[str, str]]()
        for owner, stats in self._side.passing.stats() if self._side.passing else ():
            found[owner, "relayed"] += stats.connections
            for reason, count in stats.errors.items():
                found[owner, reason] += count
        return dict(found)

    def passed_on(self) -> dict[tuple[str, ...], int]:
        """Of all processes: (service, result) → TLS connections that were passed on."""
        services, found = self._side.store.current.services, Counter[tuple[str, ...]]()
        all_ = Counter(self.own_passed_on())
        if self._side.workers is not None:
            all_ += self._side.workers.passed()
        for (owner, result), count in all_.items():
            found[services[owner].name if owner in services else owner, result] += count
        return dict(found)

    def own_seen(self, services: Collection[str]) -> tuple[Endpoints, set[str]]:
        """Of this process: what is to be said of endpoints of these services (ids), and of which of them."""
        found: Endpoints = {}
        owners: set[str] = set()
        for target in self._side.site.targets() if self._side.site is not None else ():
            if target.http.owner in services:
                for endpoint, one in self._own_endpoints(target):
                    if one != _UNTOUCHED:
                        found[target.http.key, endpoint] = one
                        owners.add(target.http.owner)
        return found, owners

    def endpoints(self, target: RoutedTarget) -> Iterator[status_model.HttpEndpoint]:
        """As all processes together have them: left out is who is left out by any."""
        workers = self._side.workers
        for endpoint, own in self._own_endpoints(target):
            others = workers.seen(target.http.key, endpoint) if workers is not None else []
            worst = max((own, *others), key=lambda one: one.left)
            yield status_model.HttpEndpoint(
                str(endpoint),
                sum((one.active for one in others), own.active),
                worst.left,
                worst.why,
                next((one.unwell for one in (own, *others) if one.unwell), ""),
            )

    def _own_endpoints(self, target: RoutedTarget) -> Iterator[tuple[Endpoint, EndpointSeen]]:
        backend, now = target.backend, monotonic()
        unwell = self._side.site.unwell(target.http.key) if self._side.site is not None else {}
        for one, server in backend.servers.items():
            # One that had to stay because too many are left out gets requests.
            left = 0.0 if backend.takes(server) else round(backend.health.ejected_for(one, now), 1)
            why = backend.health.why(one) if left else ""
            yield one, EndpointSeen(server.active, left, why, _said(unwell, one))


_UNTOUCHED = EndpointSeen(0, 0.0, "", "")


def _said(unwell: Mapping[Endpoint, Result | None], endpoint: Endpoint) -> str:
    return str(unwell[endpoint] or "not yet checked") if endpoint in unwell else ""
