"""Nodes have what managers have: over the feed's port, with the Swarm's own certificates."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from mesh.acme import replication
from mesh.acme.certificate_store import AcmeStore, read
from mesh.acme.messages import (
    AcmeAccount,
    CertificateUpdate,
    Inventory,
    decode_told,
    encode_have,
    encode_told,
)
from mesh.acme.replication import PATH, ReplicationClient, ReplicationServer
from mesh.catalog.cluster_view import ClusterView
from mesh.catalog.model import Node, Role
from mesh.peers.feed.server import FeedServer
from mesh.peers.swarm_tls import MANAGER_NAME, SwarmCertificates
from tests.acme.test_certificate_store import URL, pem
from tests.support.docker_fixtures_pki import SwarmCA
from tests.support.waiting import running, until

CA = SwarmCA("cluster1")
HOST = "127.0.0.1"
ACCOUNT = AcmeAccount("https://ca.example/acct/1", "{}", 10.0)


def swarm(**states: str) -> dict[str, Node]:
    """m… are managers, w… workers."""
    return {
        id_: Node(
            id_, id_, "", Role.MANAGER if id_[0] == "m" else Role.WORKER, state=states.get(id_, "ready")
        )
        for id_ in ("m1", "m2", "w1")
    }


@asynccontextmanager
async def manager(
    folder: Path,
    kept: AcmeStore,
    nodes: dict[str, Node] | None = None,
    wanted: Callable[[], set[str]] | None = None,
) -> AsyncIterator[FeedServer]:
    nodes = nodes if nodes is not None else swarm()
    view = ClusterView(nodes, {}, {})
    server = FeedServer(
        SwarmCertificates(CA.node(folder, "m1", MANAGER_NAME)),
        (HOST, 0),
        lambda: view,
        lambda _node, _report: None,
        {PATH: ReplicationServer(kept, lambda: nodes, wanted).serve},
    )
    async with running(server.run()):
        await until(lambda: server.bound, "the manager serves")
        yield server


def asker(folder: Path, node: str, role: str, server: FeedServer, kept: AcmeStore) -> ReplicationClient:
    assert server.bound is not None
    return ReplicationClient(
        SwarmCertificates(CA.node(folder, node, role)), lambda: [HOST], kept, server.bound[1]
    )


async def test_all_have_it_and_managers_the_account_as_well(tmp_path: Path) -> None:
    first = AcmeStore(str(tmp_path / "m1"), URL)
    worker, other = AcmeStore(str(tmp_path / "w1"), URL), AcmeStore(str(tmp_path / "m2"), URL)
    await first.put(pem("a.example"))
    async with manager(tmp_path, first) as server:
        worker_asks = asker(tmp_path / "wk", "w1", "swarm-worker", server, worker)
        other_asks = asker(tmp_path / "mk", "m2", MANAGER_NAME, server, other)
        async with running(worker_asks.run(), other_asks.run()):
            await worker_asks.settled()
            assert worker.have() == first.have(), "with the first answer"
            await first.set_account(ACCOUNT, "print")
            await until(lambda: other.account == ACCOUNT, "another manager has the account")
            await until(lambda: worker.thumbprint == "print", "a worker can prove names")
            assert worker.account is None
            await first.put(pem("b.example"))
            await until(lambda: worker.have() == other.have() == first.have(), "all have what is new")


async def test_a_node_that_becomes_a_manager_is_told_of_the_account(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replication, "WAIT_SECONDS", 0.05)
    one, other = AcmeStore(str(tmp_path / "m1"), URL), AcmeStore(str(tmp_path / "w1"), URL)
    await one.set_account(ACCOUNT, "print")
    nodes = swarm()
    async with manager(tmp_path, one, nodes) as server:
        asks = asker(tmp_path / "wk", "w1", "swarm-worker", server, other)
        async with running(asks.run()):
            await until(lambda: other.thumbprint == "print", "it can prove names")
            assert other.account is None
            nodes["w1"] = replace(nodes["w1"], role=Role.MANAGER)
            CA.node(tmp_path / "wk", "w1", MANAGER_NAME)
            await until(lambda: other.account == ACCOUNT, "it is told of the account")


async def test_who_has_all_need_not_wait_for_news(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    one, same = AcmeStore(str(tmp_path / "m1"), URL), AcmeStore(str(tmp_path / "m2"), URL)
    async with manager(tmp_path, one) as server:
        asks = asker(tmp_path / "mk", "m2", MANAGER_NAME, server, same)
        async with running(asks.run()):
            await asks.settled()
            assert "not every manager" not in caplog.text
            await one.put(pem("a.example"))
            await until(lambda: same.have() == one.have(), "and hears of what is new at once")


async def test_a_manager_that_is_away_holds_nobody_up_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = AcmeStore(str(tmp_path), URL)
    one = ReplicationClient(SwarmCertificates(CA.node(tmp_path / "k", "w1")), lambda: ["127.0.0.2"], kept, 1)
    async with running(one.run()):
        await one.settled()  # refused is an answer
    monkeypatch.setattr(replication, "SETTLE_SECONDS", 0.2)
    silent = await asyncio.start_server(lambda _reader, _writer: None, HOST, 0)
    try:
        port = silent.sockets[0].getsockname()[1]
        one = ReplicationClient(SwarmCertificates(CA.node(tmp_path / "k", "w1")), lambda: [HOST], kept, port)
        async with running(one.run()):
            await one.settled()
    finally:
        silent.close()


async def test_who_asks_wrongly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replication, "WAIT_SECONDS", 0.05)
    kept = AcmeStore(str(tmp_path / "m1"), URL)
    await kept.put(pem("a.example"))
    async with manager(tmp_path, kept) as server:
        assert server.bound is not None
        url = f"https://{HOST}:{server.bound[1]}{PATH}"

        async def asked(context: ssl.SSLContext, data: bytes) -> int:
            async with (
                aiohttp.ClientSession() as session,
                session.post(url, data=data, ssl=context, server_hostname=MANAGER_NAME) as response,
            ):
                return response.status

        good = SwarmCertificates(CA.node(tmp_path / "w", "w1")).client_context()
        assert await asked(good, b"nonsense") == 400
        assert await asked(good, encode_have(Inventory("https://other.example/dir"))) == 204
        assert await asked(good, encode_have(Inventory(URL))) == 200
        assert await asked(good, b"x" * (1 << 20)) == 413
        unknown = SwarmCertificates(CA.node(tmp_path / "u", "w9")).client_context()
        assert await asked(unknown, encode_have(Inventory(URL))) == 403, "not a node of this Swarm"
        monkeypatch.setattr(replication, "ASKERS_MAX", 0)
        have = kept.have_told()
        assert await asked(good, encode_have(have)) == 503


async def test_one_that_tells_nonsense_is_not_asked_in_a_circle(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It says that it has something newer, and that is nothing: a pause follows, as after any failure."""
    kept, asked = AcmeStore(str(tmp_path), URL), 0

    async def nonsense(_peer: object, _request: object) -> aiohttp.web.StreamResponse:
        nonlocal asked
        asked += 1
        return aiohttp.web.Response(body=encode_told(CertificateUpdate(URL, certificates=("nothing",))))

    view = ClusterView({id_: Node(id_, id_, "") for id_ in ("m1", "w1")}, {}, {})
    folder = CA.node(tmp_path / "m", "m1", MANAGER_NAME)
    server = FeedServer(
        SwarmCertificates(folder), (HOST, 0), lambda: view, lambda _node, _report: None, {PATH: nonsense}
    )
    async with running(server.run()):
        await until(lambda: server.bound, "the manager serves")
        one = asker(tmp_path / "wk", "w1", "swarm-worker", server, kept)
        async with running(one.run()):
            await until(lambda: "it tells what cannot be used" in caplog.text, "it is told of")
    assert asked == 1


