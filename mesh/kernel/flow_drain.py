"""Flows to tasks that take no new work: which are ended, and when.

New flows are led elsewhere as soon as a task leaves; conntrack keeps the old ones where they are, for
minutes, dead or alive. So:

    the task leaves   UDP flows and TCP connections whose SYN has not been answered are ended at once: the
                      next datagram, the next SYN, goes to another task (the UDP black hole of moby#36878).
                      Established connections go on, until they end or the port's drain time is over.
    it has ended      all of its flows are ended: a client's next packet is refused by another task.

A task that is merely unwell (it fails its probe) is treated like one that leaves, but for the drain time: its
established connections may be all that is well about it.

A namespace is looked at after a transaction there no longer leads to the task (`left`), or it would only lead
there again. The looks have a thread of their own: rules must not wait for them.

An address can be another task's by the time that its old one is known to have ended. Whoever serves there now
keeps its flows.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

from mesh.catalog.model import Service, Task, TaskState
from mesh.catalog.snapshot import Change, Snapshot
from mesh.errors import KernelError, NamespaceGone
from mesh.kernel.netfilter import conntrack
from mesh.kernel.netfilter.ctnetlink import TCP, Flow, FlowMatch
from mesh.labels.ports import plan
from mesh.net.netns import NamespaceWorker
from mesh.net.reconciler import Reconciler
from mesh.net.tasks import Tasks

logger = logging.getLogger(__name__)

DRAIN_SECONDS = 30.0  # of a service without published ports
ADDRESSES_MAX = 16_384  # of leaving and ended tasks that are remembered; of more, flows run out by themselves
ENDED_KEPT_SECONDS = 30.0  # an ended task is remembered: some namespace may be slow to lead elsewhere
LOOKS_MAX = (
    4  # at one namespace in a row, of conntrack.FLOWS_MAX flows each: together the kernel's usual limit
)
SERVING = (TaskState.RUNNING, TaskState.STARTING)


@dataclass(slots=True)
class _Gone:
    """An address whose task takes no new work."""

    service: str
    over: bool  # all its flows are to be ended: the task has ended, or its drain time
    places: set[str | None] = field(default_factory=set)  # namespaces that lead elsewhere now
    timer: asyncio.TimerHandle | None = None


class Flows:
    """Subscribe `update` to the store ahead of those who call `left`, then `start`; `close` at the end. The
    worker should be nobody else's."""

    def __init__(self, tasks: Tasks, worker: NamespaceWorker) -> None:
        self._worker = worker
        self._gone: dict[str, _Gone] = {}  # by address
        self._serving: dict[str, str] = {}  # address → the service whose task serves there
        self._due: defaultdict[str | None, set[str]] = defaultdict(set)  # namespace → addresses
        self.ended = 0  # flows, for the metrics
        self._reconciler = Reconciler(tasks, "flows", self._work)
        self._reconciler.start()

    def start(self, snapshot: Snapshot) -> None:
        """Begin with what is known; later changes come through `update`."""
        for id_, service in snapshot.services.items():
            self._note(id_, {}, _addresses(service))

    def restart(self, snapshot: Snapshot) -> None:
        """Who serves where, anew; what has left is remembered."""
        self._serving.clear()
        self.start(snapshot)

    def update(self, old: Snapshot, new: Snapshot, change: Change) -> None:
        """Store subscriber: O(tasks of the changed services)."""
        before = {id_: _addresses(old.services.get(id_)) for id_ in change.services}
        after = {id_: _addresses(service) for id_, service in change.services.items()}
        for id_ in change.services:  # all of them first: an address may go from one to the other
            self._note(id_, before[id_], after[id_])
        for id_, service in change.services.items():
            if (known := service or old.services.get(id_)) is not None:
                self._heed(known, before[id_], after[id_])

    def left(self, place: str | None, addresses: Collection[str] | None) -> None:
        """New flows in that namespace are not led to these any more. None: to no task that has left, for all
        its rules have been loaded anew."""
        for address in self._gone if addresses is None else addresses:
            if (gone := self._gone.get(address)) is not None:
                gone.places.add(place)
                self._look(place, address)

    async def forget(self, place: str | None, destination: str) -> None:
        """End all flows to the address, as it was before any DNAT: the next packet meets the rules again."""
        try:
            self.ended += await self._worker.run(place, lambda: end_flows_to(destination))
        except NamespaceGone:
            return
        except KernelError as error:
            logger.warning("flows in %s to %s stay: %s", place or "the host", destination, error)

    async def open_to(self, place: str, destination: str) -> Mapping[str, int]:
        """Port ("80/tcp") → connections there that are open now, to the address as it was before any DNAT.
        KernelError when the kernel does not tell."""
        return await self._worker.run(place, lambda: conntrack.count_open(destination))

    async def settled(self) -> None:
        """Wait until all that was due has been looked at."""
        await self._reconciler.settled()

    async def close(self) -> None:
        for gone in self._gone.values():
            if gone.timer is not None:
                gone.timer.cancel()
        await self._reconciler.close()

    # --- tasks ---

    def _note(self, id_: str, before: Mapping[str, TaskState], after: Mapping[str, TaskState]) -> None:
        """Who serves where."""
        for address in before:
            if after.get(address) not in SERVING and self._serving.get(address) == id_:
                del self._serving[address]
        for address, state in after.items():
            if state in SERVING:
                self._serving[address] = id_
                self._forget(address)  # a new task's, or the old one's after all

    def _heed(
        self, service: Service, before: Mapping[str, TaskState], after: Mapping[str, TaskState]
    ) -> None:
        """Who serves no more, where nobody else does."""
        for address, was in before.items():
            now = after.get(address, TaskState.DEAD)
            if address in self._serving:
                continue
            if now is TaskState.UNWELL and was is TaskState.RUNNING:
                self._remember(address, service.id)
            elif now is TaskState.LEAVING and was in (TaskState.RUNNING, TaskState.UNWELL):
                self._leaves(address, service)
            elif now is TaskState.DEAD and was is not TaskState.DEAD:
                self._ends(address, service.id)

    def _leaves(self, address: str, service: Service) -> None:
        known = self._gone.get(address)  # unwell before
        if (gone := known or self._remember(address, service.id)) is not None:
            self._after(drain_of(service), gone, self._over, address)

    def _ends(self, address: str, service: str) -> None:
        known = self._gone.get(address)
        if known is not None and known.service != service:
            return  # it has been another service's task's since
        if (gone := known or self._remember(address, service)) is not None:
            self._over(address)
            self._after(ENDED_KEPT_SECONDS, gone, self._forget, address)

    def _over(self, address: str) -> None:
        gone = self._gone[address]
        gone.over = True
        for place in gone.places:
            self._look(place, address)

    def _remember(self, address: str, service: str) -> _Gone | None:
        self._forget(address)
        if len(self._gone) >= ADDRESSES_MAX:
            return None
        self._gone[address] = _Gone(service, over=False)
        return self._gone[address]

    def _forget(self, address: str) -> None:
        gone = self._gone.pop(address, None)
        if gone is not None and gone.timer is not None:
            gone.timer.cancel()

    def _after(self, seconds: float, gone: _Gone, step: Callable[[str], None], address: str) -> None:
        if gone.timer is not None:
            gone.timer.cancel()
        gone.timer = asyncio.get_running_loop().call_later(seconds, step, address)

    # --- flows ---

    def _look(self, place: str | None, address: str) -> None:
        self._due[place].add(address)
        self._reconciler.wake()

    async def _work(self) -> bool:
        """One round: all that is due. Flows that could not be ended run out by themselves."""
        while self._due:
            place, addresses = self._due.popitem()
            await self._end_flows(place, addresses)
        return True

    async def _end_flows(self, place: str | None, addresses: Iterable[str]) -> None:
        wanted = {address: self._gone[address].over for address in addresses if address in self._gone}
        try:
            self.ended += await self._worker.run(place, lambda: end_flows(wanted))
        except NamespaceGone:
            for address in wanted:
                if address in self._gone:
                    self._gone[address].places.discard(place)
        except KernelError as error:
            logger.warning("flows in %s to tasks that have left stay: %s", place or "the host", error)


