"""A published port in `mode: http`, through the whole sidecar."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.http.conftest import Conversation, serving
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
            text = (await get(bound.metrics, "/metrics"))[1]
            assert 'mesh_http_requests_total{code="200",method="GET",service="web"} 3.0' in text
            assert 'mesh_http_requests_total{code="200",method="other",service="web"} 1.0' in text
            assert 'mesh_http_request_duration_seconds_count{service="web"} 4.0' in text
            assert (
                f'mesh_port_connections_total{{mode="http",port="{published}/tcp",service="web"}} 1.0' in text
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
