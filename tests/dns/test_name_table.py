"""Which names exist where, as Docker registers them and where we mean to differ."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.catalog.diff import changed
from mesh.catalog.model import (
    Attachment,
    Container,
    EndpointMode,
    Neighbour,
    Network,
    Service,
    ServiceNetwork,
    TaskState,
)
from mesh.catalog.snapshot import Change, Snapshot
from mesh.dns.name_table import NameTable
from mesh.dns.names import Contribution
from tests.dns.world import BACKEND, DB, FRONTEND, OWN, SHOP, TOOL, WEB, change_to, of_stack, snapshot, task


def addresses(table: NameTable, name: str, network: str = "n1") -> list[str] | None:
    """All addresses under a name; None when it is unknown."""
    found = table.get(network, name)
    return [host.address for c in found for host in c.hosts] if found else None


def targets(table: NameTable, address: str, network: str = "n1") -> list[str]:
    return [c.pointer for c in table.pointers(network, address)]


def after(change: Change, old: Snapshot | None = None) -> tuple[NameTable, set[str]]:
    """The table when the change has come, of which all networks were asked on before, and what it touched."""
    old = old or snapshot()
    table = NameTable(old)
    for network in old.networks:
        table.index(network)
    return table, table.apply(old.apply(change), change)


ALL = NameTable(snapshot())


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


def test_an_overlay_has_ipv4_alone() -> None:
    """Docker's gossip carries nothing else; a name must not mean more on one node than on the others."""
    both = replace(TOOL, attachments=(Attachment("n1", "10.1.0.9", address6="fd01::9"),))
    table = NameTable(snapshot(containers=[both]))
    assert addresses(table, "tool") == ["10.1.0.9"]
    assert targets(table, "10.1.0.9") == ["tool"]
    assert targets(table, "fd01::9") == []


class TestPlainContainersOfOtherNodes:
    def known(self, *neighbours: Neighbour) -> NameTable:
        return NameTable(snapshot().apply(Change(neighbours={one.key: one for one in neighbours})))

    @pytest.mark.parametrize("name", ["far", "helper", "fa2fa2fa2fa2", "farhost"])
    def test_they_have_all_their_names(self, name: str) -> None:
        assert addresses(self.known(FAR), name) == ["10.1.0.7"]

    def test_they_share_names_as_local_ones_do(self) -> None:
        both = replace(FAR, node="node3", attachments=(Attachment("n1", "10.1.0.8", ("helper", "toolbox")),))
        assert addresses(self.known(FAR, both), "helper") == ["10.1.0.7", "10.1.0.8"]
        assert addresses(self.known(both), "toolbox") == ["10.1.0.9", "10.1.0.8"]

    def test_their_addresses_lead_to_them(self) -> None:
        assert targets(self.known(FAR), "10.1.0.7") == ["far"]

    def test_they_are_on_networks_of_the_swarm_only(self) -> None:
        table = self.known(replace(FAR, attachments=(Attachment("n3", "172.20.0.9"),)))
        assert addresses(table, "far", "n3") is None
        assert targets(table, "172.20.0.9", "n3") == []

    def test_they_come_and_go(self) -> None:
        table, touched = after(Change(neighbours={FAR.key: FAR}))
        assert addresses(table, "far") == ["10.1.0.7"]
        assert {"far", "helper", "fa2fa2fa2fa2", "farhost", "10.1.0.7"} <= touched
        table, touched = after(
            Change(neighbours={FAR.key: None}), snapshot().apply(Change(neighbours={FAR.key: FAR}))
        )
        assert addresses(table, "far") is None
        assert "far" in touched


