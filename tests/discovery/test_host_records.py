"""Managers tell each other whose hosts are, over the feed's port; nobody else is told."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from mesh.catalog.cluster_view import ClusterView
from mesh.catalog.model import Node, Role, Service
from mesh.catalog.snapshot import Change
from mesh.discovery import host_records
from mesh.discovery.host_records import PATH, HostRecords, is_manager, other_managers
from mesh.discovery.saved_hosts import FILE, SavedHosts
from mesh.http.hosts.book import HostBook
from mesh.peers.feed.codec import decode, encode_change, encode_view
from mesh.peers.feed.server import FeedServer
from mesh.peers.swarm_tls import MANAGER_NAME, SwarmCertificates
from tests.support.docker_fixtures_pki import SwarmCA
from tests.support.waiting import running, until

CA = SwarmCA("cluster1")
HOST = "127.0.0.1"
NODES = {
    "m1": Node("m1", "m1", "192.0.2.1", Role.MANAGER),
    "m2": Node("m2", "m2", "192.0.2.2", Role.MANAGER),
    "w1": Node("w1", "w1", "192.0.2.3"),
}


def service(id_: str, stack: str) -> Service:
    labels = {"com.docker.stack.namespace": stack, "traefik.http.routers.web.rule": "Host(`a`)"}
    labels["traefik.http.services.web.loadbalancer.server.port"] = "80"
    return Service(id_, f"{stack}_web", labels=labels)


OF_ZOO, OF_APE = service("s2", "zoo"), service("s1", "ape")


def known_manager(id_: str) -> bool:
    return is_manager(NODES, id_)


class Manager:
    def __init__(self, folder: Path, node: str, others: list[str], port: int, began: float) -> None:
        self.certificates = SwarmCertificates(CA.node(folder / node, node, MANAGER_NAME))
        self.now = began
        self.records = HostRecords(
            HostBook(),
            self.certificates,
            lambda: others,
            port,
            lambda id_: is_manager(NODES, id_),
            self.clock,
        )
        self.records.begin(ClusterView(NODES, {}, {}))

    def clock(self) -> float:
        return self.now

    def holder(self, *services: Service) -> list[str]:
        view = ClusterView(NODES, {}, {one.id: one for one in services})
        laid = self.records.lay_over(view, {})
        return [id_ for id_, one in laid.services.items() if "a" in (one.holds or {})]

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[int]:
        view = ClusterView(NODES, {}, {})
        server = FeedServer(
            self.certificates, (HOST, 0), lambda: view, lambda *_: None, self.records.handlers()
        )
        async with running(server.run()):
            await until(lambda: server.bound, "the manager serves")
            assert server.bound is not None
            yield server.bound[1]


async def test_the_one_that_has_watched_longer_is_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_records, "ASK_SECONDS", 0.02)
    first = Manager(tmp_path, "m1", [], 1, 1000.0)
    assert first.holder(OF_ZOO) == ["s2"]
    first.now = 2000.0
    assert first.holder(OF_ZOO, OF_APE) == ["s2"]
    async with first.serving() as port:
        late = Manager(tmp_path, "m2", [HOST], port, 2000.0)
        assert late.holder(OF_APE) == ["s1"], "it has not seen the other one yet"
        async with running(late.records.run()):
            await until(lambda: late.holder(OF_APE, OF_ZOO) == ["s2"], "it takes over what the other one has")
            first.now += 10.0
            late.now += 10.0
            assert first.holder(OF_APE) == ["s1"]
            assert late.holder(OF_APE) == ["s1"]
            assert first.holder(OF_APE, OF_ZOO) == late.holder(OF_APE, OF_ZOO) == ["s1"]


async def test_who_has_not_watched_longer_says_nothing(tmp_path: Path) -> None:
    first, late = Manager(tmp_path, "m1", [], 1, 1000.0), Manager(tmp_path, "m2", [], 1, 1000.0)
    late.now = first.now = 2000.0
    first.holder(OF_APE)
    async with first.serving() as port, session(tmp_path, "m2", MANAGER_NAME) as asking:
        assert (await asked(asking, port, b'{"watched": 0.0}'))[0] == 204
        status, answer = await asked(asking, port, b'{"watched": -1.0}')
        assert (status, answer["record"]["ape"]["a"]) == (200, 2000.0)
        known = json.dumps({"watched": -1.0, "known": answer["version"]}).encode()
        assert (await asked(asking, port, known))[0] == 204
        for bad in (b"x", b"{}", b'{"watched": "long"}'):
            assert (await asked(asking, port, bad))[0] == 400


@pytest.mark.parametrize(("node", "role"), [("w1", "swarm-worker"), ("w1", MANAGER_NAME)])
async def test_only_managers_are_told(tmp_path: Path, node: str, role: str) -> None:
    """By the certificate and by the catalogue: one of a demoted manager is no manager's."""
    first = Manager(tmp_path, "m1", [], 1, 1000.0)
    first.holder(OF_ZOO)
    async with first.serving() as port, session(tmp_path, node, role) as asking:
        assert (await asked(asking, port, b'{"watched": -1.0}'))[0] == 403


