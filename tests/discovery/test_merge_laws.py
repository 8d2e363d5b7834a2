"""Whatever happens in whatever order: the changes add up to what is computed from scratch, and no more."""

from collections.abc import Mapping

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mesh.catalog.cluster_view import ClusterView
from mesh.catalog.diff import changed
from mesh.catalog.model import (
    Attachment,
    Container,
    EndpointMode,
    Network,
    Node,
    Service,
    ServiceNetwork,
    Task,
    TaskState,
)
from mesh.catalog.snapshot import Change, Snapshot
from mesh.discovery.engine_json import SERVICE_NAME_LABEL, NetworkView, SeenService, SeenTask
from mesh.discovery.merge import Merger

NAMES = ("web", "db")  # service "web" has the id "web-id"
NETWORKS = ("front", "back", "ingress")
NODES = {f"n{n}": Node(f"n{n}", f"n{n}", f"192.168.2.{n}") for n in (1, 2)}

on_networks = st.sets(st.sampled_from(NETWORKS)).map(sorted)
addresses = st.dictionaries(st.sampled_from(NETWORKS), st.sampled_from(("10.0.0.1", "10.0.0.2")), max_size=2)


@st.composite
def networks(draw: st.DrawFn) -> dict[str, Network]:
    drivers = draw(st.dictionaries(st.sampled_from(NETWORKS), st.sampled_from(("overlay", "other"))))
    return {id_: Network(id_, id_, driver=one, ingress=id_ == "ingress") for id_, one in drivers.items()}


@st.composite
def services(draw: st.DrawFn) -> dict[str, Service]:
    found = {}
    for name in draw(st.sets(st.sampled_from(NAMES))):
        states = draw(st.dictionaries(st.integers(1, 3), st.sampled_from(TaskState), max_size=3))
        tasks = tuple(
            Task(f"{name}t{slot}", f"{name}.{slot}.{name}t{slot}", "n1", state, draw(addresses), slot=slot)
            for slot, state in states.items()
        )
        members = tuple(ServiceNetwork(one, "10.0.0.9") for one in draw(on_networks) if one != "ingress")
        found[f"{name}-id"] = Service(f"{name}-id", name, EndpointMode.VIP, members, tasks=tasks)
    return found


@st.composite
def containers(draw: st.DrawFn) -> dict[str, Container]:
    found = {}
    for name in NAMES:
        for slot in draw(st.sets(st.integers(1, 3), max_size=2)):
            id_ = f"{name}c{slot}"
            on = tuple(Attachment(one, "10.0.0.1") for one in draw(on_networks))
            labels = {SERVICE_NAME_LABEL: name}
            found[id_] = Container(
                id_, id_, "/ns", on, service=f"{name}-id", task=f"{name}t{slot}", labels=labels
            )
    return found


@st.composite
def seen(draw: st.DrawFn, name: str) -> SeenService:
    tasks = draw(st.dictionaries(st.integers(1, 4), st.sampled_from(("10.0.0.1", "10.0.0.3"))))
    return SeenService(
        draw(st.sampled_from(("", "10.0.0.9"))),
        tuple(SeenTask(f"{name}.{n}.{name}t{n}", address, "192.168.2.2") for n, address in tasks.items()),
    )


@st.composite
def gossip(draw: st.DrawFn) -> list[NetworkView]:
    return [
        NetworkView(network, {name: draw(seen(name)) for name in draw(st.sets(st.sampled_from(NAMES)))})
        for network in draw(on_networks)
    ]


class Laws(RuleBasedStateMachine):
    """A merger, what its changes have made, and all that it was ever told."""

    def __init__(self) -> None:
        super().__init__()
        self.merger = Merger()
        self.snapshot = Snapshot()
        self.local: Mapping[str, Network] = {}
        self.containers: dict[str, Container] = {}
        self.views: list[NetworkView] = []
        self.leaving: dict[str, str] = {}

    def take(self, change: Change) -> None:
        """No change names what is as it was."""
        before = self.snapshot
        self.snapshot = before.apply(change)
        for old, new, told in (
            (before.services, self.snapshot.services, change.services),
            (before.networks, self.snapshot.networks, change.networks),
            (before.containers, self.snapshot.containers, change.containers),
            (before.nodes, self.snapshot.nodes, change.nodes),
        ):
            assert set(told) == set(changed(old, new))

    @rule(found=networks())
    def local_networks(self, found: dict[str, Network]) -> None:
        self.local = found
        self.take(self.merger.set_local_networks(found))

    @rule(found=services(), known=networks())
    def whole_view(self, found: dict[str, Service], known: dict[str, Network]) -> None:
        self.views = []
        view = ClusterView(NODES, known, found)
        ours, raw = self.merger.set_cluster(view)
        self.take(ours)
        assert self.merger.cluster == view
        assert raw == Change(raw.nodes, raw.networks, raw.services)  # a view is of the cluster only

    @precondition(lambda self: not self.views)  # who hears of changes has had a whole view
    @rule(found=services(), known=networks())
    def part_of_it(self, found: dict[str, Service], known: dict[str, Network]) -> None:
        now = self.merger.cluster
        difference = changed(now.services, found)
        self.take(self.merger.apply(Change(networks=changed(now.networks, known), services=difference)))
        assert self.merger.cluster == ClusterView(now.nodes, known, found)

    @rule(found=containers())
    def all_containers(self, found: dict[str, Container]) -> None:
        self.containers = dict(found)
        self.take(self.merger.set_containers(found))

    @rule(found=containers())
    def one_container(self, found: dict[str, Container]) -> None:
        for id_ in sorted({*self.containers, *found})[:1]:
            self.take(self.merger.put_container(id_, found.get(id_)))
            self.containers.pop(id_, None)
            self.containers |= {id_: found[id_]} if id_ in found else {}

    @rule(ending=st.sets(st.tuples(st.sampled_from(NAMES), st.integers(1, 3))))
    def told_to_stop(self, ending: set[tuple[str, int]]) -> None:
        self.leaving = {f"{name}t{slot}": f"{name}-id" for name, slot in ending}
        self.take(self.merger.set_leaving(self.leaving))

    @rule(found=gossip())
    def cut_off(self, found: list[NetworkView]) -> None:
        self.views = found
        self.take(self.merger.set_views(found))

    @invariant()
    def all_adds_up(self) -> None:
        fresh, made = Merger(), Snapshot()
        made = made.apply(fresh.set_leaving(self.leaving))
        made = made.apply(fresh.set_local_networks(self.local))
        made = made.apply(fresh.set_cluster(self.merger.cluster)[0])
        made = made.apply(fresh.set_containers(self.containers))
        made = made.apply(fresh.set_views(self.views))
        for name in ("services", "networks", "containers", "nodes", "members"):
            assert getattr(self.snapshot, name) == getattr(made, name)


TestLaws = Laws.TestCase
TestLaws.settings = settings(max_examples=60, stateful_step_count=15, deadline=None)
