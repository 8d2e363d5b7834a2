"""Figures → tables. The measuring needs a quiet machine and is no test."""

import json

import pytest

from benchmarks.figures import percentile, ratio
from benchmarks.measure import Role, Series
from benchmarks.report import Table, flatness, latencies, rates

OURS = Series("ours", Role.OURS, qps=[200.0, 100.0, 300.0], cpu_us=[5.0, 4.0, 6.0])
FAST = Series("fast", Role.PEER, qps=[400.0], cpu_us=[10.0], lost=3)
LEAN = Series("lean", Role.PEER, qps=[50.0], cpu_us=[2.5])
FLOOR = Series("(echo)", Role.FLOOR, qps=[800.0], cpu_us=[1.0])


def test_percentiles_by_nearest_rank() -> None:
    values = [float(n) for n in range(100, 0, -1)]
    assert [percentile(values, share) for share in (0.0, 0.5, 0.99, 1.0)] == [1, 51, 100, 100]
    assert percentile([7.0], 0.99) == 7.0


def test_a_ratio_to_nothing_is_not_told() -> None:
    assert (ratio(1, 2), ratio(1, 0)) == ("0.50", "–")


def test_rates_are_medians_beside_each_peer_and_the_best_of_them() -> None:
    table = rates("t", [OURS, FAST, LEAN, FLOOR])
    assert [list(row) for row in table.rows] == [
        ["ours", "200", "0%", "5.00", 0, "1.00", "1.00"],
        ["fast", "400", "0%", "10.00", 3, "0.50", "0.50"],
        ["lean", "50", "0%", "2.50", 0, "4.00", "2.00"],
        ["(echo)", "800", "0%", "1.00", 0, "0.25", "5.00"],
    ]
    assert list(table.notes) == [
        "ours / best peer, rate: 0.50 (fast)",  # the floor is no peer
        "ours / best peer, CPU: 2.00 (lean)",
    ]


def test_a_core_that_is_not_busy_is_told() -> None:
    (row,) = rates("t", [Series("ours", Role.OURS, qps=[100_000.0], cpu_us=[5.0])]).rows
    assert row[2] == "50%"


def test_ours_alone_is_not_compared() -> None:
    assert not rates("t", [OURS]).notes


def test_latencies_are_of_all_rounds_together() -> None:
    ours = Series("ours", Role.OURS, [1.0], [1.0], latencies=[0.001] * 99 + [0.5])
    peer = Series("peer", Role.PEER, [1.0], [1.0], latencies=[0.002])
    table = latencies("t", [ours, peer])
    assert [row[:4] for row in table.rows] == [
        ("ours", "1,000", "500,000", "500,000"),
        ("peer", "2,000", "2,000", "2,000"),
    ]
    assert table.rows[1][-3:] == ("0.50", "250.00", "250.00")
    assert table.notes[0] == "ours / best peer, p50: 0.50 (peer)"


@pytest.mark.parametrize(("dearest", "verdict"), [(5.4, "yes (+8%)"), (5.6, "no (+12%)")])
def test_growth_is_flat_or_not(dearest: float, verdict: str) -> None:
    series = [Series("10", qps=[1.0], cpu_us=[5.0]), Series("1,000", qps=[1.0], cpu_us=[dearest])]
    assert list(flatness("t", series).notes) == [f"flat within 10%: {verdict}"]


def test_a_table_is_text_and_json() -> None:
    table = Table("title", ("server", "µs"), [("ours", "1")], raw=[1.0], notes=["note"])
    assert str(table).splitlines()[0] == "title"
    assert str(table).splitlines()[-1] == "note"
    assert json.loads(json.dumps(table.document())) == {
        "title": "title",
        "rows": [{"server": "ours", "µs": "1"}],
        "notes": ["note"],
        "raw": [1.0],
    }
