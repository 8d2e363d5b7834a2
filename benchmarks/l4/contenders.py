"""Who takes part: the plain wires, ours in the kernel, ours as a relay, and the peers' relays."""

import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import program
from benchmarks.l4 import programs
from benchmarks.l4.carrying import (
    BULK,
    BULK_KEPT,
    BULK_KERNEL,
    BULK_RELAY,
    BULK_VIP,
    WEB,
    WEB_KEPT,
    WEB_KERNEL,
    WEB_RELAY,
    WEB_VIP,
)
from benchmarks.l4.world import CLIENT, ENTRY, TASKS, Wires, World
from benchmarks.measure import LOAD_CORE, SERVER_CORE, Role
from mesh.net.netns import Namespace
from tests.net.lab import eventually, inside

READY_WITHIN = 20.0  # seconds
ONE_TRY = 1.0  # seconds
BETWEEN_TRIES = 0.05  # seconds

Address = tuple[str, int]


@dataclass(frozen=True)
class Seats:
    """Which core is whose. The relay has a core of its own where it is what is measured."""

    tasks: str
    relay: str = SERVER_CORE
    load: str = LOAD_CORE


# One core for the client, one for all the rest: what a packet costs on its way shows in the rate.
SHARED = Seats(tasks=SERVER_CORE)
# Both cores for everybody: for relays that use more than one.
EVERYWHERE = Seats(*3 * [f"{SERVER_CORE},{LOAD_CORE}"])
# One core for the relay alone: it is the bottleneck, or its share of the core says how far it is from that.
ALONE = Seats(tasks=LOAD_CORE)


@dataclass(frozen=True)
class Running:
    """Where the load goes, from where, and the processes that serve it: its own (a relay) and the tasks'."""

    name: str
    role: Role
    client: Namespace
    web: Address
    bulk: Address
    pid: int | None
    tasks: Sequence[int]
    world: World


# Starts a contender on wires of its own, with these seats.
Contender = Callable[[Wires, Seats], AbstractContextManager[Running]]


@contextmanager
def direct(wires: Wires, seats: Seats) -> Iterator[Running]:
    """The same hops as a published port, without a rule of ours on the way."""
    world = wires.world(routed=True)
    with _tasks(world, seats) as tasks:
        bulk, web = (TASKS[0], BULK), (TASKS[0], WEB)
        yield Running("direct", Role.FLOOR, world.client, web, bulk, None, tasks, world)


@contextmanager
def bare(wires: Wires, seats: Seats) -> Iterator[Running]:
    """The same hops without any rule, so that nothing is tracked: no node of a Swarm is like that."""
    world = wires.world(routed=True, bare=True)
    with _tasks(world, seats) as tasks:
        bulk, web = (TASKS[0], BULK), (TASKS[0], WEB)
        yield Running("direct, no rules", Role.FLOOR, world.client, web, bulk, None, tasks, world)


@contextmanager
def kernel(wires: Wires, seats: Seats) -> Iterator[Running]:
    """A published port in the kernel, by rules that our process has loaded; tasks see the entry node."""
    web, bulk = (ENTRY, WEB_KERNEL), (ENTRY, BULK_KERNEL)
    with _ours(wires, seats, web, bulk, lambda world: world.client) as (world, _, tasks):
        yield Running("ours masquerading", Role.OURS, world.client, web, bulk, None, tasks, world)


@contextmanager
def kept(wires: Wires, seats: Seats) -> Iterator[Running]:
    """A published port in the kernel, and the task sees the client's own address."""
    web, bulk = (ENTRY, WEB_KEPT), (ENTRY, BULK_KEPT)
    with _ours(wires, seats, web, bulk, lambda world: world.client) as (world, _, tasks):
        eventually(lambda: who_asks(world.client, web) == CLIENT, "tasks see the client's own address")
        yield Running("ours kernel", Role.OURS, world.client, web, bulk, None, tasks, world)


@contextmanager
def direct_from_box(wires: Wires, seats: Seats) -> Iterator[Running]:
    """A container to a task's own address, with Docker's own rules."""
    world = wires.world()
    with _tasks(world, seats) as tasks:
        bulk, web = (TASKS[0], BULK), (TASKS[0], WEB)
        yield Running("direct", Role.FLOOR, world.box, web, bulk, None, tasks, world)


