"""A published port's way in words: as it should be, and each way in which it can be otherwise."""

from dataclasses import replace

import pytest

from mesh.balance.hash_slots import Choice
from mesh.catalog.model import (
    Network,
    Node,
    Port,
    Protocol,
    PublishMode,
    ReturnPath,
    Service,
    Task,
    TaskState,
)
from mesh.catalog.snapshot import Change, Snapshot
from mesh.kernel.firewall.rule_walk import Obstacle
from mesh.kernel.inspect import HostPort, Leading, SandboxPort, WayBack
from mesh.kernel.return_rules import ReturnEntry
from mesh.kernel.rulesets import PortTarget
from mesh.labels.ports import Carrier, PortPlan, plan
from mesh.telemetry.explain import HopState, PortPath
from mesh.telemetry.explain_port import Kernel, Reached, RelayHop, port_path, why_masqueraded

ENTRY = ReturnEntry("10.0.0.2", "02:42:0a:00:00:02")
NEAR, FAR = "10.0.0.3", "10.0.0.4"
SANDBOX = "172.18.0.2"


def task(number: int, node: str, address: str, state: TaskState = TaskState.RUNNING) -> Task:
    return Task(f"t{number}", f"web.{number}.x", node, state, {"in": address} if address else {})


WEB = Service("s", "web", ports=(Port(80, 8080),), tasks=(task(1, "n0", NEAR), task(2, "n1", FAR)))
NODES = {
    "n0": Node(
        "n0", "swarm00", "", return_path=ReturnPath(ENTRY.address, ENTRY.mac, (ENTRY.address,), (NEAR,))
    ),
    "n1": Node("n1", "swarm01", "", return_path=ReturnPath("10.0.0.9", "m", (ENTRY.address,), (FAR,))),
}
TARGET = PortTarget(80, Protocol.TCP, 8080, Choice((NEAR, FAR)))
SEEN = Kernel(
    sandbox_address=SANDBOX,
    entry=ENTRY,
    host=HostPort(True, SANDBOX),
    passes=True,
    sandbox=SandboxPort(True, Leading("in turn", (NEAR, FAR), 8080), frozenset({NEAR, FAR})),
    ways_back={NEAR: WayBack(True, {ENTRY.mac: 0x6D650002}, frozenset({0x6D650002}))},
)


def cluster(service: Service = WEB, nodes: dict[str, Node] = NODES) -> Snapshot:
    change = Change(
        nodes=nodes, networks={"in": Network("in", "ingress", ingress=True)}, services={"s": service}
    )
    return replace(Snapshot(), this_node="n0").apply(change)


def explained(
    kernel: Kernel = SEEN,
    service: Service = WEB,
    target: PortTarget | None = TARGET,
    kept: tuple[str, ...] = (NEAR, FAR),
    nodes: dict[str, Node] = NODES,
    relay: RelayHop | None = None,
) -> PortPath:
    (one,) = plan(service).ports
    return port_path(cluster(service, nodes), one, target, kept, kernel, relay)


def test_a_port_as_it_should_be() -> None:
    path = explained()
    assert (path.port, path.service, path.carrier, path.node) == ("80/tcp", "web", "kernel", "swarm00")
    assert [(hop.where, hop.state, hop.note) for hop in path.hops] == [
        ("swarm00:80/tcp", HopState.OK, ""),
        ("FORWARD", HopState.OK, ""),
        ("ingress_sbox:80/tcp", HopState.OK, ""),
    ]
    assert path.hops[2].what == "dnat to one of 2 tasks, in turn"
    near, far = path.tasks
    assert (near.task, near.node, near.address, near.share) == ("web.1.x", "swarm00", f"{NEAR}:8080", 0.5)
    assert (near.client, near.why, near.state) == ("kept", "", HopState.OK)
    assert near.back == "through 10.0.0.2 (this node), mark 0x6d650002"
    assert far.back == "through 10.0.0.2 (this node), as swarm01 says"
    assert path.unused == ()


