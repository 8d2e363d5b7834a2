"""TLS to tasks: who is believed, what breaks off, what is kept."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from mesh.balance.policies import Endpoint
from mesh.http import limits
from mesh.http.config.model import HttpService, Scheme
from mesh.http.downstream.published_port import HttpPort
from mesh.http.upstream.tls import TaskTls
from tests.http.conftest import LIMIT, SERVICE, Conversation, Handler, Stand, Tasks, World, routed, saying
from tests.http.h2_peer import Heard, Peer, h2_serving
from tests.support.certificates import pair

OK = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
NAME = "web"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    certificate, key = pair(NAME)
    (tmp_path / "ca.pem").write_bytes(certificate)
    (tmp_path / "both.pem").write_bytes(certificate + key)
    return tmp_path


@asynccontextmanager
async def secured(handler: Handler, folder: Path, **settings: object) -> AsyncIterator[Tasks]:
    """An endpoint with TLS."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "both.pem")
    for name, value in settings.items():
        setattr(context, name, value)

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.connections += 1
        try:
            await handler(Conversation(reader, writer))
        except (AssertionError, OSError, TimeoutError, asyncio.IncompleteReadError) as fault:
            tasks.faults.append(fault)
        finally:
            writer.close()

    server = await asyncio.start_server(run, "127.0.0.1", 0, ssl=context)
    tasks = Tasks(Endpoint(*server.sockets[0].getsockname()[:2]))
    try:
        yield tasks
    finally:
        server.close()


def service(folder: Path) -> HttpService:
    return HttpService("web", "web", 1, Scheme.HTTPS, tls_name=NAME, tls_ca=str(folder / "ca.pem"))


async def before(stand: Stand, tasks: Tasks, http: HttpService) -> HttpPort:
    port = await stand.port(tasks.endpoint)
    port.target.tls = TaskTls(http)
    return port


async def test_requests_and_kept_connections(stand: Stand, folder: Path) -> None:
    async with secured(saying("safe"), folder) as tasks:
        client = await stand.client(await before(stand, tasks, service(folder)))
        for path in ("/a", "/b", "/c"):
            await client.request(first=f"GET {path} HTTP/1.1")
            assert (await client.response())[2] == f"safe {path}".encode()
        assert tasks.connections == 1


@pytest.mark.parametrize("size", [1, 70_000, 10_000_000])
async def test_bodies_both_ways(stand: Stand, folder: Path, size: int) -> None:
    async def endpoint(to: Conversation) -> None:
        while await to.head():
            body = await to.read(size)
            await to.say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + body)

    async with secured(endpoint, folder) as tasks:
        client = await stand.client(await before(stand, tasks, service(folder)))
        body = bytes(i % 251 for i in range(size))
        for _ in range(2):
            sending = asyncio.create_task(
                client.request(f"Content-Length: {size}", first="POST / HTTP/1.1", body=body)
            )
            assert (await client.response())[2] == body
            await sending
        assert tasks.connections == 1


