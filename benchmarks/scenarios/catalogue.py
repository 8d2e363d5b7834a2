"""How long the event loop is busy with the catalogue: nobody is answered in the meantime."""

import gc
import statistics
from collections.abc import Iterator
from time import perf_counter

from benchmarks.figures import percentile
from benchmarks.peers import ZONE
from benchmarks.report import Table
from benchmarks.scenario import MANY, Run
from benchmarks.served import names, resolver, snapshot
from mesh.catalog.model import Service
from mesh.catalog.snapshot import Change
from mesh.dns.resolver import Resolver
from mesh.dns.scope import Scope
from mesh.dns.wire import QType, query_message

SERVICES = 10_000
CHANGES = 1000
SCOPE = Scope(networks=((ZONE, ZONE),))


def change(run: Run) -> Iterator[Table]:
    yield _one_of_many()
    yield _from_nothing(run.rounds)
    yield _collected()


def _one_of_many() -> Table:
    """One service after the other loses its task, and every name has been asked for."""
    now = snapshot(SERVICES)
    answering = resolver(now)
    answering.view(SCOPE, tcp=False)
    for name in now.services:
        _ask(answering, name)
    if answering.cache.replies < SERVICES:
        raise AssertionError("the cache is not warm: what is measured would be less than it costs")
    applied, updated = [], []
    for id_ in list(now.services)[:CHANGES]:
        had = now.services[id_]
        lost = Change(services={id_: Service(had.id, had.name, had.mode, had.networks)})
        started = perf_counter()
        new = now.apply(lost)
        known = perf_counter()
        answering.update(now, new, lost)
        updated.append(perf_counter() - known)
        applied.append(known - started)
        now = new
    title = f"change: a task of one service of {SERVICES:,} ends, every name cached; {CHANGES:,} times"
    rows = [_row("the catalogue's next snapshot", applied), _row("the resolver's update", updated)]
    return Table(title, ("", "median µs", "p99 µs", "max µs"), rows, {"apply": applied, "update": updated})


def _row(step: str, seconds: list[float]) -> tuple[str, ...]:
    shown = (statistics.median(seconds), percentile(seconds, 0.99), max(seconds))
    return step, *(f"{one * 1e6:,.0f}" for one in shown)


def _from_nothing(rounds: int) -> Table:
    """The steps of a start, each of them one pause of the loop."""
    steps: dict[str, list[float]] = {"resolver": [], "first asker": [], "first answer": []}
    known = snapshot(MANY)
    for _ in range(rounds):
        gc.collect()
        started = perf_counter()
        answering = resolver(known)
        made = perf_counter()
        answering.view(SCOPE, tcp=False)
        seen = perf_counter()
        _ask(answering, "name1")
        answered = perf_counter()
        for step, seconds in zip(steps, (made - started, seen - made, answered - seen), strict=True):
            steps[step].append(seconds)
    medians = {step: statistics.median(taken) for step, taken in steps.items()}
    longest = max(max(taken) for taken in steps.values())
    row = [f"{one * 1e3:,.2f}" for one in (*medians.values(), sum(medians.values()), longest)]
    head = (*(f"{step} ms" for step in steps), "in all ms", "longest pause ms")
    return Table(f"change: {MANY:,} services from nothing, medians of {rounds}", head, [row], steps)


def _collected() -> Table:
    """The pauses that the garbage collector makes of its own while every name is asked for the first time."""
    answering = resolver(snapshot(MANY))
    answering.view(SCOPE, tcp=False)
    pauses: dict[int, list[float]] = {0: [], 1: [], 2: []}
    began = 0.0

    def note(phase: str, info: dict[str, int]) -> None:
        nonlocal began
        if phase == "start":
            began = perf_counter()
        else:
            pauses[info["generation"]].append(perf_counter() - began)

    gc.callbacks.append(note)
    try:
        for name in names(MANY):
            _ask(answering, name.removesuffix(f".{ZONE}"))
    finally:
        gc.callbacks.remove(note)
    rows = [
        (generation, len(taken), f"{sum(taken) * 1e3:,.1f}", f"{max(taken, default=0.0) * 1e3:,.1f}")
        for generation, taken in pauses.items()
    ]
    title = f"change: garbage collection while {MANY:,} names are asked for the first time"
    return Table(title, ("generation", "times", "in all ms", "longest pause ms"), rows, pauses)


def _ask(answering: Resolver, name: str) -> None:
    query = query_message(1, name, QType.A)
    reply = answering.handle(query, SCOPE, tcp=False, respond=lambda _: None)
    assert isinstance(reply, bytes), "not a name of ours"
