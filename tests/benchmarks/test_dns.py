"""What dnsperf prints → figures; figures → tables. The measuring needs a quiet machine and is no test."""

import pytest

from benchmarks.measure import BenchmarkFailed, Load, Series, Server, parse, percentile
from benchmarks.report import latencies, rates

REPORT = """
> NOERROR name0.bench A 0.000812
> NOERROR name1.bench A 0.000682
Statistics:

  Queries sent:         3
  Queries completed:    2 (66.67%)
  Queries lost:         1 (33.33%)

  Response codes:       NOERROR 2 (100.00%)
  Run time (s):         1.000000
  Queries per second:   1234.500000
"""


def test_dnsperfs_report_is_read() -> None:
    outcome = parse(REPORT)
    assert (outcome.qps, outcome.completed, outcome.lost) == (1234.5, 2, 1)
    assert list(outcome.latencies) == [0.000812, 0.000682]


def test_a_report_that_lacks_a_figure_is_an_error_that_shows_it() -> None:
    with pytest.raises(BenchmarkFailed, match="connection refused"):
        parse("Error: connection refused")


def test_percentiles_by_nearest_rank() -> None:
    values = [float(n) for n in range(100, 0, -1)]
    assert [percentile(values, share) for share in (0.0, 0.5, 0.99, 1.0)] == [1, 51, 100, 100]
    assert percentile([7.0], 0.99) == 7.0


def test_the_load_says_what_dnsperf_is_to_do(tmp_path) -> None:  # type: ignore[no-untyped-def]
    server = Server("x", "127.0.0.11", 53, 1, "/run/netns/x")
    command = " ".join(Load(tmp_path, 3, rate=10).command(server))
    assert command.startswith("nsenter --net=/run/netns/x taskset -c 1 dnsperf -s 127.0.0.11 -p 53")
    assert command.endswith("-l 3 -Q 10 -v")
    assert Load(tmp_path, 3, tcp=True, once=True).command(server)[-4:] == ["-n", "1", "-m", "tcp"]


def test_tables_compare_with_the_first() -> None:
    ours = Series("ours", [200.0, 100.0, 300.0], [5.0, 4.0, 6.0])
    peer = Series("peer", [100.0], [10.0], lost=3)
    assert [list(row) for row in rates("t", [ours, peer]).rows] == [
        ["ours", "200", "5.00", 0, "1.00", "1.00"],
        ["peer", "100", "10.00", 3, "2.00", "0.50"],
    ]
    slow = Series("slow", [1.0], [1.0], [0.001] * 99 + [0.5])
    assert list(latencies("t", [slow]).rows[0])[1:4] == ["1,000", "500,000", "500,000"]
    assert rates("t", [ours]).document()["rows"][0]["server"] == "ours"
