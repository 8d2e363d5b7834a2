"""From a published port of this node to the tasks and back: what is wanted, what is there. Pure."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from mesh.balance.hash_slots import NOBODY, Choice
from mesh.catalog.model import NO_RETURN_PATH, Network, Node, Protocol, PublishMode, Service, Task
from mesh.catalog.snapshot import Snapshot
from mesh.kernel.firewall.rule_walk import Obstacle
from mesh.kernel.inspect import HostPort, SandboxPort, WayBack
from mesh.kernel.return_rules import NO_ENTRY, ReturnEntry
from mesh.kernel.rulesets import PortTarget
from mesh.labels.ports import Carrier, PortPlan
from mesh.telemetry.explain import (
    FLUSHED,
    NOT_YET,
    Hop,
    HopState,
    PortPath,
    TaskPath,
    Unused,
    compared,
    gate,
    leads_to,
    listed,
    node_name,
    unused,
)


@dataclass(frozen=True, slots=True)
class Kernel:
    """Of one published port. None: could not be read, or there is none."""

    fault: str = ""  # why published ports are not carried here
    sandbox_address: str = ""  # of the ingress namespace, on the bridge
    entry: ReturnEntry = NO_ENTRY
    gated: bool = False  # rules of ours end by themselves when the sidecar does
    host: HostPort | None = None
    passes: bool | None = None  # the firewall lets it through to the ingress namespace
    sandbox: SandboxPort | None = None
    obstacles: Sequence[Obstacle] = ()  # rules of the node's firewall that drop clients
    ways_back: Mapping[str, WayBack] = field(default_factory=dict)  # ingress address of a task here → its


@dataclass(frozen=True, slots=True)
class Reached:
    """An endpoint as the relay sees it."""

    address: str  # with the port
    active: int = 0  # connections
    ejected_for: float = 0.0  # seconds more


@dataclass(frozen=True, slots=True)
class RelayHop:
    address: str = ""  # where it listens, "" when it does not
    fault: str = ""
    endpoints: tuple[Reached, ...] = ()


def port_path(
    snapshot: Snapshot,
    plan: PortPlan,
    target: PortTarget | None,
    kept: Collection[str],
    kernel: Kernel,
    relay: RelayHop | None,
) -> PortPath:
    """`target`, `kept`: what the kernel is wanted to hold. `relay`: None where the port is not relayed."""
    service = snapshot.services[plan.service]
    if plan.carrier is Carrier.DOCKER:
        return _left_to_docker(snapshot, service, plan)
    if plan.carrier.in_user_space:
        return _relayed(snapshot, service, plan, relay or RelayHop(), kernel)
    return _in_kernel(snapshot, service, plan, target, kept, kernel)


def _left_to_docker(snapshot: Snapshot, service: Service, plan: PortPlan) -> PortPath:
    if plan.port.mode is PublishMode.HOST:
        what = "Docker publishes it (mode=host) on the nodes of its tasks, and on no others"
    else:
        what = "Docker's own ingress: the service has the label mesh.enable=false"
    tasks = tuple(
        TaskPath(task.name, node_name(snapshot, task.node), f":{plan.port.target}")
        for task in service.serving()
    )
    return PortPath(
        plan.key,
        service.name,
        "docker",
        node_name(snapshot, snapshot.this_node),
        hops=(Hop("Docker", what),),
        tasks=tasks,
        unused=unused(snapshot, service),
    )


def _in_kernel(
    snapshot: Snapshot,
    service: Service,
    plan: PortPlan,
    target: PortTarget | None,
    kept: Collection[str],
    kernel: Kernel,
) -> PortPath:
    ingress = snapshot.ingress_network()
    node = node_name(snapshot, snapshot.this_node)
    path = PortPath(
        plan.key,
        service.name,
        "kernel",
        node,
        str(plan.policy),
        unused=unused(snapshot, service, ingress),
    )
    if kernel.fault and kernel.host is None:
        hop = Hop(f"{node}:{plan.key}", "not carried", HopState.MISSING, kernel.fault)
        return replace(path, hops=(hop,))
    wanted = target.choice if target else NOBODY
    hops = (
        _host_hop(node, plan, kernel),
        _forward_hop(kernel),
        *_obstacle_hops(kernel),
        _sandbox_hop(plan, target, kernel),
    )
    tasks = tuple(
        _task_path(snapshot, task, address, target, kept, kernel)
        for task in service.serving()
        if ingress and (address := task.addresses.get(ingress.id)) in wanted.slots
    )
    far = _too_far(snapshot, service, ingress, wanted)
    return replace(
        path, hops=hops, tasks=tasks, unused=path.unused + far, notes=tuple(_kernel_notes(plan, kernel))
    )


def _host_hop(node: str, plan: PortPlan, kernel: Kernel) -> Hop:
    host, where = kernel.host, f"{node}:{plan.key}"
    what = f"host's table mesh: dnat to ingress_sbox {kernel.sandbox_address}"
    if host is None:
        return Hop(where, what, HopState.UNKNOWN, "the host's table could not be read")
    if not host.table:
        return Hop(where, what, HopState.MISSING, FLUSHED)
    if not host.leads_to:
        return Hop(where, what, HopState.MISSING, NOT_YET)
    if host.leads_to != kernel.sandbox_address:
        return Hop(where, what, HopState.DIFFERS, f"it leads to {host.leads_to}")
    return Hop(where, what, *gate(kernel.gated, host.alive))


def _forward_hop(kernel: Kernel) -> Hop:
    what = f"accepts it (DOCKER-USER) on its way to {kernel.sandbox_address}"
    if kernel.passes is None:
        return Hop("FORWARD", what, HopState.UNKNOWN, kernel.fault or "the firewall could not be read")
    if not kernel.passes:
        note = "no rule of ours: clients outside get no answer where FORWARD drops; made anew in seconds"
        return Hop("FORWARD", what, HopState.MISSING, note)
    return Hop("FORWARD", what)


def _obstacle_hops(kernel: Kernel) -> Iterable[Hop]:
    """The node's own firewall, where it keeps clients out."""
    for one in kernel.obstacles:
        what = "drops every client" if one.everybody else "drops some clients"
        yield Hop("firewall", what, HopState.DIFFERS if one.everybody else HopState.OK, one.rule)


