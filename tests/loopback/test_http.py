"""A published port in `mode: http`, through the whole sidecar."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from sidecar.app import BoundAddresses
from tests.http.conftest import Conversation, serving
from tests.http.h2_peer import h2_client
from tests.loopback.test_relay_workers import free_port
from tests.loopback.test_sidecar import catalogue, config, get, running, until

ADDRESS = "127.9.0.3"


async def greet(one: Conversation) -> None:
    while head := await one.head():
        shown = "".join(line + "\n" for line in head.split("\r\n") if line.startswith("X-Forwarded-For"))
        await one.say(f"HTTP/1.1 200 OK\r\nContent-Length: {len(shown)}\r\n\r\n{shown}")


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Conversation]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Conversation(reader, writer)
    finally:
        writer.close()


async def counted(bound: BoundAddresses, *lines: str) -> None:
    """The metrics come to say this: processes that serve report every second."""

    async def told() -> bool:
        text = (await get(bound.metrics, "/metrics"))[1]
        return all(line in text for line in lines)

    await until(told, f"{lines} in the metrics")


async def test_requests_are_carried_and_counted(tmp_path: Path) -> None:
    published = free_port()
    async with serving(greet, ADDRESS) as task:
        (tmp_path / "catalog.yml").write_text(
            catalogue(
                ADDRESS,
                ports=[{"published": published, "target": task.endpoint.port}],
                labels={f"mesh.port.{published}.mode": "http"},
            )
        )
        async with running(config(tmp_path)) as bound:
            async with connected(published) as client:
                for _ in range(3):
                    await client.request()
                    assert await client.response() == (
                        200,
                        {"content-length": "27"},
                        b"X-Forwarded-For: 127.0.0.1\n",
                    )
                await client.request(first="BREW / HTTP/1.1")
                assert (await client.response())[0] == 200
            await counted(
                bound,
                'mesh_http_requests_total{code="200",method="GET",service="web"} 3.0',
                'mesh_http_requests_total{code="200",method="other",service="web"} 1.0',
                'mesh_http_request_duration_seconds_count{service="web"} 4.0',
                f'mesh_port_connections_total{{mode="http",port="{published}/tcp",service="web"}} 1.0',
            )
            (port,) = (await get(bound.admin, "/v1/status"))[1]["ports"]
            assert (port["published"], port["mode"]) == (published, "http")


async def test_a_change_of_the_mode_resets_nobody(tmp_path: Path) -> None:
    """The label comes while clients come: each is served the old way or the new."""
    published, file = free_port(), tmp_path / "catalog.yml"

    def written(port: int, mode: str) -> None:
        ports = [{"published": published, "target": port}]
        file.write_text(catalogue(ADDRESS, ports=ports, labels={f"mesh.port.{published}.mode": mode}))

    async def forwarded_for() -> str:
        async with connected(published) as client:
            await client.request("Connection: close")
            return (await client.response())[2].decode()

    async with serving(greet, ADDRESS) as task:
        written(task.endpoint.port, "proxy")
        async with running(config(tmp_path)):
            assert await forwarded_for() == ""
            for mode in ("http", "proxy"):
                written(task.endpoint.port, mode)

                async def follows(by: str = mode) -> bool:
                    return bool(await forwarded_for()) is (by == "http")

                await until(follows, f"mode {mode} holds")


async def test_entry_points_follow_labels(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    entry = free_port()
    async with serving(greet, ADDRESS) as task:
        (tmp_path / "catalog.yml").write_text(
            catalogue(
                ADDRESS,
                labels={
                    "traefik.http.routers.web.rule": "Host(`shop.example`)",
                    "traefik.http.services.web.loadbalancer.server.port": str(task.endpoint.port),
                    "traefik.http.routers.web.tls.options": "x",
                },
            )
        )
        more = {
            "MESH_HTTP_ENTRYPOINTS": f"web=127.0.0.1:{entry}",
            "MESH_HTTP_ACCESS_LOG": "json",
            "MESH_HTTP_TRUSTED": "127.0.0.0/8",
        }
        async with running(config(tmp_path, **more)) as bound, connected(entry) as client:
            await client.request("X-Forwarded-For: 10.9.9.9", first="GET /x HTTP/1.1")
            assert (await client.response())[0] == 404, "a router with TLS is not served without"
            (route,) = (await get(bound.admin, "/v1/routes"))[1]["routes"]
            assert (route["name"], route["entrypoints"]) == ("web", [])
            text = (tmp_path / "catalog.yml").read_text().replace("routers.web.tls.options", "enable")
            (tmp_path / "catalog.yml").write_text(text.replace("enable: x", "enable: 'true'"))

            async def served() -> bool:
                await client.say("GET /x HTTP/1.1\r\nHost: shop.example\r\nX-Forwarded-For: 10.9.9.9\r\n\r\n")
                status, _, body = await client.response()
                return (status, body) == (200, b"X-Forwarded-For: 10.9.9.9, 127.0.0.1\n")

            await until(served, "the router is served")
            peer = await h2_client(("127.0.0.1", entry))
            assert (await peer.whole(peer.ask(authority="shop.example"))).status == 200
            await peer.close()
            status = (await get(bound.admin, "/v1/status"))[1]
            assert {"name": "http web", "address": f"127.0.0.1:{entry}", "error": ""} in status["listeners"]
            assert (await get(bound.admin, "/v1/routes"))[1]["routes"][0]["endpoints"] == [str(task.endpoint)]
            (at,) = (await get(bound.admin, "/v1/explain/http?host=SHOP.example:80&target=/a/../x"))[1][
                "entrypoints"
            ]
            assert (at["router"], at["network"], at["note"]) == ("web", "inside", "")
            assert [one["address"] for one in at["endpoints"]] == [str(task.endpoint)]
            (at,) = (await get(bound.admin, "/v1/explain/http?host=other&target=/"))[1]["entrypoints"]
            assert at["note"] == "404; no router has this host"
            await counted(
                bound,
                'mesh_http_requests_total{code="200",method="GET",service="web"} 2.0',
                'mesh_http_faults_total{reason="no_route",service=""}',
            )
    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines() if line.startswith("{")]
    assert lines[-1]["host"] == "shop.example"
    assert (lines[-1]["status"], lines[-1]["route"], lines[0]["fault"]) == (200, "web", "no_route")
    assert [one["version"] for one in (lines[0], lines[-1])] == ["HTTP/1.1", "HTTP/2.0"]


async def test_what_checks_and_failures_say_of_a_task_is_told(tmp_path: Path) -> None:
    """The only task of its service: it fails, is told of, and gets requests all the same."""
    entry = free_port()

    async def failing(one: Conversation) -> None:
        while await one.head():
            await one.say("HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n")

    async with serving(failing, ADDRESS) as task:
        labels = {
            "mesh.http.host": "shop.example",
            "mesh.http.port": str(task.endpoint.port),
            "mesh.http.health": "/health",
            "mesh.http.health_interval": "100ms",
            "mesh.http.mirror": "nobody",
        }
        (tmp_path / "catalog.yml").write_text(catalogue(ADDRESS, labels=labels))
        more = {"MESH_HTTP_ENTRYPOINTS": f"web=127.0.0.1:{entry}"}
        async with running(config(tmp_path, **more)) as bound, connected(entry) as client:

            async def endpoint() -> dict[str, object]:
                found = await get(bound.admin, "/v1/explain/http?host=shop.example&target=/")
                (at,) = found[1]["entrypoints"]
                return dict(at["endpoints"][0])

            async def unwell() -> bool:
                return (await endpoint())["unwell"] == "status"

            await until(unwell, "its checks fail")
            for _ in range(3):
                await client.say("GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n")
                assert (await client.response())[0] == 503
            assert (await endpoint())["ejected_for"] == 0, "the last one stays"
            told = (await get(bound.admin, "/v1/endpoints/web"))[1]
            assert told["left_out"] == {str(task.endpoint): "does not pass its check (status)"}
            problems = (await get(bound.admin, "/v1/status"))[1]["problems"]
            assert [one for one in problems if "does not pass its check (status)" in one]
            assert [one for one in problems if "'nobody' is no service; no copies are sent" in one]
            await counted(
                bound,
                'mesh_http_checks_total{result="status",service="web"}',
                'mesh_http_ejections_total{service="web"} 1.0',
                'mesh_http_mirrored_total{result="no_endpoint",service="web"} 3.0',
                'mesh_http_retries_refused_total{service="web"} 0.0',
            )


async def test_an_entry_point_that_is_taken_is_named_and_tried_again(tmp_path: Path) -> None:
    (tmp_path / "catalog.yml").write_text(catalogue(ADDRESS))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with running(config(tmp_path, MESH_HTTP_ENTRYPOINTS=f"web=127.0.0.1:{port}")) as bound:

            async def fault() -> str:
                listeners = (await get(bound.admin, "/v1/status"))[1]["listeners"]
                return str(next(one["error"] for one in listeners if one["name"] == "http web"))

            assert "already in use" in (await fault()).lower()
            taken.close()

            async def listens() -> bool:
                return await fault() == ""

            await until(listens, "it listens")
