"""HTTP/1 under clients and endpoints that mean harm: counted, cut off, and others are served meanwhile."""

import asyncio
import os
import resource
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import ip_network

import pytest

from mesh.http import limits
from mesh.http.codec.h1_body import SIZE_LINE_MAX, TRAILERS_MAX
from mesh.http.downstream.published_port import HttpPort
from mesh.net import acceptor
from mesh.relay.tcp_connection import RelayOptions
from tests.http.conftest import LIMIT, Conversation, Stand
from tests.support.waiting import until

OK = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
LARGE = 50_000_000
RESET = b"\1\0\0\0\0\0\0\0"


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def several(to: Conversation) -> None:
    """An endpoint with a path for each kind of harm."""
    while head := await to.head():
        match head.split(" ")[1]:
            case "/never":
                await to.rest()
                return
            case "/large":
                await to.say(f"HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n")
                for _ in range(LARGE // 100_000):
                    await to.say(bytes(100_000))
            case "/tunnel":
                await to.say("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
                await to.rest()
                return
            case _:
                await to.say(OK)


@pytest.fixture
async def port(stand: Stand) -> AsyncIterator[HttpPort]:
    """And another client, who is served before and after, on the same connection."""
    made = await stand.port((await stand.endpoint(several)).endpoint)
    other = await stand.client(made)
    await served(other)
    yield made
    await served(other)


async def served(client: Conversation) -> None:
    await client.request()
    status, _, body = await client.response()
    assert (status, body) == (200, b"ok")


def raw(port: HttpPort, data: bytes = b"") -> socket.socket:
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # or megabytes fit in it
    made.connect(port.address)
    made.sendall(data)
    made.setblocking(False)
    return made


def head(path: str, *lines: str, method: str = "GET") -> bytes:
    return "\r\n".join((f"{method} {path} HTTP/1.1", "Host: a", *lines, "", "")).encode()


class TestClients:
    async def test_a_thousand_incomplete_heads_do_not_delay_others(
        self, port: HttpPort, stand: Stand, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(limits, "HEAD_SECONDS", 0.5)
        monkeypatch.setattr(limits, "LINGER_SECONDS", 0.1)
        with ExitStack() as stack:
            for _ in range(1000):
                stack.enter_context(raw(port, b"GET / HTTP/1.1\r\nHost: a\r\nX-"))
                await asyncio.sleep(0)
            await until(lambda: port.stats.active == 1001)
            await served(await stand.client(port))
            await until(lambda: port.stats.errors["head_timeout"] == 1000)
            await until(lambda: port.stats.active <= 2)

    async def test_the_connections_of_an_address_are_limited(self, stand: Stand) -> None:
        stand.core.per_address = 20
        port = await stand.port((await stand.endpoint(several)).endpoint)
        with ExitStack() as stack:
            clients = [stack.enter_context(raw(port)) for _ in range(30)]
            await until(lambda: port.stats.errors["per_address"] == 10)
            assert port.stats.active == 20
            for one in clients[:5]:
                one.close()
            await until(lambda: port.stats.active == 15)
            await served(await stand.client(port))
        await until(lambda: port.stats.active <= 1)
        assert len(port._http_listener._addresses) == 1

    async def test_the_connections_of_a_trusted_proxy_are_not_limited(self, stand: Stand) -> None:
        stand.core.per_address = 2
        trusting = RelayOptions(trusted=(ip_network("127.0.0.0/8"),))
        port = await stand.port((await stand.endpoint(several)).endpoint, options=trusting)
        for _ in range(5):
            await served(await stand.client(port))
        assert not port.stats.errors

    async def test_a_head_that_trickles_in_is_timed_out(
        self, port: HttpPort, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(limits, "HEAD_SECONDS", 0.3)
        loop = asyncio.get_running_loop()
        with raw(port, b"GET / HTTP/1.1\r\nHost: a\r\n") as slow:
            got = b""
            async with asyncio.timeout(LIMIT):
                while not got:
                    await loop.sock_sendall(slow, b"x")
                    await asyncio.sleep(0.01)
                    try:
                        got = slow.recv(1000)
                    except BlockingIOError:
                        continue
            assert got.startswith(b"HTTP/1.1 408 ")

    async def test_pipelined_requests_stay_in_the_kernel(self, port: HttpPort) -> None:
        """It asks for ever and reads nothing: its own kernel's buffer is what fills up."""
        loop = asyncio.get_running_loop()
        with raw(port) as flood:
            some = head("/", "X-Padding: " + "y" * 8000) * 100
            for _ in range(1000):
                try:
                    async with asyncio.timeout(0.5):
                        await loop.sock_sendall(flood, some)
                except TimeoutError:
                    break
            else:
                pytest.fail("a gigabyte was taken")
            assert _held(port) <= 2 * limits.READ_BYTES

    async def test_a_client_that_reads_nothing_stops_its_endpoint(self, port: HttpPort) -> None:
        with raw(port, head("/large")):
            await until(lambda: _held(port))
            before = -1
            while (now := _read(port)) != before:  # until nothing moves any more
                before = now
                await asyncio.sleep(0.1)
            assert now < LARGE / 2
            assert _held(port) <= 2 * limits.READ_BYTES

    async def test_an_upload_that_the_endpoint_does_not_read_is_stopped(self, stand: Stand) -> None:
        go_on = asyncio.Event()

        async def endpoint(to: Conversation) -> None:
            await to.head()
            await asyncio.wait_for(go_on.wait(), LIMIT)
            await to.read(LARGE)
            await to.say(OK)

        client = await stand.before(endpoint)
        sending = asyncio.create_task(
            client.request(f"Content-Length: {LARGE}", first="POST / HTTP/1.1", body=bytes(LARGE))
        )
        (server,) = stand.port_.target.backend.servers.values()
        await until(lambda: server.active)
        (one,) = stand.port_._http_listener._clients
        exchange = one._exchange  # type: ignore[attr-defined]
        before = -1
        while (now := exchange.received) != before:  # until nothing moves any more
            before = now
            await asyncio.sleep(0.1)
        assert now < LARGE / 2
        go_on.set()
        assert (await client.response())[0] == 200
        await sending

    @pytest.mark.parametrize(
        "data",
        [
            b"GET / HTTP/1.1\r\nHost: a\r\n",
            head("/never", "Content-Length: 10", method="POST") + b"abc",
            head("/never", "Transfer-Encoding: chunked", method="POST") + b"3\r\nab",
            head("/never"),
            head("/large"),
            head("/tunnel", "Connection: upgrade", "Upgrade: x"),
            b"BAD\r\n\r\n",
            b"",
        ],
        ids=["head", "body", "chunk", "wait", "response", "tunnel", "linger", "nothing"],
    )
    async def test_a_reset_in_every_state_leaves_nothing(self, port: HttpPort, data: bytes) -> None:
        (server,) = port.target.backend.servers.values()
        server.forget_idle()
        before, asked = descriptors(), server.requests
        with ExitStack() as stack:
            clients = [stack.enter_context(raw(port, data)) for _ in range(50)]
            await until(lambda: port.stats.active == 51)
            if b"/never" in data or b"/large" in data or b"/tunnel" in data:
                await until(lambda: server.requests == asked + 50)
            for one in clients:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        await until(lambda: port.stats.active == 1)
        await until(lambda: server.active == 0)
        server.forget_idle()
        await until(lambda: descriptors() <= before)

    async def test_requests_go_on_without_free_descriptors(
        self, port: HttpPort, stand: Stand, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(acceptor, "PAUSE_SECONDS", 0.05)
        waiting = await stand.client(port)
        await waiting.request(first="GET /never HTTP/1.1")
        (server,) = port.target.backend.servers.values()
        await until(lambda: server.active == 1)
        late = socket.socket()
        late.setblocking(False)
        with no_descriptors(), late:
            late.connect_ex(port.address)
            late.setblocking(True)
            late.settimeout(LIMIT)
            await asyncio.to_thread(late.sendall, head("/"))
            late.setblocking(False)
            await until(lambda: port.stats.errors["fd_limit"] > 0)
        again = await stand.client(port)
        await served(again)


class TestEndpoints:
    @pytest.mark.parametrize(
        "said",
        [
            "HTTP/1.1 200 OK\r\n" + "X-A: b\r\n" * 20_000,
            "HTTP/1.1 200 OK\r\nX-A: " + "b" * 100_000,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;" + "x" * 2 * SIZE_LINE_MAX,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;" + "x" * 2 * SIZE_LINE_MAX + "\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + "1;xxxxxxxxxx\r\na\r\n" * 5000,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
            + "X-A: b\r\n" * (TRAILERS_MAX // 8 + 9),
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-A: "
            + "b" * 2 * TRAILERS_MAX
            + "\r\n\r\n",
            "\0" * 100_000,
        ],
        ids=[
            "fields",
            "field",
            "size line",
            "whole size line",
            "extensions",
            "trailers",
            "whole trailers",
            "nonsense",
        ],
    )
    async def test_a_response_without_an_end_is_cut_off(self, stand: Stand, said: str) -> None:
        async def endpoint(to: Conversation) -> None:
            await to.head()
            await to.say(said)
            await to.rest()

        client = await stand.before(endpoint)
        await client.request("Connection: close")
        try:
            got = await client.rest()
        except ConnectionResetError:
            got = b""
        if got:
            assert b" 502 " in got[:20] or not got.endswith(b"0\r\n\r\n")
        assert stand.port_.target.stats.faults["bad_response"] == 1
        assert stand.port_.target.backend.servers.popitem()[1].active == 0

    async def test_interim_responses_without_an_end_are_cut_off(self, stand: Stand) -> None:
        stopped = asyncio.Event()

        async def endpoint(to: Conversation) -> None:
            await to.head()
            try:
                while True:
                    await to.say("HTTP/1.1 102 Processing\r\n\r\n" * 1000)
            finally:
                stopped.set()

        client = await stand.before(endpoint)
        stand.port_.target.response_timeout = 0.3
        await client.request("Connection: close")

        async def read() -> None:
            try:
                await client.rest()
            except ConnectionResetError:
                return

        await read()
        await asyncio.wait_for(stopped.wait(), LIMIT)
        assert stand.port_.target.stats.faults["response_timeout"] == 1

    @pytest.mark.parametrize(
        ("said", "status"),
        [
            ("", 502),
            ("HTTP/1.1 200 OK\r\nConte", 502),
            ("HTTP/1.1 100 Continue\r\n\r\n", 502),
            ("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", 200),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc", 200),
            ("HTTP/1.1 200 OK\r\n\r\nabc", 200),
        ],
        ids=["nothing", "in the head", "between heads", "in the body", "in a chunk", "until close"],
    )
    async def test_a_reset_of_the_endpoint_in_every_state_reaches_the_client(
        self, stand: Stand, said: str, status: int
    ) -> None:
        async def endpoint(to: Conversation) -> None:
            await to.head()
            await to.say(said)
            if status == 200:
                await asyncio.wait_for(seen.wait(), LIMIT)
            to.reset()

        seen = asyncio.Event()
        client = await stand.before(endpoint)
        await client.request("Content-Length: 0", first="POST / HTTP/1.1")
        got = await client.head()
        while got.startswith("HTTP/1.1 100 "):
            got = await client.head()
        assert got.startswith(f"HTTP/1.1 {status} ")
        seen.set()
        if status == 200:
            try:
                rest = await client.rest()
            except ConnectionResetError:
                rest = b""
            assert not rest.endswith(b"0\r\n\r\n")
        stats = stand.port_.target.stats
        await until(lambda: stats.faults["closed"] == 1)
        assert stand.port_.target.backend.servers.popitem()[1].active == 0


def _held(port: HttpPort) -> int:
    return max((len(one._writer.held) for one in port._http_listener._clients), default=0)  # type: ignore[attr-defined]


def _read(port: HttpPort) -> int:
    """What has been read for the exchanges under way."""
    exchanges = (getattr(one, "_exchange", None) for one in port._http_listener._clients)
    return sum(one.sent for one in exchanges if one is not None)


@contextmanager
def no_descriptors() -> Iterator[None]:
    """None are left while inside."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 1, hard))
    taken = []
    try:
        try:
            while True:
                taken.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            pass
        yield
    finally:
        for one in taken:
            os.close(one)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
