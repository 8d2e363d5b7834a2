"""What dnsperf is told, and what it prints → figures."""

from pathlib import Path

import pytest

from benchmarks.dnsperf import Load, parse
from benchmarks.failure import BenchmarkFailed

REPORT = """
> NOERROR name0.bench A 0.000812
> NOERROR name1.bench A 0.000682
Statistics:

  Queries sent:         3
  Queries completed:    2 (66.67%)
  Queries lost:         1 (33.33%)

  Response codes:       NOERROR 1 (50.00%), NXDOMAIN 1 (50.00%)
  Run time (s):         1.000000
  Queries per second:   1234.500000
"""


def test_a_report_is_read() -> None:
    outcome = parse(REPORT)
    assert (outcome.qps, outcome.completed, outcome.lost, outcome.noerror) == (1234.5, 2, 1, 1)
    assert list(outcome.latencies) == [0.000812, 0.000682]


def test_no_reply_of_that_code_is_none() -> None:
    assert parse(REPORT.replace("NOERROR 1 (50.00%), ", "")).noerror == 0


def test_a_report_that_lacks_a_figure_is_an_error_that_shows_it() -> None:
    with pytest.raises(BenchmarkFailed, match="connection refused"):
        parse("Error: connection refused")


def test_a_load_says_what_is_to_be_done() -> None:
    def words(load: Load) -> str:
        return " ".join(load.command("127.0.0.11", 53))

    queries = Path("q")
    assert words(Load(queries, 3)) == "dnsperf -s 127.0.0.11 -p 53 -d q -b 1024 -c 1 -l 3"
    assert words(Load(queries, 3, rate=10)).endswith("-l 3 -Q 10 -v")
    assert words(Load(queries, tcp=True, edns=True, clients=9, once=True)).endswith("-c 9 -n 1 -m tcp -e")
