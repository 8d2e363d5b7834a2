"""What connections cost that do nothing: memory of the relay's process, entries of the kernel's tracking.

Sockets and their buffers are the kernel's and the same for every relay; they are not counted.
"""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from benchmarks.failure import BenchmarkFailed
from benchmarks.l4.contenders import ALONE, Contender, Running
from benchmarks.l4.world import World, worlds
from benchmarks.measure import Role
from benchmarks.processes import memory
from benchmarks.program import ROOT, SHOWN
from benchmarks.report import Table
from tests.net.lab import inside

END_LIMIT = 60.0  # seconds for the holder to close them all
TRACKED = "/proc/sys/net/netfilter/nf_conntrack_count"


@dataclass(frozen=True)
class Held:
    """Bytes of the relay's process per connection (None: no process), and entries of connection tracking."""

    name: str
    role: Role
    count: int
    bytes: float | None
    tracked: float


def held(contenders: Sequence[Contender], count: int, rounds: int) -> Table:
    """Each is started anew for each round, since what was freed once need not be asked for again."""
    found: list[list[Held]] = []
    for _ in range(rounds):
        found.append([_measure(one, count) for one in contenders])
        print(".", end="", file=sys.stderr, flush=True)
    return table(count, [_middle(series) for series in zip(*found, strict=True)])


def table(count: int, results: Sequence[Held]) -> Table:
    ours = next(one for one in results if one.role is Role.OURS and one.bytes is not None)
    rows = []
    for one in results:
        own: Sequence[str] = ("–", "–")
        if one.bytes is not None and ours.bytes is not None:
            own = (f"{one.bytes:,.0f}", f"{ours.bytes / one.bytes:.2f}")
        rows.append((one.name, *own, f"{one.tracked:.1f}"))
    head = ("", "bytes/connection", "ours/it", "tracked/connection")
    title = f"idle: memory of {count:,} connections that are held"
    return Table(title, head, rows, [_raw(one) for one in results])


def _measure(contender: Contender, count: int) -> Held:
    with ExitStack() as stack:
        one = stack.enter_context(contender(stack.enter_context(worlds()), ALONE))
        before, tracked = _memory(one), _tracked(one.world)
        with _holder(one, count):
            more = None if before is None else (_memory(one) or 0) - before
            entries = _tracked(one.world) - tracked
    return Held(one.name, one.role, count, None if more is None else more / count, entries / count)


@contextmanager
def _holder(one: Running, count: int) -> Iterator[None]:
    address, port = one.web
    argv = [sys.executable, "-m", "benchmarks.l4.holding", address, str(port), str(count)]
    command = ["nsenter", f"--net={one.client.path}", "taskset", "-c", ALONE.load, *argv]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, cwd=ROOT)
    assert process.stdout is not None
    try:
        if process.stdout.readline().strip() != str(count):
            _, said = process.communicate(timeout=END_LIMIT)
            raise BenchmarkFailed(f"{one.name} does not hold {count} connections: {said[-SHOWN:]}")
        yield
    finally:
        if process.poll() is None:
            process.communicate(timeout=END_LIMIT)


def _memory(one: Running) -> int | None:
    return memory(one.pid) if one.pid else None


def _tracked(world: World) -> int:
    return sum(int(inside(where, "cat", TRACKED)) for where in (world.entry, world.sandbox))


def _middle(series: Sequence[Held]) -> Held:
    first = series[0]
    sizes = [one.bytes for one in series if one.bytes is not None]
    tracked = median(one.tracked for one in series)
    return Held(first.name, first.role, first.count, median(sizes) if sizes else None, tracked)


def _raw(one: Held) -> dict[str, Any]:
    return {**asdict(one), "role": one.role.value}
