"""Pebble, the test server of Let's Encrypt's makers, and a DNS in which every name is this machine."""

import asyncio
import json
import shutil
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from tests.loopback.test_relay_workers import free_port
from tests.support.certificates import pair

STARTS_SECONDS = 20.0

needs_pebble = pytest.mark.skipif(
    shutil.which("pebble") is None, reason="apt-get install pebble: a test server for ACME"
)


@dataclass
class Pebble:
    """`proofs`: the port on which it looks for proofs. It forgets everything when it is started anew."""

    folder: Path
    proofs: int
    lifetime: int = 90 * 86400  # seconds, of the certificates
    host: str = "127.0.0.1"  # its address
    port: int = 14000
    management: int = 15000
    dns: int = 8053
    dns_management: int = 8055

    def __post_init__(self) -> None:
        certificate, key = pair("localhost", self.host)
        (self.folder / "pebble.crt").write_bytes(certificate)
        (self.folder / "pebble.key").write_bytes(key)

    @property
    def directory(self) -> str:
        return f"https://{self.host}:{self.port}/dir"

    @property
    def ca(self) -> str:
        """The file by which it is known itself."""
        return str(self.folder / "pebble.crt")

    def command(self) -> list[str]:
        """It refuses one good nonce in five, as it is meant to be used."""
        config = {
            "listenAddress": f"{self.host}:{self.port}",
            "managementListenAddress": f"{self.host}:{self.management}",
            "certificate": self.ca,
            "privateKey": str(self.folder / "pebble.key"),
            "httpPort": self.proofs,
            "tlsPort": 1,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": False,
            "certificateValidityPeriod": self.lifetime,
        }
        file = self.folder / "pebble.json"
        file.write_text(json.dumps({"pebble": config}))
        environment = ["env", "PEBBLE_VA_NOSLEEP=1", "PEBBLE_WFE_NONCEREJECT=20"]
        return [
            *environment,
            "pebble",
            "-config",
            str(file),
            "-strict",
            "-dnsserver",
            f"{self.host}:{self.dns}",
        ]

    def dns_command(self) -> list[str]:
        """A DNS server in which every name is 127.0.0.1 until it is said to be elsewhere."""
        return [
            "pebble-challtestsrv",
            *("-defaultIPv4", "127.0.0.1", "-defaultIPv6", ""),
            *("-dns01", f"{self.host}:{self.dns}", "-management", f"{self.host}:{self.dns_management}"),
            *("-http01", "", "-https01", "", "-tlsalpn01", ""),
        ]

    async def resolve(self, name: str, address: str) -> None:
        """This name is elsewhere from now on."""
        async with aiohttp.ClientSession() as session:
            data = json.dumps({"host": name, "addresses": [address]})
            for what in ("clear-a", "add-a"):
                url = f"http://{self.host}:{self.dns_management}/{what}"
                async with session.post(url, data=data) as response:
                    assert response.status == 200

    async def root(self) -> str:
        """PEM of the authority that it issues with."""
        url = f"https://{self.host}:{self.management}/roots/0"
        async with (
            aiohttp.ClientSession() as session,
            session.get(url, ssl=ssl.create_default_context(cafile=self.ca)) as response,
        ):
            return await response.text()

    @asynccontextmanager
    async def started(self) -> AsyncIterator[None]:
        async with _process(*self.command(), log=self.folder / "pebble.log"):
            await _accepts(self.port)
            yield


@asynccontextmanager
async def pebble(folder: Path, proofs: int, lifetime: int = 90 * 86400) -> AsyncIterator[Pebble]:
    """On loopback. Its DNS runs; `started` is the caller's."""
    ports = [free_port() for _ in range(4)]
    one = Pebble(folder, proofs, lifetime, "127.0.0.1", *ports)
    async with _process(*one.dns_command(), log=folder / "dns.log"):
        await _accepts(one.dns_management)
        yield one


@asynccontextmanager
async def _process(*command: str, log: Path) -> AsyncIterator[None]:
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(*command, stdout=output, stderr=output)
    try:
        yield
    finally:
        process.kill()
        await process.wait()


async def _accepts(port: int) -> None:
    async with asyncio.timeout(STARTS_SECONDS):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return
