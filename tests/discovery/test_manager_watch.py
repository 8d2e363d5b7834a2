"""When a manager looks at the cluster, and at what."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from mesh.catalog.cluster_view import ClusterView
from mesh.discovery import manager_watch as manager_module
from mesh.discovery.allocations import Allocations
from mesh.discovery.engine_client import EngineClient
from mesh.discovery.manager_watch import (
    SOON_SECONDS,
    TASKS_SECONDS,
    UPDATING_SECONDS,
    WORK_SHARE,
    Cadence,
    ManagerWatch,
)
from tests.support import docker_fixtures as docker
from tests.support.docker_fixtures import BACKEND, INGRESS, MANAGER, WEB, WEB_TASKS, WORKER
from tests.support.docker_fixtures_daemon import FakeDaemon
from tests.support.waiting import running, until


class TestCadence:
    def waits(self, looks: int, *, updating: bool = False, took: float = 0.0) -> list[float]:
        cadence = Cadence()
        first = cadence.next(news=True, updating=updating, took=took)
        return [first, *(cadence.next(news=False, updating=updating, took=took) for _ in range(looks - 1))]

    def test_soon_after_news_then_ever_more_slowly(self) -> None:
        waits = self.waits(10)
        assert waits[:3] == [SOON_SECONDS, 2 * SOON_SECONDS, 4 * SOON_SECONDS]
        assert waits[-1] == TASKS_SECONDS

    def test_while_a_service_is_updated_it_stays_quick(self) -> None:
        assert self.waits(10, updating=True)[-1] == UPDATING_SECONDS

    def test_slow_looks_are_rare(self) -> None:
        assert self.waits(1, took=0.05) == [0.05 * WORK_SHARE]
        assert self.waits(1, took=10.0) == [TASKS_SECONDS]

    @given(st.lists(st.tuples(st.booleans(), st.booleans(), st.floats(0.0, 100.0))))
    def test_never_too_seldom_nor_too_often(self, looks: list[tuple[bool, bool, float]]) -> None:
        cadence = Cadence()
        for news, updating, took in looks:
            wait = cadence.next(news=news, updating=updating, took=took)
            assert min(took * WORK_SHARE, SOON_SECONDS) <= wait <= TASKS_SECONDS


class Watched:
    """A manager's engine, and what was read from it."""

    def __init__(self, folder: Path) -> None:
        self.daemon = FakeDaemon(folder / "docker.sock", MANAGER, manager=True)
        self.engine = EngineClient(self.daemon.path, call_seconds=5.0)
        self.reads: list[ClusterView | None] = []
        self.faults: list[str] = []
        self.watch = ManagerWatch(self.engine, self.reads.append, self.faults.append)

    def tasks(self) -> int:
        views = [one for one in self.reads if one is not None]
        return len(views[-1].services["webservice"].tasks) if views else 0


@pytest_asyncio.fixture
async def watched(tmp_path: Path) -> AsyncIterator[Watched]:
    watched = Watched(tmp_path)
    await watched.daemon.start()
    async with running(watched.watch.run()):
        yield watched
    watched.engine.close()
    await watched.daemon.stop()


@pytest.fixture
def seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manager_module, "TASKS_SECONDS", 60.0)


async def looked(watched: Watched, times: int) -> None:
    before = len(watched.reads)
    await until(lambda: len(watched.reads) >= before + times, f"{times} looks")


class TestLooking:
    async def test_everything_then_what_changed(self, watched: Watched) -> None:
        await until(lambda: watched.tasks() == 3, "read")
        await looked(watched, 2)
        assert watched.reads[-1] is None
        watched.daemon.tasks = WEB_TASKS[:2]
        await until(lambda: watched.tasks() == 2, "read again")

    @pytest.mark.usefixtures("seldom")
    async def test_an_event_comes_before_its_effect(self, watched: Watched) -> None:
        """`docker service scale`: the orchestrator acts when the event has been told already."""
        await looked(watched, 4)
        watched.watch.news()
        await looked(watched, 2)  # nothing has changed yet
        watched.daemon.tasks = WEB_TASKS[:2]
        await until(lambda: watched.tasks() == 2, "it was looked for soon")

    @pytest.mark.usefixtures("seldom")
    async def test_a_change_may_not_be_the_last(self, watched: Watched) -> None:
        await looked(watched, 2)
        watched.daemon.tasks = WEB_TASKS[:2]
        await until(lambda: watched.tasks() == 2, "seen")
        await looked(watched, 2)
        watched.daemon.tasks = WEB_TASKS[:1]
        await until(lambda: watched.tasks() == 1, "seen too")

    async def test_a_service_that_is_updated_is_watched_closely(
        self, watched: Watched, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(manager_module, "TASKS_SECONDS", 60.0)
        monkeypatch.setattr(manager_module, "UPDATING_SECONDS", 0.02)
        watched.daemon.services = [{**WEB, "UpdateStatus": {"State": "updating"}}]
        watched.watch.news()
        await looked(watched, 30)  # doubling would have taken years

    async def test_listed_again_when_asked(self, watched: Watched) -> None:
        await until(lambda: watched.tasks() == 3, "read")
        await until(lambda: watched.reads[-1] is None, "nothing changed")
        views = sum(one is not None for one in watched.reads)
        watched.watch.list_again()
        await until(lambda: sum(one is not None for one in watched.reads) > views, "a view")

    async def test_without_quorum(self, watched: Watched) -> None:
        await until(lambda: watched.tasks() == 3, "read")
        watched.daemon.quorum = False
        await until(lambda: watched.faults, "the fault is told")
        assert "leader" in watched.faults[0]
        watched.daemon.services = [*watched.daemon.services, docker.service("s2", "db")]
        watched.daemon.quorum = True
        await until(lambda: any(one and "s2" in one.services for one in watched.reads), "all is listed anew")


class TestAllocations:
    """What else has been given out: looked at now and then, and when somebody asks."""

    async def test_read_with_the_cluster(self, watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(manager_module, "ALLOCATIONS_SECONDS", 0.0)
        watched.daemon.attachments = [docker.attachment(WORKER, BACKEND, "10.0.8.77")]
        entries = {"192.168.2.60": "10.0.0.2", "192.168.2.61": "10.0.0.3"}
        watched.daemon.gossip = {INGRESS: docker.entries_gossip(entries)}
        found: list[Allocations] = []

        def look() -> bool:
            watched.watch.look_at_all()
            if watched.watch.allocations is not None:
                found.append(watched.watch.allocations)
            return bool(found and found[-1].owners)

        await until(look)
        assert found[-1].attached == {WORKER: {BACKEND}}
        assert found[-1].owners == {(BACKEND, "10.0.8.77"): WORKER}
        assert found[-1].entries == {MANAGER: "10.0.0.2", WORKER: "10.0.0.3"}

    async def test_an_engine_that_does_not_tell(self, watched: Watched) -> None:
        watched.daemon.refused["attachments"] = 400, "invalid filter"
        watched.watch.look_at_all()
        await until(lambda: watched.tasks() == 3, "the cluster is read all the same")
        assert watched.watch.allocations is None
        assert not watched.faults
