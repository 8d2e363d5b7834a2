"""The way back to outside clients, kept in the namespaces of this node's tasks (see `return_rules`).

For each local task on the ingress network: routes to every node's entry, first; then the table that marks
what came through which. Only then does this node say that the task may be sent clients' own addresses
(`current`), and only for the entries that all such tasks answer through. What was said is taken back before
anything is taken out.

An entry is kept as long as its node is up, even if its sidecar says nothing of it any more: connections that
came through it go on.

An entry's address and MAC have one owner (`mesh.catalog.entries`). Managers judge what nodes claim, and this
node judges it again: a saved view or an older manager may have let two claims through.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address

from mesh.catalog.entries import ClaimFault, EntryClaim, EntryFacts, judge
from mesh.catalog.model import NO_RETURN_PATH, Container, Network, ReturnPath
from mesh.catalog.snapshot import Change, Snapshot
from mesh.errors import KernelError, NamespaceGone, Problem
from mesh.internal_errors import ERRORS
from mesh.kernel.capture import CapturePolicy, why_not
from mesh.kernel.devconf import InterfaceSetting, write
from mesh.kernel.netfilter import conntrack, nft, nft_batch
from mesh.kernel.netfilter.ctnetlink import FlowMatch
from mesh.kernel.return_rules import (
    DELETE_RETURN,
    MARK_MASK,
    MARK_PREFIX,
    NO_ENTRY,
    RETURN_TABLE,
    RULE_PRIORITY,
    Marks,
    ReturnEntry,
    mark_of,
    return_rules,
    return_update,
)
from mesh.net import netlink, routes
from mesh.net.backoff import Backoff
from mesh.net.netns import NamespaceWorker
from mesh.net.reconciler import Reconciler
from mesh.net.tasks import Tasks

logger = logging.getLogger(__name__)

WHERE = "return path of a container"  # of `mesh.internal_errors`

FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS = 1.0, 8.0  # before a namespace that failed is looked at again
DRAIN_POLL_SECONDS = 0.25
LOOSE = 2  # rp_filter: clients are reached by another interface than they came by
DOWN = "down"  # a node's state
TASKS_MAX = 2048  # of this node that are told of, as managers take them; those beyond are masqueraded to
ENTRIES_MAX = 1024  # nodes whose entries are led to; those beyond are sent masqueraded connections


@dataclass(frozen=True, slots=True)
class _Prepared:
    """What one task's namespace has."""

    namespace: str
    address: str
    marks: Marks


