"""What a proxy is asked, and how the tools that ask say what came of it.

wrk       as fast as 32 connections go: over TLS as well; with `Connection: close` a new connection, and so a
          full handshake, for each request
h2load    HTTP/2: a hundred streams of one connection
paced     h2load at a fixed rate over connections that stay; each request's time is taken from its log
sockets   a thousand WebSockets (`sockets`), each with a message under way
"""

import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.failure import BenchmarkFailed
from benchmarks.figures import percentile
from benchmarks.l4.loads import requests
from benchmarks.program import SHOWN

CLIENTS = 32
STREAMS = 100
PACED_CLIENTS = 100
SOCKETS = 1000
WARM_UP_SECONDS = 0.5  # of a fixed rate: all connect at once, and so does the proxy
LATE_SHARE = 0.98  # of the requests of a fixed rate that must have been made: else the rate was not held


@dataclass(frozen=True)
class Outcome:
    """`times`: seconds for each request, where they were taken."""

    done: float
    times: Sequence[float] = ()

    def p(self, share: float) -> float:
        return percentile(self.times, share)


@dataclass(frozen=True)
class Load:
    """`argv` gets the address (`http://127.0.0.1:1234`), seconds, requests per second where those are fixed,
    and a folder for files; `read` what was printed."""

    unit: str
    argv: Callable[[str, float, float, Path], list[str]]
    read: Callable[[str, float, float, Path], Outcome]
    waits: bool = False  # says "open" when all connections are, and goes on with the next line


def wrk(path: str = "/", *options: str, script: str = "") -> Load:
    def argv(address: str, seconds: float, _rate: float, folder: Path) -> list[str]:
        words = [
            "wrk",
            "--threads",
            "1",
            "--connections",
            str(CLIENTS),
            "--duration",
            f"{seconds:g}s",
            *options,
        ]
        if script:
            (folder / "load.lua").write_text(script)
            words += ["--script", str(folder / "load.lua")]
        return [*words, address + path]

    return Load("request", argv, lambda said, _seconds, _rate, _folder: Outcome(requests(said)))


def h2load() -> Load:
    def argv(address: str, seconds: float, _rate: float, _folder: Path) -> list[str]:
        words = ["h2load", "--clients=1", f"--max-concurrent-streams={STREAMS}"]
        return [*words, f"--duration={seconds:g}", address + "/"]

    return Load("request", argv, lambda said, _seconds, _rate, _folder: Outcome(streams(said)))


def paced() -> Load:
    """A connection that waits for a response makes its next request late, and that is not seen. So there are
    many, with much time each between two requests, and all requests must have been made in the end."""

    def argv(address: str, seconds: float, rate: float, folder: Path) -> list[str]:
        return [
            *("h2load", "--h1", f"--clients={PACED_CLIENTS}", f"--rps={rate / PACED_CLIENTS:.3f}"),
            *(f"--duration={seconds:g}", f"--log-file={folder / 'paced.log'}", address + "/"),
        ]

    def read(said: str, seconds: float, rate: float, folder: Path) -> Outcome:
        log = folder / "paced.log"
        times = logged(log.read_text())
        log.unlink()
        if streams(said) < rate * seconds * LATE_SHARE:
            raise BenchmarkFailed(f"{rate:,.0f} requests/s were not held")
        return Outcome(streams(said), times)

    return Load("request", argv, read)


def sockets() -> Load:
    def argv(address: str, seconds: float, _rate: float, _folder: Path) -> list[str]:
        port = address.rpartition(":")[2]
        return [sys.executable, "-m", "benchmarks.l7.sockets", "load", port, str(SOCKETS), f"{seconds:g}"]

    return Load("message", argv, lambda said, _seconds, _rate, _folder: Outcome(messages(said)), waits=True)


# --- reading ---


def streams(said: str) -> float:
    """Of h2load. Raises BenchmarkFailed, also when some requests failed."""
    found = re.search(
        r"^requests: (\d+) total, \d+ started, (\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored",
        said,
        re.MULTILINE,
    )
    if found is None or not int(found[3]) or int(found[4]) or int(found[5]):
        raise BenchmarkFailed(f"h2load did not only see good replies:\n{said[-SHOWN:]}")
    return float(found[3])


def logged(text: str) -> list[float]:
    """Seconds of each request in h2load's log, but for the first, which wait for connections to be made.
    Raises BenchmarkFailed when one was not answered with 200."""
    times = []
    began: int | None = None
    for line in text.splitlines():
        start, status, took = line.split("\t")[:3]
        if status != "200":
            raise BenchmarkFailed(f"a request was answered {status}")
        began = int(start) if began is None else began
        if int(start) - began >= WARM_UP_SECONDS * 1e6:
            times.append(int(took) / 1e6)
    return times


def messages(said: str) -> float:
    """Of `sockets`. Raises BenchmarkFailed."""
    found = re.search(r"^(\d+) messages over (\d+) sockets$", said, re.MULTILINE)
    if found is None or int(found[2]) != SOCKETS:
        raise BenchmarkFailed(f"not all sockets were open:\n{said[-SHOWN:]}")
    return float(found[1])
