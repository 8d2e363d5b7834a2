"""The questions, each answered by tables."""

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.l4 import contenders, programs
from benchmarks.l4.contenders import ALONE, EVERYWHERE, SHARED
from benchmarks.l4.loads import BULK, CONNECTIONS, MESSAGES, Load
from benchmarks.l4.memory import held
from benchmarks.l4.report import paths, relays
from benchmarks.l4.turns import in_turns
from benchmarks.l4.updates import measured
from benchmarks.l4.world import worlds
from benchmarks.report import Table

LOADS = (BULK, CONNECTIONS, MESSAGES)
IDLE = 10_000  # connections
IDLE_APART = 50  # of those that a relay may hold: what else it has open
IDLE_ROUNDS = 3  # sizes hardly differ


@dataclass(frozen=True)
class Run:
    """What the command line said. `seconds` of load per contender and round."""

    rounds: int
    seconds: float


def published(run: Run) -> Iterator[Table]:
    """A published port in the kernel, beside the same hops without a rule, and beside relays."""
    for load in LOADS:
        who = (contenders.direct, contenders.bare, contenders.kept, contenders.kernel)
        yield _paths("published port, kernel", run, load, *who)


def vip(run: Run) -> Iterator[Table]:
    """A virtual IP, from a container."""
    for load in LOADS:
        yield _paths("virtual IP", run, load, contenders.direct_from_box, contenders.vip, with_peers=False)


def relay(run: Run) -> Iterator[Table]:
    """A published port in user space, beside relays."""
    for load in LOADS:
        who = [contenders.relay, *contenders.peers(), contenders.direct]
        with worlds() as wires:
            results = in_turns(wires, who, ALONE, load, run.rounds, run.seconds)
        yield relays(f"relay: {load.title}", load, results)


def cores(run: Run) -> Iterator[Table]:
    """Relays that use both cores, which client and tasks use as well."""
    for load in (CONNECTIONS, MESSAGES):
        who = [contenders.relay_of(2, "ours, 2 processes"), contenders.relay]
        who += [contenders.peer(one) for one in (programs.RELAYS[0], programs.ON_TWO_CORES) if one.installed]
        with worlds() as wires:
            results = in_turns(wires, who, EVERYWHERE, load, run.rounds, run.seconds)
        yield relays(f"relay on cores it shares with all: {load.title}", load, results)


def idle(run: Run) -> Iterator[Table]:
    """What connections cost that do nothing."""
    count = min(IDLE, programs.connections() - IDLE_APART)
    who = [contenders.relay, *contenders.peers(roomy=True), contenders.kernel]
    yield held(who, count, min(run.rounds, IDLE_ROUNDS))


def updates(_: Run) -> Iterator[Table]:
    """How soon rules follow a task."""
    yield measured()


def _paths(
    what: str,
    run: Run,
    load: Load,
    *who: contenders.Contender,
    with_peers: bool = True,
) -> Table:
    everybody = [*who, *(contenders.peers() if with_peers else ())]
    with worlds() as wires:
        results = in_turns(wires, everybody, SHARED, load, run.rounds, run.seconds)
    return paths(f"{what}: {load.title}", load, results)
