"""Nodes have what managers have: over the feed's port, with the Swarm's own certificates."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from mesh.acme import sharing
from mesh.acme.kept import Kept
from mesh.acme.sharing import PATH, Asker, Teller
from mesh.acme.told import Account, Have, Told, encode_have, encode_told
from mesh.catalog.model import Node
from mesh.discovery.feed_server import FeedServer
from mesh.discovery.feed_tls import MANAGER_NAME, Certificates
from mesh.discovery.swarm import ClusterView
from tests.acme.test_kept import URL, pem
from tests.support.docker_fixtures_pki import SwarmCA
from tests.support.waiting import running, until

CA = SwarmCA("cluster1")
HOST = "127.0.0.1"
ACCOUNT = Account("https://ca.example/acct/1", "{}", 10.0)


@asynccontextmanager
async def manager(folder: Path, kept: Kept) -> AsyncIterator[FeedServer]:
    view = ClusterView({id_: Node(id_, id_, "") for id_ in ("m1", "m2", "w1")}, {}, {})
    server = FeedServer(
        Certificates(CA.node(folder, "m1", MANAGER_NAME)),
        (HOST, 0),
        lambda: view,
        lambda _node, _report: None,
        {PATH: Teller(kept).serve},
    )
    async with running(server.run()):
        await until(lambda: server.bound, "the manager serves")
        yield server


def asker(folder: Path, node: str, role: str, server: FeedServer, kept: Kept) -> Asker:
    assert server.bound is not None
    return Asker(Certificates(CA.node(folder, node, role)), lambda: [HOST], kept, server.bound[1])


async def test_all_have_it_and_managers_the_account_as_well(tmp_path: Path) -> None:
    first = Kept(str(tmp_path / "m1"), URL)
    worker, other = Kept(str(tmp_path / "w1"), URL), Kept(str(tmp_path / "m2"), URL)
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
    monkeypatch.setattr(sharing, "WAIT_SECONDS", 0.05)
    one, other = Kept(str(tmp_path / "m1"), URL), Kept(str(tmp_path / "w1"), URL)
    await one.set_account(ACCOUNT, "print")
    async with manager(tmp_path, one) as server:
        asks = asker(tmp_path / "wk", "w1", "swarm-worker", server, other)
        async with running(asks.run()):
            await until(lambda: other.thumbprint == "print", "it can prove names")
            assert other.account is None
            CA.node(tmp_path / "wk", "w1", MANAGER_NAME)
            await until(lambda: other.account == ACCOUNT, "it is told of the account")


async def test_who_has_all_need_not_wait_for_news(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    one, same = Kept(str(tmp_path / "m1"), URL), Kept(str(tmp_path / "m2"), URL)
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
    kept = Kept(str(tmp_path), URL)
    one = Asker(Certificates(CA.node(tmp_path / "k", "w1")), lambda: ["127.0.0.2"], kept, 1)
    async with running(one.run()):
        await one.settled()  # refused is an answer
    monkeypatch.setattr(sharing, "SETTLE_SECONDS", 0.2)
    silent = await asyncio.start_server(lambda _reader, _writer: None, HOST, 0)
    try:
        port = silent.sockets[0].getsockname()[1]
        one = Asker(Certificates(CA.node(tmp_path / "k", "w1")), lambda: [HOST], kept, port)
        async with running(one.run()):
            await one.settled()
    finally:
        silent.close()


async def test_who_asks_wrongly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "WAIT_SECONDS", 0.05)
    kept = Kept(str(tmp_path / "m1"), URL)
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

        good = Certificates(CA.node(tmp_path / "w", "w1")).client_context()
        assert await asked(good, b"nonsense") == 400
        assert await asked(good, encode_have(Have("https://other.example/dir"))) == 204
        assert await asked(good, encode_have(Have(URL))) == 200
        assert await asked(good, b"x" * (1 << 20)) == 413
        unknown = Certificates(CA.node(tmp_path / "u", "w9")).client_context()
        assert await asked(unknown, encode_have(Have(URL))) == 403, "not a node of this Swarm"
        monkeypatch.setattr(sharing, "ASKERS_MAX", 0)
        have = kept.have_told()
        assert await asked(good, encode_have(have)) == 503


async def test_one_that_tells_nonsense_is_not_asked_in_a_circle(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It says that it has something newer, and that is nothing: a pause follows, as after any failure."""
    kept, asked = Kept(str(tmp_path), URL), 0

    async def nonsense(_peer: object, _request: object) -> aiohttp.web.StreamResponse:
        nonlocal asked
        asked += 1
        return aiohttp.web.Response(body=encode_told(Told(URL, certificates=("nothing",))))

    view = ClusterView({id_: Node(id_, id_, "") for id_ in ("m1", "w1")}, {}, {})
    folder = CA.node(tmp_path / "m", "m1", MANAGER_NAME)
    server = FeedServer(
        Certificates(folder), (HOST, 0), lambda: view, lambda _node, _report: None, {PATH: nonsense}
    )
    async with running(server.run()):
        await until(lambda: server.bound, "the manager serves")
        one = asker(tmp_path / "wk", "w1", "swarm-worker", server, kept)
        async with running(one.run()):
            await until(lambda: "it tells what cannot be used" in caplog.text, "it is told of")
    assert asked == 1
