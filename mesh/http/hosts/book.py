"""A manager's record of which stack holds which hosts, added to the services of the cluster view. Pure.

What a service's stack holds is written into the service (`Service.holds`), so it reaches every node with the
feed and is in the saved view. Every manager keeps such a book. The one that has watched the cluster longest
without a gap knows best who was first; the others take over its record (`adopt`).
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

# Owner → key of an area or name → since; None: the claim waits.
Record = Mapping[str, Mapping[str, float | None]]
WHERE = "hosts of a service"  # the part that `mesh.internal_errors` names
_NOTHING: Mapping[str, float] = {}


@dataclass(slots=True)
class _ReadClaims:
    """A service as Swarm has it, its claims, and the service as it is published, with `holds`."""

    raw: Service
    claims: Claims
    published: Service


@dataclass(slots=True)
class HostBook:
    """Call `begin` when this node becomes a manager, `lay_over` for each view. Times are seconds since the
    epoch."""

    exposed_by_default: bool = True
    assigned: AssignedHosts = NOBODY
    hand_over: float = HAND_OVER_SECONDS
    version: int = 0  # changes with the record
    since: float | None = None  # since when it has watched without a gap; None: it does not
    _read: dict[str, _ReadClaims] = field(default_factory=dict)
    _ownership: HostOwnership = field(default_factory=HostOwnership)

    def begin(
        self, known: Mapping[str, Service], held: Mapping[str, Mapping[str, float]] = MappingProxyType({})
    ) -> None:
        """Starts from the services of a view, or from a saved record (`held`)."""
        record = {owner: dict(one) for owner, one in held.items()}
        for service in known.values():
            if service.holds:
                record.setdefault(owner_of(service), {}).update(service.holds)
        self._ownership = HostOwnership(self.assigned, self.hand_over)
        self._ownership.remember(record)
        self._read = {}
        self.since = None

    def lose_sight(self) -> None:
        """The cluster cannot be read: the order of what happens meanwhile stays unknown."""
        self.since = None

    def lay_over(
        self, services: Mapping[str, Service], created: Mapping[str, str], now: float
    ) -> Mapping[str, Service]:
        """The services with `holds` set. `created`: the time of creation of each, as Docker writes it."""
        self.since = now if self.since is None else self.since
        for id_ in self._read.keys() - services.keys():
            del self._read[id_]
            self._ownership.withdraw(id_)
        changed: set[str] = set()
        for id_, service in services.items():
            before = self._read.get(id_)
            if before is None or before.raw is not service:
                changed.add(id_)
                self._read_service(service, before, created.get(id_, ""))
        groups = self._ownership.settle(now)
        changed |= self._ownership.services_in(groups) & self._read.keys()
        for id_ in changed:
            self._publish(self._read[id_])
        self.version += bool(groups)
        return {id_: self._read[id_].published for id_ in services}

    def record(self) -> Record:
        return self._ownership.whole_record()

    def adopt(self, record: Record) -> None:
        """Takes over the record of a book that knows better. The next view shows it."""
        self._ownership.adopt(record)

    def _read_service(self, service: Service, before: _ReadClaims | None, created: str) -> None:
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

    def _publish(self, one: _ReadClaims) -> None:
        """Sets `published`. A service without claims is published as it is."""
        holds = self._ownership.holds(one.raw.id) if one.claims else _NOTHING
        if not one.claims:
            one.published = one.raw
        elif one.published.holds == holds and replace(one.published, holds=None) == replace(
            one.raw, holds=None
        ):
            return
        else:
            one.published = replace(one.raw, holds=holds)
