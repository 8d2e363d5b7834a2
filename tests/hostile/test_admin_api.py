"""Who tries to read the admin API, and what it must never tell even to those who may.

The socket is the sidecar's own: another user of the machine, and a process of the sidecar's that reads what
strangers send, can see the file and not open it. What is told holds no password, no hash and no credential.
"""

import asyncio
import json
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest
import yaml

from sidecar.admin import api
from sidecar.app import BoundAddresses
from sidecar.cli import main
from sidecar.config import UnixSocket
from tests.loopback.test_sidecar import config, running
from tests.sidecar.conftest import FakeState

HASH = "$apr1$abcdefgh$h9FWgUz3n9YxylKLlR5SQ/"
CATALOGUE = {
    "networks": {"n": {"subnet": "127.0.0.0/8"}},
    "services": {
        "shop": {
            "networks": {"n": {}},
            "labels": {
                "traefik.http.routers.shop.rule": "Host(`shop.example`)",
                "traefik.http.routers.shop.middlewares": "m",
                "traefik.http.services.shop.loadbalancer.server.port": "80",
                "traefik.http.middlewares.m.basicauth.users": f"admin:{HASH}",
                "traefik.http.middlewares.f.forwardauth.address": "ftp://user:hunter2@auth.example/",
            },
        }
    },
}


@pytest.fixture
def state() -> FakeState:
    return FakeState()


async def ask(place: UnixSocket, path: str) -> tuple[int, str]:
    connector = aiohttp.UnixConnector(place.path)
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.get(f"http://localhost{path}") as answer,
    ):
        return answer.status, await answer.text()


def socket_of(folder: Path) -> UnixSocket:
    return UnixSocket(str(folder / "run" / "admin.sock"))


async def test_only_its_user_may_open_it(tmp_path: Path, state: FakeState) -> None:
    place = socket_of(tmp_path)
    server = api.SurfaceServer(api.admin_app(state), place)
    assert await server.start() == place
    try:
        assert stat.S_IMODE(os.stat(place.path).st_mode) == 0o600
        assert stat.S_IMODE(os.stat(os.path.dirname(place.path)).st_mode) == 0o700
        assert (await ask(place, "/v1/status"))[0] == 200
    finally:
        await server.stop()
    assert not os.path.exists(place.path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
async def test_another_user_is_refused_while_its_own_is_answered(tmp_path: Path, state: FakeState) -> None:
    place = socket_of(tmp_path)
    server = api.SurfaceServer(api.admin_app(state), place)
    await server.start()
    program = (
        "import os, socket, sys; os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "try: socket.socket(socket.AF_UNIX).connect(sys.argv[1])\n"
        "except PermissionError: sys.exit(13)"
    )
    try:
        for folder in (tmp_path, *tmp_path.parents):
            if folder != Path(folder.anchor):
                os.chmod(folder, os.stat(folder).st_mode | stat.S_IXOTH)  # it is the socket that refuses
        os.chmod(os.path.dirname(place.path), 0o755)
        other = await asyncio.to_thread(
            subprocess.run, [sys.executable, "-ISc", program, place.path], check=False
        )
        assert other.returncode == 13
        assert (await ask(place, "/v1/status"))[0] == 200
    finally:
        await server.stop()


async def test_one_that_a_killed_sidecar_left_is_replaced(tmp_path: Path, state: FakeState) -> None:
    place = socket_of(tmp_path)
    os.makedirs(os.path.dirname(place.path))
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(place.path)
    dead.close()
    server = api.SurfaceServer(api.admin_app(state), place)
    await server.start()
    try:
        assert (await ask(place, "/v1/status"))[0] == 200
        with pytest.raises(OSError, match="Address already in use"):  # and a living one is not
            await api.SurfaceServer(api.admin_app(state), place).start()
        assert (await ask(place, "/v1/status"))[0] == 200
    finally:
        await server.stop()


async def test_what_is_no_socket_is_left_alone(tmp_path: Path, state: FakeState) -> None:
    place = UnixSocket(str(tmp_path / "precious"))
    Path(place.path).write_text("mine")
    with pytest.raises(OSError, match="Address already in use"):
        await api.SurfaceServer(api.admin_app(state), place).start()
    assert Path(place.path).read_text() == "mine"


async def sidecar_with_secrets(tmp_path: Path) -> tuple[list[str], BoundAddresses]:
    (tmp_path / "catalog.yml").write_text(yaml.safe_dump(CATALOGUE))
    place = socket_of(tmp_path)
    told = []
    settings = config(
        tmp_path, MESH_HTTP_ENTRYPOINTS="web=127.0.0.1:0", MESH_ADMIN_SOCKET=place.path, MESH_ADMIN_LISTEN=""
    )
    async with running(settings) as bound:
        for path in ("/v1/status", "/v1/catalog", "/v1/services", "/v1/endpoints/shop", "/v1/routes", "/"):
            status, text = await ask(place, path)
            assert status == 200, path
            told.append(text)
        command = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "sidecar", "services", "--json", "--admin", place.path],
            check=True,
            capture_output=True,
            text=True,
        )
        told.append(command.stdout)
    return told, bound


async def test_passwords_and_hashes_are_neither_told_nor_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told, bound = await sidecar_with_secrets(tmp_path)
    assert bound.admin is None  # over TCP only where that is configured
    assert bound.admin_socket == socket_of(tmp_path)
    for text in told:
        assert "h9FWgUz3n9YxylKLlR5SQ" not in text
        assert "hunter2" not in text
    problems = json.loads(told[0])["problems"]
    assert any("forwardauth.address" in one and "***@auth.example" in one for one in problems)
    assert '"admin:***"' in told[1]


def test_a_line_of_the_log_has_no_secret(capsys: pytest.CaptureFixture[str]) -> None:
    program = (  # as a process's first lines
        "import logging; from mesh.telemetry import logs; logs.setup('info', 'FORMAT')\n"
        "logs.event(logging.getLogger('x'), logging.INFO, 'ask', url='http://u:hunter2@h/', user='a:HASH')\n"
        "try: raise ValueError('http://u:hunter2@h/')\n"
        "except ValueError: logging.exception('asking %s', 'http://u:hunter2@h/')\n"
    ).replace("HASH", HASH)
    for format_ in ("json", "text"):
        done = subprocess.run(
            [sys.executable, "-c", program.replace("FORMAT", format_)],
            check=True,
            capture_output=True,
            text=True,
        )
        assert "http://***@h/" in done.stderr
        assert "hunter2" not in done.stderr
        assert "h9FWgUz3n9YxylKLlR5SQ" not in done.stderr


def test_the_commands_say_what_they_could_not_open(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["status", "--admin", str(tmp_path / "admin.sock")]) == 1
    assert f"no sidecar answers on unix:{tmp_path}/admin.sock" in capsys.readouterr().err
    assert main.main(["status", "--admin", "relative/path"]) == 2
    assert "--admin: must be ADDR:PORT" in capsys.readouterr().err
