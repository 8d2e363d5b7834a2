"""What passes between the sidecar and the processes that serve HTTP, besides ports (`port_messages`).

    sidecar ──▶ Begin; Here and Learn as the catalogue changes, KeyPairs and Proof as certificates do,
                Listen as entry points open, Dialled and Broken for tunnels, ShutAll at the end
    process ──▶ HttpReport, every second; Dial and Cut for tunnels; Done, when it has drained

A process has what the labels and the tasks are, so it makes of them what the sidecar makes. Of certificates
it has those that it shows to clients, keys and all; of the Swarm's own it has none.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from mesh.balance.policies import Endpoint
from mesh.catalog.model import Network, Service
from mesh.catalog.snapshot import Change, Snapshot
from mesh.http.stats import BOUNDS, METHODS, HttpDurations, ServiceStats
from sidecar.config import AccessLog, Address, EntryPointAddress, Http
from sidecar.encoded_characters import Encoded
from sidecar.workers.messages import Count, Messages, Number, Seconds, Text
from sidecar.workers.port_messages import Carry, Counters, Ended, PortNumber, PortsReport, Shut

SERVICES_MAX = 20_000  # in a report
ENDPOINTS_MAX = 100_000  # in a report
REQUESTS_MAX = 10_000  # pairs of method and status of a service
WORDS_MAX = 300  # characters of why an endpoint is left out

Words = Annotated[str, Field(max_length=WORDS_MAX)]


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """What a process needs of `sidecar.config.Http`."""

    entries: tuple[tuple[str, bool], ...]  # entry points: name, with TLS
    encoded_characters: Mapping[str, Encoded]
    exposed_by_default: bool
    trusted: tuple[str, ...]
    hosts: Mapping[str, tuple[str, ...]]
    allow_internal_targets: tuple[str, ...]
    connections_per_address: int
    access_log: AccessLog
    access_log_sample: float

    @classmethod
    def of(cls, http: Http) -> "HttpSettings":
        return cls(
            tuple((entry.name, entry.tls) for entry in http.entrypoints),
            dict(http.encoded_characters),
            http.exposed_by_default,
            http.trusted,
            dict(http.hosts),
            http.allow_internal_targets,
            http.connections_per_address,
            http.access_log,
            http.access_log_sample,
        )

    @property
    def http(self) -> Http:
        nowhere = Address("", 0)  # the sidecar listens
        return Http(
            entrypoints=tuple(EntryPointAddress(name, nowhere, tls) for name, tls in self.entries),
            encoded_characters=self.encoded_characters,
            exposed_by_default=self.exposed_by_default,
            trusted=self.trusted,
            hosts=self.hosts,
            allow_internal_targets=self.allow_internal_targets,
            connections_per_address=self.connections_per_address,
            access_log=self.access_log,
            access_log_sample=self.access_log_sample,
        )


@dataclass(frozen=True, slots=True)
class BeginHttp:
    """With it comes the process's end of the pair for sockets; none, where it makes its own."""

    settings: HttpSettings
    log_level: str
    log_format: str


@dataclass(frozen=True, slots=True)
class LearnHttp:
    """A change of the catalogue. `node`: the id of this one; `whole`: what isn't named is no more."""

    node: str
    networks: Mapping[str, Network | None]
    services: Mapping[str, Service | None]
    whole: bool = False

    @classmethod
    def all_of(cls, snapshot: Snapshot) -> "LearnHttp":
        return cls(snapshot.this_node, dict(snapshot.networks), dict(snapshot.services), whole=True)

    def change(self, now: Snapshot) -> Change:
        """What makes `now` what is said here."""
        if not self.whole:
            return Change(networks=self.networks, services=self.services)
        return Change(
            networks={**dict.fromkeys(now.networks), **self.networks},
            services={**dict.fromkeys(now.services), **self.services},
        )


@dataclass(frozen=True, slots=True)
class Here:
    """Networks (ids) that sockets can be made on here. `as_published`: see
    `mesh.http.upstream.network_reach.endpoints_of`.
    """

    networks: tuple[str, ...]
    as_published: bool


@dataclass(frozen=True, slots=True)
class KeyPairs:
    """All certificates, by file: chain and key, PEM, a character for each byte."""

    pairs: Mapping[str, tuple[str, str]]


@dataclass(frozen=True, slots=True)
class AcmeProof:
    """The thumbprint of the account's key (RFC 8555, section 8.1); "": there is none."""

    thumbprint: str


@dataclass(frozen=True, slots=True)
class Listen:
    """An entry point's listening socket comes with it."""

    name: str