@pytest.mark.parametrize(
    ("changed", "hop", "state", "note"),
    [
        ({"host": None}, 0, HopState.UNKNOWN, "could not be read"),
        ({"host": HostPort(False)}, 0, HopState.MISSING, "flushed"),
        ({"host": HostPort(True)}, 0, HopState.MISSING, "not loaded yet"),
        ({"host": HostPort(True, "172.18.0.9")}, 0, HopState.DIFFERS, "it leads to 172.18.0.9"),
        ({"gated": True}, 0, HopState.MISSING, "expired"),
        ({"passes": False}, 1, HopState.MISSING, "no rule of ours"),
        ({"passes": None}, 1, HopState.UNKNOWN, "could not be read"),
        ({"sandbox": None}, 2, HopState.UNKNOWN, "could not be read"),
        ({"sandbox": SandboxPort(False)}, 2, HopState.MISSING, "flushed"),
        ({"sandbox": SandboxPort(True)}, 2, HopState.MISSING, "not loaded yet"),
        (
            {"sandbox": SandboxPort(True, Leading("the only one", (NEAR,), 8080))},
            2,
            HopState.DIFFERS,
            f"it does not lead to {FAR} yet",
        ),
        (
            {"sandbox": SandboxPort(True, Leading("in turn", (NEAR, FAR, "10.0.0.7"), 8080))},
            2,
            HopState.DIFFERS,
            "it still leads to 10.0.0.7",
        ),
        (
            {"sandbox": SandboxPort(True, Leading("in turn", (NEAR, NEAR, FAR), 8080))},
            2,
            HopState.DIFFERS,
            "other shares",
        ),
        (
            {"sandbox": SandboxPort(True, Leading("in turn", (NEAR, FAR), 80))},
            2,
            HopState.DIFFERS,
            "to port 80, wanted is 8080",
        ),
    ],
)
def test_a_hop_that_is_not_as_wanted(
    changed: dict[str, object], hop: int, state: HopState, note: str
) -> None:
    found = explained(replace(SEEN, **changed)).hops[hop]  # type: ignore[arg-type]
    assert (found.state, note in found.note) == (state, True), found


def test_rules_of_the_nodes_firewall_that_keep_clients_out_are_named() -> None:
    some, every = Obstacle("-A DOCKER-USER -s 10.0.0.0/8 -j DROP", False), Obstacle("-P INPUT DROP", True)
    for path in (
        explained(replace(SEEN, obstacles=(some, every))),
        explained(replace(SEEN, obstacles=(some, every)), service=PROXIED, relay=RELAY),
    ):
        found = [(hop.what, hop.state, hop.note) for hop in path.hops if hop.where == "firewall"]
        assert found == [
            ("drops some clients", HopState.OK, some.rule),
            ("drops every client", HopState.DIFFERS, every.rule),
        ]


def test_gated_rules_that_are_alive_are_well() -> None:
    alive = replace(
        SEEN,
        gated=True,
        host=HostPort(True, SANDBOX, alive=True),
        sandbox=replace(SEEN.sandbox, alive=True),
    )
    assert {hop.state for hop in explained(alive).hops} == {HopState.OK}


def test_nothing_is_carried_and_why() -> None:
    path = explained(Kernel(fault="no ingress namespace: gone"))
    (hop,) = path.hops
    assert (hop.what, hop.state, hop.note) == ("not carried", HopState.MISSING, "no ingress namespace: gone")
    assert path.tasks == ()


def test_no_task_serves() -> None:
    idle = replace(
        WEB, tasks=(task(1, "n0", NEAR, TaskState.STARTING), task(2, "n1", FAR, TaskState.LEAVING))
    )
    target = replace(TARGET, choice=Choice())
    path = explained(replace(SEEN, sandbox=SandboxPort(True)), idle, target, ())
    assert (path.hops[2].what, path.hops[2].state) == ("no task serves: connections are refused", HopState.OK)
    assert [(one.task, one.why.partition(",")[0]) for one in path.unused] == [
        ("web.1.x", "not running yet"),
        ("web.2.x", "it is being stopped"),
    ]
    still = explained(SEEN, idle, target, ()).hops[2]
    assert (still.state, still.note) == (HopState.DIFFERS, f"it still leads to {NEAR}, {FAR}")


