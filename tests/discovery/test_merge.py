"""Which source wins: the manager's word, this node's events, and gossip where nobody else tells."""

from collections.abc import Mapping

from mesh.catalog.cluster_view import ClusterView
from mesh.catalog.model import EndpointMode, Service, ServiceNetwork, TaskState
from mesh.catalog.snapshot import Change, Snapshot
from mesh.discovery.engine_json import NetworkView, SeenService, SeenTask, container
from mesh.discovery.merge import Merger
from mesh.discovery.swarm_json import cluster, network
from tests.support import docker_fixtures as docker
from tests.support.docker_fixtures import BACKEND, INGRESS, NETWORKS, NODES, OTHER, WEB, WEB_TASKS

VIEW = cluster(NODES, NETWORKS, [WEB], WEB_TASKS)
OURS = container(docker.WEB_CONTAINER)  # of webtask2, on this node
ENDING = {"webtask2": "webservice"}
SEEN = {
    f"shop_web.{slot}.webtask{slot}": SeenTask(
        f"shop_web.{slot}.webtask{slot}", f"10.0.8.{10 + slot}", f"192.168.2.{59 + slot}"
    )
    for slot in (1, 2, 3)
}


class Scene:
    """A merger on a worker, and the snapshot that its changes have made."""

    def __init__(self, view: ClusterView | None = VIEW) -> None:
        self.merger = Merger()
        self.snapshot = Snapshot()
        self.local_networks()
        if view is not None:
            self.take(self.merger.set_cluster(view)[0])
            self.take(self.merger.set_containers({OURS.id: OURS}))

    def local_networks(self) -> None:
        self.take(self.merger.set_local_networks({n.id: n for n in map(network, NETWORKS)}))

    def take(self, change: Change) -> Change:
        self.snapshot = self.snapshot.apply(change)
        return change

    def gossip(self, *views: NetworkView) -> Change:
        return self.take(self.merger.set_views(views))

    def states(self, service: str = "webservice") -> Mapping[str, TaskState]:
        return {t.id: t.state for t in self.snapshot.services[service].tasks}


def backend(*tasks: SeenTask, vip: str = "10.0.8.2", **more: SeenService) -> NetworkView:
    return NetworkView(BACKEND, {"shop_web": SeenService(vip, tasks), **more})


RUNNING, LEAVING, STARTING = TaskState.RUNNING, TaskState.LEAVING, TaskState.STARTING
UNWELL = TaskState.UNWELL


class TestThisNode:
    def test_a_container_told_to_stop_takes_its_task_out_at_once(self) -> None:
        scene = Scene()
        change = scene.take(scene.merger.set_leaving(ENDING))
        assert scene.states() == {"webtask1": RUNNING, "webtask2": LEAVING, "webtask3": RUNNING}
        assert set(change.services) == {"webservice"}
        assert not change.containers

    def test_one_that_survived_serves_again(self) -> None:
        scene = Scene()
        scene.take(scene.merger.set_leaving(ENDING))
        change = scene.take(scene.merger.set_leaving({}))
        assert scene.states()["webtask2"] is RUNNING
        assert set(change.services) == {"webservice"}

    def test_one_that_fails_its_probe_is_unwell_until_it_ends_or_is_well_again(self) -> None:
        scene = Scene()
        for unwell, state in ((frozenset(ENDING), UNWELL), (frozenset[str](), LEAVING)):
            change = scene.take(scene.merger.set_leaving(ENDING, unwell))
            assert scene.states()["webtask2"] is state
            assert set(change.services) == {"webservice"}
        scene.take(scene.merger.set_leaving({}))
        assert scene.states()["webtask2"] is RUNNING

    def test_what_the_cluster_lists(self) -> None:
        merger = Scene().merger
        assert merger.lists("webtask2", "webservice")
        assert not merger.lists("webtask9", "webservice")
        assert not merger.lists("webtask2", "other")

    def test_the_manager_does_not_bring_it_back(self) -> None:
        scene = Scene()
        scene.take(scene.merger.set_leaving(ENDING))
        tasks = [{**one, "Version": {"Index": 99}} for one in WEB_TASKS]
        scene.take(scene.merger.set_cluster(cluster(NODES, NETWORKS, [WEB], tasks))[0])
        assert scene.states()["webtask2"] is LEAVING

    def test_a_running_container_does_not_make_a_task_serve(self) -> None:
        starting = [{**WEB_TASKS[1], "Status": {"State": "starting"}}]
        scene = Scene(cluster(NODES, NETWORKS, [WEB], starting))
        assert scene.states() == {"webtask2": STARTING}

    def test_an_event_may_come_before_the_list(self) -> None:
        """Killed between the start of the stream and the first list: the event names the task."""
        scene = Scene(None)
        scene.take(scene.merger.set_leaving(ENDING))
        scene.take(scene.merger.set_cluster(VIEW)[0])
        assert scene.states()["webtask2"] is LEAVING

    def test_the_same_again_is_no_change(self) -> None:
        scene = Scene()
        assert not scene.merger.set_containers({OURS.id: OURS})
        assert not scene.merger.put_container(OURS.id, OURS)
        assert not scene.merger.set_cluster(VIEW)[0]
        scene.take(scene.merger.set_leaving(ENDING))
        assert not scene.merger.set_leaving(ENDING)


