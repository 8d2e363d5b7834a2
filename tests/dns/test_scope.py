"""Which networks an asker is on, and in which order they are asked."""

from dataclasses import replace

from mesh.catalog.model import Asker, Attachment, Container, Network
from mesh.catalog.snapshot import Change
from mesh.dns.scope import Scope, SourceScopes, scope_of, scope_of_asker
from tests.dns.world import BACKEND, FRONTEND, INGRESS, OWN, TOOL, snapshot


def order(*attached: tuple[Network, Attachment]) -> list[str]:
    container = Container("c", "c", "", tuple(attachment for _, attachment in attached))
    known = snapshot(networks=[network for network, _ in attached])
    return [name for _, name in scope_of(container, known).networks]


def overlay(name: str, **kind: bool) -> Network:
    return Network(name, name, **kind)  # type: ignore[arg-type]


def on(network: Network, **how: object) -> tuple[Network, Attachment]:
    return network, Attachment(network.id, "10.0.0.9", **how)  # type: ignore[arg-type]


def test_alphabetical_when_nothing_else_differs() -> None:
    assert order(on(overlay("b")), on(overlay("a"))) == ["a", "b"]


def test_overlays_before_local_networks() -> None:
    assert order(on(OWN, priority=9), on(overlay("z"))) == ["z", "own.net"]


def test_priority_then_external_then_gateway_then_name() -> None:
    first, second = overlay("z"), overlay("y")
    internal, gateway = overlay("a", internal=True), overlay("x")
    got = order(on(internal), on(second), on(gateway, gateway=True), on(first, priority=1))
    assert got == ["z", "x", "y", "a"]


def test_both_gateways_before_one() -> None:
    assert order(on(overlay("a"), gateway=True), on(overlay("b"), gateway=True, address6="fd00::1")) == [
        "b",
        "a",
    ]


def test_ingress_and_the_default_bridge_answer_nothing() -> None:
    bridge = Network("nb", "bridge", scope="local", driver="bridge")
    assert order(on(INGRESS), on(bridge), on(FRONTEND)) == ["frontend"]


def test_a_container_on_internal_networks_only_may_not_ask_the_world() -> None:
    inside = Container("c", "c", "", (Attachment(BACKEND.id, "10.2.0.9"),))
    both = replace(inside, attachments=(*inside.attachments, Attachment(FRONTEND.id, "10.1.0.8")))
    assert not scope_of(inside, snapshot()).external
    assert scope_of(both, snapshot()).external


def test_containers_on_the_same_networks_share_their_replies_unless_they_have_servers_of_their_own() -> None:
    one, other = (scope_of(replace(TOOL, id=i), snapshot()) for i in ("1", "2"))
    own = scope_of(replace(TOOL, id="3", dns=("9.9.9.9",)), snapshot())
    assert one.key == other.key != own.key


def test_a_stack_and_links_of_its_own_part_an_asker_from_others() -> None:
    plain = scope_of(TOOL, snapshot())
    stacked = scope_of(replace(TOOL, labels={"com.docker.stack.namespace": "shop"}), snapshot())
    attached = (replace(TOOL.attachments[0], links=(("db", "other"),)), TOOL.attachments[1])
    linked = scope_of(replace(TOOL, attachments=attached), snapshot())
    assert (stacked.stack, linked.links) == ("shop", (("n3", "db", "other"),))
    assert len({plain.key, stacked.key, linked.key}) == 3
    assert scope_of_asker(Asker("a", "::/0", ("n1",), "shop"), snapshot()).stack == "shop"


def test_an_asker_has_the_networks_it_lists_in_that_order() -> None:
    asker = Asker("a", "10.0.0.0/8", ("n2", "n1", "n0", "missing"))
    assert scope_of_asker(asker, snapshot()).networks == (("n2", "backend"), ("n1", "frontend"))


ASKERS = (Asker("lab", "10.9.0.0/16", ("n1",)), Asker("loop", "127.0.0.0/8", ("n2",)), Asker("bad", "x", ()))


def found(source: str, *containers: Container) -> Scope | None:
    world = snapshot(containers=containers).apply(Change(askers=ASKERS))
    return SourceScopes(world).find(source)


def test_source_addresses_name_askers() -> None:
    assert (scope := found("127.0.0.1")) is not None
    assert scope.networks == (("n2", "backend"),)
    assert found("192.0.2.1") is None
    assert found("::1") is None


def test_source_addresses_name_containers_by_their_local_networks_only() -> None:
    assert (scope := found("172.20.0.2", TOOL)) is not None
    assert scope.container == TOOL.id
    assert found("10.1.0.9", TOOL) is None  # an overlay's address may exist on another overlay too


def test_an_address_that_two_containers_claim_names_neither() -> None:
    assert found("172.20.0.2", TOOL, replace(TOOL, id="other")) is None
