"""The documented filter in front of Docker's socket lets through what the sidecar asks, and nothing else."""

import asyncio
import re
import shutil
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from mesh.discovery.engine_client import EngineClient
from tests.support import docker_fixtures as docker
from tests.support.docker_fixtures import BACKEND, MANAGER
from tests.support.docker_fixtures_daemon import FakeDaemon
from tests.support.waiting import until

MANUAL = (Path(__file__).parents[2] / "docs" / "operating.md").read_text()
CONTAINER = {**docker.WEB_CONTAINER, "Id": "0a1b2c" * 10 + "3d4e"}
pytestmark = pytest.mark.skipif(shutil.which("haproxy") is None, reason="needs haproxy")


@pytest_asyncio.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[FakeDaemon]:
    daemon = FakeDaemon(tmp_path / "docker.sock", MANAGER, manager=True)
    daemon.containers[CONTAINER["Id"]] = CONTAINER
    await daemon.start()
    yield daemon
    await daemon.stop()


@pytest_asyncio.fixture
async def filtered(daemon: FakeDaemon, tmp_path: Path) -> AsyncIterator[Path]:
    """The socket of haproxy, configured as the manual says, but for the two paths."""
    found = re.search(r"```haproxy\n(.*?)```", MANUAL, re.DOTALL)
    assert found
    place = tmp_path / "filter.sock"
    text = (
        found[1].replace("/run/filter/docker.sock", str(place)).replace("/var/run/docker.sock", daemon.path)
    )
    (tmp_path / "haproxy.cfg").write_text(text)
    process = await asyncio.create_subprocess_exec("haproxy", "-db", "-f", str(tmp_path / "haproxy.cfg"))
    await until(lambda: answers(place))
    yield place
    process.terminate()
    await process.wait()


def answers(path: Path) -> bool:
    """It listens a moment after its socket is there."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


async def test_what_the_sidecar_asks_passes(filtered: Path, daemon: FakeDaemon) -> None:
    engine = EngineClient(str(filtered))
    try:
        assert (await engine.info())["Swarm"]["ControlAvailable"]
        assert await engine.containers() == {CONTAINER["Id"]: CONTAINER}
        assert await engine.network(BACKEND)
        assert await engine.networks()
        lists = await engine.cluster(lambda api: (api.services(), api.tasks(), api.nodes()))
        assert all(lists)
        events = await engine.events(0.0)
        daemon.send(docker.event("network", "create", BACKEND))
        assert (await events.next())["Action"] == "create"
        events.close()
    finally:
        engine.close()


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1.41/containers/create"),
        ("DELETE", "/v1.41/networks/abc"),
        ("PUT", "/v1.41/containers/0a/archive"),
        ("GET", "/v1.41/secrets"),
        ("GET", "/v1.41/containers/0a/archive"),
        ("GET", "/v1.41/containers/0a/json/../../../secrets"),
        ("GET", "/images/json"),
    ],
)
async def test_everything_else_is_refused(filtered: Path, daemon: FakeDaemon, method: str, path: str) -> None:
    connector = aiohttp.UnixConnector(str(filtered))
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.request(method, f"http://docker{path}") as answer,
    ):
        assert answer.status == 403
    assert not daemon.methods
