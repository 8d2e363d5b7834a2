"""Endpoints that are asked in HTTP/2, by the library h2; clients of both versions before them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import h2.errors
import h2.settings
import pytest

from mesh.http.downstream.published_port import HttpPort
from tests.http.conftest import LIMIT, Conversation, Stand
from tests.http.h2_peer import H2Tasks, Handler, Heard, Peer, h2_client, h2_serving

Before = Callable[..., Awaitable[HttpPort]]


@pytest.fixture
async def before(stand: Stand) -> AsyncIterator[Before]:
    """A port in front of endpoints of HTTP/2 that do this."""
    async with AsyncExitStack() as stack:

        async def make(*handlers: Handler) -> HttpPort:
            stand.endpoints = [await stack.enter_async_context(h2_serving(one)) for one in handlers]
            port = await stand.port(*(one.endpoint for one in stand.endpoints))
            port.target.h2 = True
            return port

        yield make


async def two(port: HttpPort, stack: list[Peer]) -> Peer:
    peer = await h2_client(port.address)
    stack.append(peer)
    return peer


@pytest.fixture
async def peers() -> AsyncIterator[list[Peer]]:
    found: list[Peer] = []
    yield found
    for one in found:
        await one.close()


async def echo(peer: Peer, heard: Heard) -> None:
    await peer.until(lambda: heard.ended)
    peer.respond(heard.id, ("x-path", heard.get(":path")))
    await peer.send(heard.id, bytes(heard.body), end=True)


class TestOneByOne:
    async def test_a_request_of_http_1_becomes_one_of_http_2(self, stand: Stand, before: Before) -> None:
        heard_: list[Heard] = []

        async def endpoint(peer: Peer, heard: Heard) -> None:
            heard_.append(heard)
            peer.respond(heard.id, ("x-a", "b"), ("content-length", "2"), status=201)
            await peer.send(heard.id, b"hi", end=True)

        client = await stand.client(await before(endpoint))
        lines = ("Cookie: a=1", "Connection: x-gone", "X-Gone: 1", "X-Q: z")
        await client.request(*lines, first="GET /p?q HTTP/1.1")
        status, fields, body = await client.response()
        assert (status, fields["x-a"], body) == (201, "b", b"hi")
        assert "transfer-encoding" not in fields
        asked = dict(heard_[0].fields)
        told = {
            ":method": "GET",
            ":path": "/p?q",
            ":scheme": "http",
            ":authority": "a.example",
            "x-q": "z",
            "cookie": "a=1",
        }
        assert told.items() <= asked.items()
        assert asked["x-forwarded-for"] == "127.0.0.1"
        assert not {"connection", "x-gone", "host", "transfer-encoding"} & asked.keys()
        assert heard_[0].ended

    @pytest.mark.parametrize("size", [0, 1, 300_000, 3_000_000])
    @pytest.mark.parametrize("version", [1, 2])
    async def test_bodies_go_both_ways(
        self, stand: Stand, before: Before, peers: list[Peer], size: int, version: int
    ) -> None:
        port = await before(echo)
        body = bytes(i % 251 for i in range(size))
        if version == 1:
            client = await stand.client(port)
            sending = asyncio.create_task(
                client.request(f"Content-Length: {size}", first="POST / HTTP/1.1", body=body)
            )
            assert (await client.response())[2] == body
            await sending
        else:
            peer = await two(port, peers)
            heard = peer.ask(method="POST", end=False)
            await peer.send(heard.id, body, end=True)
            assert (await peer.whole(heard)).body == body

    async def test_trailers_go_both_ways(self, stand: Stand, before: Before, peers: list[Peer]) -> None:
        async def endpoint(peer: Peer, heard: Heard) -> None:
            assert heard.get("te") == "trailers"
            if heard.get(":path") == "/only":
                peer.respond(heard.id, ("grpc-status", "5"), ("content-type", "application/grpc"), end=True)
                return
            await peer.until(lambda: heard.ended)
            assert heard.trailers == [("x-sum", "1")]
            peer.respond(heard.id, ("content-type", "application/grpc"))
            await peer.send(heard.id, b"abc")
            peer.trailers(heard.id, ("grpc-status", "0"))

        client = await two(await before(endpoint), peers)
        heard = client.ask(("te", "trailers"), method="POST", end=False)
        await client.send(heard.id, b"12")
        client.trailers(heard.id, ("x-sum", "1"))
        await client.whole(heard)
        assert (heard.body, heard.trailers) == (b"abc", [("grpc-status", "0")])
        heard = await client.whole(client.ask(("te", "trailers"), path="/only"))
        assert (heard.get("grpc-status"), heard.body, heard.trailers) == ("5", b"", [])
        assert not stand.endpoints[0].faults

    async def test_request_and_response_bodies_can_flow_at_the_same_time(
        self, before: Before, peers: list[Peer]
    ) -> None:
        async def endpoint(peer: Peer, heard: Heard) -> None:
            peer.respond(heard.id)
            while not heard.ended:
                await peer.until(lambda: heard.ended or bool(heard.body))
                new = bytes(heard.body)
                heard.body.clear()
                await peer.send(heard.id, new)
            peer.trailers(heard.id, ("x-end", "1"))

        client = await two(await before(endpoint), peers)
        heard = client.ask(method="POST", end=False)
        await client.until(lambda: bool(heard.fields))
        for sent in (b"a", b"b", b"c"):
            await client.send(heard.id, sent)
            await client.until(lambda sent=sent: heard.body.endswith(sent))
        await client.send(heard.id, b"", end=True)
        await client.whole(heard)
        assert (heard.body, heard.trailers) == (b"abc", [("x-end", "1")])

    async def test_interim_responses_come_before_the_final_head(self, stand: Stand, before: Before) -> None:
        async def endpoint(peer: Peer, heard: Heard) -> None:
            peer.respond(heard.id, ("link", "</a>"), status=103)
            peer.respond(heard.id, ("content-length", "9"), end=True)

        client = await stand.client(await before(endpoint))
        await client.request(first="HEAD / HTTP/1.1")
        assert (await client.head()).startswith("HTTP/1.1 103 ")
        assert "content-length: 9" in await client.head()


class TestConnections:
    async def test_requests_share_a_connection(self, stand: Stand, before: Before) -> None:
        all_there = asyncio.Event()
        arrived = 0

        async def endpoint(peer: Peer, heard: Heard) -> None:
            nonlocal arrived
            arrived += 1
            if arrived == 50:
                all_there.set()
            await asyncio.wait_for(all_there.wait(), LIMIT)
            await echo(peer, heard)

        port = await before(endpoint)
        clients = [await stand.client(port) for _ in range(50)]
        for client in clients:
            await client.request()
        for client in clients:
            assert (await client.response())[0] == 200
        assert stand.endpoints[0].connections == 1

    async def test_another_connection_is_opened_when_the_endpoint_accepts_no_more_streams(
        self, stand: Stand, before: Before
    ) -> None:
        retry = asyncio.Event()

        async def endpoint(peer: Peer, heard: Heard) -> None:
            if heard.get(":path") == "/first":
                peer.h2.update_settings({h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: 2})
                peer.push()
                await echo(peer, heard)
            else:
                await asyncio.wait_for(retry.wait(), LIMIT)
                await echo(peer, heard)

        port = await before(endpoint)
        client = await stand.client(port)
        await client.request(first="GET /first HTTP/1.1")
        await client.response()
        clients = [await stand.client(port) for _ in range(3)]
        for client in clients:
            await client.request()
        tasks = stand.endpoints[0]
        await tasks.asked(4)
        retry.set()
        for client in clients:
            assert (await client.response())[0] == 200
        assert tasks.connections == 2

    async def test_a_draining_endpoint_loses_no_request(self, stand: Stand, before: Before) -> None:
        """What it has taken it answers; the rest goes to a new connection, whatever the method."""
        going = asyncio.Event()

        async def endpoint(peer: Peer, heard: Heard) -> None:
            if heard.get(":path") == "/slow":
                await peer.until(lambda: heard.ended)
                # As h2 would end the connection with it, past the library: this one is the last.
                peer.raw(b"\0\0\x08\x07\0\0\0\0\0" + heard.id.to_bytes(4, "big") + bytes(4))
                await asyncio.wait_for(going.wait(), LIMIT)
            if heard.get(":path") == "/lost" and peer is stand.endpoints[0].peers[0]:
                return  # it came too late to be looked at
            await echo(peer, heard)

        port = await before(endpoint)
        slow, lost = await stand.client(port), await stand.client(port)
        await slow.request(first="POST /slow HTTP/1.1", body=b"")
        tasks = stand.endpoints[0]
        await tasks.asked()
        await lost.request("Content-Length: 3", first="POST /lost HTTP/1.1", body=b"abc")
        assert (await lost.response())[::2] == (200, b"abc")
        going.set()
        assert (await slow.response())[0] == 200
        assert tasks.connections == 2
        await tasks.peers[0].over()  # when all was said

    async def test_a_refused_stream_goes_to_the_next_endpoint(self, stand: Stand, before: Before) -> None:
        async def refuses(peer: Peer, heard: Heard) -> None:
            peer.reset(heard.id, h2.errors.ErrorCodes.REFUSED_STREAM)

        port = await before(refuses, echo)
        client = await stand.client(port)
        for _ in range(4):
            await client.request("Content-Length: 2", first="POST / HTTP/1.1", body=b"ab")
            assert (await client.response())[::2] == (200, b"ab")
        assert port.target.stats.retries >= 1  # a request whose turn it was at the one that refuses

    async def test_the_connection_to_a_removed_endpoint_is_closed_after_its_last_stream(
        self, stand: Stand, before: Before
    ) -> None:
        retry = asyncio.Event()

        async def endpoint(peer: Peer, heard: Heard) -> None:
            await asyncio.wait_for(retry.wait(), LIMIT)
            await echo(peer, heard)

        port = await before(endpoint)
        client = await stand.client(port)
        await client.request()
        tasks = stand.endpoints[0]
        await tasks.asked()
        port.update_endpoints(())
        assert not tasks.peers[0].ended
        retry.set()
        assert (await client.response())[0] == 200
        await tasks.peers[0].over()


class TestFaults:
    async def test_a_refused_connect_is_502(self, stand: Stand, before: Before) -> None:
        port = await before()
        async with h2_serving(echo) as tasks:
            gone = tasks.endpoint
        port.update_endpoints((gone,))
        client = await stand.client(port)
        await client.request()
        status, _, body = await client.response()
        assert status == 502
        assert b"connect" in body

    async def test_an_endpoint_that_closes_at_once_is_502(self, stand: Stand, before: Before) -> None:
        port = await before()
        port.update_endpoints(((await stand.endpoint(lambda _: asyncio.sleep(0))).endpoint,))
        client = await stand.client(port)
        await client.request()
        status, _, body = await client.response()
        assert status == 502
        assert b"closed" in body

    async def test_an_endpoint_that_speaks_http_1_is_502(self, stand: Stand, before: Before) -> None:
        async def old(to: Conversation) -> None:
            await to.say("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
            await to.rest()

        port = await before()
        port.update_endpoints(((await stand.endpoint(old)).endpoint,))
        client = await stand.client(port)
        await client.request()
        status, _, body = await client.response()
        assert status == 502
        assert b"bad_response" in body

    async def test_a_reset_during_the_response_cuts_it_off(
        self, stand: Stand, before: Before, peers: list[Peer]
    ) -> None:
        async def endpoint(peer: Peer, heard: Heard) -> None:
            peer.respond(heard.id)
            await peer.send(heard.id, b"abc")
            peer.reset(heard.id)

        client = await two(await before(endpoint), peers)
        heard = await client.whole(client.ask())
        assert (heard.body, heard.reset) == (b"abc", h2.errors.ErrorCodes.INTERNAL_ERROR)

    @pytest.mark.parametrize(
        "fields",
        [
            [(":status", "99")],
            [(":status", "200"), ("a", "b\r\nc: d")],
            [(":status", "200"), ("A", "b")],
            [(":status", "200"), ("connection", "close")],
            [(":status", "200"), (":status", "200")],
            [("a", "b"), (":status", "200")],
            [(":status", "200"), ("content-length", "x")],
        ],
    )
    async def test_a_malformed_head_is_502(
        self, stand: Stand, before: Before, fields: list[tuple[str, str]]
    ) -> None:
        async def endpoint(peer: Peer, heard: Heard) -> None:
            if heard.get(":path") == "/":
                peer.h2.send_headers(heard.id, fields, end_stream=True)
                peer.push()
            else:
                await echo(peer, heard)

        port = await before(endpoint)
        client = await stand.client(port)
        await client.request()
        assert (await client.response())[0] == 502
        await client.request(first="GET /good HTTP/1.1")
        assert (await client.response())[0] == 200
        assert stand.endpoints[0].connections == 1

    async def test_a_body_of_another_length_is_an_error(
        self, stand: Stand, before: Before, peers: list[Peer]
    ) -> None:
        async def endpoint(peer: Peer, heard: Heard) -> None:
            peer.respond(heard.id, ("content-length", "5"))
            await peer.send(heard.id, b"abc", end=True)

        client = await two(await before(endpoint), peers)
        heard = await client.whole(client.ask())
        assert heard.reset == h2.errors.ErrorCodes.INTERNAL_ERROR

    async def test_an_endpoint_that_does_not_answer_times_out(self, stand: Stand, before: Before) -> None:
        quiet: list[Heard] = []

        async def endpoint(peer: Peer, heard: Heard) -> None:
            quiet.append(heard)
            await peer.until(lambda: heard.reset is not None)

        port = await before(endpoint)
        port.target.response_timeout = 0.1
        client = await stand.client(port)
        await client.request()
        status, _, body = await client.response()
        assert (status, b"response_timeout" in body) == (504, True)
        peer: H2Tasks = stand.endpoints[0]
        await peer.peers[0].until(lambda: quiet[0].reset == h2.errors.ErrorCodes.CANCEL)

    async def test_a_slow_client_slows_its_stream_and_no_other(self, stand: Stand, before: Before) -> None:
        said = 0
        size = 40_000_000

        async def endpoint(peer: Peer, heard: Heard) -> None:
            nonlocal said
            if heard.get(":path") == "/slow":
                peer.respond(heard.id, ("content-length", str(size)))
                while said < size:
                    await peer.send(heard.id, bytes(100_000))
                    said += 100_000
                await peer.send(heard.id, b"", end=True)
            else:
                await echo(peer, heard)

        port = await before(endpoint)
        slow, other = await stand.client(port), await stand.client(port)
        await slow.request(first="GET /slow HTTP/1.1")
        await slow.head()
        for _ in range(50):
            await other.request()
            assert (await other.response())[0] == 200
        assert said < size / 2
        assert len(await slow.read(size)) == size
