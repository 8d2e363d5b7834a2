"""Answers from memory: how many, how soon, and with how many names."""

from collections.abc import Iterator

from benchmarks.dnsperf import Load
from benchmarks.measure import Server
from benchmarks.report import flatness, latencies
from benchmarks.scenario import FEW, FIRST_PORT, MANY, Comparison, Run, echo, ours
from benchmarks.served import names

CONNECTIONS = 10
FIXED_RATE = 10_000  # queries per second
SIZES = (10, 1000, 10_000, 100_000)  # names


def local(run: Run) -> Iterator[Comparison]:
    """A answers, few names and many; the echo is what no answer at all costs."""
    for count in (FEW, MANY):
        servers = [*run.in_memory(names(count), "--names", str(count)), echo()]
        load = Load(run.queries(names(count)), run.seconds)
        yield Comparison(f"local: A from memory, {count:,} names, UDP", servers, load)


def tcp(run: Run) -> Iterator[Comparison]:
    """Over TCP, on connections that stay."""
    load = Load(run.queries(names(FEW)), run.seconds, tcp=True, clients=CONNECTIONS)
    servers = run.in_memory(names(FEW), "--names", str(FEW), tcp=True)
    yield Comparison(f"tcp: A from memory, {FEW:,} names, {CONNECTIONS} connections", servers, load)


def latency(run: Run) -> Iterator[Comparison]:
    """At a rate that everybody can keep up with."""
    load = Load(run.queries(names(FEW)), run.seconds, rate=FIXED_RATE)
    servers = [*run.in_memory(names(FEW), "--names", str(FEW)), echo()]
    yield Comparison(f"latency: {FIXED_RATE:,} queries a second, {FEW:,} names", servers, load, latencies)


def growth(run: Run) -> Iterator[Comparison]:
    """Ours with ever more names, all of which are asked for."""
    sizes = dict(enumerate(SIZES, FIRST_PORT))
    queries = {port: run.queries(names(size)) for port, size in sizes.items()}
    servers = [ours(port, "--names", str(size), name=f"{size:,} names") for port, size in sizes.items()]

    def load(server: Server) -> Load:
        return Load(queries[server.port], run.seconds)

    yield Comparison("growth: ours with more and more names", servers, load, flatness)