@contextmanager
def vip(wires: Wires, seats: Seats) -> Iterator[Running]:
    """A container to a virtual IP."""
    web, bulk = (WEB_VIP, WEB), (BULK_VIP, BULK)
    with _ours(wires, seats, web, bulk, lambda world: world.box) as (world, _, tasks):
        yield Running("ours VIP", Role.OURS, world.box, web, bulk, None, tasks, world)


@contextmanager
def relay(wires: Wires, seats: Seats) -> Iterator[Running]:
    """A published port with `mode: proxy`."""
    with relay_of(1, "ours")(wires, seats) as running:
        yield running


def relay_of(processes: int, name: str) -> Contender:
    """The same, by so many processes."""

    @contextmanager
    def running(wires: Wires, seats: Seats) -> Iterator[Running]:
        web, bulk = (ENTRY, WEB_RELAY), (ENTRY, BULK_RELAY)
        started = _ours(wires, seats, web, bulk, lambda world: world.client, processes)
        with started as (world, pid, tasks):
            yield Running(name, Role.OURS, world.client, web, bulk, pid, tasks, world)

    return running


def peer(one: programs.Relay) -> Contender:
    @contextmanager
    def running(wires: Wires, seats: Seats) -> Iterator[Running]:
        world = wires.world()
        web, bulk = (ENTRY, WEB_KERNEL), (ENTRY, BULK_KERNEL)
        with ExitStack() as stack:
            tasks = stack.enter_context(_tasks(world, seats))
            argv = one.argv(Path(stack.enter_context(tempfile.TemporaryDirectory())))
            started = _program(one.name, argv, world.entry, seats.relay, world.client, web, bulk)
            pid = stack.enter_context(started)
            yield Running(one.name, Role.PEER, world.client, web, bulk, pid, tasks, world)

    return running


def peers(*, roomy: bool = False) -> list[Contender]:
    """Those that can run here; `roomy`: and take as many connections as there may be."""
    return [peer(one) for one in programs.RELAYS if one.installed and (one.roomy or not roomy)]


@contextmanager
def _ours(
    wires: Wires,
    seats: Seats,
    web: Address,
    bulk: Address,
    client: Callable[[World], Namespace],
    processes: int = 1,
) -> Iterator[tuple[World, int, Sequence[int]]]:
    world = wires.world()
    assert world.box.path is not None
    assert world.tasks.path is not None
    argv = programs.ours(world.netns, world.box.path, world.tasks.path, processes)
    with (
        _tasks(world, seats) as tasks,
        _program("ours", argv, world.entry, seats.relay, client(world), web, bulk) as pid,
    ):
        yield world, pid, tasks


@contextmanager
def _tasks(world: World, seats: Seats) -> Iterator[Sequence[int]]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        argvs = {WEB: programs.web(folder), BULK: programs.bulk()}
        yield [
            stack.enter_context(
                _program("the tasks", argv, world.tasks, seats.tasks, world.tasks, (TASKS[0], port))
            )
            for port, argv in argvs.items()
        ]


@contextmanager
def _program(
    name: str, argv: Sequence[str], where: Namespace, core: str, client: Namespace, *ready: Address
) -> Iterator[int]:
    """Its process number, once the client can connect to all of these."""

    def fault(process: "subprocess.Popen[bytes]") -> str:
        end = time.monotonic() + READY_WITHIN
        waiting = list(ready)
        while waiting and time.monotonic() < end:
            if process.poll() is not None:
                return f"ended with status {process.returncode}"
            if _connects(client, waiting[0]):
                del waiting[0]
            else:
                time.sleep(BETWEEN_TRIES)
        return f"cannot be reached within {READY_WITHIN:.0f} s at {waiting}" if waiting else ""

    with program.running(name, argv, core, fault, ("nsenter", f"--net={where.path}")) as process:
        yield process.pid


def who_asks(client: Namespace, web: Address) -> str:
    """As which address a task sees the client."""
    return inside(client, "curl", "-s", "-m", "5", "http://{}:{}/who".format(*web))


def _connects(client: Namespace, address: Address) -> bool:
    with client.tcp_socket() as asking:
        asking.settimeout(ONE_TRY)
        return asking.connect_ex(address) == 0
