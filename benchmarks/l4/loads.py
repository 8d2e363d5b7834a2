"""What the client does, told to iperf3 and wrk, and what they print → units and seconds.

bulk          one connection, all it can carry        a unit is a gigabyte
connections   a new connection for each request       a unit is a connection
messages      requests of 40 bytes on connections that stay, a reply before the next   a unit is a request
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.failure import BenchmarkFailed

CLIENTS = 32  # connections at a time
GIGA = 1e9
SHOWN = 2000  # characters of a report in an error message


@dataclass(frozen=True)
class Load:
    """`unit` and `per_second` are words for tables; `shown` divides a rate for them."""

    title: str
    per_second: str
    unit: str
    command: Callable[[str, int, float], list[str]]
    parse: Callable[[str], float]  # units in all
    shown: Callable[[float], str]
    to_bulk: bool = False  # which of the two services


def _iperf3(address: str, port: int, seconds: float) -> list[str]:
    return ["iperf3", "--client", address, "--port", str(port), "--time", f"{seconds:g}", "--json"]


def gigabytes(report: str) -> float:
    """As received. Raises BenchmarkFailed."""
    try:
        data = json.loads(report)
        if "error" in data:
            raise BenchmarkFailed(f"iperf3: {data['error']}")
        return float(data["end"]["sum_received"]["bytes"]) / GIGA
    except (ValueError, KeyError) as error:
        raise BenchmarkFailed(f"iperf3 did not print its JSON:\n{report[-SHOWN:]}") from error


def _wrk(*headers: str) -> Callable[[str, int, float], list[str]]:
    def command(address: str, port: int, seconds: float) -> list[str]:
        said = [word for header in headers for word in ("--header", header)]
        load = ["--threads", "1", "--connections", str(CLIENTS), "--duration", f"{seconds:g}s"]
        return ["wrk", *load, *said, f"http://{address}:{port}/"]

    return command


def requests(report: str) -> float:
    """Raises BenchmarkFailed, also when some went wrong: what is fast and wrong is not fast."""
    found = re.search(r"^\s*(\d+) requests in ", report, re.MULTILINE)
    wrong: Sequence[str] = re.findall(r"^\s*(Socket errors:.*|Non-2xx.*)$", report, re.MULTILINE)
    if found is None or int(found[1]) == 0 or wrong:
        raise BenchmarkFailed(f"wrk did not only see good replies:\n{report[-SHOWN:]}")
    return float(found[1])


def _whole(rate: float) -> str:
    return f"{rate:,.0f}"


def _bits(gigabytes_per_second: float) -> str:
    return f"{gigabytes_per_second * 8:.2f}"


BULK = Load("one bulk connection", "Gbit/s", "GB", _iperf3, gigabytes, _bits, to_bulk=True)
CONNECTIONS = Load("a new connection for each request", "connections/s", "connection",
                   _wrk("Connection: close"), requests, _whole)  # fmt: skip
MESSAGES = Load("small requests on connections that stay", "requests/s", "request", _wrk(), requests, _whole)
