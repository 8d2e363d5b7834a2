"""Plain containers of other nodes: what is told of them, what is believed, and how long."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.catalog.cluster_view import ClusterView
from mesh.catalog.diff import changed
from mesh.catalog.model import (
    Attachment,
    Container,
    Neighbour,
    Network,
    Node,
    Service,
    ServiceNetwork,
    Task,
    TaskState,
)
from mesh.catalog.snapshot import Change, Snapshot
from mesh.discovery import plain_containers as module
from mesh.discovery.allocations import Allocations
from mesh.discovery.merge import Merger
from mesh.discovery.plain_containers import Neighbours, is_dns_name, plain_containers
from mesh.dns.name_table import NameTable
from mesh.peers.report.codec import NodeReport, decode_report, encode_report

FRONT = Network("front", "frontend", ("10.1.0.0/24", "fd01::/64"), attachable=True)
BACK = Network("back", "backend", ("10.2.0.0/24",), attachable=True)
INGRESS = Network("in", "ingress", ("10.0.0.0/24",), ingress=True)
OWN = Network("own", "own", ("172.20.0.0/16",), scope="local", driver="bridge")
NETWORKS = {one.id: one for one in (FRONT, BACK, INGRESS)}
HERE = NETWORKS | {OWN.id: OWN}
NODES = {id_: Node(id_, id_, "") for id_ in ("a", "b", "c")}
VIEW = ClusterView(NODES, NETWORKS, {})
TOOL = Container(
    "c0ffee1234567890",
    "tool",
    "/ns",
    (
        Attachment("front", "10.1.0.7", ("helper", "four.test"), address6="fd01::7"),
        Attachment("own", "172.20.0.2"),
    ),
    hostname="toolbox",
    labels={"com.docker.stack.namespace": "shop"},
)
TOLD = Neighbour(
    "", TOOL.id, "tool", (Attachment("front", "10.1.0.7", ("helper", "four.test")),), "toolbox", "shop"
)


class TestTelling:
    def test_what_names_need_and_no_more(self) -> None:
        assert plain_containers([TOOL], HERE) == {TOOL.id: TOLD}

    @pytest.mark.parametrize(
        "container",
        [
            replace(TOOL, service="s1", task="t1"),
            replace(TOOL, running=False),
            replace(TOOL, attachments=TOOL.attachments[1:]),
            replace(TOOL, attachments=(Attachment("in", "10.0.0.7"),)),
            replace(TOOL, attachments=(Attachment("nowhere", "10.9.0.7"),)),
            replace(TOOL, attachments=(Attachment("front", "", address6="fd01::7"),)),
        ],
    )
    def test_others_do_not_need_to_know(self, container: Container) -> None:
        assert plain_containers([container], HERE) == {}

    def test_names_that_dns_cannot_hold_stay_here(self) -> None:
        odd = replace(
            TOOL,
            name="x" * 64,
            hostname="a b",
            attachments=(Attachment("front", "10.1.0.7", ("ok", "é", "a..b")),),
        )
        (told,) = plain_containers([odd], HERE).values()
        assert (told.name, told.hostname, told.attachments[0].aliases) == ("c0ffee123456", "", ("ok",))

    @pytest.mark.parametrize("name", ["a", "a_b-c.D9", "four.test", "x" * 63, ".".join(["x" * 62] * 4)])
    def test_names(self, name: str) -> None:
        assert is_dns_name(name)

    @pytest.mark.parametrize(
        "name", ["", ".", "a.", ".a", "a b", "a\n", "x" * 64, ".".join(["x" * 63] * 4), "é"]
    )
    def test_no_names(self, name: str) -> None:
        assert not is_dns_name(name)


def book(view: ClusterView = VIEW) -> Neighbours:
    made = Neighbours()
    made.lay_over(view)
    return made


def shown(of: Neighbours, view: ClusterView = VIEW) -> set[str]:
    return set(of.lay_over(view).neighbours)


KEY = f"b/{TOOL.id}"


class TestKeeping:
    def test_the_last_report_is_the_whole_truth(self) -> None:
        one = book()
        other = replace(TOLD, id="0ther")
        assert one.report("b", {TOOL.id: TOLD}) == Change(neighbours={KEY: replace(TOLD, node="b")})
        assert one.report("b", {TOOL.id: TOLD}) == Change()
        assert one.report("b", {"0ther": other}) == Change(
            neighbours={KEY: None, "b/0ther": replace(other, node="b")}
        )
        assert one.report("b", {}) == Change(neighbours={"b/0ther": None})

    def test_a_node_speaks_for_itself_only(self) -> None:
        one = book()
        one.report("b", {TOOL.id: TOLD})
        one.report("c", {TOOL.id: replace(TOLD, node="b", name="mine")})
        assert shown(one) == {KEY, f"c/{TOOL.id}"}
        assert one.lay_over(VIEW).neighbours[KEY].name == "tool"
        one.report("c", {})
        assert shown(one) == {KEY}

    def test_silence_says_nothing(self) -> None:
        """There is no clock in it: only Swarm's word on the node, or the node's own, ends it."""
        one = book()
        one.report("b", {TOOL.id: TOLD})
        assert all(shown(one) == {KEY} for _ in range(100))

    @pytest.mark.parametrize("state", ["unknown", "disconnected", "ready"])
    def test_a_node_that_may_live_is_believed(self, state: str) -> None:
        one = book()
        one.report("b", {TOOL.id: TOLD})
        assert shown(one, replace(VIEW, nodes=NODES | {"b": replace(NODES["b"], state=state)})) == {KEY}

    @pytest.mark.parametrize("gone", [None, replace(NODES["b"], state="down")])
    def test_a_node_that_is_down_or_gone_is_forgotten(self, gone: Node | None) -> None:
        """When it is back it has to speak first: its containers may be gone."""
        one = book()
        one.report("b", {TOOL.id: TOLD})
        nodes = {id_: node for id_, node in (NODES | {"b": gone}).items() if node is not None}
        assert shown(one, replace(VIEW, nodes=nodes)) == set()
        assert one.report("b", {TOOL.id: TOLD}) == Change()
        assert shown(one) == set()
        assert one.report("b", {TOOL.id: TOLD})
        assert shown(one) == {KEY}

    def test_a_new_manager_goes_on_from_what_is_known(self) -> None:
        one = Neighbours()
        one.begin({KEY: replace(TOLD, node="b"), "gone/x": replace(TOLD, node="gone", id="x")})
        assert shown(one) == {KEY}
        assert one.report("b", {TOOL.id: TOLD}) == Change()
        assert one.report("b", {}) == Change(neighbours={KEY: None})


class TestBelieving:
    @pytest.mark.parametrize(
        ("attached", "reason"),
        [
            (Attachment("nowhere", "10.1.0.7"), "network"),
            (Attachment("in", "10.0.0.7"), "network"),
            (Attachment("own", "172.20.0.7"), "network"),
            (Attachment("front", "10.2.0.7"), "address"),
            (Attachment("front", "fd01::7"), "address"),
            (Attachment("front", "10.1.0.07"), "address"),
            (Attachment("front", ""), "address"),
        ],
    )
    def test_an_attachment_that_cannot_be(self, attached: Attachment, reason: str) -> None:
        one = book(replace(VIEW, networks=HERE))
        good = Attachment("back", "10.2.0.9")
        change = one.report("b", {TOOL.id: replace(TOLD, attachments=(attached, good))})
        found = change.neighbours[KEY]
        assert found is not None
        assert found.attachments == (good,)
        assert one.refused[reason] == one.refused.total() == 1
        assert one.report("c", {TOOL.id: replace(TOLD, attachments=(attached,))}) == Change()

    def test_what_is_no_name(self) -> None:
        one = book()
        attached = (Attachment("front", "10.1.0.7", ("ok", "not ok")),)
        odd = replace(TOLD, name="a b", hostname="..", attachments=attached)
        found = one.report("b", {TOOL.id: odd}).neighbours[KEY]
        assert found is not None
        assert (found.name, found.hostname, found.attachments[0].aliases) == (TOLD.short_id, "", ("ok",))
        assert one.refused["name"] == 3
        assert one.report("c", {"no id": replace(TOLD, id="no id")}) == Change()
        assert one.refused["name"] == 4

    def test_what_was_refused_is_counted_once(self) -> None:
        one = book()
        for _ in range(3):
            one.report("b", {TOOL.id: replace(TOLD, name="a b")})
        assert one.refused["name"] == 1

    def test_a_network_that_is_listed_late(self) -> None:
        one = book(replace(VIEW, networks={}))
        assert one.report("b", {TOOL.id: TOLD}) == Change()
        assert shown(one) == {KEY}
        assert shown(one, replace(VIEW, networks={})) == set()

    def test_of_all_nodes_together(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "NEIGHBOURS_MAX", 3)
        one = book()
        two = {id_: replace(TOLD, id=id_) for id_ in ("c1", "c2")}
        one.report("b", two)
        one.report("c", two)
        assert shown(one) == {"b/c1", "b/c2", "c/c1"}
        assert one.refused["excess"] == 1
        assert len(shown(one, replace(VIEW, networks={**NETWORKS, "new": replace(BACK, id="new")}))) == 3
        one.report("b", {})
        one.report("c", {**two, "c3": replace(TOLD, id="c3")})
        assert shown(one) == {"c/c1", "c/c2", "c/c3"}


class TestMerging:
    """Every node hears of all; its own engine knows its own containers better and sooner."""

    LAID = replace(VIEW, neighbours={f"{n}/c": replace(TOLD, node=n, id="c") for n in ("a", "b")})

    def test_a_node_takes_only_those_of_others(self) -> None:
        merger = Merger()
        merger.set_node("a")
        ours, raw = merger.set_cluster(self.LAID)
        assert set(ours.neighbours) == {"b/c"}
        assert set(raw.neighbours) == {"a/c", "b/c"}
        assert set(merger.cluster.neighbours) == {"a/c", "b/c"}
        ours = merger.apply(Change(neighbours={"a/c": None, "b/c": None}))
        assert ours.neighbours == {"b/c": None}
        assert not merger.cluster.neighbours

    def test_the_node_is_known_late_or_is_another(self) -> None:
        merger = Merger()
        now = Snapshot().apply(merger.set_cluster(self.LAID)[0])
        assert set(now.neighbours) == {"a/c", "b/c"}
        now = now.apply(merger.set_node("a"))
        assert set(now.neighbours) == {"b/c"}
        now = now.apply(merger.set_node("b"))
        assert set(now.neighbours) == {"a/c"}


told_neighbours = st.sets(st.tuples(st.sampled_from("ab"), st.sampled_from(("c1", "c2"))), max_size=4).map(
    lambda keys: {f"{n}/{c}": replace(TOLD, node=n, id=c) for n, c in sorted(keys)}
)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(("view", "change", "node")), told_neighbours, st.sampled_from(["", "a", "b"])
        )
    )
)
def test_whatever_is_told_in_whatever_order_a_node_knows_those_of_others(
    news: list[tuple[str, dict[str, Neighbour], str]],
) -> None:
    merger, now, node = Merger(), Snapshot(), ""
    for kind, neighbours, id_ in news:
        if kind == "node":
            node = id_
            ours = merger.set_node(node)
        elif kind == "view":
            ours, _ = merger.set_cluster(replace(VIEW, neighbours=neighbours))
        else:
            ours = merger.apply(Change(neighbours=changed(merger.cluster.neighbours, neighbours)))
        now = now.apply(ours)
        cluster = merger.cluster.neighbours
        assert dict(now.neighbours) == {key: one for key, one in cluster.items() if one.node != node}


# --- the law ------------------------------------------------------------------------------------------------

names = st.sampled_from(["web", "Web", "tool", "db", "four.test", "tasks.web", "c1"])


@st.composite
def containers(draw: st.DrawFn) -> dict[str, Container]:
    """Of one node, as its engine may know them; they and services share names, ids and addresses."""
    found = {}
    for id_ in draw(st.sets(st.sampled_from(["c1", "c2", "c3" * 9, "fe" * 32]))):
        on = draw(st.sets(st.sampled_from([("front", "10.1.0."), ("back", "10.2.0."), ("own", "172.20.0.")])))
        attachments = tuple(
            Attachment(
                network,
                f"{part}{draw(st.integers(2, 5))}",
                tuple(draw(st.lists(names, max_size=2, unique=True))),
                draw(st.sampled_from(["", "fd01::7"])),
            )
            for network, part in sorted(on)
        )
        labels = draw(st.sampled_from([{}, {"com.docker.stack.namespace": "shop"}]))
        hostname = draw(st.sampled_from(["", "web", "box"]))
        found[id_] = Container(id_, draw(names), "/ns", attachments, hostname, labels=labels)
    return found


def services() -> dict[str, Service]:
    task = Task("t1", "web.1.t1", "b", TaskState.RUNNING, {"front": "10.1.0.3"}, "c1" * 9, "box")
    return {
        "s1": Service("s1", "web", networks=(ServiceNetwork("front", "10.1.0.2", ("db",)),), tasks=(task,))
    }


def said(snapshot: Snapshot) -> dict[tuple[str, str], object]:
    """All that is said on the Swarm's networks under any name or address of this world."""
    table = NameTable(snapshot)
    known = ["web", "tool", "db", "four.test", "tasks.web", "box", "web.1.t1", "c1", "c2", "c3" * 6, "fe" * 6]
    addresses = [f"10.{n}.0.{i}" for n in (1, 2) for i in range(6)] + ["fd01::7"]
    found: dict[tuple[str, str], object] = {
        (n, one): table.get(n, one) for n in ("front", "back") for one in known
    }
    return found | {(n, one): table.pointers(n, one) for n in ("front", "back") for one in addresses}


