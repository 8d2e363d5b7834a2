"""The whole source against fake engines: a manager and a worker, over the SDK, the feed and TLS."""

import asyncio
import copy
import shutil
import socket
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest

from mesh.catalog.cluster_view import ClusterView
from mesh.catalog.model import TaskState
from mesh.catalog.snapshot import Snapshot
from mesh.catalog.store import Store
from mesh.discovery import docker_source as docker_module
from mesh.discovery import engine_client as client_module
from mesh.discovery import manager_watch as manager_module
from mesh.discovery.docker_source import DockerSource
from mesh.discovery.engine_client import EngineClient, Events
from mesh.peers.feed import server
from mesh.peers.feed.client import FeedClient
from mesh.peers.feed.server import FeedServer
from mesh.peers.report.client import SignClient
from mesh.peers.report.codec import NodeReport
from mesh.peers.swarm_tls import SwarmCertificates
from tests.support import docker_fixtures as docker
from tests.support.docker_fixtures import GWBRIDGE, MANAGER, OTHER, WEB_TASKS, WORKER, Json
from tests.support.docker_fixtures_daemon import FakeDaemon, gossip_of_web
from tests.support.docker_fixtures_pki import SwarmCA
from tests.support.waiting import running, until

HOST, HOST2, HOST3 = "127.0.0.1", "127.0.0.2", "127.0.0.3"
ID = "webtask2-container"
CA = SwarmCA()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manager_module, "TASKS_SECONDS", 0.02)
    monkeypatch.setattr(manager_module, "CLUSTER_SECONDS", 60.0)
    for name, seconds in {
        "ROLE_SECONDS": 0.05,
        "GOSSIP_SECONDS": 0.02,
        "ALONE_SECONDS": 0.3,
        "FIRST_RETRY": 0.02,
        "LAST_RETRY": 0.05,
    }.items():
        monkeypatch.setattr(docker_module, name, seconds)
    monkeypatch.setattr(server, "ROTATION_SECONDS", 0.02)


def never_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    """A manager looks when events tell, and at no other time."""
    monkeypatch.setattr(docker_module, "ALONE_SECONDS", 60.0)
    for name in ("TASKS_SECONDS", "UPDATING_SECONDS", "SOON_SECONDS"):
        monkeypatch.setattr(manager_module, name, 60.0)


