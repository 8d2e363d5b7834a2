"""The method: all contenders are up, one at a time is loaded, and the turns alternate.

Each round gives one sample per contender, and a round's samples are compared with each other: whatever else
the machine does hits them all. CPU time is that of the processes; what the kernel does for a packet runs in
the process that sent it, on veth pairs at least, and is counted there, but for what is left to ksoftirqd.
"""

import resource
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from statistics import median

from benchmarks.failure import BenchmarkFailed
from benchmarks.l4.contenders import Contender, Running, Seats
from benchmarks.l4.loads import Load
from benchmarks.l4.world import Wires
from benchmarks.measure import GRACE, Role
from benchmarks.processes import cpu_seconds
from benchmarks.program import SHOWN

WARM_UP = 1.0  # seconds: the shortest that both load programs take


@dataclass
class Series:
    """Round by round. CPU in seconds per unit: of the relay alone, and of all that took part."""

    name: str
    role: Role
    rate: list[float] = field(default_factory=list)  # units per second
    own: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)

    @property
    def has_process(self) -> bool:
        return bool(self.own)

    @property
    def per_core(self) -> float:
        """What a core of the relay's could do, were nothing else in the way. Of relays only."""
        return 1 / median(self.own)

    @property
    def busy(self) -> float:
        """Share of its core. Of relays only."""
        return median(rate * own for rate, own in zip(self.rate, self.own, strict=True))


def in_turns(
    wires: Wires, contenders: Sequence[Contender], seats: Seats, load: Load, rounds: int, seconds: float
) -> list[Series]:
    with ExitStack() as stack:
        running = [stack.enter_context(one(wires, seats)) for one in contenders]
        results = [Series(one.name, one.role) for one in running]
        for one in running:
            _run(one, seats, load, WARM_UP)
        for _ in range(rounds):
            for series, one in zip(results, running, strict=True):
                _add(series, one, seats, load, seconds)
            print(".", end="", file=sys.stderr, flush=True)
    return results


def _add(series: Series, one: Running, seats: Seats, load: Load, seconds: float) -> None:
    tasks, own = _cpu(one.tasks), _cpu([one.pid] if one.pid else [])
    client = _children()
    units = _run(one, seats, load, seconds)
    client = _children() - client
    own = _cpu([one.pid] if one.pid else []) - own
    tasks = _cpu(one.tasks) - tasks
    series.rate.append(units / seconds)
    series.whole.append((own + tasks + client) / units)
    if one.pid:
        series.own.append(own / units)


def _cpu(pids: Sequence[int]) -> float:
    return sum(cpu_seconds(pid) for pid in pids)


def _children() -> float:
    """CPU time of the load programs, all of which have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _run(one: Running, seats: Seats, load: Load, seconds: float) -> float:
    """Units done. Raises BenchmarkFailed."""
    address, port = one.bulk if load.to_bulk else one.web
    inside = ["nsenter", f"--net={one.client.path}", "taskset", "-c", seats.load]
    command = [*inside, *load.command(address, port, seconds)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + GRACE, check=True)
        return load.parse(done.stdout)
    except subprocess.CalledProcessError as error:
        raise BenchmarkFailed(f"{one.name}: {(error.stdout + error.stderr)[-SHOWN:]}") from error
    except subprocess.TimeoutExpired as error:
        raise BenchmarkFailed(f"{one.name}: the load took too long") from error
    except BenchmarkFailed as failed:
        raise BenchmarkFailed(f"{one.name}: {failed}") from failed