def test_nothing_is_registered_on_ingress_nor_where_docker_discovers_nothing() -> None:
    bridge = Network("nb", "bridge", scope="local", driver="bridge")
    plain = replace(TOOL, attachments=(Attachment("nb", "172.17.0.2"),))
    table = NameTable(snapshot(containers=[plain], networks=[FRONTEND, bridge]))
    assert addresses(table, "tool", "nb") is None
    assert targets(table, "172.17.0.2", "nb") == []
    assert addresses(ALL, "shop_web", "n0") is None
    assert targets(ALL, "10.0.0.3", "n0") == []


def test_addresses_of_tasks_containers_and_vips() -> None:
    assert targets(ALL, "10.1.0.3") == ["shop_web.1.aa"]
    assert targets(ALL, "10.1.0.2") == ["shop_web"]
    assert targets(ALL, "172.20.0.2", "n3") == ["tool"]
    assert targets(ALL, "fd00::2", "n3") == ["tool"]
    assert [c.vip for c in (*ALL.pointers("n1", "10.1.0.2"), *ALL.pointers("n1", "10.1.0.3"))] == [
        True,
        False,
    ]


@pytest.mark.parametrize("mode", [EndpointMode.VIP, EndpointMode.DNSRR])
def test_a_service_without_serving_task_keeps_its_names_without_addresses(mode: EndpointMode) -> None:
    vip = "10.1.0.2" if mode is EndpointMode.VIP else None
    leaving = task("web.1.aa", FRONTEND, "10.1.0.3", TaskState.LEAVING)
    idle = Service("s9", "idle", mode, (ServiceNetwork("n1", vip, ("lazy",)),), tasks=(leaving,))
    table = NameTable(snapshot([idle], []))
    for name in ("idle", "lazy", "tasks.idle", "tasks.lazy"):
        assert addresses(table, name) == []
    assert addresses(table, "web.1.aa") is None
    assert targets(table, "10.1.0.3") == []


def test_a_vip_service_without_a_vip_yet_answers_with_its_tasks() -> None:
    table = NameTable(snapshot([replace(WEB, networks=(ServiceNetwork("n1"),))]))
    assert addresses(table, "shop_web") == ["10.1.0.3", "10.1.0.4"]


def test_services_that_share_an_alias_are_united() -> None:
    other = replace(
        WEB, id="s8", name="other", networks=(ServiceNetwork("n1", "10.1.0.7", ("web",)),), tasks=()
    )
    serving = replace(other, tasks=(task("other.1.zz", FRONTEND, "10.1.0.8"),))
    table = NameTable(snapshot([WEB, serving]))
    assert addresses(table, "web") == ["10.1.0.2", "10.1.0.7"]
    assert addresses(table, "tasks.web") == ["10.1.0.3", "10.1.0.4", "10.1.0.8"]


def test_names_of_a_service_left_to_docker_are_marked_with_its_containers() -> None:
    left = replace(WEB, labels={"mesh.enable": "false"})
    first = left.tasks[0]
    container = Container(
        first.container, first.name, "", (Attachment("n1", "10.1.0.3"),), service="s1", task=first.id
    )
    table = NameTable(snapshot([left], [container]))
    said = [*table.get("n1", "web"), *table.get("n1", first.name.lower()), *table.pointers("n1", "10.1.0.3")]
    assert len(said) == 5
    assert all(c.left for c in said)


def local(first_task: int = 0, **changed: object) -> Container:
    of = WEB.tasks[first_task]
    made = Container(
        of.container, of.name, "", (Attachment("n1", of.addresses["n1"]),), service="s1", task=of.id
    )
    return replace(made, **changed)  # type: ignore[arg-type]


def test_a_local_task_and_its_container_are_the_same_endpoint() -> None:
    table = NameTable(snapshot(containers=[local(hostname="h1")]))
    assert set(addresses(table, "shop_web.1.aa") or ()) == {"10.1.0.3"}
    assert targets(table, "10.1.0.3") == ["shop_web.1.aa"] * 2
    assert addresses(table, "h1") == ["10.1.0.3"]


