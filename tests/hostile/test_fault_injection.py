"""A fault of ours in any callback of a connection: nobody else notices, and nothing of it is left.

Every method that a scenario calls is made to raise once, before it does its work and after. Whatever that
breaks, the client is told or closed, every slot, descriptor and client is given back, and a good service
beside it, on the same listener, is answered throughout.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from h2.exceptions import ProtocolError

from mesh.http.downstream.h1_connection import H1Client
from mesh.http.downstream.h2_connection import H2Client, H2Request
from mesh.http.downstream.listener import HttpListener
from mesh.http.endpoint_pool import HttpEndpointPool, PooledEndpoint
from mesh.http.exchange import Exchange
from mesh.http.h2_transport import H2Connection, H2StreamWriter
from mesh.http.middleware.kinds.compress import CompressFilter
from mesh.http.middleware.kinds.errors import ErrorPageFilter
from mesh.http.middleware.runner import MiddlewareRunner
from mesh.http.routing.router import RequestRouter
from mesh.http.tls.certificate_store import TlsCertificates
from mesh.http.tls.handshake_base import TlsAccept
from mesh.http.tls.server_handshake import ServerHandshake
from mesh.http.upstream.h1_connection import H1Upstream
from mesh.http.upstream.h2_connection import H2Link, H2Upstream
from mesh.http.upstream.routed_service import RoutedTarget
from mesh.http.upstream.subrequest import Subrequest
from mesh.internal_errors import ERRORS
from mesh.net.bound_listener import listen
from mesh.relay.splice import Direction, SpliceRelay
from mesh.relay.tcp_connection import RelayConnection, RelayOptions
from mesh.relay.tcp_port import TcpPort, plain_socket
from mesh.relay.tcp_proxy import TcpProxy
from tests.http.conftest import (
    MIDDLEWARE,
    ROUTER,
    SERVICE,
    Conversation,
    Stand,
    World,
    routed,
    saying,
    serving,
)
from tests.http.h2_peer import Heard, Peer, h2_client, h2_serving
from tests.http.tls.test_certificate_store import connect, front, in_one_file
from tests.support.waiting import until

HTTP1 = (
    HttpListener,
    H1Client,
    H1Upstream,
    Exchange,
    RoutedTarget,
    HttpEndpointPool,
    PooledEndpoint,
    RequestRouter,
    MiddlewareRunner,
)
HTTP2 = (H2Client, H2Request, H2Connection, H2StreamWriter, H2Link, H2Upstream, *HTTP1)
AROUND = (Subrequest, CompressFilter, ErrorPageFilter, *HTTP1)
RELAY = (RelayConnection, SpliceRelay, Direction, TcpProxy)

# What ends a connection or an exchange. That these few lines work is what everything else rests on.
ENDS = {"on_fault", "occupy", "over", "close", "_close", "stop_clock", "_release", "_count", "on_lost"}
ENDS |= {"_end_requests", "_break_all", "_on_connection_end", "_release_address", "_check_empty"}
ENDS |= {"_release_socket"}
# Their last step hands the connection over: nothing of theirs is left that could fail.
LAST = {"_on_accepted", "_start", "_begin", "_serve", "on_http2"}
# Asked by who looks at it from outside, so not in a callback of a connection; or the test's own.
ASKED = {"start", "update", "update_endpoints", "serving", "endpoints", "stats", "problems"}


TOLD_SECONDS = 5.0  # in which a client is answered, or its connection closed


class Injected(Exception):
    """The fault."""


Method = tuple[type[Any], str]


def methods_of(classes: tuple[type[Any], ...]) -> Iterator[tuple[Method, Callable[..., Any]]]:
    for one in dict.fromkeys(classes):
        for name, value in vars(one).items():
            plain = (
                callable(value) and not name.startswith("__") and not isinstance(value, type | staticmethod)
            )
            if plain and name not in ENDS | ASKED:
                yield (one, name), value


@contextmanager
def seen_methods(classes: tuple[type[Any], ...]) -> Iterator[set[Method]]:
    """Those that are called meanwhile."""
    called: set[Method] = set()
    originals = dict(methods_of(classes))

    def noting(key: Method, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **named: Any) -> Any:
            called.add(key)
            return original(*args, **named)

        return call

    for key, original in originals.items():
        setattr(*key, noting(key, original))
    try:
        yield called
    finally:
        for key, original in originals.items():
            setattr(*key, original)


@contextmanager
def raising(key: Method, *, after: bool) -> Iterator[None]:
    """The method raises at its next call, and only at that."""
    original = vars(key[0])[key[1]]
    left = [1]

    def call(*args: Any, **named: Any) -> Any:
        fails, left[0] = left[0], 0
        if fails and not after:
            raise Injected(f"{key[0].__name__}.{key[1]}")
        result = original(*args, **named)
        if fails:
            raise Injected(f"{key[0].__name__}.{key[1]}, after its work")
        return result

    setattr(*key, call)
    try:
        yield
    finally:
        setattr(*key, original)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@dataclass
class Place:
    """What is tried: a scenario with a client of its own, a good one beside it, and what may be left over."""

    scenario: Callable[[], Awaitable[None]]
    good: Callable[[], Awaitable[None]]
    busy: Callable[[], int]  # clients and slots that are not free
    reset: Callable[[], None] = lambda: None  # what an endpoint's failures have led to
    held: Callable[[], int] = descriptors  # sockets


async def inject_everywhere(place: Place, classes: tuple[type[Any], ...]) -> None:
    await place.good()
    with seen_methods(classes) as called:
        await place.scenario()
    await until(lambda: not place.busy())
    assert len(called) > 10
    place.reset()
    await until(lambda: not place.busy())
    before = place.held()
    for key in sorted(called, key=lambda one: (one[0].__name__, one[1])):
        for after in (False, True) if key[1] not in LAST else (False,):
            what = f"after a fault in {key[0].__name__}.{key[1]}, {'after' if after else 'before'} its work"
            with raising(key, after=after):
                try:
                    async with asyncio.timeout(TOLD_SECONDS):
                        with suppress(AssertionError, OSError, EOFError, ProtocolError, ValueError):
                            await place.scenario()
                except TimeoutError:
                    pytest.fail(f"the client waits for ever {what}")
            await place.good()
            place.reset()
            await until(lambda: not place.busy(), f"a client or a slot is left {what}", TOLD_SECONDS)
            await until(lambda: place.held() <= before, f"a descriptor is left {what}", TOLD_SECONDS)


@pytest.fixture(autouse=True)
def _no_faults_before() -> Iterator[None]:
    ERRORS.clear()
    yield
    ERRORS.clear()


def echoing(text: str) -> Callable[[Conversation], Awaitable[None]]:
    """Answers GET with a length, POST with what it was sent, in chunks."""

    async def endpoint(one: Conversation) -> None:
        while head := await one.head():
            if head.startswith("POST"):
                body = await one.chunks() if "chunked" in head.lower() else await one.read(100_000)
                await one.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                await one.say(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
            elif "/upgrade" in head:
                await one.say("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
                await one.say(await one.read(3))
                return
            else:
                await one.say(f"HTTP/1.1 200 OK\r\nContent-Length: {len(text)}\r\n\r\n{text}")

    return endpoint


def servers(world: World) -> Iterator[PooledEndpoint]:
    """All endpoints, also of services that are asked before a request goes on."""
    for target in (*world.site.targets(), *world.site._lookup._targets):
        yield from target.backend.servers.values()


def slots(world: World) -> int:
    """Clients, and requests under way at endpoints, that are not over."""
    under_way = sum(server.active for server in servers(world))
    return under_way + sum(front.active for front in world.fronts.values())


def forget_endpoints(world: World) -> None:
    """Idle connections, and what is known of endpoints: a fault is not to be seen in the next try."""
    for server in servers(world):
        server.forget_idle()
        for link in tuple(server.links):
            link.retire()
            link.on_lost()  # it would wait for the task to have read its last word
        server.backend.health.succeeded(server.endpoint)


async def requests_over_h1(world: World) -> None:
    client = await world.client()
    try:
        for _ in range(2):
            await client.request(first="GET /a HTTP/1.1")
            await client.response()
        await client.request("Transfer-Encoding: chunked", first="POST /b HTTP/1.1", body=b"3\r\nabc\r\n")
        await client.say(b"0\r\n\r\n")
        await client.response()
        await client.request("Content-Length: 100000", first="POST /c HTTP/1.1", body=b"x" * 50_000)
        await client.say(b"y" * 50_000)
        await client.response()
        await client.say(
            "GET /d HTTP/1.1\r\nHost: a.example\r\n\r\nGET /e HTTP/1.1\r\nHost: a.example\r\n\r\n"
        )
        await client.response()
        await client.response()
        await client.request("Connection: upgrade", "Upgrade: x", first="GET /upgrade HTTP/1.1")
        await client.head()
        await client.say("abc")
        await client.read(3)
    finally:
        client.close()


async def good_over_h1(world: World) -> None:
    assert (await world.get("good.example/"))[0] == 200


@asynccontextmanager
async def stage(world: World, labels: dict[str, str] | None = None) -> AsyncIterator[World]:
    async with serving(echoing("bad")) as bad, serving(saying("good")) as good:
        more = labels or {}
        world.put("bad", routed("a", "Host(`a.example`)", bad.endpoint.port) | more, bad)
        world.put("good", routed("g", "Host(`good.example`)", good.endpoint.port), good)
        yield world


async def test_http_1(world: World) -> None:
    async with stage(world):
        place = Place(
            lambda: requests_over_h1(world),
            lambda: good_over_h1(world),
            lambda: slots(world),
            lambda: forget_endpoints(world),
        )
        await inject_everywhere(place, HTTP1)
        assert ERRORS.counts.total() > 50


async def test_middlewares(world: World) -> None:
    """Who asks somebody else first, and who changes responses."""

    async def auth(one: Conversation) -> None:
        while await one.head():
            await one.say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    async def failing(one: Conversation) -> None:
        while head := await one.head():
            status = "500 No" if "/fails" in head else "200 OK"
            fields = "Content-Type: text/plain\r\nContent-Length: 3000"
            await one.say(f"HTTP/1.1 {status}\r\n{fields}\r\n\r\n" + "x" * 3000)

    async with stage(world), serving(auth, "127.0.0.7") as asked, serving(failing) as bad:
        labels = routed("m", "Host(`m.example`)", bad.endpoint.port)
        labels[f"{ROUTER}.m.middlewares"] = "au,er,co,li"
        labels[f"{MIDDLEWARE}.au.forwardauth.address"] = f"http://auth:{asked.endpoint.port}/"
        labels[f"{MIDDLEWARE}.er.errors.status"] = "500"
        labels[f"{MIDDLEWARE}.er.errors.service"] = "a"
        labels[f"{MIDDLEWARE}.er.errors.query"] = "/page"
        labels[f"{MIDDLEWARE}.co.compress"] = "true"
        labels[f"{MIDDLEWARE}.li.inflightreq.amount"] = "3"
        labels[f"{SERVICE}.m.loadbalancer.passhostheader"] = "true"
        world.put("auth", {}, asked)
        world.put("m", labels, bad)

        async def scenario() -> None:
            client = await world.client()
            try:
                for path in ("/a", "/fails", "/b"):
                    head = f"GET {path} HTTP/1.1\r\nHost: m.example\r\nAccept-Encoding: gzip\r\n\r\n"
                    await client.say(head)
                    await client.response()
            finally:
                client.close()

        async def good() -> None:
            await good_over_h1(world)
            assert (await world.get("m.example/"))[0] == 200  # no place among three is lost

        place = Place(scenario, good, lambda: slots(world), lambda: forget_endpoints(world))
        await inject_everywhere(place, AROUND)


async def send(client: Peer, heard: Heard, data: bytes) -> None:
    """All of it, as long as somebody takes it."""
    window = client.h2.local_flow_control_window
    while data:
        await client.until(lambda: heard.reset is not None or client.ended or window(heard.id) > 0)
        if heard.reset is not None or client.ended:
            return
        most = min(window(heard.id), client.h2.max_outbound_frame_size)
        client.h2.send_data(heard.id, data[:most], end_stream=len(data) <= most)
        data = data[most:]
        client.push()


async def test_http_2_on_both_sides(world: World) -> None:
    async def endpoint(peer: Peer, heard: Heard) -> None:
        await peer.until(lambda: heard.ended)
        peer.respond(heard.id)
        await peer.send(heard.id, bytes(heard.body) or b"bad", end=True)

    async with stage(world), h2_serving(endpoint) as tasks:
        labels = routed("h", "Host(`h.example`)", tasks.endpoint.port)
        labels[f"{SERVICE}.h.loadbalancer.server.scheme"] = "h2c"
        world.put("h", labels, tasks)

        async def scenario() -> None:
            client = await h2_client(world.fronts["web"].address)
            try:
                for host in ("h.example", "a.example"):
                    one = client.ask(authority=host, path="/a")
                    await client.whole(one)
                    posted = client.ask(method="POST", authority="h.example", end=False)
                    await send(client, posted, b"x" * 100_000)
                    await client.whole(posted)
            finally:
                await client.close()

        place = Place(
            scenario,
            lambda: good_over_h1(world),
            lambda: slots(world),
            lambda: forget_endpoints(world),
            # The tasks' side keeps sockets that we have closed.
            lambda: len(world.stand.core.poller._handlers),
        )
        await inject_everywhere(place, HTTP2)


async def test_one_stream_of_http_2_costs_the_others_nothing(world: World) -> None:
    """A connection is shared by many requests, toward a task even by those of many clients."""

    async def endpoint(peer: Peer, heard: Heard) -> None:
        await peer.until(lambda: heard.ended)
        peer.respond(heard.id)
        await peer.send(heard.id, bytes(heard.body) or b"ok", end=True)

    async with h2_serving(endpoint) as tasks:
        labels = routed("h", "Host(`h.example`)", tasks.endpoint.port)
        labels[f"{SERVICE}.h.loadbalancer.server.scheme"] = "h2c"
        world.put("h", labels, tasks)
        client = await h2_client(world.fronts["web"].address)
        waiting = client.ask(method="POST", authority="h.example", end=False)
        await client.send(waiting.id, b"a" * 1000)
        for key in (
            (H2Upstream, "on_headers"),
            (H2Upstream, "on_data"),
            (H2Request, "start"),
            (H2Request, "respond"),
        ):
            with raising(key, after=False):
                hurt = client.ask(authority="h.example")
                await client.until(lambda hurt=hurt: hurt.ended or hurt.reset is not None)  # type: ignore[misc]
        await client.send(waiting.id, b"b" * 1000, end=True)
        await client.whole(waiting)
        assert waiting.status == 200
        assert len(waiting.body) == 2000
        await client.close()
    await until(lambda: not slots(world))


@pytest.mark.parametrize("version", ["", "v1"], ids=["plain", "with a PROXY header"])
async def test_relayed_connections(stand: Stand, version: str) -> None:
    async def echo(one: Conversation) -> None:
        while data := await one.reader.read(65536):
            await one.say(data)

    async with serving(echo) as tasks:
        # The header is a part of what is echoed; only the number of bytes is looked at.
        options = RelayOptions(proxy_protocol=version)
        port = TcpPort(listen("127.0.0.1", 0), [tasks.endpoint], options, plain_socket)

        async def talk() -> None:
            reader, writer = await asyncio.open_connection(*port.address)
            one = Conversation(reader, writer)
            try:
                for size in (10, 1_000_000):
                    sending = asyncio.create_task(one.say(b"x" * size))
                    try:
                        await one.read(size)
                    finally:
                        await asyncio.gather(sending, return_exceptions=True)
            finally:
                one.close()

        place = Place(talk, talk, lambda: port.stats.active + sum(one.active for one in port.seen()))
        await inject_everywhere(place, RELAY)
        await port.close()


async def test_tls(stand: Stand, tmp_path: Path) -> None:
    in_one_file(tmp_path, "a.pem", "a.example")
    certificates = TlsCertificates(str(tmp_path))
    certificates.refresh()
    tasks = await stand.endpoint(saying("good"))
    port = await stand.port(tasks.endpoint)
    async with front(stand, port, certificates) as secured:

        async def talk() -> None:
            one = await connect(secured, "a.example")
            try:
                for _ in range(2):
                    await one.request(first="GET /x HTTP/1.1")
                    assert (await one.response())[2] == b"good /x"
            finally:
                one.close()

        (server,) = port.target.backend.servers.values()

        def reset() -> None:
            server.forget_idle()
            server.backend.health.succeeded(server.endpoint)

        place = Place(talk, talk, lambda: secured.active + server.active, reset)
        await inject_everywhere(place, (ServerHandshake, TlsAccept, *HTTP1))
