"""Docker's SDK under our adapter: answers, refusals, a socket that is not there, and the event stream."""

import asyncio
import gc
import os
import socket
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from mesh.discovery import engine_client as client_module
from mesh.discovery.engine_client import EngineClient, Events
from mesh.errors import DiscoveryError, EngineUnavailable
from tests.support import docker_fixtures as docker
from tests.support.docker_fixtures import BACKEND, WORKER
from tests.support.docker_fixtures_daemon import FakeDaemon, gossip_of_web
from tests.support.waiting import until


@pytest_asyncio.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[FakeDaemon]:
    daemon = FakeDaemon(tmp_path / "docker.sock", WORKER, manager=False)
    daemon.containers["webtask2-container"] = docker.WEB_CONTAINER
    await daemon.start()
    yield daemon
    await daemon.stop()


@pytest_asyncio.fixture
async def engine(daemon: FakeDaemon) -> AsyncIterator[EngineClient]:
    engine = EngineClient(daemon.path, call_seconds=2.0)
    yield engine
    engine.close()


def open_files() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def threads_left() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name.startswith("mesh-docker")]


def listeners_left() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name == "mesh-docker-events"]


class TestCalls:
    async def test_what_discovery_asks(self, daemon: FakeDaemon, engine: EngineClient) -> None:
        assert (await engine.info())["Swarm"]["NodeID"] == WORKER
        assert await engine.containers() == {"webtask2-container": docker.WEB_CONTAINER}
        assert await engine.container("webtask2-container") == docker.WEB_CONTAINER
        assert len(await engine.networks()) == 4
        daemon.gossip = gossip_of_web(1)
        found = await engine.network(BACKEND, verbose=True)
        assert found is not None
        assert list(found["Services"]) == ["shop_web"]

    async def test_what_is_gone_is_none(self, engine: EngineClient) -> None:
        assert await engine.container("gone") is None
        assert await engine.network("gone") is None

    async def test_a_worker_refuses_the_cluster(self, engine: EngineClient) -> None:
        with pytest.raises(DiscoveryError, match="not a swarm manager") as caught:
            await engine.cluster(lambda api: api.tasks())
        assert not isinstance(caught.value, EngineUnavailable)

    async def test_a_manager_that_waits_for_the_others_is_no_lost_engine(self, daemon: FakeDaemon) -> None:
        daemon.manager = True
        daemon.hold.clear()
        engine = EngineClient(daemon.path, call_seconds=0.2)
        with pytest.raises(DiscoveryError, match="quorum") as caught:
            await engine.cluster(lambda api: api.tasks())
        assert not isinstance(caught.value, EngineUnavailable)
        engine.close()

    async def test_one_that_ended_meanwhile_is_left_out(
        self, daemon: FakeDaemon, engine: EngineClient
    ) -> None:
        daemon.containers["c1"] = docker.container("c1", "one")
        daemon.refused["containers/c1/json"] = 404, "No such container: c1"
        assert set(await engine.containers()) == {"webtask2-container"}

    async def test_one_that_cannot_be_described_is_named(
        self, daemon: FakeDaemon, engine: EngineClient
    ) -> None:
        """The engine is at odds with it; the others are told all the same."""
        daemon.containers["c1"] = docker.container("c1", "one")
        daemon.refused["containers/c1/json"] = 500, "RWLayer of container c1 is unexpectedly nil"
        found = await engine.containers()
        assert found == {"webtask2-container": docker.WEB_CONTAINER, "c1": None}


class TestNoEngine:
    async def unavailable(self, path: Path) -> str:
        engine = EngineClient(str(path))
        with pytest.raises(EngineUnavailable) as caught:
            await engine.info()
        engine.close()
        return str(caught.value)

    async def test_no_socket(self, tmp_path: Path) -> None:
        message = await self.unavailable(tmp_path / "docker.sock")
        assert "no Docker socket" in message
        assert str(tmp_path / "docker.sock") in message
        assert "bind it" in message

    async def test_nobody_behind_it(self, tmp_path: Path) -> None:
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(tmp_path / "docker.sock"))
        assert "is dockerd running?" in await self.unavailable(tmp_path / "docker.sock")

    async def test_not_allowed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "docker.sock").touch()
        monkeypatch.setattr("os.access", lambda *_: False)  # root may do anything
        assert "permission denied" in await self.unavailable(tmp_path / "docker.sock")

    async def test_a_folder_where_the_socket_should_be(self, tmp_path: Path) -> None:
        """Docker makes one of a bind mount whose source is missing."""
        assert "is dockerd running?" in await self.unavailable(tmp_path)

    @pytest.mark.parametrize(
        "answer", [b"", b"\x15\x03\x01\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhm?"]
    )
    async def test_something_else_behind_it(self, tmp_path: Path, answer: bytes) -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            writer.close()

        server = await asyncio.start_unix_server(serve, str(tmp_path / "docker.sock"))
        assert "is dockerd running?" in await self.unavailable(tmp_path / "docker.sock")
        server.close()

    async def test_one_that_hangs(self, daemon: FakeDaemon) -> None:
        engine = EngineClient(daemon.path, call_seconds=0.1)
        daemon.silent["info"] = asyncio.Event()
        with pytest.raises(EngineUnavailable, match="timed out"):
            await engine.info()
        daemon.silent.pop("info").set()
        assert (await engine.info())["Swarm"]["NodeID"] == WORKER
        engine.close()

    async def test_after_close(self, engine: EngineClient) -> None:
        engine.close()
        with pytest.raises(EngineUnavailable, match="stopping"):
            await engine.info()

    async def test_it_comes_back(self, daemon: FakeDaemon, engine: EngineClient) -> None:
        await engine.info()
        await daemon.stop()
        with pytest.raises(EngineUnavailable):
            await engine.info()
        await daemon.start()
        assert (await engine.info())["Swarm"]["NodeID"] == WORKER


