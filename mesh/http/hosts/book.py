"""A manager's book of whose hosts are: laid over what Swarm says of its services. Pure.

What each service's stack has is written beside its labels (`Service.holds`), so it reaches every node with
the feed and stays in the saved view. Several managers keep such books. The one that has watched the cluster
longest without a gap knows best who was first; the others take over what its book says (`adopt`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from mesh.catalog.model import Service
from mesh.http.config.owner import owner_of
from mesh.http.hosts.assigned import NOBODY, AssignedHosts
from mesh.http.hosts.claims import Claims, claims_of
from mesh.http.hosts.ownership import HAND_OVER_SECONDS, HostOwnership
from mesh.http.labels.http import read_labels
from mesh.http.labels.passthrough import PREFIX, read_tcp_labels
from mesh.internal_errors import ERRORS

Record = Mapping[str, Mapping[str, float | None]]  # owner → key → since; None: it claims it and waits
WHERE = "hosts of a service"  # of `mesh.internal_errors`
_NOTHING: Mapping[str, float] = {}


@dataclass(slots=True)
class _ReadClaims:
    """A service as it was read last, and as it is told."""

    raw: Service
    claims: Claims
    told: Service


@dataclass(slots=True)
class HostBook:
    """`begin` when this node becomes a manager, `lay_over` each view; times in seconds since the epoch."""

    exposed_by_default: bool = True
    assigned: AssignedHosts = NOBODY
    hand_over: float = HAND_OVER_SECONDS
    version: int = 0  # tells whether the record has changed
    since: float | None = None  # when it has begun to watch; None: it does not, or has lost sight of it
    _read: dict[str, _ReadClaims] = field(default_factory=dict)
    _ownership: HostOwnership = field(default_factory=HostOwnership)

    def begin(
        self, known: Mapping[str, Service], held: Mapping[str, Mapping[str, float]] = MappingProxyType({})
    ) -> None:
        """Go on from what was known of the cluster, or from a record (`held`)."""
        record = {owner: dict(one) for owner, one in held.items()}
        for service in known.values():
            if service.holds:
                record.setdefault(owner_of(service), {}).update(service.holds)
        self._ownership = HostOwnership(self.assigned, self.hand_over)
        self._ownership.remember(record)
        self._read = {}
        self.since = None

    def lose_sight(self) -> None:
        """The cluster cannot be read: what happens meanwhile is not seen in its order."""
        self.since = None

    def lay_over(
        self, services: Mapping[str, Service], created: Mapping[str, str], now: float
    ) -> Mapping[str, Service]:
        """The services with what their stacks have. `created`: when each was made, as Docker writes it."""
        self.since = now if self.since is None else self.since
        for id_ in self._read.keys() - services.keys():
            del self._read[id_]
            self._ownership.withdraw(id_)
        touched: set[str] = set()
        for id_, service in services.items():
            before = self._read.get(id_)
            if before is None or before.raw is not service:
                touched.add(id_)
                self._look(service, before, created.get(id_, ""))
        groups = self._ownership.settle(now)
        touched |= self._ownership.services_in(groups) & self._read.keys()
        for id_ in touched:
            self._tell(self._read[id_])
        self.version += bool(groups)
        return {id_: self._read[id_].told for id_ in services}

    def record(self) -> Record:
        return self._ownership.whole_record()

    def adopt(self, record: Record) -> None:
        """What a book says that knows better. It shows with the next view."""
        self._ownership.adopt(record)

    def _look(self, service: Service, before: _ReadClaims | None, created: str) -> None:
        if before is not None and before.raw.labels == service.labels and before.raw.name == service.name:
            before.raw = service
            return
        claims = self._claims(service)
        self.version += claims != (before.claims if before is not None else Claims())
        self._ownership.claim(service.id, owner_of(service), claims, created=created)
        self._read[service.id] = _ReadClaims(service, claims, service)

    def _claims(self, service: Service) -> Claims:
        try:
            http = read_labels(service, self.exposed_by_default).declared
            tls = any(key.lower().startswith(PREFIX) for key in service.labels)
            claims = claims_of(http, read_tcp_labels(service) if tls else None)
        except Exception as error:  # noqa: BLE001 - one service's labels must not blind the manager
            ERRORS.report(WHERE, error, f"service {service.name}", "it claims no host")
            return Claims()
        ERRORS.mended(WHERE, f"service {service.name}")
        return claims

    def _tell(self, one: _ReadClaims) -> None:
        """Without claims there is nothing to be recorded."""
        holds = self._ownership.holds(one.raw.id) if one.claims else _NOTHING
        if not one.claims:
            one.told = one.raw
        elif one.told.holds == holds and replace(one.told, holds=None) == replace(one.raw, holds=None):
            return
        else:
            one.told = replace(one.raw, holds=holds)