class TestTheCluster:
    def test_changes_cost_what_changed(self) -> None:
        scene = Scene()
        second = Service("s2", "db")
        change = scene.take(scene.merger.apply(Change(services={"s2": second})))
        assert change.services == {"s2": second}
        change = scene.take(scene.merger.apply(Change(services={"s2": None})))
        assert change.services == {"s2": None}

    def test_the_uncorrected_view_is_what_the_feed_serves(self) -> None:
        scene = Scene()
        scene.take(scene.merger.set_leaving(ENDING))
        assert scene.merger.cluster.services["webservice"].tasks[1].state is RUNNING

    def test_a_network_that_the_cluster_forgets_stays_while_the_engine_has_it(self) -> None:
        scene = Scene()
        scene.take(scene.merger.apply(Change(networks={BACKEND: None})))
        assert BACKEND in scene.snapshot.networks
        scene.take(scene.merger.set_local_networks({}))
        assert BACKEND not in scene.snapshot.networks

    def test_an_ended_service_is_gone(self) -> None:
        scene = Scene()
        ours, raw = scene.merger.set_cluster(cluster(NODES, NETWORKS, [], []))
        scene.take(ours)
        assert raw.services == {"webservice": None}
        assert not scene.snapshot.services


class TestGossip:
    def test_agreement_changes_nothing(self) -> None:
        scene = Scene()
        assert not scene.gossip(backend(*SEEN.values()))

    def test_what_is_not_seen_is_gone(self) -> None:
        scene = Scene()
        scene.gossip(backend(SEEN["shop_web.1.webtask1"], SEEN["shop_web.2.webtask2"]))
        assert set(scene.states()) == {"webtask1", "webtask2"}

    def test_what_is_seen_and_unknown_is_added_with_its_node(self) -> None:
        scene = Scene()
        new = SeenTask("shop_web.4.webtask4", "10.0.8.14", "192.168.2.62")
        scene.gossip(backend(*SEEN.values(), new))
        task = scene.snapshot.services["webservice"].tasks[-1]
        assert (task.id, task.name, task.slot, task.node) == ("webtask4", "shop_web.4.webtask4", 4, OTHER)
        assert (task.state, task.addresses) == (RUNNING, {BACKEND: "10.0.8.14"})

    def test_addresses_of_several_networks_meet_in_one_task(self) -> None:
        scene = Scene()
        new = SeenTask("shop_web.4.webtask4", "10.0.8.14", "192.168.2.62")
        on_ingress = {one.name: SeenTask(one.name, f"10.0.0.4{one.name[9]}") for one in SEEN.values()}
        on_ingress[new.name] = SeenTask(new.name, "10.0.0.44")
        scene.gossip(
            backend(*SEEN.values(), new),
            NetworkView(INGRESS, {"shop_web": SeenService("10.0.0.35", tuple(on_ingress.values()))}),
        )
        task = scene.snapshot.services["webservice"].tasks[-1]
        assert task.addresses == {BACKEND: "10.0.8.14", INGRESS: "10.0.0.44"}

    def test_who_was_starting_and_is_seen_has_started(self) -> None:
        starting = [*WEB_TASKS[:2], {**WEB_TASKS[2], "Status": {"State": "starting"}}]
        scene = Scene(cluster(NODES, NETWORKS, [WEB], starting))
        scene.gossip(backend(*SEEN.values()))
        assert scene.states()["webtask3"] is RUNNING

    def test_gossip_does_not_bring_back_what_leaves_here(self) -> None:
        """It lists a task until its endpoint is gone."""
        scene = Scene()
        scene.take(scene.merger.set_leaving(ENDING))
        scene.gossip(backend(*SEEN.values()))
        assert scene.states()["webtask2"] is LEAVING

    def test_networks_that_this_node_is_not_on_keep_what_was_known(self) -> None:
        scene = Scene()
        assert not scene.gossip(NetworkView("elsewhere", {}))
        assert set(scene.states()) == {"webtask1", "webtask2", "webtask3"}

    def test_an_unknown_service_gets_name_vip_and_tasks(self) -> None:
        scene = Scene()
        task = SeenTask(f"db.{OTHER}.dbtask1", "10.0.8.21", "192.168.2.62")
        scene.gossip(backend(*SEEN.values(), db=SeenService("10.0.8.20", (task,))))
        db = scene.snapshot.service_named("db")
        assert db is not None
        assert (db.mode, db.networks) == (EndpointMode.VIP, (ServiceNetwork(BACKEND, "10.0.8.20"),))
        assert [(t.id, t.slot, t.addresses) for t in db.serving()] == [("dbtask1", 0, {BACKEND: "10.0.8.21"})]

    def test_without_anything_known_gossip_is_all_there_is(self) -> None:
        """A node that starts while no manager can be reached, and with no state kept."""
        scene = Scene(None)
        scene.take(scene.merger.set_containers({OURS.id: OURS}))
        ingress = NetworkView(INGRESS, {"shop_web": SeenService("10.0.0.35", ())})
        scene.gossip(backend(*SEEN.values()), ingress)
        web = scene.snapshot.services["webservice"]  # its id is on the label of a container here
        assert web.networks == (ServiceNetwork(BACKEND, "10.0.8.2"),)
        assert len(web.serving()) == 3

    def test_a_dnsrr_service_has_no_vip(self) -> None:
        scene = Scene()
        scene.gossip(backend(*SEEN.values(), db=SeenService("", ())))
        db = scene.snapshot.service_named("db")
        assert db is not None
        assert (db.mode, db.networks) == (EndpointMode.DNSRR, (ServiceNetwork(BACKEND),))

    def test_an_unknown_service_that_is_seen_no_more_is_gone(self) -> None:
        scene = Scene()
        scene.gossip(backend(*SEEN.values(), db=SeenService("10.0.8.20", ())))
        scene.gossip(backend(*SEEN.values()))
        assert scene.snapshot.service_named("db") is None

    def test_a_whole_view_ends_the_correction_in_one_change(self) -> None:
        scene = Scene()
        scene.gossip(backend(SEEN["shop_web.1.webtask1"], db=SeenService("10.0.8.20", ())))
        ours, raw = scene.merger.set_cluster(VIEW)
        scene.take(ours)
        assert not raw
        assert set(scene.states()) == {"webtask1", "webtask2", "webtask3"}
        assert scene.snapshot.service_named("db") is None

    def test_the_overlays_here_are_those_of_the_engine(self) -> None:
        assert Scene().merger.overlays_here() == sorted([BACKEND, INGRESS])