class TestEvents:
    async def test_they_come_in_order(self, daemon: FakeDaemon, engine: EngineClient) -> None:
        events = await engine.events(1795397200.5)
        await until(lambda: daemon.listeners == 1, "listening")
        assert daemon.since == ["1795397200.500000000"]
        for action in ("kill", "die"):
            daemon.send(docker.event("container", action, "c1"))
        assert [(await events.next())["Action"] for _ in range(2)] == ["kill", "die"]
        events.close()

    async def test_the_end_of_the_stream_is_told(self, daemon: FakeDaemon, engine: EngineClient) -> None:
        events = await engine.events(0)
        await until(lambda: daemon.listeners == 1, "listening")
        daemon.send(docker.event("container", "die", "c1"))
        daemon.end_events()
        assert (await events.next())["Action"] == "die"
        with pytest.raises(EngineUnavailable):
            await events.next()

    async def test_close_ends_the_thread(self, daemon: FakeDaemon, engine: EngineClient) -> None:
        events = await engine.events(0)
        await until(lambda: daemon.listeners == 1, "listening")
        events.close()
        await until(lambda: not listeners_left(), "the thread has ended")
        with pytest.raises(EngineUnavailable):
            await events.next()
        events.close()  # again is no matter

    async def test_too_many_are_lost_and_known_to_be(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(client_module, "EVENTS_MAX", 2)
        events = Events()
        for _ in range(3):
            events.put({"Action": "die"})
        assert events.lost
        events.end("over")  # is not lost, whatever waits
        assert (await events.next())["Action"] == "die"
        with pytest.raises(EngineUnavailable, match="over"):
            await events.next()

    async def test_no_engine(self, tmp_path: Path) -> None:
        with pytest.raises(EngineUnavailable, match="no Docker socket"):
            await EngineClient(str(tmp_path / "docker.sock")).events(0)

    async def test_a_loop_that_ended_is_not_told(self) -> None:
        loop = asyncio.new_event_loop()
        loop.close()
        client_module._tell(loop, print, "nobody reads this")


class TestNothingIsLeftOpen:
    async def test_after_many_failures(self, tmp_path: Path) -> None:
        engine = EngineClient(str(tmp_path / "docker.sock"))

        async def fail() -> None:
            with pytest.raises(EngineUnavailable):
                await engine.info()
            with pytest.raises(EngineUnavailable):
                await engine.events(0)

        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(tmp_path / "docker.sock"))
        await asyncio.gather(*(fail() for _ in range(8)))  # every thread has been at it
        before = open_files()
        for _ in range(10):
            await fail()
        await until(lambda: open_files() <= before, "as before")
        engine.close()

    async def test_after_many_streams(self, daemon: FakeDaemon, engine: EngineClient) -> None:
        async def once() -> None:
            events = await engine.events(0)
            await until(lambda: daemon.listeners == 1, "listening")
            events.close()
            await until(lambda: self.left(daemon), "it has left")
            await until(lambda: not listeners_left(), "the thread has ended")

        await once()
        before = open_files()
        for _ in range(5):
            await once()
        await until(lambda: open_files() <= before, "as before")

    async def test_after_close(self, daemon: FakeDaemon) -> None:
        before = open_files()
        engine = EngineClient(daemon.path)
        await asyncio.gather(*(engine.info() for _ in range(8)))
        events = await engine.events(0)
        engine.close()
        with pytest.raises(EngineUnavailable):
            await events.next()
        del events
        await until(lambda: not threads_left(), "the threads have ended")
        await until(lambda: self.left(daemon), "it has left")
        await until(lambda: open_files() <= before, "as before")

    def left(self, daemon: FakeDaemon) -> bool:
        """A server notices when it writes."""
        daemon.send(docker.event("container", "exec_start", "c1"))
        return not daemon.listeners


@pytest.mark.parametrize(
    "change",
    [
        lambda api: api.stop("web"),
        lambda api: api.create_container("image"),
        lambda api: api.remove_network("net"),
        lambda api: api.put_archive("web", "/", b""),
        lambda api: api.exec_create("web", "sh"),
        lambda api: api.leave_swarm(force=True),
    ],
)
async def test_nothing_but_get_is_sent_to_the_socket(
    engine: EngineClient, daemon: FakeDaemon, change: Callable[[Any], object]
) -> None:
    with pytest.raises(DiscoveryError, match="only GET is sent to the Docker socket"):
        await engine.cluster(change)
    assert daemon.methods <= {"GET"}
    assert (await engine.info())["Swarm"]  # and it goes on to be read
    assert daemon.methods == {"GET"}
