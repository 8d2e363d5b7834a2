"""How long the kernel's rules take to follow one task that ends, among ever more services.

Through the sidecar's own code: from the change of the catalogue to the end of the transaction, in the
namespace of one container (virtual IPs, `Capture`) and in the ingress namespace (published ports, `Ingress`).
Beside it the same as text, in a library context and given to the `nft` program: what batches save us.
"""

import asyncio
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from time import perf_counter

from benchmarks.figures import percentile, ratio
from benchmarks.l4.carrying import INGRESS, OVERLAY, endpoint
from benchmarks.l4.world import BOX, World, worlds
from benchmarks.report import Table
from mesh.catalog.model import Attachment, Container, Network, Port, Service, ServiceNetwork, Task, TaskState
from mesh.catalog.snapshot import Change, Snapshot
from mesh.catalog.store import Store
from mesh.kernel.capture import ContainerCapture
from mesh.kernel.firewall.forward_chain import Firewall
from mesh.kernel.ingress import IngressRules
from mesh.kernel.netfilter import nft
from mesh.kernel.netfilter.interfaces import TableHandle as Loaded
from mesh.kernel.netfilter.transaction import Transaction, as_text
from mesh.kernel.table import Tables
from mesh.net.netns import Namespace, NamespaceWorker
from mesh.net.tasks import Tasks

SERVICES = (10, 100, 1000)
TASKS = 3  # of each service; one of them ends and begins in turn
CHANGES = 50  # at each size, of each kind
FIRST_PORT = 20_000
LIMIT = 60.0  # seconds for one step; loading all of 1,000 services is the longest


@dataclass
class Samples:
    """Seconds, of one way at one size."""

    where: str
    services: int
    through: list[float] = field(default_factory=list)  # all of the sidecar's code
    alone: list[float] = field(default_factory=list)  # the transaction, in a library context
    program: list[float] = field(default_factory=list)  # the transaction, by the nft program


def measured() -> Table:
    """Blocking; needs root."""
    found = []
    for services in SERVICES:
        with worlds() as wires:
            found += asyncio.run(_both(wires.world(), services))
        print(".", end="", file=sys.stderr, flush=True)
    return table(found)


def table(found: Sequence[Samples]) -> Table:
    rows = []
    for one in found:
        first = next(other for other in found if other.where == one.where)
        rows.append(
            (
                one.where,
                f"{one.services:,}",
                _ms(median(one.through)),
                _ms(percentile(one.through, 0.99)),
                ratio(median(one.through), median(first.through)),
                _ms(median(one.alone)),
                _ms(median(one.program)),
            )
        )
    fewest = f"{found[0].services:,}"
    head = ("rules", "services", "change ms", "p99 ms", f"beside {fewest}", "library ms", "nft program ms")
    title = f"updates: one task of one service ends or begins, {CHANGES} times"
    return Table(title, head, rows, [vars(one) for one in found])


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.2f}"


# --- what is loaded ----------------------------------------------------------------------------------------


class Watched:
    """The sidecar's own tables, and when which text was loaded into the namespace that is watched."""

    def __init__(self, tables: Tables, path: str | None) -> None:
        self._tables = tables
        self._path = path
        self.loaded: asyncio.Queue[str] = asyncio.Queue()

    async def open(self, path: str | None) -> Loaded:
        opened = await self._tables.open(path)
        return WatchedTable(opened, self.loaded) if path is not None and self._is(path) else opened

    async def clear(self, path: str | None) -> bool:
        return await self._tables.clear(path)

    def _is(self, path: str) -> bool:
        """The ingress namespace is opened by the name that Docker gives it."""
        return path == self._path or path.endswith("/ingress_sbox")


class WatchedTable:
    def __init__(self, opened: Loaded, loaded: "asyncio.Queue[str]") -> None:
        self._opened = opened
        self._loaded = loaded

    async def load(self, text: str) -> None:
        await self._opened.load(text)
        self._loaded.put_nowait(text)

    async def change(self, transaction: Transaction) -> None:
        await self._opened.change(transaction)
        self._loaded.put_nowait(as_text(transaction))

    async def ask(self, *texts: str) -> str:
        return await self._opened.ask(*texts)

    def beat(self) -> None:
        self._opened.beat()

    async def close(self) -> None:
        await self._opened.close()


class NoFirewall(Firewall):
    """This machine's firewall is not the entry node's."""

    async def allow(self, sandbox: str, bridge: str) -> bool:
        return False

    async def remove(self) -> int:
        return 0