HELD = {"web", "db", "box", "web.1.t1", "c1c1c1c1c1c1"}  # names of services and of a task


def honest(one: Container) -> Container:
    """What another node may say of it."""

    def free(name: str) -> bool:
        return name.lower() not in HELD and not name.startswith("tasks.")

    attachments = tuple(
        replace(a, aliases=tuple(filter(free, a.aliases)))
        for a in one.attachments
        if (a.network, a.address) not in {("front", "10.1.0.2"), ("front", "10.1.0.3")}
    )
    name = one.name if free(one.name) else one.short_id
    hostname = one.hostname if free(one.hostname) else ""
    return replace(one, name=name, hostname=hostname, attachments=attachments)


@settings(deadline=None)
@given(containers(), containers())
def test_names_on_one_node_are_as_if_the_others_containers_were_its_own(
    here: dict[str, Container], there: dict[str, Container]
) -> None:
    """Through the report, a manager's book and the merge, but for what is a service's. Ids are engines' own:
    no two share one."""
    there = {id_: one for id_, one in there.items() if id_ not in here}
    view = replace(VIEW, services=services())
    report = decode_report(encode_report(NodeReport({}, plain_containers(there.values(), HERE))))
    manager = book(view)
    manager.report("b", report.containers)
    manager.report("a", plain_containers(here.values(), HERE))

    merger = Merger()
    merger.set_node("a")
    told = Snapshot().apply(merger.set_cluster(manager.lay_over(view))[0])
    told = told.apply(merger.set_containers(here))
    others = {id_: honest(one) for id_, one in there.items()}
    as_if = Snapshot().apply(Change(networks=NETWORKS, services=services(), containers=here | others))
    assert said(told) == said(as_if)


