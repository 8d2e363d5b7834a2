"""The feed over loopback with certificates as Swarm makes them: who is let in, told, and cut off."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from mesh.catalog.cluster_view import ClusterView
from mesh.catalog.model import Attachment, Neighbour, Node, Service
from mesh.catalog.snapshot import Change
from mesh.peers.feed import server as feed_server
from mesh.peers.feed.client import FeedClient
from mesh.peers.feed.codec import encode_view
from mesh.peers.feed.server import LENGTH, PATH, FeedServer
from mesh.peers.report.codec import NodeReport
from mesh.peers.swarm_tls import SwarmCertificates
from tests.support.docker_fixtures_pki import SwarmCA
from tests.support.waiting import DEADLINE, running, until

CA = SwarmCA("cluster1")
HOST = "127.0.0.1"


def nodes(*ids: str) -> dict[str, Node]:
    return {id_: Node(id_, id_, "") for id_ in ids}


TOOL = Neighbour("w2", "c1", "tool", (Attachment("n1", "10.1.0.7"),))


class Manager:
    """A feed server and the view it serves."""

    def __init__(self, folder: str) -> None:
        self.view = ClusterView(nodes("m1", "w1"), {}, {"s1": Service("s1", "web")})
        self.reports: list[tuple[str, NodeReport]] = []
        self.server = self.serve(folder, 0)

    def serve(self, folder: str, port: int) -> FeedServer:
        self.server = FeedServer(
            SwarmCertificates(folder),
            (HOST, port),
            lambda: self.view,
            lambda node, report: self.reports.append((node, report)),
        )
        return self.server

    @property
    def port(self) -> int:
        assert self.server.bound is not None
        return self.server.bound[1]

    def change(self, change: Change) -> None:
        """As the merger does it: the view changes, then everybody is told."""
        for mapping, changed in ((self.view.nodes, change.nodes), (self.view.services, change.services)):
            for id_, one in changed.items():
                mapping.pop(id_, None) if one is None else mapping.__setitem__(id_, one)  # type: ignore[attr-defined]
        self.server.publish(change)


class Worker:
    """A feed client and everything it was told."""

    def __init__(self, folder: str, port: int, managers: list[str] | None = None) -> None:
        self.views: list[ClusterView] = []
        self.changes: list[Change] = []
        self.managers = managers or [HOST]
        self.client = FeedClient(
            SwarmCertificates(folder),
            lambda: self.managers,
            self.views.append,
            self.changes.append,
            port,
            Random(1),
        )


@pytest_asyncio.fixture
async def manager(tmp_path: Path) -> AsyncIterator[Manager]:
    manager = Manager(CA.node(tmp_path / "manager", "m1", "swarm-manager"))
    async with running(manager.server.run()):
        await until(lambda: manager.server.serving, "the feed is open")
        yield manager


def worker(tmp_path: Path, manager: Manager, ca: SwarmCA = CA, node: str = "w1", **more: str) -> Worker:
    return Worker(ca.node(tmp_path / f"worker-{node}", node, **more), manager.port)  # type: ignore[arg-type]


class TestFollowing:
    async def test_the_whole_view_comes_first_then_changes(self, tmp_path: Path, manager: Manager) -> None:
        one = worker(tmp_path, manager)
        async with running(one.client.run()):
            await until(lambda: one.views, "a view came")
            assert one.views == [manager.view]
            assert one.client.following == HOST
            assert manager.server.clients == 1
            change = Change(services={"s2": Service("s2", "db"), "s1": None})
            manager.change(change)
            await until(lambda: one.changes, "the change came")
            assert one.changes == [change]
        await until(lambda: manager.server.clients == 0, "the client is gone")

    async def test_two_clients_one_of_them_later(self, tmp_path: Path, manager: Manager) -> None:
        manager.change(Change(nodes=nodes("w2")))
        first, second = worker(tmp_path, manager), worker(tmp_path, manager, node="w2")
        async with running(first.client.run()):
            await until(lambda: first.views, "the first follows")
            manager.change(Change(services={"s2": Service("s2", "db")}))
            async with running(second.client.run()):
                await until(lambda: second.views, "the second follows")
                assert set(second.views[0].services) == {"s1", "s2"}
                await until(lambda: first.changes, "the first was told")

    async def test_what_concerns_this_node_only_is_not_told(self, tmp_path: Path, manager: Manager) -> None:
        one = worker(tmp_path, manager)
        async with running(one.client.run()):
            await until(lambda: one.views, "a view came")
            manager.server.publish(Change(containers={"c": None}))
            manager.change(Change(services={"s1": None}))
            await until(lambda: one.changes, "the next change came")
            assert one.changes == [Change(services={"s1": None})]

    async def test_plain_containers_of_the_nodes_are_told(self, tmp_path: Path, manager: Manager) -> None:
        manager.view = replace(manager.view, neighbours={TOOL.key: TOOL})
        one = worker(tmp_path, manager)
        async with running(one.client.run()):
            await until(lambda: one.views, "a view came")
            assert one.views == [manager.view]
            manager.change(Change(neighbours={TOOL.key: None}))
            await until(lambda: one.changes, "the change came")
            assert one.changes == [Change(neighbours={TOOL.key: None})]

    async def test_a_client_that_does_not_know_of_them_is_told_the_rest(
        self, tmp_path: Path, manager: Manager
    ) -> None:
        """One of before: it would refuse the whole message."""
        manager.view = replace(manager.view, neighbours={TOOL.key: TOOL})
        context = SwarmCertificates(CA.node(tmp_path / "old", "w1")).client_context()
        url = f"https://{HOST}:{manager.port}{PATH}"
        async with (
            aiohttp.ClientSession() as session,
            session.get(url, ssl=context, server_hostname="swarm-manager") as response,
        ):
            first = await self.message(response)
            assert first["view"].keys() == {"nodes", "networks", "services"}
            manager.change(Change(services={"s1": None}, neighbours={TOOL.key: None}))
            assert (await self.message(response))["changed"].keys() == {"nodes", "networks", "services"}

    async def message(self, response: aiohttp.ClientResponse) -> dict[str, Any]:
        (length,) = LENGTH.unpack(await response.content.readexactly(LENGTH.size))
        found: dict[str, Any] = json.loads(await response.content.readexactly(length))
        return found

    async def test_silence_is_filled_with_heartbeats(
        self, tmp_path: Path, manager: Manager, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(feed_server, "HEARTBEAT_SECONDS", 0.02)
        monkeypatch.setattr("mesh.peers.feed.client.SILENCE_SECONDS", 1.0)
        one = worker(tmp_path, manager)
        async with running(one.client.run()):
            await until(lambda: one.views, "a view came")
            loop = asyncio.get_running_loop()
            end = loop.time() + 1.5  # longer than silence may last
            await until(lambda: loop.time() > end, "time passed")
            assert one.client.reconnects == 1


class TestWhoIsLetIn:
    async def refused(self, one: Worker, manager: Manager, reason: str) -> None:
        async with running(one.client.run()):
            await until(
                lambda: manager.server.refused[reason], f"refused: {reason}, not {manager.server.refused}"
            )
        assert not one.views
        assert one.client.following == ""

    async def test_a_foreign_ca_is_refused(self, tmp_path: Path, manager: Manager) -> None:
        """By the client: the server shows it a certificate that it cannot trust."""
        one = worker(tmp_path, manager, ca=SwarmCA("cluster1"))
        async with running(one.client.run()):
            await until(lambda: "certificate" in one.client.fault, "the client refuses the server")
        assert not one.views

    async def test_a_foreign_certificate_is_refused_by_the_server_too(
        self, tmp_path: Path, manager: Manager
    ) -> None:
        """An attacker does not check the server's."""
        context = SwarmCertificates(SwarmCA("cluster1").node(tmp_path / "foe", "w1")).client_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        await self.knock(manager, context)
        await until(lambda: manager.server.refused["CERTIFICATE_VERIFY_FAILED"], "counted as refused")

    async def test_no_certificate_is_refused(self, manager: Manager) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        await self.knock(manager, context)
        await until(lambda: manager.server.refused["PEER_DID_NOT_RETURN_A_CERTIFICATE"], "counted")

    async def test_no_tls_is_refused(self, manager: Manager) -> None:
        reader, writer = await asyncio.open_connection(HOST, manager.port)
        writer.write(b"GET /v1/feed HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"snapshot" not in await reader.read()
        writer.close()
        await until(manager.server.refused.total, "counted")

    async def knock(self, manager: Manager, context: ssl.SSLContext) -> None:
        """Ask for the feed, whatever the other side is."""
        with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):  # noqa: PT012 - either
            reader, writer = await asyncio.open_connection(HOST, manager.port, ssl=context)
            writer.write(b"GET /v1/feed HTTP/1.1\r\nHost: x\r\n\r\n")
            await writer.drain()
            await reader.readexactly(1)
        assert manager.server.clients == 0

    async def test_another_cluster_with_the_same_ca_is_refused(
        self, tmp_path: Path, manager: Manager
    ) -> None:
        one = worker(tmp_path, manager, cluster="cluster2")
        await self.refused(one, manager, "another cluster")

    async def test_a_node_that_was_removed_is_refused(self, tmp_path: Path, manager: Manager) -> None:
        await self.refused(worker(tmp_path, manager, node="w9"), manager, "not a node of this Swarm")
        assert manager.server.clients == 0

    async def test_a_node_that_is_removed_is_cut_off(self, tmp_path: Path, manager: Manager) -> None:
        one = worker(tmp_path, manager)
        async with running(one.client.run()):
            await until(lambda: one.views, "a view came")
            manager.change(Change(nodes={"w1": None}))
            await until(lambda: one.client.fault.endswith("answered 403"), "cut off and refused")
            assert not one.changes

    async def test_too_many_clients(
        self, tmp_path: Path, manager: Manager, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(feed_server, "CLIENTS_MAX", 0)
        await self.refused(worker(tmp_path, manager), manager, "too many clients")

    async def test_a_worker_may_not_serve(self, tmp_path: Path) -> None:
        manager = Manager(CA.node(tmp_path / "impostor", "w2"))
        async with running(manager.server.run()):
            await until(lambda: manager.server.fault, "the fault is told")
            assert "not a manager's" in manager.server.fault
            assert not manager.server.serving

    async def test_a_client_refuses_a_workers_certificate(self, tmp_path: Path) -> None:
        """A worker that was broken into listens where a manager should."""
        context = SwarmCertificates(CA.node(tmp_path / "impostor", "w2")).server_context(lambda _: None)

        def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.close()

        server = await asyncio.start_server(serve, HOST, 0, ssl=context)
        one = Worker(CA.node(tmp_path / "worker", "w1"), server.sockets[0].getsockname()[1])
        async with running(one.client.run()):
            await until(lambda: "swarm-manager" in one.client.fault, "refused for its name")
        assert not one.views
        server.close()

    async def test_a_client_refuses_a_manager_of_another_cluster_with_the_same_ca(
        self, tmp_path: Path
    ) -> None:
        folder = CA.node(tmp_path / "other", "m9", "swarm-manager", cluster="cluster2")
        view = encode_view(ClusterView({}, {}, {}))

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + LENGTH.pack(len(view)) + view)
            await writer.drain()
            writer.close()

        context = SwarmCertificates(folder).server_context(lambda _: None)
        server = await asyncio.start_server(serve, HOST, 0, ssl=context)
        one = Worker(CA.node(tmp_path / "worker", "w1"), server.sockets[0].getsockname()[1])
        async with running(one.client.run()):
            await until(lambda: "another cluster" in one.client.fault, "refused for its cluster")
        assert not one.views
        server.close()