class ReturnPathRules:
    """Reconciler: `start`, subscribe `update` to the store, `close` at the end. `on_change`: `current` is not
    what it was."""

    def __init__(
        self,
        tasks: Tasks,
        worker: NamespaceWorker,
        on_change: Callable[[], None],
        policy: CapturePolicy = CapturePolicy.ALL,
    ) -> None:
        self._worker = worker
        self._on_change = on_change
        self._policy = policy
        self._snapshot = Snapshot()
        self._own = NO_ENTRY
        self._claims: dict[str, EntryClaim] = {}  # by node
        self._entries: dict[str, ReturnEntry] = {}  # by node: those that are believed
        self._refused: Mapping[str, ClaimFault] = {}  # by node
        self._judged: tuple[Mapping[str, EntryClaim], EntryFacts] | None = (
            None  # of which these are the result
        )
        self._reachable: tuple[
            ReturnEntry, ...
        ] = ()  # those of them, and our own, that are on the ingress network
        self._marks: Marks = {}
        self._prepared: dict[str, _Prepared] = {}  # by container
        self._cleared: set[str] = set()  # containers that hold nothing of an earlier sidecar
        self._faults: dict[str, str] = {}
        self._backoff = Backoff(FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS)
        self._reconciler = Reconciler(tasks, "return-paths", self._work, backoff=self._backoff)
        self._said = NO_RETURN_PATH
        self._withdrawn = False
        self._looked = False

    @property
    def current(self) -> ReturnPath | None:
        """What this node says of itself; None before the first look: what an earlier sidecar said holds."""
        return self._said if self._looked else None

    @property
    def entries(self) -> Mapping[str, ReturnEntry]:
        """Node → where it enters the ingress network, as far as that is believed."""
        return dict(self._entries)

    @property
    def marks(self) -> Marks:
        """Of the entries that tasks answer through."""
        return self._marks

    @property
    def gateways(self) -> Mapping[int, str]:
        """Mark → address of the entry."""
        return self._gateways(self._marks)

    def problems(self) -> Iterator[Problem]:
        """Nodes whose claims are not believed here."""
        for id_, fault in sorted(self._refused.items()):
            node, claim = self._snapshot.nodes.get(id_), self._claims[id_]
            name = node.name if node else id_
            message = (
                f"entry {claim.address or 'without address'}, MAC {claim.mac or 'none'}: refused ({fault})"
            )
            yield Problem(f"node {name}", "return path", message)

    @property
    def faults(self) -> dict[str, str]:
        """Container → why its connections are masqueraded."""
        return dict(self._faults)

    def start(self, snapshot: Snapshot) -> None:
        """Begin with what is known; later changes come through `update`."""
        self._snapshot = snapshot
        self._heed_nodes(snapshot.nodes)
        self._reconciler.wake()
        self._reconciler.start()

    def update(self, old: Snapshot, new: Snapshot, change: Change) -> None:
        """Store subscriber, no I/O."""
        self._snapshot = new
        before = self._marks
        if change.nodes or change.networks:
            self._heed_nodes(change.nodes)
        if change.containers or change.networks or self._marks != before or _relabelled(old, new, change):
            self._reconciler.wake()
            self._withdraw_ended(change)

    def own_entry(self, entry: ReturnEntry | None) -> None:
        """Where this node's published ports enter the ingress network; None: they do not."""
        self._own = entry or NO_ENTRY
        self._heed_nodes(())
        self._say()
        self._reconciler.wake()

    def look_again(self, id_: str) -> None:
        """Somebody has flushed the rules in that container's namespace."""
        if self._prepared.pop(id_, None) is not None:
            self._say()
            self._reconciler.wake()

    def withdraw(self) -> None:
        """Say that no task may be sent clients' own addresses any more; what is set up goes on working."""
        self._withdrawn = self._looked = True
        self._say()

    async def drained(self, seconds: float) -> None:
        """Wait until no connection needs the way back any more, so long at most. (Tasks that end take theirs
        with them.)"""
        end = asyncio.get_running_loop().time() + seconds
        while asyncio.get_running_loop().time() < end:
            if not await self._connections():
                return
            await asyncio.sleep(DRAIN_POLL_SECONDS)

    async def _connections(self) -> int:
        found = 0
        for one in tuple(self._prepared.values()):
            try:
                found += await self._worker.run(one.namespace, kept_connections)
            except NamespaceGone:
                continue
            except KernelError as error:
                logger.warning("connections in %s cannot be counted: %s", one.namespace, error)
        return found

    async def close(self, *, leave: bool = False) -> None:
        """Stop; unless another sidecar is to go on from here, take everything out."""
        await self._reconciler.close()
        if leave:
            return
        self.withdraw()
        prepared, self._prepared = self._prepared, {}
        for one in prepared.values():
            try:
                await self._worker.run(one.namespace, take_out)
            except NamespaceGone:
                continue
            except KernelError as error:
                logger.warning("return path in %s stays behind: %s", one.namespace, error)

    # --- what is wanted ---

    def _heed_nodes(self, changed: Iterable[str]) -> None:
        for id_ in changed:
            node = self._snapshot.nodes.get(id_)
            if node is None or node.state == DOWN or id_ == self._snapshot.this_node:
                self._claims.pop(id_, None)  # our own is looked up, not heard of
            elif node.return_path.entry:
                self._claims[id_] = EntryClaim(node.return_path.entry, node.return_path.mac)
        network = self._snapshot.ingress_network()
        self._judge(network)
        found = (*self._entries.values(), self._own)
        marked = {one: mark for one in found if one.mac and (mark := _mark(one, network)) is not None}
        self._reachable = tuple(marked)
        marks = {one.mac: mark for one, mark in marked.items()}
        self._marks = dict(sorted(marks.items())[:ENTRIES_MAX])

    def _judge(self, network: Network | None) -> None:
        own = EntryClaim(self._own.address, self._own.mac)
        facts = EntryFacts(network.subnets if network is not None else None, own)
        if (self._claims, facts) == self._judged:
            return  # most news of nodes is of their tasks
        self._judged = dict(self._claims), facts
        held = {id_: EntryClaim(one.address, one.mac) for id_, one in self._entries.items()}
        judged = judge(self._claims, facts, held)
        for id_, fault in judged.refused.items():
            if self._refused.get(id_) != fault:
                logger.warning("return paths: the claim of node %s is refused: %s", id_, fault)
        self._refused = judged.refused
        self._entries = {id_: ReturnEntry(one.address, one.mac) for id_, one in judged.accepted.items()}

    def _address(self, container: Container) -> str:
        """On the ingress network, if it is to be looked after; else ""."""
        network = self._snapshot.ingress_network()
        service = self._snapshot.services.get(container.service)
        if network is None or why_not(container, service, self._policy, {}):
            return ""
        return next((a.address for a in container.attachments if a.network == network.id), "")

    def _withdraw_ended(self, change: Change) -> None:
        """At once: an address may soon be another task's."""
        ended = [id_ for id_, one in change.containers.items() if one is None and id_ in self._prepared]
        for id_ in ended:
            del self._prepared[id_]
        if ended:
            self._say()

    # --- work ---

    async def _work(self) -> bool:
        """One round: every container. False: some have faults, and are looked at again after the pause."""
        known = set(self._faults)
        for container in tuple(self._snapshot.containers.values()):
            await self._look_at(container)
        self._looked = True
        self._say()
        self._faults = {id_: why for id_, why in self._faults.items() if id_ in self._snapshot.containers}
        self._cleared.intersection_update(self._snapshot.containers)
        if self._faults.keys() - known:
            self._backoff.reset()
        return not self._faults

    async def _look_at(self, container: Container) -> None:
        address, marks = self._address(container), self._marks
        wanted = _Prepared(container.namespace, address, marks)
        if self._prepared.get(container.id) == wanted:
            return
        try:
            if address:
                await self._prepare(container, wanted)
            else:
                await self._let_be(container)
        except NamespaceGone:
            self._prepared.pop(container.id, None)
        except KernelError as error:
            self._prepared.pop(container.id, None)
            if self._faults.get(container.id) != str(error):
                logger.warning("return path of %s: %s", container.name, error)
            self._faults[container.id] = str(error)
        except Exception as error:  # noqa: BLE001 - the boundary of a container: others are looked after
            self._prepared.pop(container.id, None)
            ERRORS.report(WHERE, error, f"container {container.name}", "its connections are masqueraded")
            self._faults[container.id] = f"fault of ours: {error}"
        else:
            ERRORS.mended(WHERE, f"container {container.name}")
            self._faults.pop(container.id, None)
        self._say()

    async def _prepare(self, container: Container, wanted: _Prepared) -> None:
        had = self._prepared.get(container.id)
        same_place = had is not None and (had.namespace, had.address) == (wanted.namespace, wanted.address)
        before = had.marks if had is not None and same_place else None
        gateways = self._gateways(wanted.marks)
        await self._worker.run(
            wanted.namespace, lambda: put_in(wanted.address, wanted.marks, before, gateways)
        )
        if container.id in self._snapshot.containers:  # it may have ended meanwhile
            self._prepared[container.id] = wanted

    def _gateways(self, marks: Marks) -> dict[int, str]:
        """Mark → address of the entry."""
        return {marks[one.mac]: one.address for one in self._reachable if one.mac in marks}

    async def _let_be(self, container: Container) -> None:
        """Not ours (any more): nothing may stay, not of an earlier sidecar either."""
        had = self._prepared.pop(container.id, None)
        if had is None and (container.id in self._cleared or not self._may_hold(container)):
            return
        self._say()
        if container.running and container.namespace:
            await self._worker.run(container.namespace, take_out)
            self._cleared.add(container.id)

    def _may_hold(self, container: Container) -> bool:
        network = self._snapshot.ingress_network()
        return network is not None and any(a.network == network.id for a in container.attachments)

    # --- what is said ---

    def _say(self) -> None:
        if not self._looked:
            return
        said = NO_RETURN_PATH
        if not self._withdrawn and (self._own.address or self._prepared):
            tasks = sorted(one.address for one in self._prepared.values())[:TASKS_MAX]
            said = ReturnPath(self._own.address, self._own.mac, self._common(), tuple(tasks))
        if said != self._said:
            self._said = said
            self._on_change()

    def _common(self) -> tuple[str, ...]:
        """The entries that all prepared tasks answer through."""
        prepared = [one.marks for one in self._prepared.values()]
        if not prepared:
            return ()
        macs = set(prepared[0]).intersection(*prepared[1:])
        found = {one.mac: one.address for one in self._reachable}
        return tuple(sorted(found[mac] for mac in macs if mac in found))


