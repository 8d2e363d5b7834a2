"""Metrics: what a reading becomes, and that docs/metrics.md and the code name the same things."""

import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from mesh.catalog.model import Service, Task, TaskState
from mesh.catalog.snapshot import Change, Snapshot
from mesh.telemetry.histogram import Histogram
from mesh.telemetry.metrics import MetricsReading, exposition, families

DOCS = Path(__file__).parents[2] / "docs" / "metrics.md"


def task(name: str, state: TaskState) -> Task:
    return Task(name, name, "swarm00", state)


def observed(*seconds: float) -> Histogram:
    histogram = Histogram((0.001, 0.1))
    for second in seconds:
        histogram.observe(second)
    return histogram


def snapshot(*services: Service) -> Snapshot:
    return Snapshot().apply(Change(services={s.id: s for s in services}))


WEB = Service("w1", "web", tasks=(task("web.1", TaskState.RUNNING), task("web.2", TaskState.LEAVING)))
FULL = MetricsReading(
    version="1.2.3",
    snapshot=snapshot(WEB),
    catalog_age=1.5,
    catalog_apply=observed(0.0005),
    feed_connected=False,
    feed_refused=3,
    signs={("taken",): 6},
    neighbours_refused={("address",): 2},
    return_paths_refused={("mac",): 5},
    captured_containers=4,
    config_errors=2,
    internal_errors={("subscriber http",): 2},
    process_ends={("HTTP", "malformed"): 1},
    quarantined={("http",): 1},
    dns_requests={("internal", "A", "NOERROR", "cache"): 7},
    dns_durations={"cache": observed(0.0005, 0.001, 0.05, 3.0)},
    dns_cache_entries=3,
    dns_upstream_requests={("1.1.1.1", "NOERROR"): 1},
    dns_dropped={("stranger",): 2},
    dns_upstream_rejected={("id",): 1},
    dns_forward_refused={("share",): 1},
    dns_refreshes={("prefetch",): 1},
    port_connections={("web", "80/tcp", "proxy"): 5, ("gone", "81/tcp", "proxy"): 5},
    port_active={("web", "80/tcp", "proxy"): 1},
    port_bytes={("web", "80/tcp", "in"): 100},
    port_connect_errors={("web", "80/tcp", "refused"): 1},
    http_requests={("web", "GET", "200"): 5},
    http_durations={"web": Histogram()},
    http_faults={("web", "connect"): 1},
    http_retries={("web",): 1},
    http_retries_refused={("web",): 3},
    http_checks={("web", "well"): 4},
    http_mirrored={("web", "answered"): 4},
    http_ejections={("web",): 2},
    http_certificates={("shop.pem",): 1.8e9},
    http_orders={("issued",): 1},
    http_passed_on={("db", "relayed"): 1},
    http_tunnels={("asked", "open"): 1},
    http_claims_refused={("shop",): 1},
    http_targets_refused={("loopback",): 1},
    probes={("web", "8080", "well"): 3},
)


def samples(reading: MetricsReading) -> dict[str, float]:
    """name{labels} → value, as a scraper sees them."""
    body, _ = exposition(reading, "")
    return {
        name + ("{" + ",".join(f"{k}={v}" for k, v in sorted(labels.items())) + "}" if labels else ""): value
        for family in text_string_to_metric_families(body.decode())
        for name, labels, value, *_ in family.samples
    }


def test_a_reading_becomes_series() -> None:
    got = samples(FULL)
    expected = {
        "mesh_dns_requests_total{network=internal,rcode=NOERROR,source=cache,type=A}": 7,
        "mesh_dns_request_duration_seconds_bucket{le=0.001,source=cache}": 2,
        "mesh_dns_request_duration_seconds_bucket{le=0.1,source=cache}": 3,
        "mesh_dns_request_duration_seconds_bucket{le=+Inf,source=cache}": 4,
        "mesh_dns_request_duration_seconds_count{source=cache}": 4,
        "mesh_endpoints{service=web,state=running}": 1,
        "mesh_endpoints{service=web,state=leaving}": 1,
        "mesh_endpoints{service=web,state=dead}": 0,
        "mesh_catalog_version": 1,
        "mesh_catalog_age_seconds": 1.5,
        "mesh_feed_connected": 0,
        "mesh_feed_refused_total": 3,
        "mesh_signs_total{result=taken}": 6,
        "mesh_neighbours_refused_total{reason=address}": 2,
        "mesh_return_paths_refused_total{reason=mac}": 5,
        "mesh_build_info{version=1.2.3}": 1,
        "mesh_port_connections_total{mode=proxy,port=80/tcp,service=web}": 5,
        "mesh_http_ejections_total{service=web}": 2,
    }
    assert {name: got.get(name) for name in expected} == expected
    assert "python_info" in " ".join(got)


def test_series_of_vanished_services_are_gone() -> None:
    assert not [name for name in samples(FULL) if "gone" in name]
    without = MetricsReading(version="1", port_connections=FULL.port_connections)
    assert not [name for name in samples(without) if "web" in name]


def test_what_does_not_apply_is_absent_rather_than_zero() -> None:
    names = samples(MetricsReading(version="1"))
    assert "mesh_feed_connected" not in names
    assert "mesh_catalog_age_seconds" not in names


@pytest.mark.parametrize(
    ("accept", "type_"),
    [("", "text/plain"), ("application/openmetrics-text; version=1.0.0", "application/openmetrics")],
)
def test_the_scraper_chooses_the_format(accept: str, type_: str) -> None:
    body, content_type = exposition(FULL, accept)
    assert content_type.startswith(type_)
    assert body


def documented() -> dict[str, tuple[str, frozenset[str]]]:
    rows = re.findall(r"^\| `(mesh_\w+)` \| (\w+) \|([^|]*)\|", DOCS.read_text(), re.MULTILINE)
    return {name: (type_, frozenset(re.findall(r"`(\w+)`", labels))) for name, type_, labels in rows}


def exported() -> dict[str, tuple[str, frozenset[str]]]:
    result = {}
    for family in families(FULL):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = frozenset(label for sample in family.samples for label in sample.labels) - {"le"}
        result[name] = (family.type, labels)
    return result


def test_the_documentation_names_what_is_exported() -> None:
    assert documented() == exported()
