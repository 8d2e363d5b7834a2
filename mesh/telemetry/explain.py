"""Which way a connection goes now: the words of an explanation, and what all of them have in common.

Pure. What was seen in the kernel and in the relay comes in as values; what comes out says for every hop
whether it is as the catalogue wants it, for every task whether it gets connections, how many of them and with
whose address, and for the others why they get none. `mesh explain` shows it.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from mesh.balance.hash_slots import Choice
from mesh.catalog.model import Network, Service, Task, TaskState
from mesh.catalog.snapshot import Snapshot
from mesh.kernel.inspect import Leading

NAMED_MAX = 20  # ports or services that an error message names
FLUSHED = "our table is gone: somebody flushed the ruleset; it is loaded anew within seconds"
NOT_YET = "not loaded yet"
EXPIRED = "its redirects have expired: the sidecar has not refreshed them for seconds"


class HopState(StrEnum):
    """Of a hop, as the kernel has it."""

    OK = "ok"
    DIFFERS = "differs"
    MISSING = "missing"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Hop:
    where: str
    what: str
    state: HopState = HopState.OK
    note: str = ""


@dataclass(frozen=True, slots=True)
class TaskPath:
    """A task that gets connections."""

    task: str
    node: str
    address: str  # with the port
    share: float | None = None  # of new connections, 0 … 1; None: it depends on the connections there are
    client: str = ""  # what the task sees of the client
    why: str = ""  # that is so
    back: str = ""  # the way of its answers
    state: HopState = HopState.OK
    note: str = ""


@dataclass(frozen=True, slots=True)
class Unused:
    """A task that gets none."""

    task: str
    node: str
    state: str
    why: str


@dataclass(frozen=True, slots=True)
class PortPath:
    """From a published port of this node to the tasks."""

    port: str  # 80/tcp
    service: str
    carrier: str
    node: str
    policy: str = ""
    hops: tuple[Hop, ...] = ()
    tasks: tuple[TaskPath, ...] = ()
    unused: tuple[Unused, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class VipTask:
    task: str
    node: str
    address: str


@dataclass(frozen=True, slots=True)
class VipPath:
    """A service on one network, as containers of this node reach it."""

    network: str
    vip: str  # "" where it has none
    how: str
    tasks: tuple[VipTask, ...] = ()
    containers: tuple[Hop, ...] = ()  # of this node, on the network
    unseen: int = 0  # more of them, not looked at


@dataclass(frozen=True, slots=True)
class ServicePath:
    service: str
    node: str
    networks: tuple[VipPath, ...] = ()
    ports: tuple[PortPath, ...] = ()
    unused: tuple[Unused, ...] = ()
    notes: tuple[str, ...] = ()


# --- common to ports and virtual IPs ------------------------------------------------------------------------


def unused(snapshot: Snapshot, service: Service, ingress: Network | None = None) -> tuple[Unused, ...]:
    """Tasks that get no new connections, and why. `ingress`: where they must have an address."""
    found = []
    for task in service.tasks:
        why = _why_unused(snapshot, task)
        if not why and ingress is not None and ingress.id not in task.addresses:
            why = "no address on the ingress network (yet)"
        if why:
            found.append(Unused(task.name, node_name(snapshot, task.node), str(task.state), why))
    return tuple(found)


def _why_unused(snapshot: Snapshot, task: Task) -> str:
    if task.state is TaskState.STARTING:
        return "not running yet, or not healthy yet"
    if task.state is TaskState.LEAVING:
        return "it is being stopped, its open connections go on for the drain time"
    if task.state is TaskState.UNWELL:
        return "it does not pass its probe: open connections go on"
    if task.state is TaskState.DEAD:
        node = snapshot.nodes.get(task.node)
        return "its node is down" if node is not None and node.state == "down" else "it has ended"
    return ""


def node_name(snapshot: Snapshot, id_: str) -> str:
    node = snapshot.nodes.get(id_)
    return node.name if node else id_ or "this node"


def named(words: Iterable[str]) -> str:
    """A few of them, for an error message."""
    found = list(words)
    more = f" and {len(found) - NAMED_MAX} more" if len(found) > NAMED_MAX else ""
    return (", ".join(found[:NAMED_MAX]) or "none") + more


def compared(where: str, wanted: Choice, held: Leading | None, gated: bool, alive: bool) -> Hop:
    """A choice as it is wanted, and as the kernel has it."""
    what = leads_to(wanted)
    if held is None:
        return Hop(where, what, HopState.MISSING, NOT_YET) if wanted.slots else Hop(where, what)
    if difference := _difference(held, wanted):
        return Hop(where, what, HopState.DIFFERS, difference)
    how = f", {held.how}" if len(set(wanted.slots)) > 1 else ""
    return Hop(where, what + how, *gate(gated, alive))


def leads_to(wanted: Choice) -> str:
    tasks = len(set(wanted.slots))
    if not tasks:
        return "no task serves: connections are refused"
    return "dnat to the one task" if tasks == 1 else f"dnat to one of {tasks} tasks"


def _difference(held: Leading, wanted: Choice) -> str:
    extra, lacking = set(held.turns) - set(wanted.slots), set(wanted.slots) - set(held.turns)
    parts = [f"it still leads to {listed(extra)}"] if extra else []
    parts += [f"it does not lead to {listed(lacking)} yet"] if lacking else []
    if not parts and Counter(held.turns) != Counter(wanted.slots):
        parts.append("the tasks have other shares than they should")
    return "; ".join(parts)


def gate(gated: bool, alive: bool) -> tuple[HopState, str]:
    return (HopState.MISSING, EXPIRED) if gated and not alive else (HopState.OK, "")


def listed(words: Iterable[str]) -> str:
    return ", ".join(sorted(words))
