"""Requests to a task of another node, over real sockets and the certificates that Swarm makes."""

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Container
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from mesh.catalog.model import Network, Node, Service, ServiceNetwork, Task, TaskState
from mesh.catalog.snapshot import Change, Snapshot
from mesh.errors import NamespaceGone
from mesh.http.downstream.published_port import HttpPort
from mesh.net.bound_listener import listen
from mesh.net.tasks import Tasks
from mesh.peers.swarm_tls import SwarmCertificates
from mesh.peers.tunnel import client as tunnel_client
from mesh.peers.tunnel import server
from mesh.peers.tunnel.client import Tunnels
from mesh.peers.tunnel.protocol import TunnelRequest, ask
from mesh.peers.tunnel.server import TunnelServer
from mesh.peers.tunnel.task_lookup import node_of
from mesh.relay.tcp_connection import RelayOptions
from mesh.relay.tcp_port import plain_socket
from sidecar.workers.channel import Channel
from sidecar.workers.edge_reach import EdgeTunnels
from sidecar.workers.http_messages import TELLS, TOLD, ConnectionBroken, Cut, Dial, TunnelDialled
from sidecar.workers.tunnel_broker import TunnelBroker
from tests.http.conftest import LIMIT, Conversation, Handler, Stand, saying
from tests.http.h2_peer import Heard, Peer, h2_client, h2_serving
from tests.support.docker_fixtures_pki import SwarmCA
from tests.support.waiting import until

NET = Network("n1", "net", ("127.0.0.0/8",))
HERE, THERE = "nodehere", "nodethere"


class Two:
    """Two nodes of a Swarm: `here` takes requests, all tasks are on `there`."""

    def __init__(self, stand: Stand, stack: AsyncExitStack, folder: Path) -> None:
        self.stand = stand
        self.ca = SwarmCA()
        self.folders = {node: folder / node for node in (HERE, THERE)}
        self.certificates = {
            node: SwarmCertificates(self.ca.node(path, node)) for node, path in self.folders.items()
        }
        nodes = {node: Node(node, node, "127.0.0.1") for node in (HERE, THERE)}
        self.snapshot = Snapshot(this_node=THERE).apply(Change(networks={NET.id: NET}, nodes=nodes))
        self.failures: list[BaseException] = []
        self.tasks = Tasks(lambda _name, error: self.failures.append(error))
        stack.push_async_callback(self.tasks.close)
        self.connect: Callable[[], socket.socket] = plain_socket
        self.server = TunnelServer(
            self.tasks,
            self.certificates[THERE],
            ("127.0.0.1", 0),
            lambda: self.snapshot,
            lambda network: self.connect,
            lambda _snapshot, service, _network, port: port in self.ports[service.id],
        )
        self.ports: dict[str, Container[int]] = {"web": range(65536)}
        self._stack = stack

    async def start(self, *, apart: bool = False) -> None:
        """`apart`: who connects has no certificate, and asks over a channel of its own."""
        await self.server.look()
        assert self.server.bound is not None, self.server.fault
        self.tunnels = self.dialler(self.certificates[HERE], self.server.bound[1])
        self.asked: Tunnels | EdgeTunnels = self.tunnels
        if apart:
            near, far = socket.socketpair()
            edge, sidecar = Channel(near, TELLS, TOLD), Channel(far, TOLD, TELLS, descriptors_max=1)
            self.asked = tunnels = EdgeTunnels(edge)
            broker = TunnelBroker(self.tasks, self.tunnels, lambda _, *said: sidecar.send(*said))
            self.tasks.start(_at_the_sidecar(sidecar, broker), "sidecar")
            self.tasks.start(_at_the_edge(edge, tunnels), "edge")
            self._stack.callback(sidecar.close)
            self._stack.callback(edge.close)

    def dialler(self, certificates: SwarmCertificates, port: int) -> Tunnels:
        return Tunnels(
            self.tasks,
            certificates,
            port,
            lambda network, address: node_of(self.snapshot, network, address),
        )

    def put(self, *addresses: str) -> None:
        tasks = tuple(
            Task(f"t{i}", f"t{i}", THERE, TaskState.RUNNING, {NET.id: one}) for i, one in enumerate(addresses)
        )
        service = Service("web", "web", networks=(ServiceNetwork(NET.id),), tasks=tasks)
        self.snapshot = self.snapshot.apply(Change(services={"web": service}))

    async def port(self, *handlers: Handler, tunnels: Tunnels | None = None) -> HttpPort:
        """In front of endpoints that do this, each reached through the tunnel."""
        found = [await self.stand.endpoint(one) for one in handlers]
        self.put(*(one.endpoint.address for one in found))
        chosen = tunnels or self.asked
        port = HttpPort(
            self.stand.core,
            "web",
            listen("127.0.0.1", 0),
            [one.endpoint for one in found],
            RelayOptions(),
            lambda: chosen.to(NET.id),
        )
        self._stack.push_async_callback(port.close)
        return port

    async def client(self, *handlers: Handler, tunnels: Tunnels | None = None) -> Conversation:
        return await self.stand.client(await self.port(*handlers, tunnels=tunnels))