def test_a_container_of_a_leaving_task_loses_its_names_while_it_still_runs() -> None:
    leaving = replace(WEB, tasks=(replace(WEB.tasks[0], state=TaskState.LEAVING),))
    table, touched = after(Change(services={"s1": leaving}), snapshot(containers=[local()]))
    assert addresses(table, "shop_web.1.aa") is None
    assert {"shop_web.1.aa", "shop_web", "10.1.0.3"} <= touched


def test_a_container_that_does_not_run_has_no_names() -> None:
    table = NameTable(snapshot(containers=[replace(TOOL, running=False)]))
    assert addresses(table, "tool") is None


def test_a_change_touches_the_names_that_differ_and_no_other() -> None:
    table, touched = after(Change(services={"s2": replace(SHOP, tasks=SHOP.tasks[:1])}))
    gone = SHOP.tasks[1]
    assert touched == {"shop", "tasks.shop", gone.name.lower(), gone.container[:12].lower(), "10.1.0.6"}
    assert addresses(table, "shop") == ["10.1.0.5"]


def test_the_name_of_a_vip_service_stays_what_it_is_when_a_task_goes() -> None:
    _, touched = after(Change(services={"s1": replace(WEB, tasks=WEB.tasks[:1])}))
    assert {"tasks.web", "tasks.shop_web"} <= touched
    assert not {"web", "shop_web"} & touched
    _, touched = after(Change(services={"s1": replace(WEB, tasks=())}))
    assert {"web", "shop_web"} <= touched


def test_what_a_service_says_of_itself_touches_all_its_names() -> None:
    _, touched = after(Change(services={"s1": replace(WEB, labels={"mesh.enable": "false"})}))
    assert {"web", "shop_web", "shop_web.1.aa", "10.1.0.3", "10.1.0.2"} <= touched


def test_a_network_that_nobody_asked_on_costs_nothing() -> None:
    table = NameTable(snapshot())
    change = Change(services={"s2": replace(SHOP, tasks=SHOP.tasks[:1])})
    assert table.apply(snapshot().apply(change), change) == set()
    assert len(table) == 0
    assert addresses(table, "shop") == ["10.1.0.5"]
    assert len(table) > 0


def test_owners_come_and_go_under_a_name_that_many_have() -> None:
    shared = [of_stack(stack, FRONTEND, number) for number, stack in enumerate("abc", start=1)]
    old = snapshot(shared)
    table, _ = after(Change(services={shared[1].id: None}), old)
    assert addresses(table, "web") == ["10.1.0.10", "10.1.0.30"]
    table, _ = after(Change(services={s.id: None for s in shared[1:]}), old)
    assert addresses(table, "web") == ["10.1.0.10"]
    table, _ = after(Change(services={s.id: None for s in shared}), old)
    assert addresses(table, "web") is None
    assert len(table) == len(NameTable(snapshot([]))) + len_of("n1", snapshot([])) + len_of(
        "n3", snapshot([])
    )


def len_of(network: str, of: Snapshot) -> int:
    return len(NameTable(of).index(network))


# --- any history --------------------------------------------------------------------------------------------

STATES = st.sampled_from(TaskState)
NETWORK_IDS = ("n0", "n1", "n2", "n3")
FAR = Neighbour(
    "node2", "fa2fa2fa2fa2fa2", "far", (Attachment("n1", "10.1.0.7", ("web", "Helper")),), "farhost"
)
NEIGHBOURS = (
    FAR,
    replace(FAR, name="Shop", hostname="", attachments=(Attachment("n2", "10.2.0.7"),)),
    replace(FAR, node="node3", attachments=(Attachment("n1", "10.1.0.8"), Attachment("n2", "10.2.0.8"))),
    replace(FAR, id=TOOL.id, name="tool"),  # as this node has one
    replace(FAR, id="lost", attachments=(Attachment("n3", "172.20.0.9"),)),  # cannot be
)


