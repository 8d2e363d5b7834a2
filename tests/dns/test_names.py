"""Which names exist where, as Docker registers them and where we mean to differ."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.catalog.model import (
    Attachment,
    Container,
    EndpointMode,
    Network,
    Service,
    ServiceNetwork,
    TaskState,
)
from mesh.catalog.snapshot import Change, Snapshot
from mesh.dns.names import NameTable
from tests.dns.world import DB, FRONTEND, SHOP, TOOL, WEB, change_to, snapshot, task


def addresses(table: NameTable, name: str, network: str = "n1") -> list[str] | None:
    """All addresses under a name; None when it is unknown."""
    found = table.get(network, name)
    return [a for c in found for a in c.addresses] if found else None


def targets(table: NameTable, name: str, network: str = "n1") -> set[str]:
    return {c.target for c in table.get(network, name)}


ALL = NameTable.of(snapshot())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("shop_web", ["10.1.0.2"]),  # a VIP service by its name …
        ("web", ["10.1.0.2"]),  # … and by its alias on the network
        ("tasks.shop_web", ["10.1.0.3", "10.1.0.4"]),
        ("tasks.web", ["10.1.0.3", "10.1.0.4"]),
        ("shop", ["10.1.0.5", "10.1.0.6"]),  # dnsrr; names are kept in lower case
        ("tasks.shop", ["10.1.0.5", "10.1.0.6"]),
        ("shop_web.1.aa", ["10.1.0.3"]),  # a task by its name …
        (WEB.tasks[0].container[:12], ["10.1.0.3"]),  # … and by its container's short id
        ("tool", ["10.1.0.9"]),
        ("c0ffee123456", ["10.1.0.9"]),
        ("toolbox", ["10.1.0.9"]),
        ("helper", None),  # an alias on another network only
        ("tasks.tool", None),  # plain containers have no such name
        ("db", None),
        ("nothing", None),
    ],
)
def test_names_on_an_overlay(name: str, expected: list[str] | None) -> None:
    assert addresses(ALL, name) == expected


def test_a_local_network_has_both_families_and_aliases() -> None:
    for name in ("tool", "helper", "toolbox"):
        assert addresses(ALL, name, "n3") == ["172.20.0.2", "fd00::2"]


def test_nothing_is_registered_on_ingress_nor_where_docker_discovers_nothing() -> None:
    bridge = Network("nb", "bridge", scope="local", driver="bridge")
    plain = replace(TOOL, attachments=(Attachment("nb", "172.17.0.2"),))
    table = NameTable.of(snapshot(containers=[plain], networks=[FRONTEND, bridge]))
    assert {network for network, _ in ALL.entries} == {"n1", "n2", "n3"}
    assert {network for network, _ in table.entries} == {"n1"}


def test_reversed_names_of_tasks_containers_and_vips() -> None:
    assert targets(ALL, "3.0.1.10.in-addr.arpa") == {"shop_web.1.aa.frontend."}
    assert targets(ALL, "2.0.1.10.in-addr.arpa") == {"shop_web.frontend."}
    assert targets(ALL, "2.0.20.172.in-addr.arpa", "n3") == {"tool.own.net."}
    v6 = "2." + "0." * 29 + "d.f.ip6.arpa"
    assert targets(ALL, v6, "n3") == {"tool.own.net."}


@pytest.mark.parametrize("mode", [EndpointMode.VIP, EndpointMode.DNSRR])
def test_a_service_without_serving_task_keeps_its_names_without_addresses(mode: EndpointMode) -> None:
    vip = "10.1.0.2" if mode is EndpointMode.VIP else None
    leaving = task("web.1.aa", FRONTEND, "10.1.0.3", TaskState.LEAVING)
    idle = Service("s9", "idle", mode, (ServiceNetwork("n1", vip, ("lazy",)),), tasks=(leaving,))
    table = NameTable.of(snapshot([idle], []))
    for name in ("idle", "lazy", "tasks.idle", "tasks.lazy"):
        assert addresses(table, name) == []
    assert addresses(table, "web.1.aa") is None
    assert table.get("n1", "3.0.1.10.in-addr.arpa") == ()


def test_a_vip_service_without_a_vip_yet_answers_with_its_tasks() -> None:
    table = NameTable.of(snapshot([replace(WEB, networks=(ServiceNetwork("n1"),))]))
    assert addresses(table, "shop_web") == ["10.1.0.3", "10.1.0.4"]


def test_services_that_share_an_alias_are_united() -> None:
    other = replace(
        WEB, id="s8", name="other", networks=(ServiceNetwork("n1", "10.1.0.7", ("web",)),), tasks=()
    )
    serving = replace(other, tasks=(task("other.1.zz", FRONTEND, "10.1.0.8"),))
    table = NameTable.of(snapshot([WEB, serving]))
    assert addresses(table, "web") == ["10.1.0.2", "10.1.0.7"]
    assert addresses(table, "tasks.web") == ["10.1.0.3", "10.1.0.4", "10.1.0.8"]


def test_names_of_a_service_left_to_docker_are_marked_with_its_containers() -> None:
    left = replace(WEB, labels={"mesh.enable": "false"})
    first = left.tasks[0]
    container = Container(
        first.container, first.name, "", (Attachment("n1", "10.1.0.3"),), service="s1", task=first.id
    )
    table = NameTable.of(snapshot([left], [container]))
    assert table.entries
    assert all(c.left for found in table.entries.values() for c in found)


def local(first_task: int = 0, **changed: object) -> Container:
    of = WEB.tasks[first_task]
    made = Container(
        of.container, of.name, "", (Attachment("n1", of.addresses["n1"]),), service="s1", task=of.id
    )
    return replace(made, **changed)  # type: ignore[arg-type]


def test_a_local_task_and_its_container_are_the_same_endpoint() -> None:
    table = NameTable.of(snapshot(containers=[local(hostname="h1")]))
    assert set(addresses(table, "shop_web.1.aa") or ()) == {"10.1.0.3"}
    assert targets(table, "3.0.1.10.in-addr.arpa") == {"shop_web.1.aa.frontend."}
    assert addresses(table, "h1") == ["10.1.0.3"]


def test_a_container_of_a_leaving_task_loses_its_names_while_it_still_runs() -> None:
    leaving = replace(WEB, tasks=(replace(WEB.tasks[0], state=TaskState.LEAVING),))
    old = snapshot(containers=[local()])
    change = Change(services={"s1": leaving})
    table, touched = NameTable.of(old).apply(old, old.apply(change), change)
    assert addresses(table, "shop_web.1.aa") is None
    assert {"shop_web.1.aa", "shop_web", "3.0.1.10.in-addr.arpa"} <= touched


def test_a_container_that_does_not_run_has_no_names() -> None:
    table = NameTable.of(snapshot(containers=[replace(TOOL, running=False)]))
    assert addresses(table, "tool") is None


def test_a_change_touches_the_names_that_differ_and_no_other() -> None:
    old = snapshot()
    one_less = replace(SHOP, tasks=SHOP.tasks[:1])
    change = Change(services={"s2": one_less})
    table, touched = NameTable.of(old).apply(old, old.apply(change), change)
    gone = SHOP.tasks[1]
    expected = {"shop", "tasks.shop", gone.name.lower(), gone.container[:12].lower(), "6.0.1.10.in-addr.arpa"}
    assert touched == expected
    assert addresses(table, "shop") == ["10.1.0.5"]


def test_a_renamed_network_touches_its_reversed_names() -> None:
    old = snapshot()
    change = Change(networks={"n1": replace(FRONTEND, name="edge")})
    table, touched = NameTable.of(old).apply(old, old.apply(change), change)
    assert targets(table, "3.0.1.10.in-addr.arpa") == {"shop_web.1.aa.edge."}
    assert "3.0.1.10.in-addr.arpa" in touched
    assert "web" not in touched


STATES = st.sampled_from(TaskState)


@st.composite
def worlds(draw: st.DrawFn) -> Snapshot:
    """Variations: any services and containers present, any states, labels, aliases, networks named or not."""
    services = []
    for service in draw(st.lists(st.sampled_from([WEB, SHOP, DB]), unique_by=lambda s: s.id)):
        tasks = tuple(replace(t, state=draw(STATES)) for t in service.tasks)
        labels = draw(st.sampled_from([{}, {"mesh.enable": "false"}]))
        networks = tuple(replace(n, aliases=draw(st.sampled_from([(), ("web",)]))) for n in service.networks)
        services.append(replace(service, tasks=tasks, labels=labels, networks=networks))
    containers = draw(
        st.lists(st.sampled_from([TOOL, local(), local(1, running=False)]), unique_by=lambda c: c.id)
    )
    front = draw(st.sampled_from([FRONTEND, replace(FRONTEND, name="x"), replace(FRONTEND, ingress=True)]))
    return snapshot(services, containers, draw(st.sampled_from([[front], [front, Network("n2", "backend")]])))


@given(worlds(), worlds())
def test_following_a_change_gives_the_table_of_the_new_snapshot(old: Snapshot, target: Snapshot) -> None:
    change = change_to(old, target.services.values(), target.containers.values(), target.networks.values())
    before = NameTable.of(old)
    after, touched = before.apply(old, old.apply(change), change)
    assert after == NameTable.of(target)
    differing = {
        name
        for network, name in {*before.entries, *after.entries}
        if before.get(network, name) != after.get(network, name)
    }
    assert differing == touched
