"""From counters to the exposition format: every metric of ours stands in this file, and in docs/metrics.md.

Strategy: whoever counts keeps plain dictionaries and integers and knows nothing of Prometheus. At a scrape
the process takes one `MetricsReading` on its loop (cheap copies); this module turns it into text, in a
thread, so that a large cluster's scrape does not hold up the resolver. Series are made from the reading
alone, so those of a service that is gone are gone with it. No label ever holds a client's address or a name
that somebody merely asked for.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TypeAlias

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from mesh.catalog.model import TaskState
from mesh.catalog.snapshot import Snapshot
from mesh.telemetry.histogram import Distribution, Histogram

Labels: TypeAlias = tuple[str, ...]
Counts: TypeAlias = Mapping[Labels, int]


@dataclass(frozen=True, slots=True)
class MetricsReading:
    """One look at everything that is counted. Keys of the mappings are label values, in the order named."""

    version: str
    snapshot: Snapshot = field(default_factory=Snapshot)
    catalog_age: float | None = None  # seconds since the source last confirmed it; None: never
    catalog_apply: Distribution = field(default_factory=Histogram)
    feed_connected: bool | None = None  # None: this node does not follow a feed
    feed_refused: int = 0
    signs: Counts = field(default_factory=dict)  # result
    neighbours_refused: Counts = field(default_factory=dict)  # reason
    return_paths_refused: Counts = field(default_factory=dict)  # reason
    captured_containers: int = 0
    config_errors: int = 0
    internal_errors: Counts = field(default_factory=dict)  # where
    process_ends: Counts = field(default_factory=dict)  # kind, reason
    quarantined: Counts = field(default_factory=dict)  # subscriber
    dns_requests: Counts = field(default_factory=dict)  # network, type, rcode, source
    dns_durations: Mapping[str, Distribution] = field(default_factory=dict)  # source
    dns_cache_entries: int = 0
    dns_upstream_requests: Counts = field(default_factory=dict)  # upstream, rcode
    dns_dropped: Counts = field(default_factory=dict)  # reason
    dns_upstream_rejected: Counts = field(default_factory=dict)  # reason
    dns_upstream_faults: int = 0
    dns_forward_refused: Counts = field(default_factory=dict)  # limit
    dns_refreshes: Counts = field(default_factory=dict)  # reason
    port_connections: Counts = field(default_factory=dict)  # service, port, mode
    port_active: Counts = field(default_factory=dict)  # service, port, mode
    port_bytes: Counts = field(default_factory=dict)  # service, port, direction
    port_connect_errors: Counts = field(default_factory=dict)  # service, port, reason
    http_requests: Counts = field(default_factory=dict)  # service, method, code
    http_durations: Mapping[str, Distribution] = field(default_factory=dict)  # service
    http_faults: Counts = field(default_factory=dict)  # service, reason
    http_retries: Counts = field(default_factory=dict)  # service
    http_checks: Counts = field(default_factory=dict)  # service, result
    http_mirrored: Counts = field(default_factory=dict)  # service, result
    http_retries_refused: Counts = field(default_factory=dict)  # service
    http_ejections: Counts = field(default_factory=dict)  # service
    http_certificates: Mapping[Labels, float] = field(default_factory=dict)  # file
    http_orders: Mapping[Labels, int] = field(default_factory=dict)  # result
    http_passed_on: Mapping[Labels, int] = field(default_factory=dict)  # service, result
    http_tunnels: Mapping[Labels, int] = field(default_factory=dict)  # side, result
    http_claims_refused: Mapping[Labels, int] = field(default_factory=dict)  # stack
    http_targets_refused: Mapping[Labels, int] = field(default_factory=dict)  # reason
    probes: Counts = field(default_factory=dict)  # service, port, result


def exposition(reading: MetricsReading, accept: str) -> tuple[bytes, str]:
    """The body of /metrics and its content type, as the scraper's Accept header prefers."""
    registry = CollectorRegistry()
    for collector in (*_PROCESS, _Once(reading)):
        registry.register(collector)
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


def families(reading: MetricsReading) -> Iterator[Metric]:
    """Every metric of ours, in the order of docs/metrics.md."""
    yield from _dns(reading)
    yield from _ports(reading)
    yield from _http(reading)
    yield _probes(reading)
    yield _endpoints(reading.snapshot)
    yield from _catalog(reading)
    yield _gauge(
        "mesh_captured_containers",
        "Containers of this node that get our resolver.",
        reading.captured_containers,
    )
    yield _gauge(
        "mesh_config_errors", "Problems in configuration, catalogue and labels now.", reading.config_errors
    )
    yield _counter(
        "mesh_internal_errors_total",
        "Faults of ours that were caught where they end nothing else.",
        ["where"],
        reading.internal_errors,
    )
    yield _counter(
        "mesh_process_ends_total",
        "Processes without privileges that ended and were replaced.",
        ["kind", "reason"],
        reading.process_ends,
    )
    yield _labelled_gauge(
        "mesh_quarantined",
        "Entries of the catalogue that a subscriber leaves out because they make it fail.",
        ["subscriber"],
        reading.quarantined,
    )
    yield _labelled_gauge(
        "mesh_build_info", "Always 1; the version is in the label.", ["version"], {(reading.version,): 1}
    )