def test_why_a_task_is_left_out() -> None:
    down = {**NODES, "n1": replace(NODES["n1"], state="down")}
    tasks = (
        task(1, "n0", NEAR),
        task(2, "n1", FAR, TaskState.DEAD),
        task(3, "n0", "", TaskState.DEAD),
        task(4, "n0", ""),
    )
    service = replace(WEB, tasks=tasks)
    path = explained(SEEN, service, replace(TARGET, choice=Choice((NEAR,))), (NEAR,), down)
    assert [(one.task, one.why) for one in path.unused] == [
        ("web.2.x", "its node is down"),
        ("web.3.x", "it has ended"),
        ("web.4.x", "no address on the ingress network (yet)"),
    ]


def test_tasks_of_other_nodes_under_a_label_for_nearness() -> None:
    path = explained(target=replace(TARGET, choice=Choice((NEAR,))))
    assert [one.task for one in path.tasks] == ["web.1.x"]
    assert [(one.task, one.why) for one in path.unused] == [
        ("web.2.x", "label locality=node: tasks of this node come first")
    ]


# --- the client's address -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("node", "entry", "label", "why"),
    [
        (NODES["n1"], ENTRY, True, "label source_ip=masquerade"),
        (None, ENTRY, False, "its node is not known"),
        (Node("n1", "swarm01", ""), ENTRY, False, "swarm01 says nothing of a way back"),
        (NODES["n1"], ReturnEntry("", ""), False, "this node's address on the ingress network is not known"),
        (
            NODES["n1"],
            ReturnEntry("10.0.0.77", "m"),
            False,
            "swarm01 has no way back through this node (10.0.0.77)",
        ),
        (replace(NODES["n1"], return_path=ReturnPath("x", "m", (ENTRY.address,))), ENTRY, False, "captured?"),
        (NODES["n1"], ENTRY, False, ""),
    ],
)
def test_why_the_clients_address_is_not_kept(
    node: Node | None, entry: ReturnEntry, label: bool, why: str
) -> None:
    said = why_masqueraded(FAR, node, entry, label)
    assert why in said
    assert bool(why) == bool(said)


def test_a_masqueraded_task_says_why_and_how_its_answers_return() -> None:
    nodes = {**NODES, "n1": Node("n1", "swarm01", "")}
    seen = replace(SEEN, sandbox=replace(SEEN.sandbox, kept=frozenset({NEAR})))
    _, far = explained(seen, kept=(NEAR,), nodes=nodes).tasks
    assert (far.client, far.state) == ("masqueraded", HopState.OK)
    assert "says nothing of a way back" in far.why
    assert far.back == "to 10.0.0.2 (ingress_sbox), translated back there"


def test_the_kernel_does_otherwise_with_the_clients_address() -> None:
    none_kept = replace(SEEN, sandbox=replace(SEEN.sandbox, kept=frozenset({NEAR})))
    assert explained(none_kept).tasks[1].note == "masqueraded by the kernel"
    all_kept = explained(SEEN, kept=(NEAR,)).tasks[1]
    assert (all_kept.state, all_kept.note) == (HopState.DIFFERS, "kept by the kernel")


def test_a_masquerade_label_wins_over_what_tasks_can_do() -> None:
    leading = replace(SEEN.sandbox.leading, masqueraded=True)
    seen = replace(SEEN, sandbox=replace(SEEN.sandbox, leading=leading))
    path = explained(seen, target=replace(TARGET, masqueraded=True))
    assert {(one.client, one.why, one.state) for one in path.tasks} == {
        ("masqueraded", "label source_ip=masquerade", HopState.OK)
    }


@pytest.mark.parametrize(
    ("way", "note"),
    [
        ({}, "could not be read"),
        ({NEAR: WayBack(False)}, "no table mesh_return"),
        ({NEAR: WayBack(True, {"other": 1}, frozenset({1}))}, "does not know this node's entry"),
        ({NEAR: WayBack(True, {ENTRY.mac: 1})}, "does not know this node's entry"),
    ],
)
def test_a_way_back_that_is_broken(way: dict[str, WayBack], note: str) -> None:
    near, far = explained(replace(SEEN, ways_back=way)).tasks
    assert (near.state, note in near.note) == (HopState.DIFFERS, True)
    assert far.state is HopState.OK