async def _at_the_sidecar(channel: Channel, broker: TunnelBroker) -> None:
    with suppress(EOFError):
        while True:
            message, sockets = await channel.receive()
            if isinstance(message, Dial):
                broker.on_dial(0, message, sockets)
            elif isinstance(message, Cut):
                broker.on_cut(0, message, sockets)


async def _at_the_edge(channel: Channel, tunnels: EdgeTunnels) -> None:
    with suppress(EOFError):
        while True:
            message, sockets = await channel.receive()
            if isinstance(message, TunnelDialled):
                tunnels.on_dialled(message)
            elif isinstance(message, ConnectionBroken):
                tunnels.on_broken(message, sockets)


@pytest.fixture(params=[False, True], ids=["here", "apart"])
async def two(request: pytest.FixtureRequest, stand: Stand, tmp_path: Path) -> AsyncIterator[Two]:
    async with AsyncExitStack() as stack:
        made = Two(stand, stack, tmp_path)
        await made.start(apart=request.param)
        yield made
        if made.server._listener is not None:
            made.server._listener.close()
    assert not made.failures


class TestRequests:
    async def test_go_through_and_the_connection_is_kept(self, two: Two) -> None:
        client = await two.client(saying("there"))
        for path in ("/a", "/b"):
            await client.request(first=f"GET {path} HTTP/1.1")
            assert (await client.response())[2] == f"there {path}".encode()
        assert (two.tunnels.opened, two.tunnels.active, two.server.active) == (1, 1, 1)

    @pytest.mark.parametrize("size", [1, 100_000, 20_000_000])
    async def test_large_bodies_both_ways(self, two: Two, size: int) -> None:
        async def endpoint(to: Conversation) -> None:
            await to.head()
            body = await to.read(size)
            await to.say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
            await to.say(body)

        client = await two.client(endpoint)
        body = os.urandom(1000) * (size // 1000) + bytes(size % 1000)
        sending = asyncio.create_task(
            client.request(f"Content-Length: {size}", first="POST / HTTP/1.1", body=body)
        )
        assert (await client.response())[2] == body
        await sending

    async def test_upgrades(self, two: Two) -> None:
        async def endpoint(to: Conversation) -> None:
            await to.head()
            await to.say("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
            while data := await to.reader.read(100):
                await to.say(data)

        client = await two.client(endpoint)
        await client.request("Connection: upgrade", "Upgrade: echo")
        assert (await client.head()).startswith("HTTP/1.1 101")
        for word in (b"a", b"bc"):
            await client.say(word)
            assert await client.read(len(word)) == word

    async def test_http_2(self, two: Two) -> None:
        async def endpoint(peer: Peer, heard: Heard) -> None:
            await peer.until(lambda: heard.ended)
            peer.respond(heard.id)
            await peer.send(heard.id, bytes(heard.body))
            peer.trailers(heard.id, ("grpc-status", "0"))

        async with h2_serving(endpoint) as tasks:
            port = await two.port()
            two.put(tasks.endpoint.address)
            port.target.h2 = True
            port.update_endpoints((tasks.endpoint,))
            client = await h2_client(port.address)
            asked = [client.ask(method="POST", end=False) for _ in range(10)]
            for heard in asked:
                await client.send(heard.id, b"x" * 1000, end=True)
            for heard in asked:
                await client.whole(heard)
                assert (heard.body, heard.trailers) == (b"x" * 1000, [("grpc-status", "0")])
            assert (tasks.connections, two.tunnels.opened) == (1, 1)
            await client.close()

    async def test_what_breaks_off_there_breaks_off_here(self, two: Two) -> None:
        async def endpoint(to: Conversation) -> None:
            await to.head()
            await to.say("HTTP/1.1 200 OK\r\n\r\nabc")  # until it closes; it does not close, it resets
            await asyncio.wait_for(seen.wait(), LIMIT)
            to.reset()

        seen = asyncio.Event()
        client = await two.client(endpoint)
        await client.request()
        await client.head()
        assert await client.until(b"abc\r\n") == b"3\r\nabc\r\n"
        seen.set()
        rest: bytes | OSError
        try:
            rest = await client.rest()
        except ConnectionResetError as error:
            rest = error
        assert rest != b"0\r\n\r\n"  # it must not look whole

    @pytest.mark.parametrize("whole", [True, False])
    async def test_the_end_of_one_side_is_the_others(self, two: Two, whole: bool) -> None:
        """And a request that was cut off does not look whole."""
        begun, ended = asyncio.Event(), asyncio.get_running_loop().create_future()

        async def endpoint(to: Conversation) -> None:
            await to.head()
            begun.set()
            try:
                ended.set_result(await to.rest())
            except ConnectionResetError as error:
                ended.set_result(type(error))

        client = await two.client(endpoint)
        if whole:
            await client.request()
        else:
            await client.request("Content-Length: 10", first="POST / HTTP/1.1", body=b"abc")
        await asyncio.wait_for(begun.wait(), LIMIT)
        client.reset()
        assert await asyncio.wait_for(ended, LIMIT) == (b"" if whole else ConnectionResetError)
        async with asyncio.timeout(LIMIT):
            while two.server.active or two.tunnels.active:
                await asyncio.sleep(0)


class TestNobodyThere:
    async def _refused(self, two: Two, client: Conversation, reason: bytes = b"connect") -> None:
        await client.request("Content-Length: 1", first="POST / HTTP/1.1", body=b"a")
        status, _, body = await client.response()
        assert status in (502, 504)
        assert reason in body

    async def test_no_such_task(self, two: Two) -> None:
        port = await two.port(saying("there"))
        (endpoint,) = port.endpoints
        port.update_endpoints((endpoint,))
        two.put("127.9.9.9")
        await self._refused(two, await two.stand.client(port))
        assert two.tunnels.failed == {"OSError": 1}  # no node is known to have it

    async def test_a_task_of_another_node(self, two: Two) -> None:
        client = await two.client(saying("there"))
        service = two.snapshot.services["web"]
        two.snapshot = replace(two.snapshot, this_node="another")
        assert service
        await self._refused(two, client)
        assert two.server.refused == {"no such task on this node": 1}

    async def test_it_does_not_listen(self, two: Two) -> None:
        port = await two.port()
        gone = await two.stand.endpoint(saying("x"))
        two.put(gone.endpoint.address)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            nobody = gone.endpoint._replace(port=free.getsockname()[1])
        port.update_endpoints((nobody,))
        await self._refused(two, await two.stand.client(port))

    async def test_the_network_has_gone_there_too(self, two: Two) -> None:
        def gone() -> socket.socket:
            raise NamespaceGone("nothing of network net is on this node")

        two.connect = gone
        await self._refused(two, await two.client(saying("there")))

    async def test_no_sidecar(self, two: Two) -> None:
        client = await two.client(saying("there"))
        assert two.server._listener is not None
        two.server._listener.close()
        await self._refused(two, client)

    async def test_one_that_says_nothing(self, two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tunnel_client, "OPEN_SECONDS", 0.1)
        with socket.create_server(("127.0.0.1", 0)) as silent:
            tunnels = two.dialler(two.certificates[HERE], silent.getsockname()[1])
            await self._refused(two, await two.client(saying("there"), tunnels=tunnels))
            assert tunnels.failed == {"TimeoutError": 1}
            assert tunnels.active == 0

    async def test_another_task_is_tried(self, two: Two) -> None:
        port = await two.port(saying("one"), saying("one"))
        alive, gone = port.endpoints
        port.update_endpoints((alive, gone._replace(port=1)))
        client = await two.stand.client(port)
        for _ in range(4):
            await client.request("Content-Length: 1", first="POST /x HTTP/1.1", body=b"a")
            assert (await client.head()).startswith("HTTP/1.1 200")
            await client.read(len("one /x"))
            client = await two.stand.client(port)


class TestWhoMayAsk:
    async def _asks(self, two: Two, certificates: SwarmCertificates) -> Tunnels:
        """Somebody with these certificates gets nothing."""
        assert two.server.bound is not None
        tunnels = two.dialler(certificates, two.server.bound[1])
        client = await two.client(saying("there"), tunnels=tunnels)
        await client.request()
        assert (await client.response())[0] == 502
        return tunnels

    async def test_nobody_of_another_authority(self, two: Two, tmp_path: Path) -> None:
        tunnels = await self._asks(two, SwarmCertificates(SwarmCA().node(tmp_path / "x", HERE)))
        assert tunnels.failed == {"SSLCertVerificationError": 1}

    async def test_nobody_without_a_certificate(self, two: Two) -> None:
        assert two.server.bound is not None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(two.folders[HERE] / "swarm-root-ca.crt")
        reader, writer = await asyncio.open_connection(*two.server.bound, ssl=context, server_hostname=THERE)
        writer.write(ask(TunnelRequest(NET.id, "127.0.0.1", 1)))
        with suppress(OSError):  # the alert, or only the end
            assert await asyncio.wait_for(reader.read(), LIMIT) == b""
        assert sum(two.server.refused.values()) == 1
        writer.close()

    async def test_nobody_of_another_cluster(self, two: Two, tmp_path: Path) -> None:
        await self._asks(two, SwarmCertificates(two.ca.node(tmp_path / "x", HERE, cluster="others")))
        assert two.server.refused == {"another cluster": 1}

    async def test_no_node_that_was_removed(self, two: Two, tmp_path: Path) -> None:
        await self._asks(two, SwarmCertificates(two.ca.node(tmp_path / "x", "noderemoved")))
        assert two.server.refused == {"not a node of this Swarm": 1}

    async def test_only_the_node_itself_answers(self, two: Two, tmp_path: Path) -> None:
        """Another node of the Swarm at its address is not taken for it."""
        other = TunnelServer(
            two.tasks,
            SwarmCertificates(two.ca.node(tmp_path / "x", "nodeother")),
            ("127.0.0.1", 0),
            lambda: two.snapshot,
            lambda _: plain_socket,
        )
        await other.look()
        assert other.bound is not None
        tunnels = two.dialler(two.certificates[HERE], other.bound[1])
        client = await two.client(saying("there"), tunnels=tunnels)
        await client.request()
        assert (await client.response())[0] == 502
        assert tunnels.failed == {"SSLCertVerificationError": 1}
        assert other._listener is not None
        other._listener.close()

    @pytest.mark.parametrize("said", [b"GET / HTTP/1.1\r\n\r\n", b"x" * 200_000, b"MESH/1 a b c\r\n"])
    async def test_nonsense(self, two: Two, said: bytes) -> None:
        assert two.server.bound is not None
        context = two.certificates[HERE].client_context()
        reader, writer = await asyncio.open_connection(*two.server.bound, ssl=context, server_hostname=THERE)
        writer.write(said)
        try:
            answer = await asyncio.wait_for(reader.read(), LIMIT)
        except ConnectionError:
            answer = b""
        assert answer == b"" or answer.startswith(b"NO ")
        assert sum(two.server.refused.values()) == 1
        writer.close()

    async def test_silence(self, two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(server, "ASK_SECONDS", 0.05)
        assert two.server.bound is not None
        context = two.certificates[HERE].client_context()
        reader, writer = await asyncio.open_connection(*two.server.bound, ssl=context, server_hostname=THERE)
        assert await asyncio.wait_for(reader.read(), LIMIT) == b"NO TimeoutError\r\n"
        writer.close()

    async def test_not_too_many(self, two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
        client = await two.client(saying("there"))
        monkeypatch.setattr(tunnel_client, "TUNNELS_MAX", 0)
        await client.request()
        assert (await client.response())[0] == 502
        monkeypatch.setattr(tunnel_client, "TUNNELS_MAX", 1)
        monkeypatch.setattr(server, "TUNNELS_MAX", 0)
        client = await two.client(saying("there"))
        await client.request()
        assert (await client.response())[0] == 502
        assert two.server.refused == {"too many": 1}

    async def test_new_certificates_are_taken(self, two: Two) -> None:
        client = await two.client(saying("there"))
        await client.request()
        await client.response()
        for node, folder in two.folders.items():
            two.ca.node(folder, node)
        await two.server.look()
        assert two.server.bound is not None
        tunnels = two.dialler(two.certificates[HERE], two.server.bound[1])
        for asker in (client, await two.client(saying("there"), tunnels=tunnels)):  # the old one goes on
            await asker.request()
            assert (await asker.response())[0] == 200

    async def test_ports_that_http_is_not_routed_to(self, two: Two) -> None:
        client = await two.client(saying("there"))
        two.ports["web"] = ()
        await client.request()
        assert (await client.response())[0] == 502
        assert two.server.refused == {"not a port that HTTP is routed to": 1}
        (problem,) = two.server.problems()
        assert (problem.file, "not a port" in problem.message) == (f"node {HERE}", True)


class TestShares:
    """Of peers, and of strangers: each has room beside somebody who takes all that is to be had."""

    async def asked(self, two: Two, node: str = HERE) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        assert two.server.bound is not None
        context = two.certificates[node].client_context()
        return await asyncio.open_connection(*two.server.bound, ssl=context, server_hostname=THERE)

    async def endpoint(self, two: Two) -> bytes:
        """A task that keeps connections; returns the line that asks for it."""

        async def stay(to: Conversation) -> None:
            await to.rest()

        found = await two.stand.endpoint(stay)
        two.put(found.endpoint.address)
        return ask(TunnelRequest(NET.id, found.endpoint.address, found.endpoint.port))

    async def test_a_peer_has_its_share(self, two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(server, "PEER_TUNNELS_MAX", 2)
        line = await self.endpoint(two)
        answers, kept = [], []
        for _ in range(3):
            reader, writer = await self.asked(two)
            kept.append(writer)
            writer.write(line)
            answers.append(await asyncio.wait_for(reader.readline(), LIMIT))
        assert answers == [b"OK\r\n", b"OK\r\n", b"NO too many of one node\r\n"]
        assert two.server.refused == {"too many of one node": 1}

    async def test_the_largest_gives_way(self, two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(server, "TUNNELS_MAX", 3)
        line, greedy = await self.endpoint(two), []
        for _ in range(3):
            reader, writer = await self.asked(two)
            writer.write(line)
            assert await asyncio.wait_for(reader.readline(), LIMIT) == b"OK\r\n"
            greedy.append((reader, writer))
        reader, writer = await self.asked(two, THERE)
        writer.write(line)
        assert await asyncio.wait_for(reader.readline(), LIMIT) == b"OK\r\n"
        with suppress(ConnectionError):
            assert await asyncio.wait_for(greedy[0][0].read(), LIMIT) == b""
        assert two.server.refused == {"gave way to another node": 1}
        assert two.server.active == 3

    async def test_idle_ones_end(self, two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(server, "IDLE_SECONDS", 0.05)
        line = await self.endpoint(two)
        reader, writer = await self.asked(two)
        writer.write(line)
        assert await asyncio.wait_for(reader.readline(), LIMIT) == b"OK\r\n"
        with suppress(ConnectionError):
            assert await asyncio.wait_for(reader.read(), LIMIT) == b""
        await until(lambda: two.server.active == 0)
        assert two.server.refused == {"idle for too long": 1}

    async def test_those_of_a_node_that_is_removed_end(self, two: Two) -> None:
        line = await self.endpoint(two)
        reader, writer = await self.asked(two)
        writer.write(line)
        assert await asyncio.wait_for(reader.readline(), LIMIT) == b"OK\r\n"
        two.snapshot = two.snapshot.apply(Change(nodes={HERE: None}))
        await two.server.look()
        with suppress(ConnectionError):
            assert await asyncio.wait_for(reader.read(), LIMIT) == b""
        assert two.server.refused == {"not a node of this Swarm": 1}

    async def test_silent_strangers_of_one_address_keep_nobody_out(
        self, two: Two, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """They hold their own places only; who comes from elsewhere is answered."""
        monkeypatch.setattr(server, "STRANGERS_OF_ADDRESS_MAX", 5)
        assert two.server.bound is not None
        line = await self.endpoint(two)
        silent = [
            socket.create_connection(two.server.bound, source_address=("127.0.0.9", 0)) for _ in range(20)
        ]
        await until(lambda: two.server.refused.total() == 15)
        assert two.server.strangers == 5
        reader, writer = await self.asked(two)
        writer.write(line)
        assert await asyncio.wait_for(reader.readline(), LIMIT) == b"OK\r\n"
        for one in silent:
            one.close()
        await until(lambda: two.server.strangers == 0)

    async def test_the_oldest_stranger_gives_way(self, two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(server, "STRANGERS_MAX", 5)
        assert two.server.bound is not None
        line = await self.endpoint(two)
        silent = [
            socket.create_connection(two.server.bound, source_address=(f"127.0.0.{n}", 0))
            for n in range(9, 17)
        ]
        await until(lambda: two.server.refused.total() == 3)
        reader, writer = await self.asked(two)
        writer.write(line)
        assert await asyncio.wait_for(reader.readline(), LIMIT) == b"OK\r\n"
        assert two.server.refused == {"too many silent connections": 4}
        silent[0].settimeout(LIMIT)
        with suppress(ConnectionError):
            assert silent[0].recv(1) == b""
        for one in silent:
            one.close()

    async def test_a_handshake_that_does_not_come_has_its_time(
        self, two: Two, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(server, "HANDSHAKE_SECONDS", 0.05)
        assert two.server.bound is not None
        with socket.create_connection(two.server.bound):
            await until(lambda: two.server.refused == {"no handshake": 1})
        await until(lambda: two.server.strangers == 0)

    async def test_nothing_comes_before_the_answer(self, two: Two) -> None:
        line = await self.endpoint(two)
        reader, writer = await self.asked(two)
        writer.write(line + b"GET / HTTP/1.1\r\n")
        assert await asyncio.wait_for(reader.read(), LIMIT) == b"NO a line that asks for no task\r\n"