class TestWhatIsSomebodyElses:
    """A name or an address that a service has, whoever came first."""

    TASK = Task("t1", "shop_db.1.t1", "c", TaskState.RUNNING, {"front": "10.1.0.3"}, "ab" * 32, "db-host")
    DB = Service(
        "s1", "shop_db", networks=(ServiceNetwork("back", "10.2.0.2", ("db", "Data.Base")),), tasks=(TASK,),
        labels={"com.docker.stack.namespace": "shop"},
    )  # fmt: skip
    WITH_DB = replace(VIEW, services={"s1": DB})

    @pytest.mark.parametrize(
        ("name", "reason"),
        [
            ("shop_db", "service"),
            ("db", "service"),
            ("DB", "service"),
            ("data.base", "service"),
            ("shop_db.1.t1", "service"),
            ("db-host", "service"),
            ("abababababab", "service"),
            ("tasks.shop_db", "reserved"),
            ("Tasks.db", "reserved"),
            ("tasks.anything", "reserved"),
            ("db.backend", "reserved"),
            ("x.FrontEnd", "reserved"),
            ("a.b.backend", "reserved"),
            ("_http._tcp.db", "reserved"),
            ("localhost", "reserved"),
            ("db.localhost", "reserved"),
            ("2.0.2.10.in-addr.arpa", "reserved"),
            ("host.docker.internal", "reserved"),
            ("10.2.0.2", "reserved"),
            ("db.", "name"),
            ("db\\.x", "name"),
            ("d\u0431", "name"),
            ("\u212a", "name"),
        ],
    )
    @pytest.mark.parametrize("where", ["name", "hostname", "alias"])
    def test_names(self, name: str, reason: str, where: str) -> None:
        said = replace(
            TOLD, name="mine", hostname="", attachments=(Attachment("front", "10.1.0.7", ("ok",)),)
        )
        if where == "alias":
            said = replace(said, attachments=(Attachment("front", "10.1.0.7", ("ok", name)),))
        else:
            said = replace(said, **{where: name})
        one = book(self.WITH_DB)
        found = one.report("b", {TOOL.id: said}).neighbours[KEY]
        assert found is not None
        assert name not in (found.name, found.hostname, *found.attachments[0].aliases)
        assert found.attachments[0].aliases == ("ok",)
        assert one.refused[reason] == one.refused.total() == 1
        (problem,) = one.problems()
        assert problem.file == "node b"
        assert repr(name) in problem.message

    def test_an_id_that_reads_as_a_services_name(self) -> None:
        one = book(self.WITH_DB)
        assert one.report("b", {"db": replace(TOLD, id="db")}) == Change()
        assert one.refused["service"] == 1

    def test_a_service_that_is_made_later_wins_at_once(self) -> None:
        one = book()
        said = replace(TOLD, name="shop_db", attachments=(Attachment("front", "10.1.0.7", ("db",)),))
        one.report("b", {TOOL.id: said})
        assert one.lay_over(VIEW).neighbours[KEY].name == "shop_db"
        found = one.lay_over(self.WITH_DB).neighbours[KEY]
        assert (found.name, found.attachments[0].aliases) == (TOOL.short_id, ())
        assert one.refused["service"] == 2
        assert one.lay_over(self.WITH_DB).neighbours[KEY] == found
        assert one.refused["service"] == 2, "each is counted once"
        assert one.lay_over(VIEW).neighbours[KEY].name == "shop_db", "and is free when the service is gone"
        assert not list(one.problems())

    @pytest.mark.parametrize(
        "attached",
        [
            Attachment("back", "10.2.0.2"),  # a virtual IP
            Attachment("front", "10.1.0.3"),  # a task's
            Attachment("front", "10.1.0.1"),  # a gateway's
            Attachment("front", "10.1.0.0"),
            Attachment("front", "10.1.0.255"),
        ],
    )
    def test_addresses(self, attached: Attachment) -> None:
        one = book(self.WITH_DB)
        assert one.report("b", {TOOL.id: replace(TOLD, attachments=(attached,))}) == Change()
        assert one.refused["address"] == one.refused.total() == 1

    def test_gateways_that_somebody_has_chosen(self) -> None:
        one = book()
        one.lay_over(
            VIEW, Allocations({"b": frozenset({"front"})}, gateways={"front": frozenset({"10.1.0.7"})})
        )
        assert one.report("b", {TOOL.id: TOLD}) == Change()
        first = replace(TOLD, attachments=(Attachment("front", "10.1.0.1"),))
        assert one.report("b", {TOOL.id: first})

    def test_addresses_that_the_engine_gave_to_another_nodes_container(self) -> None:
        both = {node: frozenset({"front"}) for node in ("b", "c")}
        one = book()
        one.lay_over(VIEW, Allocations(both, {("front", "10.1.0.7"): "c"}))
        assert one.report("b", {TOOL.id: TOLD}) == Change()
        assert one.report("c", {TOOL.id: TOLD})
        assert one.refused["address"] == 1

    def test_a_network_that_is_not_attachable(self) -> None:
        one = book(replace(VIEW, networks={"front": replace(FRONT, attachable=False)}))
        assert one.report("b", {TOOL.id: TOLD}) == Change()
        assert one.refused["network"] == 1

    def test_a_network_on_which_the_node_has_nothing(self) -> None:
        """It may have come a moment ago: another look tells."""
        one = book()
        nothing = Allocations()
        one.lay_over(self.WITH_DB, nothing)
        other = replace(TOLD, id="c0", attachments=(Attachment("front", "10.1.0.8"),))
        assert one.report("c", {"c0": other}), "a task of a service is there"
        assert one.report("b", {TOOL.id: TOLD}) == Change()
        assert (one.unproven, one.refused.total()) == (True, 0)
        assert KEY not in one.lay_over(self.WITH_DB).neighbours
        assert one.unproven
        assert KEY not in one.lay_over(self.WITH_DB, nothing).neighbours
        assert (one.unproven, one.refused["network"]) == (False, 1)
        now = Allocations({"b": frozenset({"front"})}, {("front", "10.1.0.7"): "b"})
        assert KEY in one.lay_over(self.WITH_DB, now).neighbours
        assert not list(one.problems())
        assert KEY not in one.lay_over(self.WITH_DB, nothing).neighbours, "when it is gone there, so is this"

    def test_few_are_named(self) -> None:
        one = book(self.WITH_DB)
        one.report("b", {f"c{n}": replace(TOLD, id=f"c{n}", name="db") for n in range(50)})
        found = [str(problem) for problem in one.problems()]
        assert len(found) == module.SHOWN_MAX + 1
        assert found[-1] == "node b: plain containers: 47 more are refused"


def test_a_view_with_a_lie_in_it_harms_no_service() -> None:
    """A saved one, or an older manager's."""
    lie = replace(
        TOLD,
        node="b",
        name="web",
        hostname="box",
        attachments=(Attachment("front", "10.1.0.3", ("db", "tasks.web")),),
    )
    lies = {lie.key: lie, "b/2": replace(lie, id="2", attachments=(Attachment("front", "10.1.0.2"),))}
    without = Snapshot().apply(Change(networks=NETWORKS, services=services()))
    poisoned = without.apply(Change(neighbours=lies))
    for key, expected in said(without).items():
        if expected:
            assert said(poisoned)[key] == expected, key
