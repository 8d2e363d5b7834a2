"""Certificates by ACME through the whole sidecar: a real server of the protocol, real handshakes."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509

from mesh.acme import issuer, schedule
from sidecar.app import BoundAddresses
from tests.acme.pebble import Pebble, needs_pebble, pebble
from tests.http.conftest import Conversation, saying, serving
from tests.loopback.test_relay_workers import free_port
from tests.loopback.test_sidecar import catalogue, config, get, running
from tests.support.certificates import pair

pytestmark = needs_pebble

ADDRESS = "127.9.0.3"
LIMIT = 60.0  # seconds for what takes the authority and us several round trips on a busy machine


@dataclass
class World:
    folder: Path
    authority: Pebble
    plain: int
    secure: int
    task: int

    def write(self, *hosts: str, **more: str) -> None:
        """A router for each, whose certificate is to be issued; and one that redirects all that is plain."""
        labels = {
            "traefik.http.services.web.loadbalancer.server.port": str(self.task),
            "traefik.http.middlewares.tls.redirectscheme.scheme": "https",
            "traefik.http.routers.plain.rule": "PathPrefix(`/`)",
            "traefik.http.routers.plain.entrypoints": "web",
            "traefik.http.routers.plain.middlewares": "tls",
        }
        for number, host in enumerate(hosts):
            labels[f"traefik.http.routers.r{number}.rule"] = f"Host(`{host}`)"
            labels[f"traefik.http.routers.r{number}.tls.certresolver"] = "le"
        (self.folder / "catalog.yml").write_text(catalogue(ADDRESS, labels=labels | more))

    @asynccontextmanager
    async def sidecar(self, **more: str) -> AsyncIterator[BoundAddresses]:
        variables = {
            "MESH_HTTP_ENTRYPOINTS": f"web=127.0.0.1:{self.plain},websecure=127.0.0.1:{self.secure}/tls",
            "MESH_HTTP_CERTIFICATES": str(self.folder / "files"),
            "MESH_HTTP_ACME_DIRECTORY": self.authority.directory,
            "MESH_HTTP_ACME_EMAIL": "ops@shop.example",
            "MESH_HTTP_ACME_CA": self.authority.ca,
        }
        async with running(config(self.folder, **(variables | more))) as bound:
            yield bound

    async def shown(self, name: str) -> x509.Certificate | None:
        """What the entry point shows; believed only if it is of the authority, and for this name."""
        context = ssl.create_default_context(cadata=await self.authority.root())
        try:
            _, writer = await asyncio.open_connection(
                "127.0.0.1", self.secure, ssl=context, server_hostname=name
            )
        except (ssl.SSLError, ConnectionError):
            return None
        found = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.close()
        return x509.load_der_x509_certificate(found)

    async def issued(self, name: str) -> x509.Certificate:
        found: x509.Certificate | None = None

        async def look() -> bool:
            nonlocal found
            found = await self.shown(name)
            return found is not None

        await until(look, f"a certificate for {name}")
        assert found is not None
        return found


async def until(look: Callable[[], Awaitable[bool]], what: str) -> None:
    try:
        async with asyncio.timeout(LIMIT):
            while not await look():
                await asyncio.sleep(0.05)
    except TimeoutError:
        pytest.fail(f"not within {LIMIT} s: {what}")


@asynccontextmanager
async def world(folder: Path, lifetime: int = 90 * 86400) -> AsyncIterator[World]:
    plain = free_port()
    async with pebble(folder, plain, lifetime) as authority, serving(saying("task"), ADDRESS) as task:
        yield World(folder, authority, plain, free_port(), task.endpoint.port)


async def problems(bound: BoundAddresses) -> list[str]:
    return list((await get(bound.admin, "/v1/status"))[1]["problems"])


async def test_issued_and_served(tmp_path: Path) -> None:
    async with world(tmp_path) as one, one.authority.started():
        one.write("shop.example")
        async with one.sidecar() as bound:
            await one.issued("shop.example")
            reader, writer = await asyncio.open_connection("127.0.0.1", one.plain)
            client = Conversation(reader, writer)
            await client.say("GET /x HTTP/1.1\r\nHost: shop.example\r\n\r\n")
            status, fields, _ = await client.response()
            assert (status, fields["location"]) == (302, "https://shop.example/x"), "all else is redirected"
            await client.say("GET /.well-known/acme-challenge/abc HTTP/1.1\r\nHost: other.example\r\n\r\n")
            assert (await client.response())[0] == 302, "not a name that we order: somebody else's token"
            client.close()
            assert not [text for text in await problems(bound) if "certificate" in text]
            text = (await get(bound.metrics, "/metrics"))[1]
            assert 'mesh_http_certificate_orders_total{result="issued"} 1.0' in text
            assert 'mesh_http_certificate_expiry_timestamp_seconds{file="shop.example.pem"}' in text
            (folder,) = (tmp_path / "acme").iterdir()
            assert {file.name for file in folder.iterdir()} == {
                "account.json",
                "shop.example.pem",
                "thumbprint",
            }
            assert {file.stat().st_mode & 0o777 for file in folder.iterdir()} == {0o600}
            assert folder.stat().st_mode & 0o777 == 0o700
            # A name that comes later has its own, and the account is the one there is.
            account = (folder / "account.json").read_bytes()
            one.write("shop.example", "new.example")
            await one.issued("new.example")
            assert (folder / "account.json").read_bytes() == account
        # The next sidecar has them at once, and orders nothing.
        async with one.sidecar() as bound:
            assert await one.shown("shop.example") is not None
            text = (await get(bound.metrics, "/metrics"))[1]
            assert 'orders_total{result="issued"}' not in text


async def test_several_names_in_one(tmp_path: Path) -> None:
    async with world(tmp_path) as one, one.authority.started():
        one.write(
            **{
                "traefik.http.routers.a.rule": "Host(`a.example`) || Host(`b.example`)",
                "traefik.http.routers.a.tls.certresolver": "le",
                "traefik.http.routers.c.rule": "HostRegexp(`^.+$`) && Path(`/c`)",
                "traefik.http.routers.c.tls.certresolver": "le",
                "traefik.http.routers.c.tls.domains[0].main": "C.example",
                "traefik.http.routers.c.tls.domains[0].sans": "d.example, e.example",
            }
        )
        async with one.sidecar():
            assert await one.issued("a.example") == await one.issued("b.example")
            assert await one.issued("c.example") == await one.issued("e.example")
            assert await one.issued("c.example") != await one.issued("a.example")


async def test_renewed_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A life of nine seconds, so that it is due after six."""
    monkeypatch.setattr(issuer, "LOOK_SECONDS", 0.2)
    async with world(tmp_path, lifetime=9) as one, one.authority.started():
        one.write("shop.example")
        async with one.sidecar():
            first = await one.issued("shop.example")

            async def renewed() -> bool:
                now = await one.shown("shop.example")
                return now is not None and now.serial_number != first.serial_number

            await until(renewed, "another certificate")