class Sidecar:
    """A node: its fake engine, and the source and store of its sidecar."""

    def __init__(self, folder: Path, node: str, role: str, address: tuple[str, int]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.daemon = FakeDaemon(folder / "docker.sock", node, role == "swarm-manager")
        self.certificates = SwarmCertificates(CA.node(folder / "certificates", node, role))
        self.engine = EngineClient(self.daemon.path, call_seconds=5.0)
        self.store = Store(on_error=lambda error: pytest.fail(str(error)))
        self.identities: list[str] = []
        self.address = address
        self.server: FeedServer
        self.source = DockerSource(
            self.engine,
            self.store.publish,
            self._make_server,
            lambda managers, view, change: FeedClient(
                self.certificates, managers, view, change, address[1], Random(1)
            ),
            lambda managers, report: SignClient(self.certificates, managers, report, address[1], Random(1)),
            str(folder / "state"),
            self.identities.append,
            clock=lambda: 1000.0,
        )

    def _make_server(
        self, view: Callable[[], ClusterView], take: Callable[[str, NodeReport], None]
    ) -> FeedServer:
        self.server = FeedServer(self.certificates, self.address, view, take)
        return self.server

    @property
    def current(self) -> Snapshot:
        return self.store.current

    def states(self) -> dict[int, TaskState]:
        web = self.current.services.get("webservice")
        return {} if web is None else {one.slot: one.state for one in web.tasks}

    async def knows(self, *slots: int) -> None:
        wanted = dict.fromkeys(slots, RUNNING)
        await until(lambda: self.states() == wanted, f"{wanted} instead of {self.states()}")


@asynccontextmanager
async def nodes(
    tmp_path: Path, *, start: tuple[str, ...] = ("manager", "worker"), pair: "Pair | None" = None
) -> AsyncIterator["Pair"]:
    pair = pair or Pair(tmp_path)
    chosen = [getattr(pair, name) for name in start]
    for one in chosen:
        await one.daemon.start()
    async with running(*(one.source.run() for one in chosen)):
        yield pair
    for one in chosen:
        one.engine.close()
        await one.daemon.stop()


class Pair:
    """A manager, a worker, and another node that a test may make either of."""

    def __init__(self, tmp_path: Path) -> None:
        port = free_port()
        self.manager = Sidecar(tmp_path / "m", MANAGER, "swarm-manager", (HOST, port))
        self.worker = Sidecar(tmp_path / "w", WORKER, "swarm-worker", (HOST2, port))
        self.other = Sidecar(tmp_path / "o", OTHER, "swarm-worker", (HOST3, port))
        self.worker.daemon.containers[ID] = docker.WEB_CONTAINER
        self.worker.daemon.gateway[ID] = "172.18.0.4"

    def promote_other(self) -> None:
        """Before it starts: a Swarm of two managers."""
        self.other.daemon.manager = True
        CA.node(self.other.folder / "certificates", OTHER, "swarm-manager")
        for one in (self.manager, self.worker, self.other):
            one.daemon.managers = {f"{HOST}:2377": MANAGER, f"{HOST3}:2377": OTHER}


def free_port() -> int:
    """A port that was free a moment ago: all nodes of a Swarm have the same for their feeds."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


RUNNING, LEAVING = TaskState.RUNNING, TaskState.LEAVING


def leave_slot(daemon: FakeDaemon, slot: int) -> None:
    """The manager's list of tasks without one of them; no event tells."""
    daemon.tasks = [one for one in daemon.tasks if one["Slot"] != slot]


def listening() -> int:
    return sum(one.name == "mesh-docker-events" for one in threading.enumerate())


class TestTogether:
    async def test_both_know_the_cluster_and_their_own(self, tmp_path: Path) -> None:
        async with nodes(tmp_path) as pair:
            await pair.manager.knows(1, 2, 3)
            await pair.worker.knows(1, 2, 3)
            assert pair.worker.identities == [WORKER]
            assert pair.worker.current.services == pair.manager.current.services
            assert pair.worker.current.nodes == pair.manager.current.nodes
            assert not pair.manager.current.containers
            here = pair.worker.current.containers[ID]
            assert here.service == "webservice"
            assert {one.network: one.address for one in here.attachments}[GWBRIDGE] == "172.18.0.4"
            status = pair.worker.source.status()
            assert (status.role, status.connected, status.feed_following) == ("worker", True, HOST)
            assert (status.last_success, status.last_error) == (1000.0, "")
            status = pair.manager.source.status()
            assert (status.role, status.connected, status.feed_serving) == ("manager", True, True)
            assert (status.feed_clients, status.feed_refused, status.feed_error) == (1, 0, "")

    async def test_a_task_that_ends_elsewhere_is_polled_and_fed(self, tmp_path: Path) -> None:
        async with nodes(tmp_path) as pair:
            await pair.worker.knows(1, 2, 3)
            leave_slot(pair.manager.daemon, 3)
            await pair.worker.knows(1, 2)

    async def test_swarm_events_are_news(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        never_poll(monkeypatch)
        async with nodes(tmp_path) as pair:
            await pair.worker.knows(1, 2, 3)
            pair.manager.daemon.services = [*pair.manager.daemon.services, docker.service("s2", "db")]
            pair.manager.daemon.send(docker.event("service", "create", "s2", "swarm", name="db"))
            await until(lambda: "s2" in pair.worker.current.services, "the worker knows it")

    async def test_a_feed_is_not_open_before_the_cluster_was_read(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A restarted sidecar on a manager must not hand its workers an empty cluster."""
        async with nodes(tmp_path) as pair:
            await pair.worker.knows(1, 2, 3)
        monkeypatch.setattr(docker_module, "ALONE_SECONDS", 60.0)
        shutil.rmtree(tmp_path / "m" / "state")
        again, seen = Pair(tmp_path), set()
        again.manager.daemon.hold.clear()
        again.worker.daemon.gossip = gossip_of_web(1, 2, 3)
        again.worker.store.subscribe(lambda _old, new, _change: seen.add(len(new.services)))
        async with nodes(tmp_path, pair=again):
            await again.worker.knows(1, 2, 3)  # from its state on disk
            await until(lambda: again.manager.source.status().role == "manager", "the manager is at work")
            await until(lambda: "cannot connect" in again.worker.source.status().feed_error, "it was asked")
            assert not again.manager.server.serving
            again.manager.daemon.hold.set()
            await until(lambda: again.worker.source.status().connected, "fed")
            await again.worker.knows(1, 2, 3)
        assert seen == {1}


class TestThisNodesEvents:
    @pytest.mark.parametrize("signal", ["15", "9"])
    async def test_told_to_stop(self, tmp_path: Path, signal: str) -> None:
        async with nodes(tmp_path) as pair:
            await pair.worker.knows(1, 2, 3)
            pair.worker.daemon.send(docker.event("container", "kill", ID, signal=signal))
            await until(lambda: pair.worker.states()[2] is LEAVING, "leaving at once")
            assert ID in pair.worker.current.containers

    async def test_its_own_stop_signal(self, tmp_path: Path) -> None:
        async with nodes(tmp_path) as pair:
            json = copy.deepcopy(docker.WEB_CONTAINER)
            json["Config"]["StopSignal"] = "SIGQUIT"
            pair.worker.daemon.containers[ID] = json
            await pair.worker.knows(1, 2, 3)
            pair.worker.daemon.send(docker.event("container", "start", ID))
            pair.worker.daemon.send(docker.event("container", "kill", ID, signal="3"))
            await until(lambda: pair.worker.states()[2] is LEAVING, "SIGQUIT stops it")

    async def test_signals_that_only_talk(self, tmp_path: Path) -> None:
        async with nodes(tmp_path) as pair:
            await pair.worker.knows(1, 2, 3)
            for signal in ("1", "10"):
                pair.worker.daemon.send(docker.event("container", "kill", ID, signal=signal))
            self.start_another(pair.worker)
            await until(lambda: "c2" in pair.worker.current.containers, "all were heeded")
            assert pair.worker.states()[2] is RUNNING

    def start_another(self, worker: Sidecar) -> None:
        networks = {"shop_backend": docker.endpoint(docker.BACKEND, "10.0.8.77")}
        worker.daemon.run(docker.container("c2", "tool", networks=networks), "172.18.0.9")

    async def test_death_without_a_word(self, tmp_path: Path) -> None:
        async with nodes(tmp_path) as pair:
            await pair.worker.knows(1, 2, 3)
            pair.worker.daemon.end(ID)
            await until(lambda: pair.worker.states()[2] is LEAVING, "leaving at once")
            await until(lambda: ID not in pair.worker.current.containers, "and then gone")

    async def test_a_container_that_starts_moves_and_ends(self, tmp_path: Path) -> None:
        async with nodes(tmp_path) as pair:
            await pair.worker.knows(1, 2, 3)
            self.start_another(pair.worker)
            found = pair.worker.current.containers
            await until(lambda: "c2" in pair.worker.current.containers, "it is known")
            found = pair.worker.current.containers
            assert [one.address for one in found["c2"].attachments] == ["10.0.8.77", "172.18.0.9"]
            pair.worker.daemon.containers["c2"]["NetworkSettings"]["Networks"] = {}
            pair.worker.daemon.send(
                docker.event("network", "disconnect", docker.BACKEND, container="c2", name="shop_backend")
            )
            await until(lambda: len(pair.worker.current.containers["c2"].attachments) == 1, "it has left")
            pair.worker.daemon.end("c2")
            await until(lambda: "c2" not in pair.worker.current.containers, "it is gone")

    async def test_one_that_cannot_be_described_stops_nobody(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Docker is at odds with some containers for as long as they live: "RWLayer … unexpectedly nil"."""
        async with nodes(tmp_path) as pair:
            await pair.worker.knows(1, 2, 3)
            for id_ in ("odd", ID):
                pair.worker.daemon.refused[f"containers/{id_}/json"] = 500, f"RWLayer of {id_} is nil"
            pair.worker.daemon.run(docker.container("odd", "odd"))
            self.start_another(pair.worker)
            await until(lambda: "c2" in pair.worker.current.containers, "the next one is known")
            assert pair.worker.states() == dict.fromkeys((1, 2, 3), RUNNING)
            assert set(pair.worker.current.containers) == {ID, "c2"}  # what was known stays in force
            assert "RWLayer of odd is nil" in caplog.text
            assert pair.worker.daemon.since == pair.worker.daemon.since[:1]  # one session all the while

    async def test_forced_removal(self, tmp_path: Path) -> None:
        """`docker rm -f`: a kill, the death, the end."""
        async with nodes(tmp_path) as pair:
            await pair.worker.knows(1, 2, 3)
            seen: list[tuple[TaskState, bool]] = []
            pair.worker.store.subscribe(
                lambda *_: seen.append((pair.worker.states()[2], ID in pair.worker.current.containers))
            )
            pair.worker.daemon.send(docker.event("container", "kill", ID, signal="9"))
            pair.worker.daemon.end(ID)
            pair.worker.daemon.send(docker.event("container", "destroy", ID))
            self.start_another(pair.worker)
            await until(lambda: "c2" in pair.worker.current.containers, "all were heeded")
            assert seen == [(LEAVING, True), (LEAVING, False), (LEAVING, False)]

    async def test_the_usual_signal_where_another_one_stops(self, tmp_path: Path) -> None:
        """nginx has STOPSIGNAL SIGQUIT; a TERM that somebody sends is its own matter."""
        async with nodes(tmp_path, start=("manager",)) as pair:
            pair.worker.daemon.containers[ID] = copy.deepcopy(docker.WEB_CONTAINER)
            pair.worker.daemon.containers[ID]["Config"]["StopSignal"] = "SIGQUIT"
            await pair.worker.daemon.start()
            async with running(pair.worker.source.run()):
                await pair.worker.knows(1, 2, 3)
                pair.worker.daemon.send(docker.event("container", "kill", ID, signal="15"))
                self.start_another(pair.worker)
                await until(lambda: "c2" in pair.worker.current.containers, "all were heeded")
                assert pair.worker.states()[2] is RUNNING
            pair.worker.engine.close()
            await pair.worker.daemon.stop()

    async def test_a_network_of_this_node(self, tmp_path: Path) -> None:
        async with nodes(tmp_path) as pair:
            await pair.worker.knows(1, 2, 3)
            bridge = docker.network("devnet", "dev", "172.20.0.0/16", "local")
            pair.worker.daemon.networks = [*pair.worker.daemon.networks, bridge]
            pair.worker.daemon.send(docker.event("network", "create", "devnet", name="dev"))
            await until(lambda: "devnet" in pair.worker.current.networks, "it is known")

    async def test_too_many_events_mean_a_new_list(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(client_module, "EVENTS_MAX", 1)
        async with nodes(tmp_path) as pair:
            await pair.worker.knows(1, 2, 3)
            del pair.worker.daemon.containers[ID]
            for _ in range(200):  # none of them tells of the container that went
                pair.worker.daemon.send(docker.event("container", "start", "other"))
            await until(lambda: ID not in pair.worker.current.containers, "listed again")


class TestSigns:
    """What ends on a node is known on all, though the managers' lists do not say so yet, or never look."""

    @pytest.fixture(autouse=True)
    def never_poll(self, monkeypatch: pytest.MonkeyPatch) -> None:
        never_poll(monkeypatch)

    async def all_say(self, state: TaskState, *sidecars: Sidecar, slot: int = 2) -> None:
        for one in sidecars:
            await until(lambda one=one: one.states().get(slot) is state, f"{one.address}: {state}")  # type: ignore[misc]

    @pytest.mark.parametrize(
        ("action", "more"), [("kill", {"signal": "9"}), ("die", {}), ("health_status: unhealthy", {})]
    )
    async def test_a_workers_task(self, tmp_path: Path, action: str, more: dict[str, str]) -> None:
        async with nodes(tmp_path, start=("manager", "worker", "other")) as pair:
            everybody = pair.manager, pair.worker, pair.other
            await self.all_say(RUNNING, *everybody)
            pair.worker.daemon.send(docker.event("container", action, ID, **more))
            await self.all_say(LEAVING, *everybody)
            assert pair.manager.states() == pair.other.states() == {1: RUNNING, 2: LEAVING, 3: RUNNING}
            assert pair.manager.source.status().signs["taken"] == 1

    async def test_a_managers_own_task(self, tmp_path: Path) -> None:
        async with nodes(tmp_path) as pair:
            await pair.worker.knows(1, 2, 3)
            labels = {"com.docker.swarm.task.id": "webtask1", "com.docker.swarm.service.id": "webservice"}
            pair.manager.daemon.send(docker.event("container", "kill", "c1", signal="9", **labels))
            await self.all_say(LEAVING, pair.manager, pair.worker, slot=1)

    async def test_every_manager_is_told(self, tmp_path: Path) -> None:
        """Whichever of them a worker follows."""
        pair = Pair(tmp_path)
        pair.promote_other()
        async with nodes(tmp_path, start=("manager", "worker", "other"), pair=pair):
            managers = pair.manager, pair.other
            await self.all_say(RUNNING, *managers, pair.worker)
            pair.worker.daemon.send(docker.event("container", "kill", ID, signal="9"))
            await self.all_say(LEAVING, *managers)
            labels = {"com.docker.swarm.task.id": "webtask3", "com.docker.swarm.service.id": "webservice"}
            pair.other.daemon.send(docker.event("container", "kill", "c3", signal="9", **labels))
            await self.all_say(LEAVING, *managers, slot=3)
            assert [one.source.status().signs["taken"] for one in managers] == [2, 2]

    async def test_what_survives_serves_again_everywhere(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("mesh.discovery.node_watch.SIFT_SECONDS", 0.02)
        monkeypatch.setattr("mesh.discovery.stopping_tasks.SURVIVED_SECONDS", 0.5)
        async with nodes(tmp_path) as pair:
            await self.all_say(RUNNING, pair.manager, pair.worker)
            pair.worker.daemon.send(docker.event("container", "kill", ID, signal="15"))
            await self.all_say(LEAVING, pair.worker, pair.manager)
            await self.all_say(RUNNING, pair.worker, pair.manager)
            assert pair.manager.source.status().signs["withdrawn"] == 1

    async def test_of_a_node_that_falls_silent(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(docker_module, "EXPIRY_SECONDS", 0.02)
        async with nodes(tmp_path, start=("manager",)) as pair:
            async with nodes(tmp_path, start=("worker",), pair=pair):
                await self.all_say(RUNNING, pair.manager, pair.worker)
                pair.worker.daemon.send(docker.event("container", "kill", ID, signal="9"))
                await self.all_say(LEAVING, pair.manager)
            monkeypatch.setattr("mesh.discovery.stopping_overlay.KEPT_SECONDS", 0.1)
            await self.all_say(RUNNING, pair.manager)
            assert pair.manager.source.status().signs["expired"] == 1

    async def test_of_another_nodes_task(self, tmp_path: Path) -> None:
        """A sidecar that was broken into, or a bug."""
        async with nodes(tmp_path) as pair:
            await self.all_say(RUNNING, pair.manager, pair.worker)
            pair.worker.source._watch._end("webtask1", "webservice")
            pair.worker.source._watch._end("webtask2", "webservice")
            await self.all_say(LEAVING, pair.manager)
            assert pair.manager.states()[1] is RUNNING
            assert pair.manager.source.status().signs["foreign"] >= 1

    async def test_a_manager_that_was_away_is_told_again(self, tmp_path: Path) -> None:
        pair = Pair(tmp_path)
        async with nodes(tmp_path, start=("worker",), pair=pair):
            await until(lambda: ID in pair.worker.current.containers, "the worker is at work")
            pair.worker.daemon.send(docker.event("container", "kill", ID, signal="9"))
            await until(lambda: pair.worker.source._watch.ending, "it was heeded")
            async with nodes(tmp_path, start=("manager",), pair=pair):
                await self.all_say(LEAVING, pair.manager, pair.worker)

    async def test_the_managers_list_ends_it(self, tmp_path: Path) -> None:
        async with nodes(tmp_path) as pair:
            await self.all_say(RUNNING, pair.manager, pair.worker)
            pair.worker.daemon.end(ID)
            await self.all_say(LEAVING, pair.manager)
            leave_slot(pair.manager.daemon, 2)
            pair.manager.daemon.send(docker.event("service", "update", "webservice", "swarm"))
            await pair.manager.knows(1, 3)
            await pair.worker.knows(1, 3)

    async def test_a_list_that_is_late_does_not_bring_it_back(self, tmp_path: Path) -> None:
        async with nodes(tmp_path) as pair:
            await self.all_say(RUNNING, pair.manager, pair.worker)
            pair.worker.daemon.end(ID)
            await self.all_say(LEAVING, pair.manager)
            pair.manager.daemon.services = [*pair.manager.daemon.services, docker.service("s2", "db")]
            pair.manager.daemon.send(docker.event("service", "create", "s2", "swarm"))
            await until(lambda: "s2" in pair.manager.current.services, "it was read anew")
            assert pair.manager.states()[2] is LEAVING

    async def test_it_overtakes_what_is_looked_at(self, tmp_path: Path) -> None:
        """An engine is slow to describe a container that is about to start."""
        async with nodes(tmp_path) as pair:
            await self.all_say(RUNNING, pair.manager, pair.worker)
            answer = pair.worker.daemon.silent["containers/c2/json"] = asyncio.Event()
            pair.worker.daemon.run(docker.container("c2", "tool"))
            pair.worker.daemon.end(ID)
            await self.all_say(LEAVING, pair.worker, pair.manager)
            assert ID in pair.worker.current.containers  # that is for later
            answer.set()
            await until(lambda: set(pair.worker.current.containers) == {"c2"}, "all were heeded")


class TestLosses:
    async def test_a_lost_engine_is_told_and_listed_again(self, tmp_path: Path) -> None:
        async with nodes(tmp_path) as pair:
            await pair.worker.knows(1, 2, 3)
            pair.worker.daemon.send(
                {**docker.event("container", "start", "other"), "timeNano": 5_500_000_000}
            )
            await until(lambda: pair.worker.source._watch._last_event == 5.5, "the event was seen")
            await pair.worker.daemon.stop()
            status = pair.worker.source.status
            await until(lambda: "Docker socket" in status().last_error, "the loss is told")
            assert not status().connected
            assert pair.worker.states() == dict.fromkeys((1, 2, 3), RUNNING)  # stays in force
            del pair.worker.daemon.containers[ID]
            await pair.worker.daemon.start()
            await until(lambda: status().connected, "connected again")
            assert pair.worker.states()[2] is LEAVING
            assert pair.worker.daemon.since[-1] == "5.500000000"  # what the engine remembers comes again
            assert status().last_error == ""

    async def test_sessions_leave_nothing_behind(self, tmp_path: Path) -> None:
        async with nodes(tmp_path) as pair:
            await pair.worker.knows(1, 2, 3)
            for _ in range(3):
                before = len(pair.worker.daemon.since)
                pair.worker.daemon.end_events()
                await until(lambda before=before: len(pair.worker.daemon.since) > before, "again")  # type: ignore[misc]
                await until(lambda: pair.worker.source.status().connected, "connected again")
            await until(lambda: pair.worker.daemon.listeners == 1, "one stream and no more")

    async def test_a_session_that_fails_stops_to_listen(self, tmp_path: Path) -> None:
        async with nodes(tmp_path) as pair:
            await pair.worker.knows(1, 2, 3)
            pair.worker.daemon.healthy = False
            await until(lambda: "out of memory" in pair.worker.source.status().last_error, "it failed")
            pair.worker.daemon.healthy = True
            await until(lambda: pair.worker.source.status().connected, "connected again")
            await until(lambda: listening() == 2, "one thread for each node")

    async def test_alone_gossip_corrects_until_a_manager_is_heard(self, tmp_path: Path) -> None:
        async with nodes(tmp_path) as pair:
            await pair.worker.knows(1, 2, 3)
            pair.worker.daemon.gossip = gossip_of_web(1, 2)
            pair.manager.daemon.hold.clear()  # its own reads wait: it does not know either
            pair.manager.daemon.gossip = gossip_of_web(1, 2, 3)
            await pair.worker.knows(1, 2)
            assert not pair.worker.source.status().connected
            assert pair.worker.source.status().last_success == 1000.0
            pair.manager.daemon.hold.set()
            await pair.worker.knows(1, 2, 3)

    async def test_a_manager_without_quorum_closes_its_feed(self, tmp_path: Path) -> None:
        async with nodes(tmp_path) as pair:
            await pair.worker.knows(1, 2, 3)
            for one in (pair.manager, pair.worker):
                one.daemon.gossip = gossip_of_web(1, 2)
            pair.manager.daemon.quorum = False
            await pair.manager.knows(1, 2)
            await pair.worker.knows(1, 2)
            status = pair.manager.source.status()
            assert (status.connected, status.feed_serving) == (False, False)
            assert "leader" in status.last_error
            pair.manager.daemon.quorum = True
            await pair.manager.knows(1, 2, 3)
            await until(lambda: pair.worker.source.status().connected, "fed again")
            await pair.worker.knows(1, 2, 3)

    async def test_a_node_that_starts_alone(self, tmp_path: Path) -> None:
        """With no manager, no state on disk: gossip is all there is."""
        pair = Pair(tmp_path)
        pair.worker.daemon.gossip = gossip_of_web(1, 2, 3)
        await pair.worker.daemon.start()
        async with running(pair.worker.source.run()):
            await pair.worker.knows(1, 2, 3)
            assert pair.worker.current.services["webservice"].vip(docker.BACKEND) == "10.0.8.2"
        pair.worker.engine.close()
        await pair.worker.daemon.stop()

    async def test_no_swarm_at_all(self, tmp_path: Path) -> None:
        async with nodes(tmp_path, start=()) as pair:
            pair.worker.daemon.node, pair.worker.daemon.managers = "", {}
            await pair.worker.daemon.start()
            async with running(pair.worker.source.run()):
                await until(lambda: ID in pair.worker.current.containers, "plain containers are known")
                assert pair.worker.source.status().last_error == "this node is not in a Swarm"
            pair.worker.engine.close()
            await pair.worker.daemon.stop()

    async def test_a_slow_manager_keeps_its_feed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """In a large Swarm a read may take longer than a manager may otherwise be silent."""
        monkeypatch.setattr(docker_module, "ALONE_SECONDS", 0.05)
        async with nodes(tmp_path) as pair:
            pair.manager.daemon.slow = 0.1
            await until(lambda: pair.manager.source._cluster.read_seconds > 0.1, "a slow read")
            await until(lambda: pair.worker.source.status().connected, "fed")
            await pair.worker.knows(1, 2, 3)
            before = pair.worker.source.status().feed_following, pair.worker.source._client.reconnects
            reads = pair.manager.daemon.reads
            await until(lambda: pair.manager.daemon.reads > reads + 5, "several slow reads")
            assert (
                pair.worker.source.status().feed_following,
                pair.worker.source._client.reconnects,
            ) == before


class TestRoles:
    async def test_promotion_and_demotion(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(docker_module, "ROLE_SECONDS", 0.3)
        async with nodes(tmp_path, start=("worker",)) as pair:
            worker = pair.worker
            await until(lambda: worker.source.status().role == "worker", "a worker")
            worker.daemon.manager = True
            await worker.knows(1, 2, 3)
            assert worker.source.status().role == "manager"
            await until(
                lambda: "not a manager's" in worker.server.fault, "its certificate is not yet renewed"
            )
            CA.node(worker.folder / "certificates", WORKER, "swarm-manager")
            await until(lambda: worker.server.serving, "it serves")
            worker.daemon.manager = False
            await until(lambda: "not a swarm manager" in worker.source.status().last_error, "refused")
            await until(lambda: worker.source.status().role == "worker", "a worker again")
            await until(lambda: not worker.server.serving, "it serves no more")
            assert "not a swarm manager" not in worker.source.status().last_error
            assert worker.states() == dict.fromkeys((1, 2, 3), RUNNING)

    async def test_tasks_moved_by_the_manager(self, tmp_path: Path) -> None:
        """A rolling update: the new task starts first, then the old one is asked to end."""
        async with nodes(tmp_path) as pair:
            await pair.worker.knows(1, 2, 3)
            new: Json = docker.task("webtask4", "webservice", MANAGER, slot=4, state="starting")
            pair.manager.daemon.tasks = [*WEB_TASKS, new]
            await until(lambda: pair.worker.states().get(4) is TaskState.STARTING, "starting")
            old = {**WEB_TASKS[0], "Version": {"Index": 90}, "DesiredState": "shutdown"}
            up = {**new, "Version": {"Index": 91}, "Status": {"State": "running"}}
            pair.manager.daemon.tasks = [old, *WEB_TASKS[1:], up]
            wanted = {1: LEAVING, 2: RUNNING, 3: RUNNING, 4: RUNNING}
            await until(lambda: pair.worker.states() == wanted, "moved")


class TestPlainContainers:
    """`docker run --network ATTACHABLE`: known on all nodes, by their own node's word alone."""

    ID = "c0ffee" + "0" * 58

    @pytest.fixture(autouse=True)
    def never_poll(self, monkeypatch: pytest.MonkeyPatch) -> None:
        never_poll(monkeypatch)

    def start(self, sidecar: Sidecar, address: str = "10.0.8.77", alias: str = "four.test") -> None:
        endpoint = docker.endpoint(docker.BACKEND, address, Aliases=[alias])
        sidecar.daemon.run(docker.container(self.ID, "tool", networks={"shop_backend": endpoint}))

    def told(self, sidecar: Sidecar) -> dict[str, list[str]]:
        """Key → addresses."""
        found = sidecar.current.neighbours.items()
        return {key: [a.address for a in one.attachments] for key, one in found}

    async def all_know(self, wanted: dict[str, list[str]], *sidecars: Sidecar) -> None:
        for one in sidecars:
            await until(lambda one=one: self.told(one) == wanted, f"{one.address}: {wanted}")  # type: ignore[misc]

    async def test_of_a_worker(self, tmp_path: Path) -> None:
        async with nodes(tmp_path, start=("manager", "worker", "other")) as pair:
            await pair.other.knows(1, 2, 3)
            await pair.worker.knows(1, 2, 3)
            self.start(pair.worker)
            key = f"{WORKER}/{self.ID}"
            await self.all_know({key: ["10.0.8.77"]}, pair.manager, pair.other)
            one = pair.other.current.neighbours[key]
            assert (one.name, one.hostname, one.node) == ("tool", "c0ffee000000", WORKER)
            assert one.attachments[0].aliases == ("four.test",)
            assert not pair.worker.current.neighbours  # its own engine tells it
            assert self.ID in pair.worker.current.containers
            assert not {*pair.other.current.containers, *pair.manager.current.containers} & {self.ID}
            self.start(pair.worker, "10.0.8.78")
            await self.all_know({key: ["10.0.8.78"]}, pair.manager, pair.other)
            pair.worker.daemon.end(self.ID)
            await self.all_know({}, pair.manager, pair.other)
            assert not sum(pair.manager.source.status().neighbours_refused.values())

    async def test_on_a_network_that_its_node_had_nothing_of(self, tmp_path: Path) -> None:
        """The manager looks again: Swarm knows of the container what its node says."""
        async with nodes(tmp_path) as pair:
            await pair.worker.knows(1, 2, 3)
            lonely = docker.network("lonely00000000000000000id", "lonely", "10.0.9.0/24", attachable=True)
            for one in (pair.manager, pair.worker):
                one.daemon.networks = [*one.daemon.networks, lonely]
            pair.manager.daemon.send(docker.event("network", "create", lonely["Id"], "swarm"))
            pair.worker.daemon.send(docker.event("network", "create", lonely["Id"]))
            for one in (pair.manager, pair.worker):
                await until(lambda one=one: lonely["Id"] in one.current.networks, "it is known")  # type: ignore[misc]
            pair.manager.daemon.attachments = [docker.attachment(WORKER, lonely["Id"], "10.0.9.77")]
            endpoint = docker.endpoint(lonely["Id"], "10.0.9.77")
            pair.worker.daemon.run(docker.container(self.ID, "tool", networks={"lonely": endpoint}))
            await self.all_know({f"{WORKER}/{self.ID}": ["10.0.9.77"]}, pair.manager)
            assert not sum(pair.manager.source.status().neighbours_refused.values())

    async def test_a_lie_is_named(self, tmp_path: Path) -> None:
        async with nodes(tmp_path) as pair:
            await pair.worker.knows(1, 2, 3)
            self.start(pair.worker, alias="shop_web")
            await self.all_know({f"{WORKER}/{self.ID}": ["10.0.8.77"]}, pair.manager)
            status = pair.manager.source.status()
            assert status.neighbours_refused["service"] == 1
            assert [one.file for one in status.problems] == ["node swarm01"]
            assert pair.manager.current.neighbours[f"{WORKER}/{self.ID}"].attachments[0].aliases == ()

    async def test_of_a_manager(self, tmp_path: Path) -> None:
        async with nodes(tmp_path) as pair:
            await pair.worker.knows(1, 2, 3)
            self.start(pair.manager)
            await self.all_know({f"{MANAGER}/{self.ID}": ["10.0.8.77"]}, pair.worker)
            assert not pair.manager.current.neighbours
            pair.manager.daemon.end(self.ID)
            await self.all_know({}, pair.worker)

    async def test_every_manager_is_told(self, tmp_path: Path) -> None:
        pair = Pair(tmp_path)
        pair.promote_other()
        async with nodes(tmp_path, start=("manager", "worker", "other"), pair=pair):
            await pair.worker.knows(1, 2, 3)
            self.start(pair.worker)
            await self.all_know({f"{WORKER}/{self.ID}": ["10.0.8.77"]}, pair.manager, pair.other)

    async def test_what_cannot_be_is_not_believed(self, tmp_path: Path) -> None:
        async with nodes(tmp_path) as pair:
            await pair.worker.knows(1, 2, 3)
            self.start(pair.worker, "192.0.2.1")
            refused = pair.manager.source.status
            await until(lambda: refused().neighbours_refused["address"] == 1, "it is refused")
            assert not self.told(pair.manager)

    async def test_too_many_are_not_reported(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr("mesh.peers.report.codec.CONTAINERS_MAX", 0)
        async with nodes(tmp_path) as pair:
            await pair.worker.knows(1, 2, 3)
            self.start(pair.worker)
            await until(
                lambda: "1 plain containers on networks of the Swarm" in caplog.text, "a word in the log"
            )
            pair.worker.daemon.send(docker.event("container", "kill", ID, signal="9"))
            await until(lambda: pair.manager.states()[2] is LEAVING, "other things are reported")
            assert not self.told(pair.manager)

    async def test_they_survive_the_silence_of_their_node_and_a_restart_of_the_manager(
        self, tmp_path: Path
    ) -> None:
        known = {f"{WORKER}/{self.ID}": ["10.0.8.77"]}
        async with nodes(tmp_path, start=("manager",)) as pair:
            async with nodes(tmp_path, start=("worker",), pair=pair):
                await pair.worker.knows(1, 2, 3)
                self.start(pair.worker)
                await self.all_know(known, pair.manager)
            await pair.manager.knows(1, 2, 3)
            assert self.told(pair.manager) == known
        again = Pair(tmp_path)
        async with nodes(tmp_path, start=("manager", "other"), pair=again):
            await self.all_know(known, again.manager, again.other)
            down = [docker.node(WORKER, "swarm01", "192.168.2.61", state="down", index=11)]
            again.manager.daemon.nodes = [one for one in docker.NODES if one["ID"] != WORKER] + down
            again.manager.daemon.send(docker.event("node", "update", WORKER, "swarm"))
            await self.all_know({}, again.manager, again.other)


class _Nothing:
    """An engine of which only the events matter, and a feed that nobody needs."""

    serving, clients, following, fault = False, 0, "", ""

    def __init__(self) -> None:
        self.sessions: list[Events] = []
        self.refused: Counter[str] = Counter()

    def news(self) -> None: ...

    async def info(self) -> Json:
        return {"Swarm": {}}

    async def containers(self) -> dict[str, Json]:
        return {}

    async def networks(self) -> list[Json]:
        return []

    async def events(self, _since: float) -> Events:
        self.sessions.append(Events())
        return self.sessions[-1]

    async def run(self) -> None:
        await asyncio.Event().wait()


class TestCancelled:
    @pytest.mark.parametrize("turns", range(10))
    async def test_while_the_engine_is_lost(self, tmp_path: Path, turns: int) -> None:
        """Before Python 3.13 a task group forgets a cancellation that meets an error."""
        nothing: Any = _Nothing()
        store = Store(on_error=lambda error: pytest.fail(str(error)))
        source = DockerSource(
            nothing,
            store.publish,
            lambda *_: nothing,
            lambda *_: nothing,
            lambda *_: nothing,
            str(tmp_path / "state"),
        )
        work = asyncio.create_task(source.run())
        await until(lambda: source.status().last_error == "this node is not in a Swarm", "a session")
        nothing.sessions[0].end("the engine is gone")
        for _ in range(turns):
            await asyncio.sleep(0)
        work.cancel()
        await until(work.done, "it ends")
        assert work.cancelled()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    async def test_nothing_is_left_of_a_node_at_work(self, tmp_path: Path) -> None:
        async with nodes(tmp_path) as pair:
            await pair.worker.knows(1, 2, 3)
            names = {one.get_name() for one in asyncio.all_tasks()}
            assert {"engine events", "role", "cluster", "gossip", "saved view", "feed server"} <= names
            assert {"endings", "signs", f"signs to {HOST}", "expiry of signs"} <= names
        left = {one.get_name() for one in asyncio.all_tasks()}
        assert not left & names - {one for one in names if one.startswith("Task-")}
        await until(lambda: not listening(), "no thread listens")
