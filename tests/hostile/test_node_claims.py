"""Nodes that lie about themselves: through the report, the manager's books, the merge and the snapshot to the
rules and names that come of it. A good node beside the liar has what is its own throughout.
"""

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import ClassVar

import aiohttp
import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.catalog.cluster_view import ClusterView
from mesh.catalog.entries import derived_mac
from mesh.catalog.model import (
    Attachment,
    Neighbour,
    Network,
    Node,
    ReturnPath,
    Role,
    Service,
    ServiceNetwork,
    Task,
    TaskState,
)
from mesh.catalog.snapshot import Change, Snapshot
from mesh.discovery.allocations import Allocations
from mesh.discovery.merge import Merger
from mesh.discovery.plain_containers import Neighbours
from mesh.discovery.return_path_overlay import ReturnPathOverlay as ReturnPathBook
from mesh.dns.lookup import answer
from mesh.dns.name_table import NameTable
from mesh.dns.scope import Scope
from mesh.dns.wire import DnsQuestion, QClass, QType
from mesh.errors import DiscoveryError
from mesh.http.routing.routed_ports import RoutedPorts
from mesh.kernel.return_paths import ReturnPathRules
from mesh.kernel.return_rules import ReturnEntry, return_rules
from mesh.net.netns import NamespaceWorker
from mesh.net.tasks import Tasks
from mesh.peers.feed import server as feed_server
from mesh.peers.feed.client import FeedClient
from mesh.peers.feed.server import FeedServer
from mesh.peers.report.codec import NodeReport, decode_report, encode_report
from mesh.peers.swarm_tls import MANAGER_NAME, Identity, SwarmCertificates
from mesh.peers.tunnel import server as tunnel_server
from mesh.peers.tunnel.protocol import OPEN, TunnelRequest, ask
from mesh.peers.tunnel.server import TunnelServer
from mesh.relay.tcp_port import plain_socket
from tests.support.docker_fixtures_pki import SwarmCA
from tests.support.waiting import running, until

LIMIT = 10.0  # seconds for whatever a test waits for

INGRESS = Network("ingress", "ingress", ("10.0.0.0/24",), ingress=True)
NODES = {id_: Node(id_, f"name-of-{id_}", "") for id_ in ("good", "liar", "here")}
VIEW = ClusterView(NODES, {INGRESS.id: INGRESS}, {})
GOOD = ReturnEntry("10.0.0.2", derived_mac("10.0.0.2"))
OWN = ReturnEntry("10.0.0.4", derived_mac("10.0.0.4"))
GOOD_SAYS = ReturnPath(GOOD.address, GOOD.mac, (GOOD.address,), ("10.0.0.20",))


def sent(said: ReturnPath) -> ReturnPath | None:
    """As it arrives at a manager; None: it is refused as a whole."""
    try:
        return decode_report(encode_report(NodeReport(return_path=said))).return_path
    except DiscoveryError:
        return None


