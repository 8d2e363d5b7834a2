"""What the loads of layer 7 print, read."""

import pytest

from benchmarks.failure import BenchmarkFailed
from benchmarks.l7.loads import Outcome, logged, messages, streams

H2LOAD = """finished in 1.00s, 28500.00 req/s, 1.23MB/s
requests: 28600 total, 28600 started, 28500 done, 28500 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 28500 2xx, 0 3xx, 0 4xx, 0 5xx
"""


def test_h2load() -> None:
    assert streams(H2LOAD) == 28500
    for wrong in (
        H2LOAD.replace("0 failed", "3 failed"),
        H2LOAD.replace("0 errored", "1 errored"),
        H2LOAD.replace("28500 succeeded", "0 succeeded"),
        "",
    ):
        with pytest.raises(BenchmarkFailed, match="good replies"):
            streams(wrong)


def test_its_log() -> None:
    connecting = "1700000000000000\t200\t9000\n1700000000499999\t200\t9000\n"
    times = logged(connecting + "1700000000500000\t200\t1500\n1700000001000100\t200\t2500\n")
    assert times == [0.0015, 0.0025]
    assert Outcome(2, times).p(0.99) == 0.0025
    with pytest.raises(BenchmarkFailed, match="answered 503"):
        logged("1\t503\t10\n")


def test_sockets() -> None:
    assert messages("open\n57853 messages over 1000 sockets\n") == 57853
    with pytest.raises(BenchmarkFailed, match="not all sockets"):
        messages("10 messages over 999 sockets\n")