def _sandbox_hop(plan: PortPlan, target: PortTarget | None, kernel: Kernel) -> Hop:
    sandbox, where = kernel.sandbox, f"ingress_sbox:{plan.key}"
    wanted = target.choice if target else NOBODY
    what = leads_to(wanted)
    if sandbox is None:
        return Hop(where, what, HopState.UNKNOWN, "the ingress namespace's table could not be read")
    if not sandbox.table:
        return Hop(where, what, HopState.MISSING, FLUSHED)
    hop = compared(where, wanted, sandbox.leading, kernel.gated, sandbox.alive)
    port = sandbox.leading.port if sandbox.leading else 0
    if hop.state is HopState.OK and target and port not in (0, target.target):
        return replace(hop, state=HopState.DIFFERS, note=f"to port {port}, wanted is {target.target}")
    return hop


def _task_path(
    snapshot: Snapshot,
    task: Task,
    address: str,
    target: PortTarget | None,
    kept: Collection[str],
    kernel: Kernel,
) -> TaskPath:
    node = snapshot.nodes.get(task.node)
    leading = kernel.sandbox.leading if kernel.sandbox else None
    port = target.target if target else 0
    masqueraded = bool(target and target.masqueraded)
    keeps = address in kept and not masqueraded
    state, note = _kept_state(address, keeps, masqueraded, kernel)
    back, broken = _way_back(task, address, keeps, snapshot, kernel)
    if broken:
        state, note = HopState.DIFFERS, broken
    return TaskPath(
        task.name,
        node_name(snapshot, task.node),
        f"{address}:{port}",
        leading.share(address) if leading else 0.0,
        "kept" if keeps else "masqueraded",
        "" if keeps else why_masqueraded(address, node, kernel.entry, masqueraded),
        back,
        state,
        note,
    )


def _kept_state(address: str, keeps: bool, masqueraded: bool, kernel: Kernel) -> tuple[HopState, str]:
    """Does the ingress namespace do with the client's address what is wanted?"""
    sandbox = kernel.sandbox
    if sandbox is None or not sandbox.table or sandbox.leading is None:
        return HopState.UNKNOWN, ""
    if address not in sandbox.leading.turns:
        return HopState.MISSING, "not in the kernel's choice (yet)"
    does = address in sandbox.kept and not sandbox.leading.masqueraded
    if does != keeps and not masqueraded:
        return HopState.DIFFERS, "kept by the kernel" if does else "masqueraded by the kernel"
    return HopState.OK, ""


def why_masqueraded(address: str, node: Node | None, entry: ReturnEntry, by_label: bool) -> str:
    """In words; "" when by all that is known it could be kept."""
    if by_label:
        return "label source_ip=masquerade"
    if node is None:
        return "its node is not known"
    if node.return_path == NO_RETURN_PATH:
        return f"{node.name} says nothing of a way back: no sidecar there, or an older one"
    if not entry.address:
        return "this node's address on the ingress network is not known yet"
    if entry.address not in node.return_path.entries:
        return f"{node.name} has no way back through this node ({entry.address}) yet"
    if address not in node.return_path.tasks:
        return f"{node.name} has prepared no way back for this task (is it captured?)"
    return ""