def url(port: int) -> str:
    return f"https://{HOST}:{port}{PATH}"


async def asked(session: aiohttp.ClientSession, port: int, question: bytes) -> tuple[int, Any]:
    async with session.post(url(port), data=question, server_hostname=MANAGER_NAME) as answer:
        return answer.status, await answer.json() if answer.status == 200 else None


@asynccontextmanager
async def session(folder: Path, node: str, role: str) -> AsyncIterator[aiohttp.ClientSession]:
    certificates = SwarmCertificates(CA.node(folder / f"of {node}", node, role))
    connector = aiohttp.TCPConnector(ssl=certificates.client_context())
    async with aiohttp.ClientSession(connector=connector) as made:
        yield made


def test_who_the_other_managers_are() -> None:
    assert other_managers(NODES, "m1") == ["192.0.2.2"]
    assert [is_manager(NODES, id_) for id_ in ("m1", "w1", "gone")] == [True, False, False]


def test_what_hosts_have_travels_for_those_who_understand_it() -> None:
    held = Service("s", "s", holds={"a": 1.5})
    view, change = ClusterView({}, {}, {"s": held}), Change(services={"s": held, "t": None})
    assert decode(encode_view(view)) == view
    found = decode(encode_change(change))
    assert isinstance(found, Change)
    assert found.services == {"s": held, "t": None}
    for message in (encode_view(view, holds=False), encode_change(change, holds=False)):
        assert b"holds" not in message
    assert b"holds" not in encode_view(ClusterView({}, {}, {"s": Service("s", "s")}))


def test_a_file_catalogues_hosts_are_kept_beside_it(tmp_path: Path) -> None:
    def holder(hosts: SavedHosts, *services: Service) -> list[str]:
        laid = hosts.lay_over({one.id: one for one in services}, 5.0)
        return [id_ for id_, one in laid.items() if "a" in (one.holds or {})]

    hosts = SavedHosts(str(tmp_path), HostBook(hand_over=0.0))
    assert holder(hosts, Service("plain", "plain")) == []
    assert not (tmp_path / FILE).exists(), "there is nothing to be kept"
    assert holder(hosts, OF_ZOO) == ["s2"]
    assert holder(SavedHosts(str(tmp_path), HostBook(hand_over=0.0)), OF_APE, OF_ZOO) == ["s2"]
    (tmp_path / FILE).write_text("{")
    assert holder(SavedHosts(str(tmp_path), HostBook(hand_over=0.0)), OF_APE, OF_ZOO) == ["s1"], (
        "the first in it"
    )


def test_a_folder_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    hosts = SavedHosts(str(tmp_path / "file" / "below"), HostBook(hand_over=0.0))
    assert (hosts.lay_over({"s2": OF_ZOO}, 5.0)["s2"].holds or {})["a"] == 5.0