class TestReturnPaths:
    """What a task answers through is `here`'s to decide."""

    def book(self, known: Allocations | None = None) -> ReturnPathBook:
        made = ReturnPathBook()
        made.lay_over(VIEW, known)
        return made

    def entries(self, book: ReturnPathBook) -> dict[str, ReturnEntry]:
        """As node `here` has them after the feed."""
        merger = Merger()
        merger.set_node("here")
        return self.believed(merger.set_cluster(book.lay_over(VIEW))[0])

    def believed(self, *changes: Change) -> dict[str, ReturnEntry]:
        worker = NamespaceWorker()
        try:
            paths = ReturnPathRules(Tasks(lambda _name, error: pytest.fail(str(error))), worker, lambda: None)
            paths.own_entry(OWN)
            snapshot = Snapshot(this_node="here")
            for change in changes:
                old, snapshot = snapshot, snapshot.apply(change)
                paths.update(old, snapshot, change)
            found = {**paths.entries, "own": OWN}
            marks = paths.marks
            assert marks.keys() == {one.mac for one in found.values() if one.mac}
            assert len(set(marks.values())) == len(marks)
            for mac, gateway in paths.gateways.items():
                assert gateway in {one.address for one in found.values()}
                assert IPv4Address(gateway)
                assert mac in marks.values()
            return_rules("eth0", "10.0.0.30", marks)
            return found
        finally:
            worker.close()

    @pytest.mark.parametrize(
        "lie",
        [
            ReturnPath("10.0.0.3", GOOD.mac),
            ReturnPath(GOOD.address, GOOD.mac),
            ReturnPath(GOOD.address, "7e:00:00:00:00:01"),
            ReturnPath(GOOD.address),
            ReturnPath(OWN.address, OWN.mac),
            ReturnPath("10.0.0.3", OWN.mac),
            ReturnPath("x", GOOD.mac),
            ReturnPath("", GOOD.mac),
            ReturnPath("10.9.9.9", GOOD.mac),
            ReturnPath("10.0.0.1", derived_mac("10.0.0.1")),
            ReturnPath("10.0.0.255", derived_mac("10.0.0.255")),
        ],
    )
    @pytest.mark.parametrize("order", [("good", "liar"), ("liar", "good")])
    def test_the_rightful_owner_has_it(self, lie: ReturnPath, order: tuple[str, str]) -> None:
        """Whoever comes first: the engine knows where each node enters."""
        entries = {"good": GOOD.address, "here": OWN.address}
        book = self.book(Allocations(entries=entries))
        words = {"good": GOOD_SAYS, "liar": lie}
        for node in order:
            if (said := sent(words[node])) is not None:
                book.report(node, said)
        assert self.entries(book) == {"good": GOOD, "own": OWN}
        assert [one.file for one in book.problems()] == ["node name-of-liar"]
        assert sum(book.refused.values()) == 1
        assert book.lay_over(VIEW).nodes["good"].return_path == GOOD_SAYS

    @pytest.mark.parametrize("mac", [GOOD.mac, "7e:00:00:00:00:01"])
    def test_a_poisoned_view_harms_nobody(self, mac: str) -> None:
        """Of a saved file, or an older manager's feed: both claims come at once, or the lie later."""
        good = replace(NODES["good"], return_path=replace(GOOD_SAYS, mac=mac))
        for entry in ("x", "10.0.0.3", "", "300.1.1.1", OWN.address):
            liar = replace(NODES["liar"], return_path=ReturnPath(entry, mac))
            networks = {INGRESS.id: INGRESS}
            later = Change(networks=networks, nodes={"good": good}), Change(nodes={"liar": liar})
            kept = {"good": ReturnEntry(GOOD.address, mac), "own": OWN}
            assert self.believed(*later) == kept
            at_once = self.believed(Change(networks=networks, nodes={"good": good, "liar": liar}))
            assert mac != GOOD.mac or at_once == kept

    @settings(deadline=None, max_examples=60)
    @given(
        st.lists(
            st.tuples(
                st.sampled_from(["liar", "good", "here"]),
                st.sampled_from(["", "x", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.1", "10.1.0.9"]),
                st.sampled_from(["", GOOD.mac, OWN.mac, derived_mac("10.0.0.3"), "7e:00:00:00:00:01", "m"]),
                st.lists(st.sampled_from(["10.0.0.2", "y", "10.0.0.300", "::1"]), max_size=3),
            ),
            max_size=6,
        )
    )
    def test_whatever_is_said_nothing_of_ours_fails(
        self, words: list[tuple[str, str, str, list[str]]]
    ) -> None:
        book = self.book()
        for node, entry, mac, more in words:
            raw = {"entry": entry, "mac": mac, "entries": more, "tasks": more}
            try:
                report = decode_report(json.dumps({"ending": {}, "return_path": raw}).encode())
            except DiscoveryError:
                continue
            book.report(node, report.return_path)
        self.entries(book)


FRONT = Network("front", "front", ("10.1.0.0/24",), attachable=True)
BACK = Network("back", "back", ("10.2.0.0/24",), attachable=True)
DB_TASK = Task("t1", "shop_db.1.t1", "good", TaskState.RUNNING, {"back": "10.2.0.3"}, "ab" * 32, "box")
DB = Service(
    "s1",
    "shop_db",
    networks=(ServiceNetwork("back", "10.2.0.2", ("db",)),),
    labels={"com.docker.stack.namespace": "shop"},
    tasks=(DB_TASK,),
)
TOOL = Neighbour("", "c0ffee" + "0" * 58, "tool", (Attachment("front", "10.1.0.7", ("helper",)),))
BOTH = frozenset({"front", "back"})


class TestNames:
    """What a container that is on both networks is answered, on node `here`."""

    VIEW = ClusterView(NODES, {"front": FRONT, "back": BACK}, {DB.id: DB})
    KNOWN = Allocations(
        {"good": BOTH, "liar": frozenset({"front"})},
        {("front", "10.1.0.7"): "good", ("front", "10.1.0.66"): "liar"},
    )

    def answers(self, *lies: Neighbour, view: ClusterView = VIEW) -> Callable[[str], list[str]]:
        book = Neighbours()
        book.lay_over(self.VIEW, self.KNOWN)
        for node, said in (("liar", lies), ("good", (TOOL,))):
            try:
                report = decode_report(encode_report(NodeReport(containers={one.id: one for one in said})))
            except DiscoveryError:
                continue
            book.report(node, report.containers)
        merger = Merger()
        merger.set_node("here")
        snapshot = Snapshot(this_node="here").apply(merger.set_cluster(book.lay_over(view, self.KNOWN))[0])
        self.refused, self.problems = book.refused, [str(one) for one in book.problems()]
        table, scope = NameTable(snapshot), Scope((("front", "front"), ("back", "back")))

        def asked(name: str) -> list[str]:
            kind = QType.PTR if name.endswith(".arpa") else QType.A
            return [one.data for one in answer(DnsQuestion(name, kind, QClass.IN, b""), scope, table).records]

        return asked

    ASKED: ClassVar = {
        "db": ["10.2.0.2"],
        "shop_db": ["10.2.0.2"],
        "db.back": ["10.2.0.2"],
        "shop_db.back": ["10.2.0.2"],
        "tasks.db": ["10.2.0.3"],
        "tasks.shop_db": ["10.2.0.3"],
        "shop_db.1.t1": ["10.2.0.3"],
        "box": ["10.2.0.3"],
        "2.0.2.10.in-addr.arpa": ["shop_db.back."],
        "3.0.2.10.in-addr.arpa": ["shop_db.1.t1.back."],
        "tool": ["10.1.0.7"],
        "helper": ["10.1.0.7"],
        "7.0.1.10.in-addr.arpa": ["tool.front."],
    }

    @pytest.mark.parametrize(
        "name", [*(one for one in ASKED if one not in ("tool", "helper")), "DB", "Db.BACK"]
    )
    @pytest.mark.parametrize("where", ["name", "hostname", "alias", "id"])
    @pytest.mark.parametrize("network", ["front", "back"])
    def test_a_services_stay_its_own(self, name: str, where: str, network: str) -> None:
        address = "10.1.0.66" if network == "front" else "10.2.0.66"
        lie = Neighbour("", "1a" * 32, "evil", (Attachment(network, address, ("evil-alias",)),))
        if where == "alias":
            lie = replace(lie, attachments=(Attachment(network, address, (name,)),))
        else:
            lie = replace(lie, **{where: name})
        asked = self.answers(lie)
        assert {one: asked(one) for one in self.ASKED} == self.ASKED
        if where != "id":  # of that only the first twelve characters are a name
            assert self.refused.total() > 0
            assert self.problems
        assert all(one.startswith("node name-of-liar: ") for one in self.problems)

    @pytest.mark.parametrize(
        "address", ["10.2.0.2", "10.2.0.3", "10.2.0.1", "10.1.0.7", "10.1.0.1", "10.9.0.1", "x"]
    )
    @pytest.mark.parametrize("network", ["front", "back", "nowhere"])
    def test_addresses_stay_their_owners(self, address: str, network: str) -> None:
        asked = self.answers(Neighbour("", "1a" * 32, "evil", (Attachment(network, address),)))
        assert {one: asked(one) for one in self.ASKED} == self.ASKED
        assert asked("evil") == []

    def test_what_is_its_own_it_may_say(self) -> None:
        asked = self.answers(Neighbour("", "1a" * 32, "honest", (Attachment("front", "10.1.0.66"),)))
        assert asked("honest") == ["10.1.0.66"]
        assert self.refused.total() == 0

    @settings(deadline=None, max_examples=60)
    @given(
        st.lists(
            st.builds(
                Neighbour,
                st.just(""),
                st.one_of(st.sampled_from(["db", "1a" * 32, "", "x" * 70]), st.text(max_size=20)),
                st.one_of(st.sampled_from([*ASKED]), st.text(max_size=20)),
                st.lists(
                    st.builds(
                        Attachment,
                        st.sampled_from(["front", "back", "no"]),
                        st.sampled_from(["10.1.0.66", "10.2.0.2", "10.1.0.7", "", "x"]),
                        st.lists(st.one_of(st.sampled_from([*ASKED]), st.text(max_size=9)), max_size=3).map(
                            tuple
                        ),
                    ),
                    max_size=3,
                ).map(tuple),
                st.sampled_from(["", "box", "db.back"]),
                st.sampled_from(["", "shop"]),
            ),
            max_size=4,
        )
    )
    def test_whatever_is_said(self, lies: list[Neighbour]) -> None:
        asked = self.answers(*lies)
        assert {one: asked(one) for one in self.ASKED} == self.ASKED


INTERNAL = Network("n1", "shop_internal", ("127.0.0.0/8",), internal=True)


class Asked:
    """Node `here` with a web application that HTTP is routed to, a database that nobody names, and a node's
    hands on its tunnels."""

    def __init__(self, folder: Path, stack: AsyncExitStack) -> None:
        self.failures: list[BaseException] = []
        self.tasks = Tasks(lambda _name, error: self.failures.append(error))
        stack.push_async_callback(self.tasks.close)
        ca = SwarmCA()
        self.certificates = {
            node: SwarmCertificates(ca.node(folder / node, node)) for node in (*NODES, "removed")
        }
        self.snapshot = Snapshot(this_node="here")
        self._stack = stack
        self._connections: list[asyncio.StreamWriter] = []

    async def start(self) -> None:
        labels = {"traefik.http.routers.web.rule": "Host(`a.example`)"}
        self.web, web = await self._service("web", "127.0.0.21")
        labels["traefik.http.services.web.loadbalancer.server.port"] = str(self.web.port)
        self.debug, _ = await self._service("web", "127.0.0.21")  # another port of the same task
        self.db, db = await self._service("db", "127.0.0.22")
        services = {"web": replace(web, labels=labels), "db": db}
        change = Change(nodes=NODES, networks={INTERNAL.id: INTERNAL}, services=services)
        self.snapshot = self.snapshot.apply(change)
        self.server = TunnelServer(
            self.tasks,
            self.certificates["here"],
            ("127.0.0.1", 0),
            lambda: self.snapshot,
            lambda _network: plain_socket,
            RoutedPorts().serves,
        )
        await self.server.look()
        assert self.server._listener is not None
        self._stack.callback(self.server._listener.close)

    async def _service(self, name: str, address: str) -> tuple[TunnelRequest, Service]:
        async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(name.encode())
            with suppress(ConnectionError):
                await reader.read()
            writer.close()

        server = await asyncio.start_server(greet, address, 0)
        self._stack.callback(server.close)
        port = server.sockets[0].getsockname()[1]
        task = Task(f"t-{name}", name, "here", TaskState.RUNNING, {INTERNAL.id: address})
        return TunnelRequest(INTERNAL.id, address, port), Service(
            name, name, networks=(ServiceNetwork(INTERNAL.id),), tasks=(task,)
        )

    async def says(self, node: str, line: bytes) -> bytes:
        """What comes back, up to the end or the first word of a task."""
        assert self.server.bound is not None
        context = self.certificates[node].client_context()
        reader, writer = await asyncio.open_connection(
            *self.server.bound, ssl=context, server_hostname="here"
        )
        self._connections.append(writer)
        writer.write(line)
        answer = await asyncio.wait_for(reader.readline(), LIMIT)
        return answer + await asyncio.wait_for(reader.read(100), LIMIT) if answer == OPEN else answer

    async def good_is_answered(self) -> None:
        assert await self.says("good", ask(self.web)) == OPEN + b"web"

    def close(self) -> None:
        for one in self._connections:
            one.close()


@pytest.fixture
async def asked(tmp_path: Path) -> AsyncIterator[Asked]:
    async with AsyncExitStack() as stack:
        made = Asked(tmp_path, stack)
        await made.start()
        yield made
        await made.good_is_answered()
        made.close()
    assert not made.failures


class TestTunnel:
    """A worker asks for what is not its business; the good node's requests go through before and after."""

    async def test_what_http_is_not_routed_to(self, asked: Asked) -> None:
        await asked.good_is_answered()
        refused = b"NO not a port that HTTP is routed to\r\n"
        assert await asked.says("liar", ask(asked.db)) == refused
        assert await asked.says("liar", ask(asked.debug)) == refused
        assert await asked.says("liar", ask(replace(asked.web, port=22))) == refused
        (problem,) = asked.server.problems()
        assert problem.file == "node name-of-liar"
        assert "3 times" in problem.message

    async def test_what_is_not_here(self, asked: Asked) -> None:
        gone = b"NO no such task on this node\r\n"
        assert await asked.says("liar", ask(replace(asked.web, address="127.0.0.1"))) == gone
        assert await asked.says("liar", ask(replace(asked.web, network="ingress"))) == gone
        assert await asked.says("removed", ask(asked.web)) == b"NO not a node of this Swarm\r\n"

    @pytest.mark.parametrize(
        "line",
        [
            b"x" * 100_000,
            b"\r\n",
            b"MESH/1 n1 127.0.0.21 99999999999999\r\n",
            b"MESH/2 a b c\r\n",
            b"\0" * 200,
        ],
    )
    async def test_nonsense(self, asked: Asked, line: bytes) -> None:
        with suppress(ConnectionError):  # what was not read resets it
            assert await asked.says("liar", line) in (b"NO a line that asks for no task\r\n", b"")

    async def test_all_the_room_there_is(self, asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tunnel_server, "TUNNELS_MAX", 8)
        monkeypatch.setattr(tunnel_server, "PEER_TUNNELS_MAX", 6)
        answers = [await asked.says(node, ask(asked.web)) for node in ("liar", "here") for _ in range(8)]
        assert answers.count(OPEN + b"web") > 8
        await asked.good_is_answered()
        assert asked.server.active <= 8

    async def test_silence(self, asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
        """Of hundreds of connections that never begin a handshake, and of some that stop after it."""
        assert asked.server.bound is not None
        monkeypatch.setattr(tunnel_server, "STRANGERS_MAX", 20)
        silent = [
            socket.create_connection(asked.server.bound, source_address=(f"127.0.1.{n % 9 + 1}", 0))
            for n in range(200)
        ]
        context: ssl.SSLContext = asked.certificates["liar"].client_context()
        for _ in range(10):
            _, writer = await asyncio.open_connection(
                *asked.server.bound, ssl=context, server_hostname="here"
            )
            asked._connections.append(writer)
        await asked.good_is_answered()
        assert asked.server.strangers <= 20
        for one in silent:
            one.close()
        asked.close()
        await until(lambda: asked.server.strangers == 0)


class TestManagers:
    """A manager that was demoted keeps a manager's certificate for months."""

    async def test_it_is_not_followed_where_the_engine_knows_another_there(self, tmp_path: Path) -> None:
        ca, failed = SwarmCA(), list[object]()
        views: list[ClusterView] = []
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        truth, lies = (
            ClusterView(NODES, {}, {}),
            ClusterView({**NODES, "evil": Node("evil", "evil", "")}, {}, {}),
        )
        good, liar = (
            FeedServer(
                SwarmCertificates(ca.node(tmp_path / node, node, MANAGER_NAME)),
                (host, port),
                lambda view=view: view,
                lambda _node, _report: None,
            )
            for node, host, view in (("good", "127.0.0.1", truth), ("liar", "127.0.0.2", lies))
        )
        managers = {"127.0.0.2": "m2", "127.0.0.1": "good"}
        client = FeedClient(
            SwarmCertificates(ca.node(tmp_path / "here", "here")),
            lambda: managers,
            views.append,
            failed.append,
            port,
        )
        async with running(good.run(), liar.run()):
            await until(lambda: good.bound and liar.bound, "both serve")
            async with running(client.run()):
                await until(lambda: client.following == "127.0.0.1", "the manager is followed")
                del managers["127.0.0.1"]  # its engine says that it is none any more
                good.publish(Change(nodes={"new": Node("new", "new", "")}))
                await until(lambda: "no manager any more" in client.fault or "not that of" in client.fault)
                await until(lambda: not client.following, "it is left")
                await until(
                    lambda: "not that of the manager" in client.fault, "the other is tried, and refused"
                )
        assert {frozenset(view.nodes) for view in views} == {frozenset(NODES)}
        assert not failed

    async def test_it_is_told_what_a_worker_is(self, tmp_path: Path) -> None:
        """Its role is what the catalogue says; a node that was removed is let in nowhere."""
        ca, seen = SwarmCA(), list[tuple[str, str]]()

        async def handler(peer: Identity, _request: object) -> web.Response:
            seen.append((peer.node, peer.role))
            return web.Response()

        view = ClusterView({**NODES, "good": replace(NODES["good"], role=Role.MANAGER)}, {}, {})
        reports = list[str]()
        server = FeedServer(
            SwarmCertificates(ca.node(tmp_path / "m", "good", MANAGER_NAME)),
            ("127.0.0.1", 0),
            lambda: view,
            lambda node, _report: reports.append(node),
            {"/v1/x": handler},
        )
        async with running(server.run()):
            await until(lambda: server.bound, "it serves")
            assert server.bound is not None
            statuses = {}
            for node in ("good", "liar", "removed"):
                context = SwarmCertificates(ca.node(tmp_path / node, node, MANAGER_NAME)).client_context()
                async with aiohttp.ClientSession() as session:
                    for method, path in (("POST", "/v1/x"), ("PUT", "/v1/signs"), ("GET", "/v1/feed")):
                        url = f"https://127.0.0.1:{server.bound[1]}{path}"
                        data = encode_report(NodeReport()) if method == "PUT" else None
                        async with session.request(
                            method, url, data=data, ssl=context, server_hostname=MANAGER_NAME
                        ) as response:
                            statuses[node, method] = response.status
            assert seen == [("good", MANAGER_NAME), ("liar", "swarm-worker")]
            assert reports == ["good", "liar"]
            assert {statuses["removed", one] for one in ("POST", "PUT", "GET")} == {403}
            assert [one.file for one in server.problems()] == ["node removed"]

    async def test_a_node_that_follows_too_often_keeps_nobody_out(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(feed_server, "CLIENTS_MAX", 12)
        ca, views = SwarmCA(), list[ClusterView]()
        server = FeedServer(
            SwarmCertificates(ca.node(tmp_path / "m", "good", MANAGER_NAME)),
            ("127.0.0.1", 0),
            lambda: ClusterView(NODES, {}, {}),
            lambda _node, _report: None,
        )
        greedy = SwarmCertificates(ca.node(tmp_path / "l", "liar")).client_context()
        async with running(server.run()):
            await until(lambda: server.bound, "it serves")
            assert server.bound is not None
            port = server.bound[1]
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
                kept = [
                    await session.get(
                        f"https://127.0.0.1:{port}/v1/feed", ssl=greedy, server_hostname=MANAGER_NAME
                    )
                    for _ in range(20)
                ]
                client = FeedClient(
                    SwarmCertificates(ca.node(tmp_path / "h", "here")),
                    lambda: ["127.0.0.1"],
                    views.append,
                    lambda _: None,
                    port,
                )
                async with running(client.run()):
                    await until(lambda: views, "another follows")
                    assert server.clients <= feed_server.CLIENTS_OF_NODE_MAX + 1
                    assert server.refused == {"too many clients of one node": 12}
                for one in kept:
                    one.close()