def _dns(reading: MetricsReading) -> Iterator[Metric]:
    yield _counter(
        "mesh_dns_requests_total",
        "DNS requests answered.",
        ["network", "type", "rcode", "source"],
        reading.dns_requests,
    )
    yield _histograms(
        "mesh_dns_request_duration_seconds",
        "Time from request to answer.",
        ["source"],
        {(source,): d for source, d in reading.dns_durations.items()},
    )
    yield _counter("mesh_dns_dropped_total", "DNS requests without a reply.", ["reason"], reading.dns_dropped)
    yield _gauge("mesh_dns_cache_entries", "Replies in the cache.", reading.dns_cache_entries)
    yield from _upstreams(reading)


def _upstreams(reading: MetricsReading) -> Iterator[Metric]:
    yield _counter(
        "mesh_dns_upstream_requests_total",
        "Requests forwarded to an upstream resolver.",
        ["upstream", "rcode"],
        reading.dns_upstream_requests,
    )
    yield _counter(
        "mesh_dns_upstream_rejected_total",
        "Messages that were no reply to what an upstream was asked.",
        ["reason"],
        reading.dns_upstream_rejected,
    )
    yield _gauge(
        "mesh_dns_upstream_faults", "Upstreams that fail, and other faults now.", reading.dns_upstream_faults
    )
    yield _counter(
        "mesh_dns_forward_refused_total",
        "Questions that were not forwarded.",
        ["limit"],
        reading.dns_forward_refused,
    )
    yield _counter(
        "mesh_dns_refreshes_total",
        "Questions forwarded with nobody waiting for them.",
        ["reason"],
        reading.dns_refreshes,
    )


def _ports(reading: MetricsReading) -> Iterator[Metric]:
    known = {service.name for service in reading.snapshot.services.values()}
    by_mode = ["service", "port", "mode"]
    yield _counter(
        "mesh_port_connections_total",
        "Connections accepted on a published port.",
        by_mode,
        _of(known, reading.port_connections),
    )
    yield _labelled_gauge(
        "mesh_port_connections_active",
        "Connections open on a published port.",
        by_mode,
        _of(known, reading.port_active),
    )
    yield _counter(
        "mesh_port_bytes_total",
        "Bytes relayed on a published port.",
        ["service", "port", "direction"],
        _of(known, reading.port_bytes),
    )
    yield _counter(
        "mesh_port_connect_errors_total",
        "Connections for which no task could be reached.",
        ["service", "port", "reason"],
        _of(known, reading.port_connect_errors),
    )


def _http(reading: MetricsReading) -> Iterator[Metric]:
    yield from _http_requests(reading)
    yield from _http_endpoints(reading)
    yield from _http_certificates(reading)
    yield from _http_beyond_this_node(reading)


def _http_requests(reading: MetricsReading) -> Iterator[Metric]:
    yield _counter(
        "mesh_http_requests_total",
        "HTTP requests answered.",
        ["service", "method", "code"],
        reading.http_requests,
    )
    yield _histograms(
        "mesh_http_request_duration_seconds",
        "Time from the end of a request's head to the end of its response.",
        ["service"],
        {(service,): one for service, one in reading.http_durations.items()},
    )
    yield _counter(
        "mesh_http_faults_total",
        "HTTP requests that did not end as they should.",
        ["service", "reason"],
        reading.http_faults,
    )
    yield _counter(
        "mesh_http_retries_total",
        "Further endpoints that requests were sent to.",
        ["service"],
        reading.http_retries,
    )
    yield _counter(
        "mesh_http_retries_refused_total",
        "Requests that were not sent again because too many others were.",
        ["service"],
        reading.http_retries_refused,
    )


def _http_endpoints(reading: MetricsReading) -> Iterator[Metric]:
    yield _counter(
        "mesh_http_checks_total",
        "Active checks of endpoints, from this node.",
        ["service", "result"],
        reading.http_checks,
    )
    yield _counter(
        "mesh_http_mirrored_total",
        "Copies of requests for another service.",
        ["service", "result"],
        reading.http_mirrored,
    )
    yield _counter(
        "mesh_http_ejections_total",
        "Endpoints left out for a while because they kept failing.",
        ["service"],
        reading.http_ejections,
    )


def _http_certificates(reading: MetricsReading) -> Iterator[Metric]:
    yield _labelled_gauge(
        "mesh_http_certificate_expiry_timestamp_seconds",
        "When a certificate ends, in seconds since 1970.",
        ["file"],
        reading.http_certificates,
    )
    yield _counter(
        "mesh_http_certificate_orders_total",
        "Certificates that this node has ordered of the authority.",
        ["result"],
        reading.http_orders,
    )