@dataclass(frozen=True, slots=True)
class ShutAll:
    """Take no more at entry points; requests under way have so many seconds."""

    drain: float


@dataclass(frozen=True, slots=True)
class Dial:
    """One end of a pair comes with it: it is to lead to a task on a network that is not on this node."""

    number: Number
    network: Text
    address: Text
    port: PortNumber


@dataclass(frozen=True, slots=True)
class Cut:
    """Our end, which is still open, comes with it: what looks like an end when it closes is none."""

    number: Number


@dataclass(frozen=True, slots=True)
class TunnelDialled:
    """0, or the errno of what went wrong."""

    number: int
    code: int


@dataclass(frozen=True, slots=True)
class ConnectionBroken:
    """The sidecar's end, which is still open, comes with it: what the task had to say is not whole."""

    number: int


@dataclass(frozen=True, slots=True)
class EndpointSeen:
    """An endpoint of an HTTP service as one process has it."""

    active: int  # requests
    left: float  # seconds more that it is left out
    why: str
    unwell: str


@dataclass(frozen=True, slots=True)
class SeenReport:
    http: Text  # the key of the HTTP service
    address: Text
    port: PortNumber
    task: Text
    active: Count
    left: Seconds
    why: Words
    unwell: Words

    @classmethod
    def of(cls, http: str, one: Endpoint, seen: EndpointSeen) -> "SeenReport":
        return cls(
            http,
            one.address,
            one.port,
            one.task,
            max(0, seen.active),
            max(0.0, seen.left),
            seen.why[:WORDS_MAX],
            seen.unwell[:WORDS_MAX],
        )

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(self.address, self.port, self.task)

    @property
    def seen(self) -> EndpointSeen:
        return EndpointSeen(self.active, self.left, self.why, self.unwell)


@dataclass(frozen=True, slots=True)
class StatsReport:
    """`mesh.http.stats.ServiceStats` of a service, in all since the process's start. Rows: method, status,
    requests."""

    service: Text
    requests: Annotated[
        tuple[tuple[Text, Annotated[int, Field(ge=0, le=999)], Count], ...], Field(max_length=REQUESTS_MAX)
    ]
    durations: Annotated[tuple[Count, ...], Field(min_length=len(BOUNDS) + 1, max_length=len(BOUNDS) + 1)]
    duration_total: Seconds
    faults: Counters
    retries: Count
    retries_refused: Count
    checks: Counters
    mirrored: Counters
    ejections: Count
    received: Count
    sent: Count

    @classmethod
    def of(cls, service: str, stats: ServiceStats) -> "StatsReport":
        return cls(
            service,
            tuple((method.decode("ascii"), status, n) for (method, status), n in stats.requests.items()),
            tuple(stats.durations.counts),
            stats.durations.total,
            dict(stats.faults),
            stats.retries,
            stats.retries_refused,
            dict(stats.checks),
            dict(stats.mirrored),
            stats.ejections,
            stats.received,
            stats.sent,
        )

    @property
    def stats(self) -> ServiceStats:
        found = ServiceStats()
        for method, status, count in self.requests:
            as_bytes = method.encode()
            found.requests[as_bytes if as_bytes in METHODS else b"", status] += count
        found.durations = HttpDurations(list(self.durations), self.duration_total)
        found.faults.update(self.faults)
        found.checks.update(self.checks)
        found.mirrored.update(self.mirrored)
        found.retries, found.retries_refused = self.retries, self.retries_refused
        found.ejections, found.received, found.sent = self.ejections, self.received, self.sent
        return found


@dataclass(frozen=True, slots=True)
class HttpReport:
    """In all since the process's start, of what has changed; `seen` is whole. `passed`: TLS connections that
    were passed on, by service id and result. `refused`: targets, by reason."""

    stats: Annotated[tuple[StatsReport, ...], Field(max_length=SERVICES_MAX)]
    seen: Annotated[tuple[SeenReport, ...], Field(max_length=ENDPOINTS_MAX)]
    passed: Annotated[tuple[tuple[Text, Text, Count], ...], Field(max_length=SERVICES_MAX)]
    refused: Counters


@dataclass(frozen=True, slots=True)
class Done:
    last: HttpReport


TOLD = Messages(
    (
        BeginHttp,
        LearnHttp,
        Here,
        KeyPairs,
        AcmeProof,
        Listen,
        ShutAll,
        TunnelDialled,
        ConnectionBroken,
        Carry,
        Shut,
    )
)
TELLS = Messages((HttpReport, Done, Dial, Cut, PortsReport, Ended))