def _relabelled(old: Snapshot, new: Snapshot, change: Change) -> bool:
    """Has a service's label changed, which may be whether its containers are ours to look after?"""
    pairs = ((old.services.get(id_), new.services.get(id_)) for id_ in change.services)
    return any((a.labels if a else None) != (b.labels if b else None) for a, b in pairs)


def _mark(entry: ReturnEntry, network: Network | None) -> int | None:
    return None if network is None else mark_of(entry.address, network.subnets)


# --- in the task's namespace; blocking ----------------------------------------------------------------------


def put_in(address: str, marks: Marks, before: Marks | None, gateways: dict[int, str]) -> None:
    """Routes first, so that no answer is marked for one that is not there. `before`: what the table has;
    None: unknown, load all of it."""
    interface = _interface_with(address)
    if not routes.has_default():
        # An answer is marked on its way out, so it needs some way out before that.
        raise KernelError("no default route, so answers to outside clients would not begin")
    write(interface, {InterfaceSetting.rp_filter: LOOSE})
    for mark in marks.values():
        if before is None or mark not in before.values():
            routes.lead(mark, gateways[mark], interface, RULE_PRIORITY)
    if before is None:
        nft.run(return_rules(interface, address, marks))
    else:
        nft_batch.change(return_update(before, marks))
    known = set(before.values()) if before else {mark for mark, _ in routes.led(MARK_PREFIX, MARK_MASK)}
    for mark in known - set(marks.values()):
        routes.forget(mark, RULE_PRIORITY)


def kept_connections() -> int:
    """Open TCP connections that answer through an entry, in the calling thread's namespace. Blocking."""
    return sum(flow.open for flow in conntrack.find(FlowMatch(mark=(MARK_PREFIX, MARK_MASK))))


def take_out() -> bool:
    """Everything of ours for the way back, from the calling thread's namespace; True if there was any."""
    had = return_path_present()
    if had:
        nft.run(DELETE_RETURN)
        routes.forget_all(MARK_PREFIX, MARK_MASK)
    return had


def return_path_present() -> bool:
    """Is anything of it in the calling thread's namespace?"""
    table = f"table ip {RETURN_TABLE}\n" in nft.run("list tables ip\n")
    return table or bool(routes.led(MARK_PREFIX, MARK_MASK))


def _interface_with(address: str) -> str:
    wanted = IPv4Address(address)
    found = (one.interface for one in netlink.addresses() if IPv4Address(one.address) == wanted)
    interface = next(found, None)
    if interface is None:
        raise KernelError(f"no interface has the address {address} (yet)")
    return interface