def _http_beyond_this_node(reading: MetricsReading) -> Iterator[Metric]:
    """What is passed on whole, sent to other nodes, or refused because it is somebody else's."""
    yield _counter(
        "mesh_http_passed_on_total",
        "TLS connections passed on by the name that they ask for.",
        ["service", "result"],
        reading.http_passed_on,
    )
    yield _counter(
        "mesh_http_tunnels_total",
        "Connections to tasks of other nodes, through their sidecars.",
        ["side", "result"],
        reading.http_tunnels,
    )
    yield _counter(
        "mesh_http_host_claims_refused_total",
        "Claims of hosts and paths that belong to another stack.",
        ["stack"],
        reading.http_claims_refused,
    )
    yield _counter(
        "mesh_http_internal_targets_refused_total",
        "Connections to internal addresses that labels asked for and that were not made.",
        ["reason"],
        reading.http_targets_refused,
    )


def _probes(reading: MetricsReading) -> Metric:
    known = {service.name for service in reading.snapshot.services.values()}
    return _counter(
        "mesh_probe_total",
        "Active probes of this node's tasks.",
        ["service", "port", "result"],
        _of(known, reading.probes),
    )


def _endpoints(snapshot: Snapshot) -> Metric:
    series: dict[Labels, int] = {}
    for service in snapshot.services.values():
        count = Counter(task.state for task in service.tasks)
        series.update({(service.name, state.value): count[state] for state in TaskState})
    return _labelled_gauge("mesh_endpoints", "Tasks of a service, by state.", ["service", "state"], series)


def _catalog(reading: MetricsReading) -> Iterator[Metric]:
    yield _gauge("mesh_catalog_version", "Changes applied since the start.", reading.snapshot.version)
    if reading.catalog_age is not None:
        yield _gauge(
            "mesh_catalog_age_seconds",
            "Time since the source last confirmed the catalogue.",
            reading.catalog_age,
        )
    yield _histograms(
        "mesh_catalog_apply_seconds",
        "Time to take a change into force everywhere in this process.",
        [],
        {(): reading.catalog_apply},
    )
    if reading.feed_connected is not None:
        yield _gauge(
            "mesh_feed_connected", "1 while a manager's feed is followed.", int(reading.feed_connected)
        )
    yield _counter(
        "mesh_feed_refused_total", "Clients that the feed refused.", [], {(): reading.feed_refused}
    )
    yield _counter(
        "mesh_signs_total",
        "Ends of tasks that nodes reported before Swarm did, by what became of it.",
        ["result"],
        reading.signs,
    )
    yield _counter(
        "mesh_neighbours_refused_total",
        "What nodes said of their plain containers and was not believed.",
        ["reason"],
        reading.neighbours_refused,
    )
    yield _counter(
        "mesh_return_paths_refused_total",
        "What nodes said of their entry to the ingress network and was not believed.",
        ["reason"],
        reading.return_paths_refused,
    )


# --- building blocks ----------------------------------------------------------------------------------------


def _of(services: Iterable[str], counts: Counts) -> Counts:
    """Only the series of services that exist: the first label is the service."""
    return {labels: value for labels, value in counts.items() if labels[0] in services}


def _gauge(name: str, help_: str, value: float) -> Metric:
    return GaugeMetricFamily(name, help_, value=value)


def _labelled_gauge(name: str, help_: str, labels: list[str], series: Mapping[Labels, float]) -> Metric:
    family = GaugeMetricFamily(name, help_, labels=labels)
    for values, value in series.items():
        family.add_metric(values, value)
    return family


def _counter(name: str, help_: str, labels: list[str], series: Counts) -> Metric:
    family = CounterMetricFamily(name, help_, labels=labels)
    for values, value in series.items():
        family.add_metric(values, value)
    return family


def _histograms(name: str, help_: str, labels: list[str], series: Mapping[Labels, Distribution]) -> Metric:
    family = HistogramMetricFamily(name, help_, labels=labels)
    for values, distribution in series.items():
        bounds = [*map(str, distribution.bounds), "+Inf"]
        buckets = list(zip(bounds, accumulate(distribution.counts), strict=True))
        family.add_metric(values, buckets, distribution.total)
    return family


class _Once(Collector):
    def __init__(self, reading: MetricsReading) -> None:
        self._reading = reading

    def collect(self) -> Iterator[Metric]:
        return families(self._reading)


_UNREGISTERED = CollectorRegistry()  # the collectors insist on one; each scrape has its own
_PROCESS: tuple[Collector, ...] = (
    ProcessCollector(registry=_UNREGISTERED),
    PlatformCollector(registry=_UNREGISTERED),
    GCCollector(registry=_UNREGISTERED),
)