async def test_upgrades(stand: Stand, folder: Path) -> None:
    async def endpoint(to: Conversation) -> None:
        await to.head()
        await to.say("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
        while data := await to.reader.read(100):
            await to.say(data)

    async with secured(endpoint, folder) as tasks:
        client = await stand.client(await before(stand, tasks, service(folder)))
        await client.request("Connection: upgrade", "Upgrade: echo")
        assert (await client.head()).startswith("HTTP/1.1 101")
        await client.say(b"abc")
        assert await client.read(3) == b"abc"


class TestWhoIsBelieved:
    async def _refused(self, stand: Stand, tasks: Tasks, http: HttpService, reason: bytes) -> None:
        client = await stand.client(await before(stand, tasks, http))
        await client.request("Content-Length: 1", first="POST / HTTP/1.1", body=b"a")
        status, _, body = await client.response()
        assert (status, reason in body) == (502, True)
        assert not tasks.faults

    async def test_none_of_another_authority(self, stand: Stand, folder: Path) -> None:
        (folder / "other.pem").write_bytes(pair(NAME)[0])
        async with secured(saying("no"), folder) as tasks:
            other = replace(service(folder), tls_ca=str(folder / "other.pem"))
            await self._refused(stand, tasks, other, b"certificate")

    async def test_none_of_another_name(self, stand: Stand, folder: Path) -> None:
        async with secured(saying("no"), folder) as tasks:
            await self._refused(stand, tasks, replace(service(folder), tls_name="other"), b"certificate")

    async def test_none_that_the_system_does_not_know(self, stand: Stand, folder: Path) -> None:
        async with secured(saying("no"), folder) as tasks:
            await self._refused(stand, tasks, replace(service(folder), tls_ca=""), b"certificate")

    async def test_any_if_told_so(self, stand: Stand, folder: Path) -> None:
        async with secured(saying("any"), folder) as tasks:
            http = replace(service(folder), tls_ca="", tls_name="other", tls_verify=False)
            client = await stand.client(await before(stand, tasks, http))
            await client.request()
            assert (await client.response())[2] == b"any /"

    async def test_nobody_without_tls(self, stand: Stand, folder: Path) -> None:
        async def plain(to: Conversation) -> None:
            await to.say("HTTP/1.1 400 Bad Request\r\n\r\n")

        await self._refused(stand, await stand.endpoint(plain), service(folder), b"tls")

    async def test_another_task_is_tried(self, stand: Stand, folder: Path) -> None:
        async def plain(to: Conversation) -> None:
            await to.say("no TLS\r\n")

        async with secured(saying("good"), folder) as tasks:
            port = await stand.port(tasks.endpoint, (await stand.endpoint(plain)).endpoint)
            port.target.tls = TaskTls(service(folder))
            for _ in range(4):
                client = await stand.client(port)
                await client.request("Content-Length: 1", first="POST /x HTTP/1.1", body=b"a")
                assert (await client.head()).startswith("HTTP/1.1 200")


class TestEnds:
    async def test_a_handshake_has_an_end(self, stand: Stand, folder: Path) -> None:
        silent = await stand.endpoint(lambda to: asyncio.sleep(LIMIT))
        port = await before(stand, silent, service(folder))
        port.target.connect_timeout = 0.1
        client = await stand.client(port)
        await client.request()
        status, _, body = await client.response()
        assert (status, b"connect_timeout" in body) == (504, True)

    async def test_an_end_that_nobody_has_said_is_none(self, stand: Stand, folder: Path) -> None:
        """Without close_notify a response until close may have been cut off."""

        async def endpoint(to: Conversation) -> None:
            await to.head()
            await to.say("HTTP/1.1 200 OK\r\n\r\nabc")
            await asyncio.wait_for(seen.wait(), LIMIT)
            to.writer.transport.abort()

        seen = asyncio.Event()
        async with secured(endpoint, folder) as tasks:
            client = await stand.client(await before(stand, tasks, service(folder)))
            await client.request()
            await client.head()
            assert await client.until(b"abc\r\n") == b"3\r\nabc\r\n"
            seen.set()
            try:
                rest = await client.rest()
            except ConnectionResetError:
                rest = b""
            assert rest != b"0\r\n\r\n"

    async def test_more_than_the_response_says_spoils_the_connection(
        self, stand: Stand, folder: Path
    ) -> None:
        async def endpoint(to: Conversation) -> None:
            await to.head()
            await to.say(OK)
            await to.say("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
            await to.rest()

        async with secured(endpoint, folder) as tasks:
            client = await stand.client(await before(stand, tasks, service(folder)))
            for _ in range(3):
                await client.request()
                assert (await client.response())[2] == b"ok"

    async def test_sessions_are_resumed(
        self, stand: Stand, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        reused: list[bool] = []

        async def endpoint(to: Conversation) -> None:
            await to.head()
            reused.append(to.writer.get_extra_info("ssl_object").session_reused)
            await to.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            await to.head()

        monkeypatch.setattr(limits, "IDLE_PER_ENDPOINT", 0)  # each request has its own connection
        async with secured(endpoint, folder) as tasks:
            client = await stand.client(await before(stand, tasks, service(folder)))
            for _ in range(3):
                await client.request()
                await client.response()
        assert reused == [False, True, True]


async def test_labels(world: World, folder: Path) -> None:
    async with secured(saying("there"), folder) as tasks:
        labels = routed("web", "Host(`a`)", tasks.endpoint.port)
        scheme = {f"{SERVICE}.web.loadbalancer.server.scheme": "https"}
        world.put(NAME, labels | scheme | {"mesh.http.services.web.tls_ca": str(folder / "ca.pem")}, tasks)
        assert (await world.get("a/x"))[2] == "there /x"
        world.put(NAME, labels | scheme | {"mesh.http.services.web.tls_verify": "false"}, tasks)
        assert (await world.get("a/y"))[2] == "there /y"
        world.put(NAME, labels | scheme | {"mesh.http.services.web.tls_ca": "/nowhere"}, tasks)
        assert (await world.get("a/z"))[0] == 503
        (problem,) = world.site.problems()
        assert "/nowhere: No such file" in problem.message


class TestHttp2:
    """Where a task chooses it in the handshake."""

    @staticmethod
    def context(folder: Path, *protocols: str) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(folder / "both.pem")
        context.set_alpn_protocols(list(protocols))
        return context

    @staticmethod
    async def said(peer: Peer, heard: Heard) -> None:
        await peer.whole(heard)
        peer.respond(heard.id, ("x-scheme", heard.get(":scheme")), ("content-length", "2"))
        await peer.send(heard.id, b"ok", end=True)

    async def test_one_connection_for_all(self, stand: Stand, folder: Path) -> None:
        async with h2_serving(self.said, self.context(folder, "h2", "http/1.1")) as tasks:
            port = await before(stand, tasks, service(folder))
            client = await stand.client(port)
            for _ in range(3):
                await client.request()
                status, fields, body = await client.response()
                assert (status, fields["x-scheme"], body) == (200, "https", b"ok")
            others = [await stand.client(port) for _ in range(10)]
            for one in others:
                await one.request("Content-Length: 3", body=b"abc", first="POST / HTTP/1.1")
            assert [(await one.response())[0] for one in others] == [200] * 10
            assert tasks.connections == 1
            assert tasks.faults == []

    async def test_many_at_once_before_it_is_known(self, stand: Stand, folder: Path) -> None:
        """Each has made a connection by then; all are answered, and later ones share the first."""
        async with h2_serving(self.said, self.context(folder, "h2")) as tasks:
            port = await before(stand, tasks, service(folder))
            clients = [await stand.client(port) for _ in range(20)]
            for one in clients:
                await one.request()
            assert [(await one.response())[0] for one in clients] == [200] * 20
            made = tasks.connections
            for one in clients:
                await one.request()
            assert [(await one.response())[0] for one in clients] == [200] * 20
            assert tasks.connections == made

    async def test_goaway(self, stand: Stand, folder: Path) -> None:
        async with h2_serving(self.said, self.context(folder, "h2")) as tasks:
            client = await stand.client(await before(stand, tasks, service(folder)))
            await client.request()
            assert (await client.response())[0] == 200
            tasks.peers[0].h2.close_connection()
            tasks.peers[0].push()
            await tasks.peers[0].over()
            await client.request()
            assert (await client.response())[0] == 200
            assert tasks.connections == 2

    async def test_upgrades_are_asked_in_http_1(self, stand: Stand, folder: Path) -> None:
        offered: list[str | None] = []

        async def switching(one: Conversation) -> None:
            offered.append(one.writer.get_extra_info("ssl_object").selected_alpn_protocol())
            await one.head()
            await one.say("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
            await one.say(await one.read(4))

        context = self.context(folder, "h2", "http/1.1")
        server = await asyncio.start_server(
            lambda reader, writer: switching(Conversation(reader, writer)), "127.0.0.1", 0, ssl=context
        )
        try:
            tasks = Tasks(Endpoint(*server.sockets[0].getsockname()[:2]))
            client = await stand.client(await before(stand, tasks, service(folder)))
            await client.request("Connection: Upgrade", "Upgrade: echo")
            assert (await client.head()).startswith("HTTP/1.1 101")
            await client.say(b"ping")
            assert await client.read(4) == b"ping"
            assert offered == ["http/1.1"]
        finally:
            server.close()

    async def test_a_task_that_is_none_any_more(self, stand: Stand, folder: Path) -> None:
        """What is under way ends well; then the connection is closed."""
        go = asyncio.Event()

        async def late(peer: Peer, heard: Heard) -> None:
            await asyncio.wait_for(go.wait(), LIMIT)
            await self.said(peer, heard)

        async with h2_serving(late, self.context(folder, "h2")) as tasks:
            port = await before(stand, tasks, service(folder))
            client = await stand.client(port)
            await client.request()
            await tasks.asked()
            port.target.update_endpoints([])
            go.set()
            assert (await client.response())[0] == 200
            await tasks.peers[0].over()

    async def test_one_that_is_not_believed(self, stand: Stand, folder: Path) -> None:
        async with h2_serving(self.said, self.context(folder, "h2")) as tasks:
            http = replace(service(folder), tls_name="other")
            client = await stand.client(await before(stand, tasks, http))
            await client.request()
            assert (await client.response())[0] == 502
            assert tasks.requests.empty()
