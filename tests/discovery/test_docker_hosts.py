"""Whose hosts are, from a manager's engine to a worker's view and to the saved view of either."""

import json
from pathlib import Path
from random import Random

import pytest

from mesh.catalog.store import Store
from mesh.discovery.docker_source import DockerSource
from mesh.discovery.engine_client import EngineClient
from mesh.discovery.host_records import HostRecords
from mesh.discovery.view_cache import FILE
from mesh.http.hosts.book import HostBook
from mesh.peers.feed.client import FeedClient
from mesh.peers.feed.server import FeedServer
from mesh.peers.report.client import SignClient
from tests.discovery.test_docker_source import Pair, Sidecar, nodes
from tests.discovery.test_docker_source import quick as quick
from tests.support import docker_fixtures as docker
from tests.support.docker_fixtures import Json
from tests.support.waiting import until


def with_records(one: Sidecar) -> None:
    """The source of this node's sidecar anew, as after a restart."""
    certificates, address = one.certificates, one.address
    one.engine = EngineClient(one.daemon.path, call_seconds=5.0)
    one.store = Store(on_error=lambda error: pytest.fail(str(error)))
    records = HostRecords(
        HostBook(), certificates, lambda: [], address[1], lambda _node: True, lambda: 1000.0
    )

    def server(view: object, take: object) -> FeedServer:
        one.server = FeedServer(certificates, address, view, take, records.handlers())  # type: ignore[arg-type]
        return one.server

    one.source = DockerSource(
        one.engine,
        one.store.publish,
        server,
        lambda managers, view, change: FeedClient(
            certificates, managers, view, change, address[1], Random(1)
        ),
        lambda managers, report: SignClient(certificates, managers, report, address[1], Random(1)),
        str(one.folder / "state"),
        clock=lambda: 1000.0,
        hosts=records,
    )


def claiming(id_: str, stack: str, index: int) -> Json:
    labels = {"com.docker.stack.namespace": stack, "traefik.http.routers.web.rule": "Host(`shop.example`)"}
    labels["traefik.http.services.web.loadbalancer.server.port"] = "80"
    return docker.service(id_, f"{stack}_web", labels=labels, index=index)


def has(one: Sidecar, id_: str) -> bool | None:
    """Has its stack the host? None: it is not known."""
    service = one.current.services.get(id_)
    return None if service is None else "shop.example" in (service.holds or {})


async def test_from_a_manager_to_workers_and_over_restarts(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    both = (pair.manager, pair.worker)
    for one in both:
        with_records(one)
    usual, of_zoo, of_ape = pair.manager.daemon.services, claiming("s2", "zoo", 30), claiming("s1", "ape", 31)
    async with nodes(tmp_path, pair=pair):
        for services in ([*usual, of_zoo], [*usual, of_ape, of_zoo]):
            pair.manager.daemon.services = services
            pair.manager.daemon.send(docker.event("service", "create", "s2", "swarm"))
            await until(lambda: [has(one, "s2") for one in both] == [True, True], "zoo has the host")
        await until(lambda: [has(one, "s1") for one in both] == [False, False], "ape has not")
    for one in both:
        saved = json.loads((one.folder / "state" / FILE).read_text())["view"]["services"]
        assert saved["s2"]["holds"] == {"shop.example": 1000.0, "service web": 1000.0}
        with_records(one)
    async with nodes(tmp_path, pair=pair):
        await until(lambda: [has(one, "s1") for one in both] == [False, False], "ape has not")
        assert [has(one, "s2") for one in both] == [True, True]
        pair.manager.daemon.services = [*usual, of_ape]
        pair.manager.daemon.send(docker.event("service", "remove", "s2", "swarm"))
        await until(lambda: [has(one, "s1") for one in both] == [True, True], "zoo has let go of it")
