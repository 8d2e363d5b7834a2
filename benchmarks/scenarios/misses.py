"""Answers that have to be made: the first one for a name, and those that differ each time."""

from collections.abc import Iterator

from benchmarks.dnsperf import Load
from benchmarks.peers import ZONE
from benchmarks.scenario import MANY, Comparison, Run
from benchmarks.served import names, tasks_names

SERVICES = 100  # in `rotation`
TASKS = (10, 50)  # of a service: a reply of 50 addresses just fits into one datagram


def misses(run: Run) -> Iterator[Comparison]:
    """Each name once: nothing that a cache in front of the answer could have."""
    load = Load(run.queries(names(MANY)), once=True)
    servers = run.in_memory(names(MANY), "--names", str(MANY))
    yield Comparison(f"misses: each of {MANY:,} names for the first time", servers, load, cold=True)


def rotation(run: Run) -> Iterator[Comparison]:
    """`tasks.NAME`, whose addresses come in another order each time."""
    for tasks in TASKS:
        known = tasks_names(SERVICES, tasks)
        options = ("--names", str(SERVICES), "--tasks", str(tasks))
        servers = run.in_memory(known, *options, probe=f"tasks.name1.{ZONE}")
        load = Load(run.queries(known), run.seconds, edns=True)
        yield Comparison(f"rotation: {SERVICES} names with {tasks} addresses each, EDNS", servers, load)
