"""What the event loop is busy with: one service of many changes, and all of them are new."""

import gc
import statistics
import sys
import time

from benchmarks.dns_served import snapshot
from benchmarks.measure import percentile
from benchmarks.peers import ZONE
from benchmarks.report import Table
from mesh.catalog.model import Service
from mesh.catalog.snapshot import Change, Snapshot
from mesh.dns.config import DnsConfig
from mesh.dns.resolver import Resolver
from mesh.dns.scope import Scope
from mesh.dns.wire import QType, query_message
from mesh.net.tasks import Tasks

SERVICES = 10_000
CHANGES = 1000
MANY = 100_000
SCOPE = Scope(networks=((ZONE, ZONE),))


def _resolver(known: Snapshot) -> Resolver:
    tasks = Tasks(lambda name, error: print(name, repr(error), file=sys.stderr))
    return Resolver(DnsConfig(upstreams=("127.0.0.1:1",)), tasks, known)


def _without_its_task(service: Service) -> Service:
    return Service(service.id, service.name, service.mode, service.networks)


def changes() -> Table:
    """One service after the other loses its task, in a catalogue that has been asked for every name."""
    now = snapshot(SERVICES)
    resolver = _resolver(now)
    for name in now.services:
        query = query_message(1, name, QType.A)
        resolver.handle(query, SCOPE, tcp=False, respond=lambda _: None)
    taken = []
    for id_ in list(now.services)[:CHANGES]:
        change = Change(services={id_: _without_its_task(now.services[id_])})
        new = now.apply(change)
        started = time.perf_counter()
        resolver.update(now, new, change)
        taken.append(time.perf_counter() - started)
        now = new
    shown = [statistics.median(taken), percentile(taken, 0.99), max(taken)]
    title = f"change: one service of {SERVICES:,}, every name cached; {CHANGES:,} times"
    return Table(title, ("median ms", "p99 ms", "max ms"), [[f"{one * 1e3:.3f}" for one in shown]], taken)


def building() -> Table:
    """A resolver for a whole catalogue, as at a start."""
    known = snapshot(MANY)
    gc.collect()
    started = time.perf_counter()
    resolver = _resolver(known)
    built = time.perf_counter() - started
    started = time.perf_counter()
    resolver.handle(query_message(1, "name1", QType.A), SCOPE, tcp=False, respond=lambda _: None)
    first = time.perf_counter() - started
    row = [f"{built * 1e3:.1f}", f"{first * 1e3:.3f}"]
    return Table(f"building: {MANY:,} services from nothing", ("resolver ms", "first answer ms"), [row])