# --- notes --------------------------------------------------------------------------------------------------


def test_who_else_listens_is_told() -> None:
    taken = HostPort(True, SANDBOX, listening=("0.0.0.0",))
    assert any(
        "something else listens on port 80" in note for note in explained(replace(SEEN, host=taken)).notes
    )
    gated = replace(SEEN, gated=True, host=replace(taken, alive=True))
    assert any("Docker's own socket listens on 0.0.0.0" in note for note in explained(gated).notes)
    assert not any("listens" in note for note in explained().notes)


# --- relayed, and left to Docker ----------------------------------------------------------------------------

PROXIED = replace(WEB, labels={"mesh.port.80.mode": "proxy"})
RELAY = RelayHop(
    "0.0.0.0:80", "", (Reached(f"{NEAR}:8080", active=2), Reached(f"{FAR}:8080", ejected_for=7.4))
)


def test_a_relayed_port() -> None:
    path = explained(replace(SEEN, host=HostPort(True, orphaned=True)), PROXIED, relay=RELAY)
    assert path.carrier == "proxy"
    assert [hop.what for hop in path.hops] == [
        "the relay listens on 0.0.0.0:80",
        "connects from inside ingress_sbox (10.0.0.2)",
        "the kernel carries it, as in mode kernel",
    ]
    assert {hop.state for hop in path.hops} == {HopState.OK}
    near, far = path.tasks
    assert (near.task, near.note, near.client) == ("web.1.x", "2 open", "not told")
    assert near.why == "label mesh.port.80.proxy_protocol=v2 would tell it"
    assert (far.share, far.note) == (0.0, "left out for 7 s more: it kept failing")


def test_a_relayed_port_that_tells_the_client() -> None:
    labels = {**PROXIED.labels, "mesh.port.80.proxy_protocol": "v2"}
    near, _ = explained(service=replace(PROXIED, labels=labels), relay=RELAY).tasks
    assert (near.client, near.why) == ("in the PROXY v2 header", "")


def test_a_relayed_udp_port_has_no_header_to_offer() -> None:
    udp = replace(PROXIED, ports=(Port(80, 8080, Protocol.UDP),))
    path = explained(service=udp, relay=RELAY)
    assert (path.port, path.carrier) == ("80/udp", "proxy")
    assert path.tasks[0].why == "datagrams have no PROXY header; mode kernel keeps the address"


@pytest.mark.parametrize(
    ("relay", "host", "state", "note"),
    [
        (RelayHop(fault="held by nginx (12)"), HostPort(True), HopState.MISSING, "held by nginx (12)"),
        (replace(RELAY, address="0.0.0.0:40080"), HostPort(True, redirected=40080), HopState.OK, ""),
        (replace(RELAY, address="0.0.0.0:40080"), HostPort(True), HopState.MISSING, "not loaded yet"),
        (replace(RELAY, address="0.0.0.0:40080"), HostPort(False), HopState.MISSING, "flushed"),
        (replace(RELAY, address="0.0.0.0:40080"), None, HopState.UNKNOWN, "could not be read"),
    ],
)
def test_where_a_relay_listens(relay: RelayHop, host: HostPort | None, state: HopState, note: str) -> None:
    hop = explained(replace(SEEN, host=host), PROXIED, relay=relay).hops[0]
    assert (hop.state, note in hop.note) == (state, True)


def test_a_relayed_port_that_would_end_with_the_sidecar() -> None:
    assert explained(service=PROXIED, relay=RELAY).hops[2].state is HopState.MISSING
    gated = replace(SEEN, gated=True)
    assert len(explained(gated, PROXIED, relay=RELAY).hops) == 2  # Docker has it then


def test_ports_left_to_docker() -> None:
    host = replace(WEB, ports=(Port(80, 8080, mode=PublishMode.HOST),))
    path = explained(service=host)
    assert (path.carrier, "mode=host" in path.hops[0].what) == ("docker", True)
    disabled = explained(service=replace(WEB, labels={"mesh.enable": "false"}))
    assert (disabled.carrier, "mesh.enable=false" in disabled.hops[0].what) == ("docker", True)
    assert PortPlan("s", WEB.ports[0], Carrier.DOCKER).key == path.port
