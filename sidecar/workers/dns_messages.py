"""What passes between the sidecar and its DNS workers: orders one way, counts the other.

sidecar ──▶ Begin, then Learn, Join, Leave …        worker ──▶ Counted, every second
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from mesh.catalog.model import Asker, Container, Neighbour, Network, Node, Service
from mesh.catalog.snapshot import Change, Snapshot
from mesh.dns.config import DnsConfig
from mesh.dns.stats import Counts
from mesh.kernel.rulesets import DnsPorts
from sidecar.workers.messages import Count, Messages, Seconds, Text


@dataclass(frozen=True, slots=True)
class BeginDns:
    """`listen`: addresses of the explicit resolver, ports as the sidecar has bound them."""

    dns: DnsConfig
    listen: tuple[tuple[str, int], ...]
    log_level: str
    log_format: str


@dataclass(frozen=True, slots=True)
class LearnDns:
    """A change of the catalogue. `whole`: an entry that is not named here is gone."""

    nodes: Mapping[str, Node | None]
    networks: Mapping[str, Network | None]
    services: Mapping[str, Service | None]
    containers: Mapping[str, Container | None]
    askers: tuple[Asker, ...] | None
    neighbours: Mapping[str, Neighbour | None]
    whole: bool = False

    @classmethod
    def all_of(cls, snapshot: Snapshot) -> "LearnDns":
        """Everything of this snapshot; the worker forgets what else it knows."""
        everything = snapshot.as_change()
        return replace(cls.of(everything), askers=snapshot.askers, whole=True)

    @classmethod
    def of(cls, change: Change) -> "LearnDns":
        return cls(
            dict(change.nodes),
            dict(change.networks),
            dict(change.services),
            dict(change.containers),
            change.askers,
            dict(change.neighbours),
        )

    def change(self, now: Snapshot) -> Change:
        """What makes `now`, the worker's own snapshot, what is said here."""
        said = Change(self.nodes, self.networks, self.services, self.containers, self.askers, self.neighbours)
        if not self.whole:
            return said
        return replace(
            said,
            nodes={**dict.fromkeys(now.nodes), **self.nodes},
            networks={**dict.fromkeys(now.networks), **self.networks},
            services={**dict.fromkeys(now.services), **self.services},
            containers={**dict.fromkeys(now.containers), **self.containers},
            neighbours={**dict.fromkeys(now.neighbours), **self.neighbours},
        )


@dataclass(frozen=True, slots=True)
class Join:
    """A captured container's port. The container is in the catalogue by then."""

    container: str
    ports: DnsPorts


@dataclass(frozen=True, slots=True)
class Leave:
    container: str


@dataclass(frozen=True, slots=True)
class Counted:
    """`mesh.dns.stats.Counts` since the last time; the last element of each row is the count."""

    requests: tuple[tuple[Text, Text, Text, Text, Count], ...]
    durations: Mapping[Text, tuple[list[Count], Seconds]]
    upstream_requests: tuple[tuple[Text, Text, Count], ...]
    dropped: Mapping[Text, Count]
    rejected: Mapping[Text, Count]
    refused: Mapping[Text, Count]
    refreshes: Mapping[Text, Count]

    @classmethod
    def of(cls, counts: Counts) -> "Counted":
        return cls(
            tuple((*key, count) for key, count in counts.requests.items()),
            counts.durations,
            tuple((*key, count) for key, count in counts.upstream_requests.items()),
            counts.dropped,
            counts.rejected,
            counts.refused,
            counts.refreshes,
        )

    @property
    def counts(self) -> Counts:
        return Counts(
            {(network, qtype, rcode, source): n for network, qtype, rcode, source, n in self.requests},
            self.durations,
            {(upstream, result): n for upstream, result, n in self.upstream_requests},
            self.dropped,
            self.rejected,
            self.refused,
            self.refreshes,
        )


TOLD = Messages((BeginDns, LearnDns, Join, Leave))
TELLS = Messages((Counted,))