@st.composite
def worlds(draw: st.DrawFn) -> Snapshot:
    """Variations: any services and containers present, any states, labels, aliases, networks named or not."""
    services = []
    for service in draw(st.lists(st.sampled_from([WEB, SHOP, DB]), unique_by=lambda s: s.id)):
        tasks = tuple(replace(t, state=draw(STATES)) for t in service.tasks)
        labels = draw(st.sampled_from([{}, {"mesh.enable": "false"}, {"mesh.dns.ttl": "9"}]))
        aliases = st.sampled_from([(), ("web",), ("Shop", "tasks.web")])
        networks = tuple(replace(n, aliases=draw(aliases)) for n in service.networks if draw(st.booleans()))
        services.append(replace(service, tasks=tasks, labels=labels, networks=networks))
    containers = draw(
        st.lists(st.sampled_from([TOOL, local(), local(1, running=False)]), unique_by=lambda c: c.id)
    )
    front = draw(st.sampled_from([FRONTEND, replace(FRONTEND, name="x"), replace(FRONTEND, ingress=True)]))
    networks = draw(st.sampled_from([[front], [front, BACKEND], [BACKEND, OWN]]))
    neighbours = draw(st.lists(st.sampled_from(NEIGHBOURS), unique_by=lambda one: one.key))
    return snapshot(services, containers, networks).apply(
        Change(neighbours={one.key: one for one in neighbours})
    )


def steps_to(old: Snapshot, target: Snapshot) -> Change:
    parts = (target.services.values(), target.containers.values(), target.networks.values())
    return replace(change_to(old, *parts), neighbours=changed(old.neighbours, target.neighbours))


def said(table: NameTable) -> dict[tuple[str, str], object]:
    """All that the table says under any name or address that this world can have."""
    names = {"web", "shop", "db", "tool", "helper", "toolbox", "shop_web", "c0ffee123456"}
    names |= {"far", "farhost", "fa2fa2fa2fa2", "lost"}
    names |= {f"tasks.{name}" for name in names}
    for service in (WEB, SHOP, DB):
        for one in service.tasks:
            names |= {one.name.lower(), one.container[:12]}
    addresses = {f"10.{n}.0.{i}" for n in (0, 1, 2) for i in range(10)} | {"172.20.0.2", "fd00::2"}
    found = {(n, name): table.get(n, name) for n in NETWORK_IDS for name in names}
    found |= {(n, address): table.pointers(n, address) for n in NETWORK_IDS for address in addresses}
    return {key: [words(c) for c in contributions] for key, contributions in found.items() if contributions}


def words(c: Contribution) -> object:
    labels = c.service.labels if c.service else None
    return (c.stack, c.left, c.empty, c.hosts, c.pointer, c.vip, labels)


@settings(deadline=None)
@given(st.lists(st.tuples(worlds(), st.sampled_from([*NETWORK_IDS, ""])), min_size=2, max_size=6))
def test_following_any_history_gives_the_table_of_the_last_snapshot(
    steps: list[tuple[Snapshot, str]],
) -> None:
    """Networks are asked on for the first time at any point of it."""
    now = Snapshot()
    table = NameTable()
    for target, asked in steps:
        change = steps_to(now, target)
        now = now.apply(change)
        table.apply(now, change)
        table.get(asked, "web")
    assert said(table) == said(NameTable(now))


@settings(deadline=None)
@given(worlds(), worlds())
def test_whatever_is_said_differently_is_touched(old: Snapshot, target: Snapshot) -> None:
    change = steps_to(old, target)
    before = said(NameTable(old))
    table, touched = after(change, old)
    now = said(table)
    named_before, named_now = (
        {id_ for id_, network in world.networks.items() if not network.ingress} for world in (old, target)
    )
    differing = {
        name
        for network, name in {*before, *now}
        if network in named_before & named_now and before.get((network, name)) != now.get((network, name))
    }
    assert {name for name in differing if not {name, name.removeprefix("tasks.")} & touched} == set()