def end_flows(addresses: Mapping[str, bool]) -> int:
    """End flows in the calling thread's namespace: all, or (False) those that lose nothing. Blocking."""
    if not addresses or not conntrack.count():
        return 0
    ended = 0
    for _ in range(LOOKS_MAX):
        found = conntrack.find_led(
            addresses, lambda flow: addresses[flow.reply.source] or loses_nothing(flow)
        )
        ended += conntrack.delete(found)
        if len(found) < conntrack.FLOWS_MAX:
            break
    return ended


def end_flows_to(destination: str) -> int:
    """In the calling thread's namespace. Blocking."""
    if not conntrack.count():
        return 0
    return conntrack.delete(conntrack.find(FlowMatch(destination=destination)))


def loses_nothing(flow: Flow) -> bool:
    """Another task can take it over: a datagram's flow, or a connection that has not begun."""
    return flow.protocol != TCP or flow.beginning


def drain_of(service: Service) -> float:
    """How long the service's established connections may go on: the longest of its ports. Seconds."""
    return max((one.drain for one in plan(service).ports), default=DRAIN_SECONDS)


def _addresses(service: Service | None) -> dict[str, TaskState]:
    """Every address of the service's tasks. Where two have one, that which lives counts."""
    found: dict[str, TaskState] = {}
    for task in sorted(service.tasks if service else (), key=_liveliest_last):
        found |= dict.fromkeys(task.addresses.values(), task.state)
    return found


_ORDER = (TaskState.DEAD, TaskState.LEAVING, TaskState.UNWELL, TaskState.STARTING, TaskState.RUNNING)


def _liveliest_last(task: Task) -> int:
    return _ORDER.index(task.state)
