"""Reports over loopback, with certificates as Swarm makes them: told to all managers; what those refuse."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import aiohttp
import pytest
import pytest_asyncio

from mesh.catalog.cluster_view import ClusterView
from mesh.catalog.model import Attachment, Neighbour, Node
from mesh.catalog.snapshot import Change
from mesh.errors import DiscoveryError
from mesh.peers import manager_links
from mesh.peers.feed.server import FeedServer
from mesh.peers.report import client
from mesh.peers.report import server as report_server
from mesh.peers.report.client import SignClient
from mesh.peers.report.codec import REPORT_MAX, NodeReport, decode_report, encode_report
from mesh.peers.report.server import SIGNS_PATH
from mesh.peers.swarm_tls import SwarmCertificates
from tests.support.docker_fixtures_pki import SwarmCA
from tests.support.waiting import running, until

CA = SwarmCA("cluster1")
HOST, HOST2 = "127.0.0.1", "127.0.0.2"


class Manager:
    """A manager that writes down what it is told."""

    def __init__(self, folder: str, address: tuple[str, int]) -> None:
        self.view = ClusterView({id_: Node(id_, id_, "") for id_ in ("m1", "w1")}, {}, {})
        self.told: list[tuple[str, dict[str, str]]] = []
        self.containers: list[Mapping[str, Neighbour]] = []
        self.server = FeedServer(SwarmCertificates(folder), address, lambda: self.view, self.take)

    def take(self, node: str, report: NodeReport) -> None:
        self.told.append((node, dict(report.ending)))
        self.containers.append(report.containers)

    @property
    def port(self) -> int:
        assert self.server.bound is not None
        return self.server.bound[1]


@asynccontextmanager
async def serving(manager: Manager) -> AsyncIterator[Manager]:
    async with running(manager.server.run()):
        await until(lambda: manager.server.serving, "it serves")
        yield manager


@pytest_asyncio.fixture
async def manager(tmp_path: Path) -> AsyncIterator[Manager]:
    async with serving(Manager(CA.node(tmp_path / "manager", "m1", "swarm-manager"), (HOST, 0))) as one:
        yield one


class Worker:
    """A client, and what is ending on its node."""

    def __init__(self, folder: str, port: int, *managers: str) -> None:
        self.ending: dict[str, str] = {}
        self.containers: dict[str, Neighbour] = {}
        self.managers = list(managers)
        self.client = SignClient(
            SwarmCertificates(folder), lambda: self.managers, self.report, port, Random(1)
        )

    def report(self) -> NodeReport:
        return NodeReport(self.ending, self.containers)

    def end(self, task: str) -> None:
        self.ending = {**self.ending, task: "web"}
        self.client.news()


@pytest.fixture
def worker(tmp_path: Path) -> Callable[..., Worker]:
    return lambda port, *managers: Worker(CA.node(tmp_path / "w1", "w1"), port, *managers)


class TestTelling:
    async def test_all_that_ends_at_once_and_whole(
        self, manager: Manager, worker: Callable[..., Worker]
    ) -> None:
        one = worker(manager.port, HOST)
        async with running(one.client.run()):
            await until(lambda: manager.told, "the first report")
            assert manager.told == [("w1", {})]
            one.end("t1")
            await until(lambda: len(manager.told) == 2, "the second")
            one.end("t2")
            await until(lambda: len(manager.told) == 3, "the third")
            assert manager.told[1:] == [("w1", {"t1": "web"}), ("w1", {"t1": "web", "t2": "web"})]
            assert not manager.server.refused

    async def test_one_connection_for_all(self, manager: Manager, worker: Callable[..., Worker]) -> None:
        one = worker(manager.port, HOST)
        async with running(one.client.run()):
            for number in range(5):
                one.end(f"t{number}")
                await until(lambda n=number: manager.told and f"t{n}" in manager.told[-1][1], "told")  # type: ignore[misc]
            runner = manager.server._runner
            assert runner is not None
            assert runner.server is not None
            assert len(runner.server.connections) == 1

    async def test_what_comes_together_is_told_together(
        self, manager: Manager, worker: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(report_server, "PACE_SECONDS", 0.05)
        one = worker(manager.port, HOST)
        async with running(one.client.run()):
            await until(lambda: manager.told, "the first report")
            for number in range(200):
                one.end(f"t{number}")
                await asyncio.sleep(0)
            await until(lambda: len(manager.told[-1][1]) == 200, "all are told")
            assert len(manager.told) <= 10

    async def test_it_is_repeated(
        self, manager: Manager, worker: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(client, "REPEAT_SECONDS", 0.02)
        one = worker(manager.port, HOST)
        async with running(one.client.run()):
            await until(lambda: len(manager.told) >= 5, "again and again")

    async def test_a_manager_that_does_not_answer_delays_nobody(
        self, manager: Manager, worker: Callable[..., Worker]
    ) -> None:
        def keep_silent(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
            return

        silent = await asyncio.start_server(keep_silent, HOST2, manager.port)
        one = worker(manager.port, HOST2, HOST)
        async with running(one.client.run()):
            await until(lambda: manager.told, "the first report")
            one.end("t1")
            await until(lambda: manager.told[-1] == ("w1", {"t1": "web"}), "told")
        silent.close()

    async def test_managers_come_and_go(
        self, tmp_path: Path, manager: Manager, worker: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(manager_links, "MANAGERS_SECONDS", 0.02)
        folder = CA.node(tmp_path / "manager2", "m2", "swarm-manager")
        async with serving(Manager(folder, (HOST2, manager.port))) as second:
            one = worker(manager.port, HOST)
            async with running(one.client.run()):
                await until(lambda: manager.told, "the first is told")
                one.managers = [HOST2]
                await until(lambda: second.told, "the second is told")
                one.end("t1")
                await until(lambda: second.told[-1] == ("w1", {"t1": "web"}), "of news too")
                assert manager.told == [("w1", {})]

    async def test_one_that_was_away_is_told_all(
        self, tmp_path: Path, manager: Manager, worker: Callable[..., Worker]
    ) -> None:
        one = worker(manager.port, HOST2)
        async with running(one.client.run()):
            one.end("t1")
            folder = CA.node(tmp_path / "manager2", "m2", "swarm-manager")
            for _ in range(2):
                async with serving(Manager(folder, (HOST2, manager.port))) as second:
                    await until(lambda second=second: second.told, "it is told")  # type: ignore[misc]
                    assert second.told[0] == ("w1", {"t1": "web"})

    async def test_a_server_that_is_no_manager_is_told_nothing(
        self, tmp_path: Path, worker: Callable[..., Worker], caplog: pytest.LogCaptureFixture
    ) -> None:
        context = SwarmCertificates(CA.node(tmp_path / "impostor", "w2")).server_context(lambda _: None)
        heard: list[bytes] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            heard.append(await reader.read(1))
            writer.close()

        server = await asyncio.start_server(serve, HOST, 0, ssl=context)
        one = worker(server.sockets[0].getsockname()[1], HOST)
        async with running(one.client.run()):
            await until(lambda: "swarm-manager" in caplog.text, "refused for its name")
        assert not any(heard)
        server.close()


class TestPlainContainers:
    TOOL = Neighbour("", "c1", "tool", (Attachment("n1", "10.1.0.7"),))

    async def test_they_are_told_beside_what_ends(
        self, manager: Manager, worker: Callable[..., Worker]
    ) -> None:
        one = worker(manager.port, HOST)
        one.containers = {"c1": self.TOOL}
        async with running(one.client.run()):
            await until(lambda: manager.told, "the first report")
            one.containers = {}
            one.end("t1")
            await until(lambda: len(manager.told) == 2, "the second")
        assert manager.containers == [{"c1": self.TOOL}, {}]

    async def test_a_manager_that_knows_of_none_is_told_the_rest(
        self,
        manager: Manager,
        worker: Callable[..., Worker],
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """As in the middle of an update. Once it has been updated, it is told of them too."""

        def decode(data: bytes) -> NodeReport:
            if b"containers" in data:
                raise DiscoveryError("Unexpected keyword argument")
            return decode_report(data)

        monkeypatch.setattr(report_server, "decode_report", decode)
        monkeypatch.setattr(client, "REPEAT_SECONDS", 0.02)
        one = worker(manager.port, HOST)
        one.containers = {"c1": self.TOOL}
        one.end("t1")
        async with running(one.client.run()):
            await until(lambda: len(manager.told) >= 3, "the ends are told")
            assert manager.told[0] == ("w1", {"t1": "web"})
            assert not any(manager.containers)
            assert caplog.text.count("only what ends on this node is taken there") == 1
            monkeypatch.setattr(report_server, "decode_report", decode_report)
            await until(lambda: manager.containers[-1], "all is told")


class TestRefusing:
    """What a node that was broken into may try."""

    @pytest_asyncio.fixture
    async def session(self, tmp_path: Path) -> AsyncIterator[aiohttp.ClientSession]:
        context = SwarmCertificates(CA.node(tmp_path / "w1", "w1")).client_context()
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session:
            yield session

    async def put(self, session: aiohttp.ClientSession, manager: Manager, data: object) -> int:
        url = f"https://{HOST}:{manager.port}{SIGNS_PATH}"
        async with session.put(url, data=data, server_hostname="swarm-manager") as response:
            return response.status

    async def test_what_is_not_understood(self, manager: Manager, session: aiohttp.ClientSession) -> None:
        assert await self.put(session, manager, b'{"surprise": 1}') == 400
        assert manager.server.refused["a report that is not understood"] == 1
        assert manager.told == []

    async def test_what_is_too_long(self, manager: Manager, session: aiohttp.ClientSession) -> None:
        assert await self.put(session, manager, b" " * (REPORT_MAX + 1)) == 413
        assert manager.server.refused["a report that is too long"] == 1
        assert manager.told == []

    async def test_what_does_not_end(
        self, manager: Manager, session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(report_server, "READ_SECONDS", 0.05)
        never = asyncio.Event()

        async def slowly() -> AsyncIterator[bytes]:
            yield b"{"
            await never.wait()

        assert await self.put(session, manager, slowly()) == 408
        assert manager.server.refused["too slow"] == 1
        assert manager.told == []

    async def test_two_at_once(
        self, manager: Manager, session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(report_server, "PACE_SECONDS", 0.5)
        first = asyncio.create_task(self.put(session, manager, encode_report(NodeReport())))
        await until(lambda: manager.told, "the first is taken")
        assert await self.put(session, manager, encode_report(NodeReport({"t1": "web"}))) == 429
        assert await first == 204
        assert manager.server.refused["two reports at once"] == 1
        assert manager.told == [("w1", {})]

    async def test_a_node_that_was_removed(self, manager: Manager, session: aiohttp.ClientSession) -> None:
        manager.view = ClusterView({"m1": Node("m1", "m1", "")}, {}, {})
        manager.server.publish(Change(nodes={"w1": None}))
        assert await self.put(session, manager, encode_report(NodeReport({"t1": "web"}))) == 403
        assert manager.server.refused["not a node of this Swarm"] == 1
        assert manager.told == []

    async def test_much_work_is_paced(
        self, manager: Manager, session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pauses: list[float] = []

        async def sleep(seconds: float) -> None:
            pauses.append(seconds)

        ticks = iter((0.0, 0.05, 1.0, 1.0001, 2.0, 9.0))
        monkeypatch.setattr("mesh.peers.report.server.time.perf_counter", lambda: next(ticks))
        monkeypatch.setattr("mesh.peers.report.server.asyncio.sleep", sleep)
        for _ in range(3):
            assert await self.put(session, manager, encode_report(NodeReport())) == 204
        assert pauses == pytest.approx([0.5, report_server.PACE_SECONDS, report_server.PAUSE_MAX])