def _way_back(task: Task, address: str, keeps: bool, snapshot: Snapshot, kernel: Kernel) -> tuple[str, str]:
    """(the way of answers, what is wrong with it)."""
    if not keeps:
        return f"to {kernel.entry.address} (ingress_sbox), translated back there", ""
    way = f"through {kernel.entry.address} (this node)"
    seen = kernel.ways_back.get(address)
    if seen is None:
        if task.node == snapshot.this_node:
            return way, "its namespace could not be read"
        return f"{way}, as {node_name(snapshot, task.node)} says", ""
    if seen.leads(kernel.entry.mac):
        return f"{way}, mark {seen.marks[kernel.entry.mac]:#x}", ""
    if not seen.table:
        return way, "its namespace has no table mesh_return: flushed by somebody? answers get lost"
    return way, "its namespace does not know this node's entry: answers get lost"


def _too_far(
    snapshot: Snapshot, service: Service, ingress: Network | None, wanted: Choice
) -> tuple[Unused, ...]:
    """Serving tasks that the label for nearness leaves out."""
    return tuple(
        Unused(
            task.name,
            node_name(snapshot, task.node),
            str(task.state),
            "label locality=node: tasks of this node come first",
        )
        for task in service.serving()
        if ingress
        and (address := task.addresses.get(ingress.id))
        and wanted.slots
        and address not in wanted.slots
    )


def _kernel_notes(plan: PortPlan, kernel: Kernel) -> Iterable[str]:
    if kernel.fault:
        yield kernel.fault
    if kernel.host and kernel.host.redirected:
        yield f"a redirect to the relay's port {kernel.host.redirected} is still loaded; it is not reached"
    if kernel.host and kernel.host.listening:
        where = listed(kernel.host.listening)
        if kernel.gated:
            yield f"Docker's own socket listens on {where}; our rules come first"
        else:
            yield (
                f"something else listens on port {plan.port.published} of this node ({where}); no connection "
                "reaches it, for the published port comes first"
            )
    if kernel.host:
        yield "connections of this node itself, and of its containers, arrive with a local address"


# --- relayed ------------------------------------------------------------------------------------------------


def _relayed(
    snapshot: Snapshot, service: Service, plan: PortPlan, relay: RelayHop, kernel: Kernel
) -> PortPath:
    node, ingress = node_name(snapshot, snapshot.this_node), snapshot.ingress_network()
    hops = [*_obstacle_hops(kernel), _listener_hop(node, plan, relay, kernel)]
    if kernel.sandbox_address:
        hops.append(Hop("relay", f"connects from inside ingress_sbox ({kernel.entry.address})"))
    if kernel.host is not None and not kernel.gated:
        held = (HopState.OK, "") if kernel.host.orphaned else (HopState.MISSING, NOT_YET)
        hops.append(Hop("without a sidecar", "the kernel carries it, as in mode kernel", *held))
    names = _names_by_address(snapshot, service)
    tasks = tuple(
        _reached(snapshot, names.get(one.address.rpartition(":")[0]), one, plan) for one in relay.endpoints
    )
    return PortPath(
        plan.key,
        service.name,
        "proxy",
        node,
        str(plan.policy),
        tuple(hops),
        tasks,
        unused(snapshot, service, ingress),
    )


def _listener_hop(node: str, plan: PortPlan, relay: RelayHop, kernel: Kernel) -> Hop:
    where = f"{node}:{plan.key}"
    if not relay.address:
        return Hop(where, "a relay is to listen", HopState.MISSING, relay.fault or "not yet")
    local = int(relay.address.rpartition(":")[2])
    if local == plan.port.published:
        return Hop(where, f"the relay listens on {relay.address}")
    what = f"host's table mesh: redirect to the relay on {relay.address} (Docker's socket holds the port)"
    if kernel.host is None:
        return Hop(where, what, HopState.UNKNOWN, kernel.fault or "the host's table could not be read")
    if kernel.host.redirected != local:
        return Hop(where, what, HopState.MISSING, NOT_YET if kernel.host.table else FLUSHED)
    return Hop(where, what, *gate(kernel.gated, kernel.host.alive))


def _reached(snapshot: Snapshot, task: Task | None, one: Reached, plan: PortPlan) -> TaskPath:
    if plan.proxy_protocol:
        client, why = f"in the PROXY {plan.proxy_protocol} header", ""
    elif plan.port.protocol is Protocol.UDP:
        client, why = "not told", "datagrams have no PROXY header; mode kernel keeps the address"
    else:
        client, why = "not told", f"label mesh.port.{plan.port.published}.proxy_protocol=v2 would tell it"
    notes = [f"{one.active} open"] if one.active else []
    if one.ejected_for > 0:
        notes.append(f"left out for {one.ejected_for:.0f} s more: it kept failing")
    return TaskPath(
        task.name if task else "",
        node_name(snapshot, task.node) if task else "",
        one.address,
        None if one.ejected_for <= 0 else 0.0,
        client,
        why,
        "the relay's own connection",
        note=", ".join(notes),
    )


def _names_by_address(snapshot: Snapshot, service: Service) -> dict[str, Task]:
    return {address: task for task in service.tasks for address in task.addresses.values()}