class Hands:
    """A node's hands on the manager's certificates: it asks by itself, with whatever certificate it has."""

    def __init__(self, folder: Path, server: FeedServer, node: str, role: str = "swarm-worker") -> None:
        assert server.bound is not None
        self.url = f"https://{HOST}:{server.bound[1]}{PATH}"
        self.context = SwarmCertificates(
            CA.node(folder / f"hands-{node}-{role}", node, role)
        ).client_context()

    async def ask(self, have: Inventory, query: str = "?at_once") -> tuple[int, CertificateUpdate | None]:
        async with (
            aiohttp.ClientSession() as session,
            session.post(
                self.url + query, data=encode_have(have), ssl=self.context, server_hostname=MANAGER_NAME
            ) as response,
        ):
            data = await response.read()
            return response.status, decode_told(data) if response.status == 200 else None


class TestWhoIsTold:
    async def test_a_demoted_managers_certificate_is_no_managers(self, tmp_path: Path) -> None:
        """It is valid for months; who is a manager the catalogue says."""
        kept = AcmeStore(str(tmp_path / "m1"), URL)
        await kept.set_account(ACCOUNT, "print")
        async with manager(tmp_path, kept) as server:
            status, told = await Hands(tmp_path, server, "w1", MANAGER_NAME).ask(Inventory(URL))
            assert (status, told) == (200, CertificateUpdate(URL, "print"))
            status, told = await Hands(tmp_path, server, "m2", "swarm-worker").ask(Inventory(URL))
            assert (status, told) == (200, CertificateUpdate(URL, "print")), (
                "nor is one that has not got it yet"
            )
            status, told = await Hands(tmp_path, server, "m2", MANAGER_NAME).ask(Inventory(URL))
            assert told is not None
            assert told.account == ACCOUNT

    async def test_a_node_that_is_demoted_or_removed_while_it_waits(self, tmp_path: Path) -> None:
        kept, nodes = AcmeStore(str(tmp_path / "m1"), URL), swarm()
        async with manager(tmp_path, kept, nodes) as server:
            hands = Hands(tmp_path, server, "m2", MANAGER_NAME)
            demoted = asyncio.create_task(hands.ask(Inventory(URL), ""))
            await until(lambda: kept._changed, "it waits")
            nodes["m2"] = replace(nodes["m2"], role=Role.WORKER)
            await kept.set_account(ACCOUNT, "print")
            assert await demoted == (200, CertificateUpdate(URL, "print"))
            removed = asyncio.create_task(hands.ask(kept.have_told(), ""))
            await until(lambda: kept._changed, "it waits")
            del nodes["m2"]
            await kept.put(pem("a.example"))
            assert await removed == (403, None)

    async def test_a_node_that_waits_too_often_keeps_nobody_out(self, tmp_path: Path) -> None:
        kept = AcmeStore(str(tmp_path / "m1"), URL)
        async with manager(tmp_path, kept) as server:
            greedy, other = Hands(tmp_path, server, "w1"), Hands(tmp_path, server, "m2", MANAGER_NAME)
            asks = [asyncio.create_task(greedy.ask(Inventory(URL), "")) for _ in range(8)]
            await until(lambda: sum(one.done() for one in asks) == 4, "the rest is refused")
            assert {one.result()[0] for one in asks if one.done()} == {429}
            good = asyncio.create_task(other.ask(Inventory(URL), ""))
            await until(lambda: len(kept._changed) == 5, "another waits as well")
            await kept.set_account(ACCOUNT, "print")
            assert (await good)[0] == 200
            await asyncio.gather(*asks)

    async def test_keys_are_for_nodes_that_serve_them(self, tmp_path: Path) -> None:
        kept, nodes, wanted = AcmeStore(str(tmp_path / "m1"), URL), swarm(), {"a.example"}
        for name in ("a.example", "b.example"):
            await kept.put(pem(name))
        await kept.set_account(ACCOUNT, "print")
        async with manager(tmp_path, kept, nodes, lambda: wanted) as server:
            worker, other = Hands(tmp_path, server, "w1"), Hands(tmp_path, server, "m2", MANAGER_NAME)
            _, told = await worker.ask(Inventory(URL))
            assert told is not None
            assert [read(one)[0] for one in told.certificates] == [("a.example",)], (
                "what no router wants stays"
            )
            _, told = await worker.ask(Inventory(URL, serving=False))
            assert told == CertificateUpdate(URL, "print"), "it can prove names, and has no use for keys"
            _, told = await other.ask(Inventory(URL, serving=False))
            assert told is not None
            assert len(told.certificates) == 2, "managers have all: one of them orders next"
            nodes["w1"] = replace(nodes["w1"], state="down")
            assert await worker.ask(Inventory(URL)) == (403, None)
            assert server.refused == {"a node that is not ready": 1}
            assert [one.file for one in server.problems()] == ["node w1"]
            nodes["w1"] = swarm()["w1"]
            have = Inventory(
                URL, "print", certificates=dict(kept.have_told().certificates) | {"b.example.pem": 0.0}
            )
            waits = asyncio.create_task(worker.ask(have, ""))
            await until(lambda: kept._changed, "it waits")
            wanted.add("b.example")
            kept.wake()
            _, told = await waits
            assert told is not None
            assert [read(one)[0] for one in told.certificates] == [("b.example",)]


async def test_who_has_a_managers_certificate_and_is_none_is_not_asked(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """At a manager's address, with the certificate of one that was demoted, or of another cluster."""
    kept, mine = AcmeStore(str(tmp_path / "m1"), URL), AcmeStore(str(tmp_path / "w1"), URL)
    await kept.set_account(ACCOUNT, "print")
    async with manager(tmp_path, kept) as server:
        assert server.bound is not None
        certificates = SwarmCertificates(CA.node(tmp_path / "wk", "w1"))
        asks = ReplicationClient(certificates, lambda: {HOST: "m2"}, mine, server.bound[1])
        async with running(asks.run()):
            await until(lambda: "not that of the manager at this address" in caplog.text, "it is refused")
            assert mine.thumbprint == ""
        strange = SwarmCertificates(CA.node(tmp_path / "xk", "w1", cluster="another"))
        async with running(ReplicationClient(strange, lambda: [HOST], mine, server.bound[1]).run()):
            await until(lambda: "its certificate is of another cluster" in caplog.text, "so is this")
        async with running(
            ReplicationClient(certificates, lambda: {HOST: "m1"}, mine, server.bound[1]).run()
        ):
            await until(lambda: mine.thumbprint == "print", "the manager itself is asked")
