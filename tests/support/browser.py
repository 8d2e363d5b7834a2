"""A browser on a script: Chromium without a window, spoken to as its developer tools do.

    browser.py HOST=ADDRESS… < steps.json

Steps are lists: ["open", URL], ["evaluate", EXPRESSION] (a promise is awaited), ["wait"] (until standard
input has one more line). The results are printed as JSON, one a line, as they come.
"""

import asyncio
import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import ClientSession, ClientWebSocketResponse

LIMIT = 30.0  # seconds for one step


class Page:
    """One tab."""

    def __init__(self, tools: ClientWebSocketResponse) -> None:
        self._tools = tools
        self._asked = 0

    async def ask(self, method: str, **parameters: Any) -> Any:
        self._asked += 1
        await self._tools.send_json({"id": self._asked, "method": method, "params": parameters})
        return await self._until(lambda told: told.get("id") == self._asked)

    async def open(self, url: str) -> str:
        """ "" or why it could not be loaded."""
        await self.ask("Page.enable")
        done = await self.ask("Page.navigate", url=url)
        if "errorText" in done["result"]:
            return str(done["result"]["errorText"])
        await self._until(lambda told: told.get("method") == "Page.loadEventFired")
        return ""

    async def evaluate(self, expression: str) -> Any:
        done = await self.ask(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        result = done["result"]
        return result.get("exceptionDetails") or result["result"].get("value")

    async def _until(self, wanted: Any) -> Any:
        async with asyncio.timeout(LIMIT):
            while True:
                told = await self._tools.receive_json()
                if wanted(told):
                    return told


@asynccontextmanager
async def page(hosts: dict[str, str], trusted: str) -> AsyncIterator[Page]:
    """`trusted`: the SHA-256 of a public key, whose certificate needs no authority that the browser knows."""
    program = shutil.which("chromium")
    assert program is not None, "chromium is not installed"
    with tempfile.TemporaryDirectory() as folder:
        rules = ",".join(f"MAP {name} {address}" for name, address in hosts.items())
        argv = [
            program,
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--remote-debugging-port=0",
            f"--user-data-dir={folder}",
            f"--host-resolver-rules={rules}",
            f"--ignore-certificate-errors-spki-list={trusted}",
            "about:blank",
        ]
        log = Path(folder, "log").open("wb")  # noqa: SIM115 - it is Chromium's, until that ends
        running = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            port = await _port(Path(folder, "DevToolsActivePort"), running)
            async with ClientSession() as session:
                async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
                    tabs = [tab for tab in await answer.json() if tab["type"] == "page"]
                async with session.ws_connect(tabs[0]["webSocketDebuggerUrl"], max_msg_size=2**24) as tools:
                    yield Page(tools)
        finally:
            running.terminate()
            try:
                running.wait(10)
            except subprocess.TimeoutExpired:
                running.kill()
                running.wait()
            log.close()


async def _port(file: Path, running: subprocess.Popen[bytes]) -> int:
    """Chromium writes it down when it listens."""
    async with asyncio.timeout(LIMIT):
        while not (file.exists() and "\n" in file.read_text()):
            assert running.poll() is None, "chromium has ended"
            await asyncio.sleep(0.05)
    return int(file.read_text().split("\n")[0])


async def main(hosts: dict[str, str]) -> None:
    lines = iter(sys.stdin.readline, "")
    async with page(hosts, os.environ.get("TRUSTED_KEY", "")) as tab:
        for line in lines:
            step, *words = json.loads(line)
            result = await (tab.open(*words) if step == "open" else tab.evaluate(*words))
            print(json.dumps(result), flush=True)


def key_of(certificate: bytes) -> str:
    """For TRUSTED_KEY, of a certificate in PEM."""
    from cryptography import x509
    from cryptography.hazmat.primitives.hashes import SHA256, Hash
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    key = x509.load_pem_x509_certificate(certificate).public_key()
    digest = Hash(SHA256())
    digest.update(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    return base64.b64encode(digest.finalize()).decode()


if __name__ == "__main__":
    asyncio.run(main(dict(word.split("=", 1) for word in sys.argv[1:])))
