"""dnsperf, the load: what it is told to do, and what it prints."""

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.failure import BenchmarkFailed

SHOWN = 2000  # characters of a report in an error message
BUFFER = 1024  # KiB: all outstanding replies at once, also large ones; else they are lost on arrival


@dataclass(frozen=True)
class Load:
    """The queries of a file, from its beginning, for `seconds` or `once` through.

    `rate` in queries per second, 0 for as fast as it goes: only with a rate are latencies reported.
    `clients`: sockets, over TCP connections.
    """

    queries: Path
    seconds: int = 0
    tcp: bool = False
    edns: bool = False
    clients: int = 1
    rate: int = 0
    once: bool = False

    def command(self, address: str, port: int) -> list[str]:
        command = ["dnsperf", "-s", address, "-p", str(port), "-d", str(self.queries)]
        command += ["-b", str(BUFFER), "-c", str(self.clients)]
        command += ["-n", "1"] if self.once else ["-l", str(self.seconds)]
        command += ["-m", "tcp"] if self.tcp else []
        command += ["-e"] if self.edns else []
        return command + (["-Q", str(self.rate), "-v"] if self.rate else [])


@dataclass(frozen=True)
class Outcome:
    """`latencies` in seconds, one for each reply, only where a rate was asked for."""

    qps: float
    completed: int
    lost: int
    noerror: int
    latencies: Sequence[float] = ()


def parse(text: str) -> Outcome:
    """dnsperf's report. Raises BenchmarkFailed for anything else."""
    found = re.search(r"NOERROR (\d+) \(", text)
    return Outcome(
        float(_figure(text, r"Queries per second:\s+([\d.]+)")),
        int(_figure(text, r"Queries completed:\s+(\d+)")),
        int(_figure(text, r"Queries lost:\s+(\d+)")),
        int(found[1]) if found else 0,
        [float(one) for one in re.findall(r"^> NOERROR \S+ \S+ ([\d.]+)$", text, re.MULTILINE)],
    )


def _figure(text: str, pattern: str) -> str:
    found = re.search(pattern, text)
    if found is None:
        raise BenchmarkFailed(f"dnsperf did not print {pattern!r}:\n{text[-SHOWN:]}")
    return found[1]


def check_installed() -> None:
    """Raises BenchmarkFailed."""
    if shutil.which("dnsperf") is None:
        raise BenchmarkFailed("dnsperf is not installed (try --install)")