class TestLoss:
    async def test_whoever_answers_is_followed(self, tmp_path: Path, manager: Manager) -> None:
        one = worker(tmp_path, manager)
        one.managers = ["127.0.0.9", HOST, "127.0.0.8"]  # nobody listens on the others
        async with running(one.client.run()):
            await until(lambda: one.views, "one of them answered")
            assert one.client.following == HOST

    async def test_a_lost_manager_is_found_again(self, tmp_path: Path, manager: Manager) -> None:
        one = worker(tmp_path, manager)
        async with running(one.client.run()):
            await until(lambda: one.views, "a view came")
            manager.server._cut(next(iter(manager.server._clients)))
            await until(lambda: len(one.views) == 2, "it came back for a new view")
            assert (one.client.reconnects, one.client.following, one.client.fault) == (2, HOST, "")

    async def test_a_demoted_manager_lets_go(self, tmp_path: Path) -> None:
        manager = Manager(CA.node(tmp_path / "manager", "m1", "swarm-manager"))
        async with running(manager.server.run()) as [serving]:
            await until(lambda: manager.server.serving, "the feed is open")
            one = worker(tmp_path, manager)
            async with running(one.client.run()):
                await until(lambda: one.views, "a view came")
                serving.cancel()
                await until(lambda: not one.client.following, "the client knows")
                await until(lambda: "cannot connect" in one.client.fault, "nobody listens there any more")
        assert len(one.views) == 1

    async def test_silence_is_loss(
        self, tmp_path: Path, manager: Manager, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(feed_server, "HEARTBEAT_SECONDS", 60.0)
        monkeypatch.setattr("mesh.peers.feed.client.SILENCE_SECONDS", 0.1)
        one = worker(tmp_path, manager)
        async with running(one.client.run()):
            await until(lambda: one.client.reconnects >= 2, "it asked again")

    async def test_rubbish_is_loss(self, tmp_path: Path, manager: Manager) -> None:
        one = worker(tmp_path, manager)
        async with running(one.client.run()):
            await until(lambda: one.views, "a view came")
            next(iter(manager.server._clients)).put(b'{"surprise": 1}')
            await until(lambda: len(one.views) == 2, "it began again")

    async def test_a_client_that_does_not_read_is_cut_off(
        self, tmp_path: Path, manager: Manager, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        context = SwarmCertificates(CA.node(tmp_path / "slow", "w1")).client_context()
        _, writer = await asyncio.open_connection(
            HOST, manager.port, ssl=context, server_hostname="swarm-manager", limit=2
        )
        writer.write(b"GET /v1/feed HTTP/1.1\r\nHost: x\r\n\r\n")
        await until(lambda: manager.server.clients == 1, "it is served")
        connection = next(iter(manager.server._clients))._transport
        large = {str(n): Service(str(n), "x" * 1000) for n in range(1000)}

        def flood() -> bool:
            manager.server.publish(Change(services=large))
            return manager.server.clients == 0

        await until(flood, "it is cut off")
        assert manager.server.refused["too slow"] == 1
        assert connection.is_closing()
        writer.transport.abort()

    async def test_a_write_that_does_not_end_is_cut_off(
        self, tmp_path: Path, manager: Manager, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Few changes, so the queue stays short; the network took nothing."""
        monkeypatch.setattr(feed_server, "WRITE_SECONDS", 0.1)
        manager.view.services.update({str(n): Service(str(n), "x" * 10_000) for n in range(3000)})  # type: ignore[attr-defined]
        context = SwarmCertificates(CA.node(tmp_path / "slow", "w1")).client_context()
        _, writer = await asyncio.open_connection(
            HOST, manager.port, ssl=context, server_hostname="swarm-manager", limit=2
        )
        writer.write(b"GET /v1/feed HTTP/1.1\r\nHost: x\r\n\r\n")
        await until(lambda: manager.server.refused["too slow"], "it is cut off")
        assert manager.server.clients == 0
        writer.transport.abort()


class TestCertificates:
    async def test_rotation_is_followed_and_clients_stay(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(feed_server, "ROTATION_SECONDS", 0.02)
        manager = Manager(CA.node(tmp_path / "manager", "m1", "swarm-manager"))
        manager.serve(str(tmp_path / "manager"), free_port())
        async with running(manager.server.run()):
            await until(lambda: manager.server.serving, "the feed is open")
            port = manager.port
            before = await shown(port)
            one = worker(tmp_path, manager)
            async with running(one.client.run()):
                await until(lambda: one.views, "a view came")
                CA.node(tmp_path / "manager", "m1", "swarm-manager")
                now = before
                async with asyncio.timeout(DEADLINE):
                    while now == before:
                        now = await shown(port) or before
                manager.change(Change(services={"s1": None}))
                await until(lambda: one.changes, "the old connection goes on")
                assert one.client.reconnects == 1

    async def test_missing_certificates_are_waited_for(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(feed_server, "ROTATION_SECONDS", 0.02)
        manager = Manager(str(tmp_path / "manager"))
        async with running(manager.server.run()):
            await until(lambda: "bind Swarm's certificates" in manager.server.fault, "the fault is told")
            CA.node(tmp_path / "manager", "m1", "swarm-manager")
            await until(lambda: manager.server.serving, "it serves at last")
            assert manager.server.fault == ""

    async def test_a_taken_port_is_told_and_tried_again(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(feed_server, "ROTATION_SECONDS", 0.02)
        holder = await asyncio.start_server(lambda _r, w: w.close(), HOST, 0)
        port = holder.sockets[0].getsockname()[1]
        manager = Manager(CA.node(tmp_path / "manager", "m1", "swarm-manager"))
        manager.serve(str(tmp_path / "manager"), port)
        async with running(manager.server.run()):
            await until(lambda: str(port) in manager.server.fault, "the fault is told")
            holder.close()
            await until(lambda: manager.server.serving, "it serves at last")


async def shown(port: int) -> bytes:
    """The certificate that a server shows now; nothing while it changes over."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        _, writer = await asyncio.open_connection(HOST, port, ssl=context)
    except (ConnectionError, ssl.SSLError):
        return b""
    found: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.transport.abort()
    return found


def free_port() -> int:
    """A port that was free a moment ago; rotation needs one that stays the same."""
    import socket

    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port