async def test_what_is_refused_is_told_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedule, "FIRST_PAUSE", 2.0)
    monkeypatch.setattr(issuer, "LOOK_SECONDS", 0.2)
    async with world(tmp_path) as one, one.authority.started():
        await one.authority.resolve("away.example", "127.8.0.1")  # where nobody listens
        wild = {"traefik.http.routers.r0.tls.domains[0].main": "*.wild.example"}
        one.write("x.wild.example", "away.example", "shop.example", **wild)
        async with one.sidecar() as bound:
            await one.issued("shop.example")

            async def told() -> bool:
                return any("away.example is not proven" in text for text in await problems(bound))

            await until(told, "why there is none")
            found = await problems(bound)
            assert any(
                "*.wild.example: no certificate: a wildcard takes a DNS challenge" in text for text in found
            )
            assert not [text for text in found if "http.acme: shop.example" in text]
            await one.authority.resolve("away.example", "127.0.0.1")
            await one.issued("away.example")


async def test_an_authority_that_is_away_or_forgets_us(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedule, "FIRST_PAUSE", 1.0)
    monkeypatch.setattr(issuer, "LOOK_SECONDS", 0.2)
    async with world(tmp_path) as one:
        one.write("a.example")
        async with one.sidecar() as bound:

            async def told() -> bool:
                return any("does not answer: " in text for text in await problems(bound))

            await until(told, "that nobody answers")
            (problem,) = (text for text in await problems(bound) if "does not answer" in text)
            assert "http.acme: a.example: no certificate: https://" in problem
            assert "Connection refused; again in " in problem
            async with one.authority.started():
                await one.issued("a.example")
            async with one.authority.started():  # another memory: no account of ours is in it
                one.write("a.example", "b.example")
                await one.issued("b.example")


async def test_a_file_for_the_name_is_enough(tmp_path: Path) -> None:
    async with world(tmp_path) as one, one.authority.started():
        (tmp_path / "files").mkdir()
        (tmp_path / "files" / "own.pem").write_bytes(b"".join(pair("*.own.example")))
        one.write("a.own.example", "shop.example")
        async with one.sidecar() as bound:
            await one.issued("shop.example")
            assert 'orders_total{result="issued"} 1.0' in (await get(bound.metrics, "/metrics"))[1]
            assert not [text for text in await problems(bound) if "a.own.example" in text]
