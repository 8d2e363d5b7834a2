"""A service's virtual IPs in words: what each container of this node has of them."""

from dataclasses import replace

import pytest

from mesh.balance.hash_slots import Choice
from mesh.catalog.model import EndpointMode, Network, Node, Service, ServiceNetwork, Task, TaskState
from mesh.catalog.snapshot import Change, Snapshot
from mesh.kernel.inspect import ContainerVip, Leading
from mesh.telemetry.explain import NAMED_MAX, HopState, ServicePath, named
from mesh.telemetry.explain_service import Vips, service_path

VIP, ONE, TWO = "10.0.0.2", "10.0.0.3", "10.0.0.4"
WEB = Service(
    "s",
    "web",
    networks=(ServiceNetwork("shop", VIP), ServiceNetwork("in", "10.9.0.2")),
    tasks=(
        Task("1", "web.1", "n", TaskState.RUNNING, {"shop": ONE}),
        Task("2", "web.2", "n", TaskState.RUNNING, {"shop": TWO}),
    ),
)
CART = Vips(
    "cart",
    frozenset({"shop"}),
    held={VIP: ContainerVip(True, Leading("in turn", (ONE, TWO)), alive=True)},
    wanted={VIP: Choice((ONE, TWO))},
)


def explained(*containers: Vips, service: Service = WEB, gated: bool = False, unseen: int = 0) -> ServicePath:
    networks = {"shop": Network("shop", "shop"), "in": Network("in", "ingress", ingress=True)}
    change = Change(nodes={"n": Node("n", "swarm00", "")}, networks=networks, services={"s": service})
    snapshot = replace(Snapshot(), this_node="n").apply(change)
    return service_path(snapshot, service, (), containers, unseen, gated)


def test_a_virtual_ip_as_it_should_be() -> None:
    path = explained(
        CART, replace(CART, name="elsewhere", networks=frozenset({"other"})), gated=True, unseen=2
    )
    (shop,) = path.networks  # the ingress network is for published ports
    assert (shop.network, shop.vip, shop.unseen) == ("shop", VIP, 2)
    assert [(one.task, one.node, one.address) for one in shop.tasks] == [
        ("web.1", "swarm00", ONE),
        ("web.2", "swarm00", TWO),
    ]
    (hop,) = shop.containers
    assert (hop.where, hop.what, hop.state) == ("cart", "dnat to one of 2 tasks, in turn", HopState.OK)


@pytest.mark.parametrize(
    ("changed", "state", "note"),
    [
        ({"reason": "label mesh.capture=off"}, HopState.OK, "label mesh.capture=off"),
        ({"held": None}, HopState.UNKNOWN, "could not be read"),
        ({"held": {}}, HopState.UNKNOWN, "could not be read"),
        ({"held": {VIP: ContainerVip(False)}}, HopState.MISSING, "flushed"),
        ({"held": {VIP: ContainerVip(True)}}, HopState.MISSING, "not loaded yet"),
        ({"held": {VIP: ContainerVip(True, Leading("x", (ONE,)))}}, HopState.DIFFERS, f"not lead to {TWO}"),
        ({"held": {VIP: ContainerVip(True, CART.held[VIP].leading)}}, HopState.MISSING, "expired"),
        ({"wanted": {VIP: Choice()}}, HopState.DIFFERS, f"it still leads to {ONE}, {TWO}"),
        ({"wanted": {}, "held": {VIP: ContainerVip(True)}}, HopState.MISSING, "not loaded yet"),
        ({"wanted": {}, "held": {VIP: ContainerVip(True, refused=True)}}, HopState.OK, ""),
    ],
)
def test_what_a_container_has(changed: dict[str, object], state: HopState, note: str) -> None:
    (shop,) = explained(replace(CART, **changed), gated=True).networks  # type: ignore[arg-type]
    (hop,) = shop.containers
    assert (hop.state, note in hop.note) == (state, True), hop


def test_services_without_a_virtual_ip_of_ours() -> None:
    dnsrr = replace(WEB, mode=EndpointMode.DNSRR, networks=(ServiceNetwork("shop"),))
    (shop,) = explained(CART, service=dnsrr).networks
    assert (shop.vip, shop.containers, "dnsrr" in shop.how) == ("", (), True)
    (shop,) = explained(CART, service=replace(dnsrr, mode=EndpointMode.VIP)).networks
    assert shop.how == "no virtual IP yet"
    path = explained(CART, service=replace(WEB, labels={"mesh.enable": "false"}))
    assert path.networks[0].containers == ()
    assert "mesh.enable=false" in path.notes[0]
    alone = explained(service=replace(WEB, networks=()))
    assert "no network" in alone.notes[0]
    (shop,) = explained(service=replace(WEB, tasks=())).networks
    assert shop.how == "no task serves: connections are refused"


def test_error_messages_name_a_few() -> None:
    assert named([]) == "none"
    assert named(["a", "b"]) == "a, b"
    assert named(str(n) for n in range(NAMED_MAX + 3)).endswith("19 and 3 more")
