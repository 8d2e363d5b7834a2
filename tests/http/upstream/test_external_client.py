"""Who may come in, said by somebody outside the Swarm: over TLS and without, and when nothing is said."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from ipaddress import ip_network
from pathlib import Path

import pytest

from mesh.http import limits
from mesh.http.config.internal_targets import InternalTargets
from mesh.http.upstream.external_client import ExternalClient
from mesh.net.limits.semaphore import Semaphore
from mesh.net.own_addresses import leads_here
from mesh.net.tasks import Tasks
from tests.http.conftest import LIMIT, MIDDLEWARE, Conversation, Handler, Stand, World, routed
from tests.support.certificates import pair

TOLD = "HTTP/1.1 200 OK\r\nX-User: jane\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture
async def tasks() -> AsyncIterator[Tasks]:
    failures: list[tuple[str, BaseException]] = []
    made = Tasks(lambda *failure: failures.append(failure))
    yield made
    await made.close()
    assert failures == []


class Abroad:
    """Somebody on this machine, with a certificate for `localhost`."""

    def __init__(self, stand: Stand, folder: Path) -> None:
        self._stand = stand
        certificate, key = pair("localhost")
        (folder / "both.pem").write_bytes(certificate + key)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(folder / "both.pem")
        self._certificate = certificate.decode()
        self.heads: list[str] = []
        self.connections = 0

    def trusted(self) -> ssl.SSLContext:
        return ssl.create_default_context(cadata=self._certificate)

    async def listen(self, handler: Handler, *, tls: bool) -> int:
        async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.connections += 1
            try:
                await handler(Conversation(reader, writer))
            except (OSError, asyncio.IncompleteReadError):
                pass  # whoever asked wants no more
            finally:
                writer.close()

        server = await asyncio.start_server(run, "127.0.0.1", 0, ssl=self._context if tls else None)
        self._stand._stack.callback(server.close)
        return int(server.sockets[0].getsockname()[1])

    def saying(self, response: str) -> Handler:
        async def endpoint(one: Conversation) -> None:
            while head := await one.head():
                self.heads.append(head)
                await one.say(response)

        return endpoint


@pytest.fixture
def abroad(world: World, tmp_path: Path) -> Abroad:
    return Abroad(world.stand, tmp_path)


async def guarded(
    world: World, tasks: Tasks, address: str, abroad: Abroad, *, trusted: bool = True
) -> list[str]:
    """What an application is sent that is shown to whoever is at this address first."""
    here = InternalTargets(tuple(map(ip_network, ("127.0.0.0/8", "::1"))), leads_here)
    outside = ExternalClient(tasks, abroad.trusted if trusted else ssl.create_default_context, here)
    world.stand._stack.push_async_callback(outside.close)
    world.site._runner.external = outside
    heads: list[str] = []

    async def app(one: Conversation) -> None:
        while head := await one.head():
            heads.append(head)
            await one.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    at = await world.stand.endpoint(app)
    labels = routed("app", "Host(`a`)", at.endpoint.port, middlewares="guard")
    labels[f"{MIDDLEWARE}.guard.forwardauth.address"] = address
    labels[f"{MIDDLEWARE}.guard.forwardauth.authresponseheaders"] = "X-User"
    world.put("app", labels, at)
    assert list(world.site.problems()) == []
    return heads


@pytest.mark.parametrize("tls", [True, False])
async def test_what_is_asked_and_what_comes_of_it(
    world: World, tasks: Tasks, abroad: Abroad, tls: bool
) -> None:
    port = await abroad.listen(abroad.saying(TOLD), tls=tls)
    address = f"https://localhost:{port}/v?rd=%2Fx" if tls else f"http://127.0.0.1:{port}/v?rd=%2Fx"
    app = await guarded(world, tasks, address, abroad)
    client = await world.client()
    for _ in range(2):
        await client.say(
            "POST /y HTTP/1.1\r\nHost: a\r\nCookie: s=1\r\nX-User: root\r\nContent-Length: 3\r\n\r\nabc"
        )
        assert (await client.response())[0] == 200
    first, *lines = abroad.heads[0].split("\r\n")[:-2]
    assert first == "GET /v?rd=%2Fx HTTP/1.1"
    fields = dict(line.split(": ", 1) for line in lines)
    assert fields.pop("X-Request-Id")
    assert fields == {
        "Host": f"localhost:{port}" if tls else f"127.0.0.1:{port}",
        "Cookie": "s=1",
        "X-User": "root",
        "X-Forwarded-For": "127.0.0.1",
        "X-Forwarded-Proto": "http",
        "X-Forwarded-Port": str(world.fronts["web"].address[1]),
        "X-Real-Ip": "127.0.0.1",
        "X-Forwarded-Method": "POST",
        "X-Forwarded-Uri": "/y",
        "X-Forwarded-Host": "a",
    }
    assert "\r\nX-User: jane\r\n" in app[0]
    assert "root" not in app[0]
    assert abroad.connections == 1, "the connection is kept"
    assert len(tasks) == 0


async def test_another_answer_is_the_clients(world: World, tasks: Tasks, abroad: Abroad) -> None:
    """Not followed where it leads elsewhere, and as it is where it is compressed."""
    said = "Location: /login\r\nContent-Encoding: gzip\r\nSet-Cookie: a=b\r\nTransfer-Encoding: chunked"
    port = await abroad.listen(
        abroad.saying(f"HTTP/1.1 302 Found\r\n{said}\r\n\r\n4\r\nlock\r\n0\r\n\r\n"), tls=True
    )
    app = await guarded(world, tasks, f"https://localhost:{port}/v", abroad)
    for _ in range(2):
        status, fields, body = await world.get("a/")
        assert (status, body) == (302, "lock")
        assert fields == {
            "location": f"https://localhost:{port}/login",
            "content-encoding": "gzip",
            "set-cookie": "a=b",
            "content-length": "4",
            "connection": "close",
        }
    assert app == []
    assert "a=b" not in abroad.heads[1], "cookies are the client's"


@pytest.mark.parametrize(
    "response",
    [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n123",
        "HTTP/1.1 nonsense\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\x01b\r\nContent-Length: 0\r\n\r\n",
        f"HTTP/1.1 200 OK\r\nContent-Length: {limits.ASIDE_BODY_MAX + 1}\r\n\r\n"
        + "x" * (limits.ASIDE_BODY_MAX + 1),
    ],
)
async def test_without_an_answer_nobody_comes_in(
    world: World, tasks: Tasks, abroad: Abroad, response: str
) -> None:
    async def once(one: Conversation) -> None:
        await one.head()
        await one.say(response)

    port = await abroad.listen(once, tls=False)
    app = await guarded(world, tasks, f"http://127.0.0.1:{port}/", abroad)
    for _ in range(2):
        status, _, body = await world.get("a/")
        assert (status, "auth_unavailable" in body, app) == (503, True, [])


@pytest.mark.parametrize("address", ["https://localhost:1/", "http://127.0.0.1:1/"])
async def test_nobody_there(world: World, tasks: Tasks, abroad: Abroad, address: str) -> None:
    app = await guarded(world, tasks, address, abroad)
    assert ((await world.get("a/"))[0], app) == (503, [])


async def test_a_certificate_that_nobody_vouches_for(world: World, tasks: Tasks, abroad: Abroad) -> None:
    port = await abroad.listen(abroad.saying(TOLD), tls=True)
    app = await guarded(world, tasks, f"https://localhost:{port}/", abroad, trusted=False)
    assert ((await world.get("a/"))[0], app, abroad.heads) == (503, [], [])


async def test_a_client_that_leaves_ends_the_question(world: World, tasks: Tasks, abroad: Abroad) -> None:
    asked, dropped = asyncio.Event(), asyncio.Event()

    async def slow(one: Conversation) -> None:
        await one.head()
        asked.set()
        await one.rest()
        dropped.set()

    port = await abroad.listen(slow, tls=False)
    app = await guarded(world, tasks, f"http://127.0.0.1:{port}/", abroad)
    outside = world.site._runner.external
    assert outside is not None
    room = outside._room = Semaphore(1)
    client = await world.client()
    await client.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    await asyncio.wait_for(asked.wait(), LIMIT)
    assert (await world.get("a/"))[0] == 503, "there is room for one question"
    client.reset()
    await asyncio.wait_for(dropped.wait(), LIMIT)
    assert room.take(), "and now for another"
    assert app == []
