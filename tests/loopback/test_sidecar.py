"""The whole sidecar on loopback, from a catalogue file: no Docker, no root, real sockets."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from dnslib import QTYPE, DNSRecord

from mesh.errors import ConfigError
from sidecar.app import BoundAddresses, Sidecar
from sidecar.config import Address, Config, build

DEADLINE = 10.0


def catalogue(*tasks: str, **service: Any) -> str:
    """One service `web` on 127.9.0.0/16 with these task addresses."""
    web = {
        "networks": {"inside": {"vip": "127.9.0.2", "aliases": ["www"]}},
        "tasks": [
            {"name": f"web.{slot}.x", "node": "here", "state": "running", "addresses": {"inside": address}}
            for slot, address in enumerate(tasks, 1)
        ],
        **service,
    }
    return yaml.safe_dump(
        {
            "networks": {"inside": {"subnet": "127.9.0.0/16"}},
            "services": {"web": web},
            "askers": [{"name": "tests", "source": "127.0.0.0/8", "networks": ["inside"]}],
        }
    )


def variables(folder: Path, **environment: str) -> dict[str, str]:
    return {
        "MESH_CATALOG": str(folder / "catalog.yml"),
        "MESH_DNS_LISTEN": "127.0.0.1:0",
        "MESH_DNS_UPSTREAMS": "127.0.0.1:1",  # refuses at once
        "MESH_METRICS_LISTEN": "127.0.0.1:0",
        "MESH_ADMIN_LISTEN": "127.0.0.1:0",
        "MESH_ADMIN_SOCKET": "off",
        "MESH_INGRESS_LISTEN": "127.0.0.1",
        "MESH_INGRESS_MODE": "proxy",
        "MESH_STATE_DIR": str(folder),
    } | environment


def config(folder: Path, **environment: str) -> Config:
    return build("", "", variables(folder, **environment), {}, "here")


@asynccontextmanager
async def running(settings: Config) -> AsyncIterator[BoundAddresses]:
    sidecar = Sidecar(settings)
    try:
        yield await sidecar.start()
        assert not sidecar.failed.is_set()
    finally:
        await sidecar.stop()


async def ask(server: Address, data: bytes) -> bytes:
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.setblocking(False)
        client.connect((server.host, server.port))
        await loop.sock_sendall(client, data)
        return await asyncio.wait_for(loop.sock_recv(client, 4096), DEADLINE)


async def lookup(server: Address, name: str, kind: str = "A") -> tuple[int, list[str]]:
    reply = DNSRecord.parse(await ask(server, DNSRecord.question(name, kind).pack()))
    return reply.header.rcode, sorted(str(rr.rdata) for rr in reply.rr)


async def get(address: Address, path: str) -> tuple[int, Any]:
    async with aiohttp.ClientSession() as session, session.get(f"http://{address}{path}") as response:
        json = "json" in response.content_type
        return response.status, await (response.json() if json else response.text())


async def until(look: Callable[[], Any], what: str) -> None:
    """Await `look()` until it is true."""
    try:
        async with asyncio.timeout(DEADLINE):
            while not await look():
                await asyncio.sleep(0.02)
    except TimeoutError:
        pytest.fail(f"not within {DEADLINE} s: {what}")


async def test_names_are_answered_and_follow_the_file(tmp_path: Path) -> None:
    file = tmp_path / "catalog.yml"
    file.write_text(catalogue("127.9.0.3", "127.9.0.4"))
    async with running(config(tmp_path)) as bound:
        (dns,) = bound.dns
        assert await lookup(dns, "web") == await lookup(dns, "www.inside") == (0, ["127.9.0.2"])
        assert await lookup(dns, "tasks.web") == (0, ["127.9.0.3", "127.9.0.4"])
        assert await lookup(dns, "web", "AAAA") == (0, [])
        assert await lookup(dns, "2.0.9.127.in-addr.arpa", "PTR") == (0, ["web.inside."])
        assert (await lookup(dns, "elsewhere.test"))[0] == 2, "SERVFAIL: no upstream answers"
        file.write_text(catalogue("127.9.0.4"))

        async def follows() -> bool:
            return await lookup(dns, "tasks.web") == (0, ["127.9.0.4"])

        await until(follows, "the answer follows the file")


async def test_a_port_by_its_name_and_a_bad_label_that_is_told(tmp_path: Path) -> None:
    labels = {"mesh.dns.ttl": "soon", "mesh.dns.srv.grpc": "9000"}
    text = catalogue(
        "127.9.0.3", "127.9.0.4", ports=[{"published": 80, "target": 8080, "mode": "host"}], labels=labels
    )
    (tmp_path / "catalog.yml").write_text(text)
    async with running(config(tmp_path)) as bound:
        (dns,) = bound.dns
        assert await lookup(dns, "_http._tcp.web", "SRV") == (0, ["0 0 8080 web.inside."])
        targets = [f"0 1 9000 web.{slot}.x.inside." for slot in (1, 2)]
        assert await lookup(dns, "_grpc._tcp.tasks.web", "SRV") == (0, targets)
        problems = (await get(bound.admin, "/v1/status"))[1]["problems"]
        assert problems == ["web: mesh.dns.ttl: 'soon' is not a time like 30s, 5m or 250ms; dns.ttl is used"]
    async with running(config(tmp_path, MESH_DNS_SRV="false")) as bound:
        assert (await lookup(bound.dns[0], "_http._tcp.web", "SRV"))[0] == 2, (
            "asked elsewhere, where nobody is"
        )


async def test_a_broken_catalogue_keeps_the_last_good_one_and_says_so(tmp_path: Path) -> None:
    file = tmp_path / "catalog.yml"
    file.write_text(catalogue("127.9.0.3"))
    async with running(config(tmp_path)) as bound:
        file.write_text(catalogue("10.0.0.1", colour="blue"))

        async def told() -> bool:
            return bool((await get(bound.admin, "/v1/status"))[1]["problems"])

        await until(told, "the status names the problems")
        problems = " ".join((await get(bound.admin, "/v1/status"))[1]["problems"])
        assert "colour" in problems
        assert "10.0.0.1" in problems
        assert await lookup(bound.dns[0], "tasks.web") == (0, ["127.9.0.3"])
        assert "mesh_config_errors 2.0" in (await get(bound.metrics, "/metrics"))[1]


async def test_a_broken_first_catalogue_ends_the_start_with_every_problem(tmp_path: Path) -> None:
    (tmp_path / "catalog.yml").write_text(catalogue("10.0.0.1", colour="blue"))
    sidecar = Sidecar(config(tmp_path))
    with pytest.raises(ConfigError) as caught:
        await sidecar.start()
    await sidecar.stop()
    assert len(caught.value.problems) == 2


async def test_garbage_on_the_dns_port_is_dropped_or_refused_and_answering_goes_on(tmp_path: Path) -> None:
    (tmp_path / "catalog.yml").write_text(catalogue("127.9.0.3"))
    async with running(config(tmp_path)) as bound:
        (dns,) = bound.dns
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            for size in range(0, 64):
                client.sendto(bytes(range(size)), (dns.host, dns.port))
        two_questions = bytearray(DNSRecord.question("web").pack())
        two_questions[5] = 2
        assert (await ask(dns, bytes(two_questions)))[3] & 0xF == 1, "FORMERR"
        assert await lookup(dns, "web") == (0, ["127.9.0.2"])


async def test_a_published_port_is_relayed_and_a_taken_one_does_not_stop_the_others(tmp_path: Path) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read())  # until the client half-closes
        writer.close()

    server = await asyncio.start_server(echo, "127.9.0.3", 0)
    target = server.sockets[0].getsockname()[1]
    with socket.socket() as holder, socket.socket() as free:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        free.bind(("127.0.0.1", 0))
        taken, published = holder.getsockname()[1], free.getsockname()[1]
        free.close()
        ports = [{"published": one, "target": target} for one in (taken, published)]
        (tmp_path / "catalog.yml").write_text(catalogue("127.9.0.3", ports=ports))
        async with server, running(config(tmp_path)) as bound:

            async def relayed() -> bool:
                modes = {
                    p["published"]: p["mode"] for p in (await get(bound.admin, "/v1/status"))[1]["ports"]
                }
                return modes == {taken: "taken", published: "proxy"}

            await until(relayed, "one port is relayed, one is taken")
            reader, writer = await asyncio.open_connection("127.0.0.1", published)
            writer.write(b"whole")
            writer.write_eof()
            assert await asyncio.wait_for(reader.read(), DEADLINE) == b"whole"
            writer.close()
            counted = f'mesh_port_connections_total{{mode="proxy",port="{published}/tcp",service="web"}} 1.0'

            async def told() -> bool:
                return counted in (await get(bound.metrics, "/metrics"))[1]

            await until(told, "the process that relays has reported it")


async def test_health_and_readiness(tmp_path: Path) -> None:
    (tmp_path / "catalog.yml").write_text(catalogue("127.9.0.3"))
    async with running(config(tmp_path)) as bound:
        assert (await get(bound.metrics, "/healthz"))[0] == 200
        assert await get(bound.metrics, "/readyz") == (200, {"ready": True, "reasons": []})


async def test_a_taken_surface_is_told_on_the_other_and_taken_up_when_free(tmp_path: Path) -> None:
    (tmp_path / "catalog.yml").write_text(catalogue("127.9.0.3"))
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        wanted = Address(*holder.getsockname())
        async with running(config(tmp_path, MESH_METRICS_LISTEN=str(wanted))) as bound:
            listeners = (await get(bound.admin, "/v1/status"))[1]["listeners"]
            assert [one["name"] for one in listeners if one["error"]] == ["metrics"]
            holder.close()

            async def back() -> bool:
                try:
                    return (await get(wanted, "/readyz"))[0] == 200
                except aiohttp.ClientError:
                    return False

            await until(back, "the surface is up on the freed port")


async def test_mesh_resolve_says_what_and_why(tmp_path: Path) -> None:
    (tmp_path / "catalog.yml").write_text(catalogue("127.9.0.3"))
    async with running(config(tmp_path)) as bound:
        status, told = await get(bound.admin, "/v1/resolve?name=web.inside")
        assert status == 200
        assert [a["data"] for a in told["answers"]] == ["127.9.0.2"]
        assert told["networks"] == ["inside"]
        assert any("known on network inside" in step for step in told["why"])
        assert (await get(bound.admin, "/v1/resolve?name=web&type=NONSENSE"))[0] == 404
        assert (await get(bound.admin, "/v1/resolve?name=web&from=nobody"))[0] == 404


async def test_a_stranger_is_not_answered(tmp_path: Path) -> None:
    text = catalogue("127.9.0.3").replace("127.0.0.0/8", "127.0.0.9/32")
    (tmp_path / "catalog.yml").write_text(text)
    async with running(config(tmp_path)) as bound:
        (dns,) = bound.dns
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.bind(("127.0.0.8", 0))
            stranger.sendto(DNSRecord.question("web").pack(), (dns.host, dns.port))
            loop = asyncio.get_running_loop()
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
                asker.setblocking(False)
                asker.bind(("127.0.0.9", 0))
                asker.connect((dns.host, dns.port))
                await loop.sock_sendall(asker, DNSRecord.question("web").pack())
                reply = DNSRecord.parse(await asyncio.wait_for(loop.sock_recv(asker, 4096), DEADLINE))
            assert reply.q.qtype == QTYPE.A
            stranger.setblocking(False)
            with pytest.raises(BlockingIOError):  # asked earlier than the asker, who has his answer
                stranger.recv(4096)