# --- the catalogue -----------------------------------------------------------------------------------------


def catalogue(services: int, box: str) -> Snapshot:
    """Each with a virtual IP and a published port."""
    made = [service(number) for number in range(services)]
    asking = Container("box", "box", box, (Attachment(OVERLAY, BOX),))
    return Snapshot().apply(
        Change(
            networks={
                INGRESS: Network(INGRESS, INGRESS, ingress=True),
                OVERLAY: Network(OVERLAY, OVERLAY),
            },
            services={one.id: one for one in made},
            containers={asking.id: asking},
        )
    )


def service(number: int) -> Service:
    name = f"s{number}"
    return Service(
        name,
        name,
        networks=(ServiceNetwork(OVERLAY, f"10.1.{number >> 8}.{number & 255}"),),
        ports=(Port(FIRST_PORT + number, 8080),),
        tasks=tuple(_task(name, number * TASKS + slot) for slot in range(TASKS)),
    )


def _task(service: str, number: int) -> Task:
    address = f"10.2.{number >> 8}.{number & 255}"
    name = f"{service}.{address}"
    return Task(name, name, "node", TaskState.RUNNING, {INGRESS: address, OVERLAY: address})


def one_less(whole: Service) -> Service:
    """Its last task ends."""
    last = replace(whole.tasks[-1], state=TaskState.DEAD)
    return replace(whole, tasks=(*whole.tasks[:-1], last))


# --- measuring ---------------------------------------------------------------------------------------------


async def _both(world: World, services: int) -> list[Samples]:
    def capture(tasks: Tasks, tables: Watched, _: NamespaceWorker) -> ContainerCapture:
        return ContainerCapture(tasks, tables, endpoint)

    def ingress(tasks: Tasks, tables: Watched, worker: NamespaceWorker) -> IngressRules:
        netns, entry = str(world.netns), world.entry.path
        return IngressRules(tasks, tables, worker, netns_dir=netns, host=entry, firewall=NoFirewall())

    return [
        await _follow("virtual IPs", world.box, world, services, capture),
        await _follow("published ports", world.sandbox, world, services, ingress),
    ]


async def _follow(
    where: str,
    watched: Namespace,
    world: World,
    services: int,
    make: Callable[[Tasks, Watched, NamespaceWorker], ContainerCapture | IngressRules],
) -> Samples:
    samples = Samples(where, services)
    tasks = Tasks(lambda name, error: sys.exit(f"{name}: {error!r}"))
    worker = NamespaceWorker()
    tables = Watched(Tables(worker), watched.path)
    assert world.box.path is not None
    store = Store(lambda error: sys.exit(repr(error)), catalogue(services, world.box.path))
    part = make(tasks, tables, worker)
    store.subscribe(part.update)
    part.start(store.current)
    try:
        await asyncio.wait_for(tables.loaded.get(), LIMIT)
        texts = await _changes(store, tables, samples)
        _again(watched, texts, samples)
    finally:
        await part.close()
        await tasks.close()
        worker.close()
    return samples


async def _changes(store: Store, tables: Watched, samples: Samples) -> list[str]:
    """One service after the other; returns the transactions of the last one."""
    texts: list[str] = []
    whole = list(store.current.services.values())
    for number in range(-1, CHANGES):
        one = whole[number * len(whole) // CHANGES]
        texts = []
        for state in (one_less(one), one):
            started = perf_counter()
            store.publish(Change(services={one.id: state}))
            texts.append(await asyncio.wait_for(tables.loaded.get(), LIMIT))
            if number >= 0:  # before that the rest is still being loaded, which a change waits for
                samples.through.append(perf_counter() - started)
    return texts


def _again(watched: Namespace, texts: Sequence[str], samples: Samples) -> None:
    """The same transactions once more, without our code around them."""
    context = watched.call(nft.Context)
    try:
        for _ in range(CHANGES):
            for text in texts:
                samples.alone.append(_timed(lambda text=text: context.run(text)))  # type: ignore[misc]
                samples.program.append(_timed(lambda text=text: watched.call(lambda: _spawn(text))))  # type: ignore[misc]
    finally:
        context.close()


def _spawn(text: str) -> None:
    subprocess.run(["nft", "-f", "-"], input=text, text=True, check=True, capture_output=True, timeout=LIMIT)


def _timed(work: Callable[[], object]) -> float:
    started = perf_counter()
    work()
    return perf_counter() - started
