"""Middlewares that hold responses, or requests, where both sides speak HTTP/2: the same as with HTTP/1.1."""

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from tests.http.conftest import LIMIT, MIDDLEWARE, SERVICE, Conversation, World, routed
from tests.http.h2_peer import H2Tasks, Handler, Heard, Peer, h2_client, h2_serving

TEXT = b'{"all": "the same, again and again"}\n' * 3000  # more than a window
GZIP = ("accept-encoding", "gzip, br")


class Both:
    """A client of HTTP/2 before a service that is asked in HTTP/2."""

    def __init__(self, world: World, stack: AsyncExitStack) -> None:
        self.world = world
        self._stack = stack

    async def service(self, name: str, handler: Handler, **labels: str) -> H2Tasks:
        tasks = await self._stack.enter_async_context(h2_serving(handler))
        service = f"{SERVICE}.{name}.loadbalancer.server"
        prefixed = {f"{MIDDLEWARE}.m.{key}".replace("__", "."): value for key, value in labels.items()}
        router = routed(
            name, "Host(`a.example`)" if name == "app" else f"Host(`{name}`)", tasks.endpoint.port
        )
        if labels:
            router["traefik.http.routers.app.middlewares"] = "m"
        self.world.put(name, router | prefixed | {f"{service}.scheme": "h2c"}, tasks)
        return tasks

    async def client(self) -> Peer:
        peer = await h2_client(self.world.fronts["web"].address)
        self._stack.push_async_callback(peer.close)
        return peer


@pytest.fixture
async def both(world: World) -> AsyncIterator[Both]:
    async with AsyncExitStack() as stack:
        yield Both(world, stack)


def saying(status: int, *fields: tuple[str, str], body: bytes = b"") -> Handler:
    async def answer(peer: Peer, heard: Heard) -> None:
        peer.respond(heard.id, *fields, status=status)
        await peer.send(heard.id, body, end=True)

    return answer


JSON = ("content-type", "application/json")


@pytest.mark.parametrize("sized", [True, False])
async def test_compressed(both: Both, sized: bool) -> None:
    length = [("content-length", str(len(TEXT)))] if sized else []
    await both.service("app", saying(200, JSON, ("etag", '"x"'), *length, body=TEXT), compress="true")
    client = await both.client()
    several = [client.ask(GZIP) for _ in range(3)]
    plain = client.ask()
    head = client.ask(GZIP, method="HEAD")
    for heard in several:
        await client.whole(heard)
        assert gzip.decompress(heard.body) == TEXT
        assert (heard.get("content-encoding"), heard.get("etag")) == ("gzip", 'W/"x"')
        assert "content-length" not in dict(heard.fields)
    assert (await client.whole(plain)).body == TEXT
    assert plain.get("vary") == "Accept-Encoding"
    assert (await client.whole(head)).body == b""
    assert head.get("content-encoding") == "gzip"


async def test_a_stream_in_both_directions_is_compressed_as_it_goes(both: Both) -> None:
    """Each thing that the client says is answered before the next, with trailers at the end."""

    async def echo(peer: Peer, heard: Heard) -> None:
        peer.respond(heard.id, ("content-type", "text/event-stream"))
        told = 0
        while not heard.ended:
            await peer.until(lambda: heard.ended or bool(heard.body))
            said = bytes(heard.body)
            heard.body.clear()
            await peer.send(heard.id, said)
            told += len(said)
        peer.trailers(heard.id, ("x-told", str(told)))

    await both.service("app", echo, compress="true")
    client = await both.client()
    heard = client.ask(GZIP, method="POST", end=False)
    decoder, got = zlib.decompressobj(31), b""
    for turn in range(5):
        said = b"data: %d\n\n" % turn
        await client.send(heard.id, said)
        got = b""
        while got != said:
            await client.until(lambda: bool(heard.body))
            got += decoder.decompress(bytes(heard.body))
            heard.body.clear()
    await client.send(heard.id, b"", end=True)
    await client.whole(heard)
    decoder.decompress(bytes(heard.body))
    assert decoder.eof
    assert heard.trailers == [("x-told", "45")]


@pytest.mark.parametrize("allowed", [True, False])
async def test_who_may_come_in(both: Both, allowed: bool) -> None:
    """A body that is more than the windows hold waits at the client's."""
    asked, go_on = asyncio.Event(), asyncio.Event()
    heads: list[str] = []

    async def auth(one: Conversation) -> None:
        heads.append(await one.head())
        asked.set()
        await go_on.wait()
        status = "200 OK\r\nX-User: jane" if allowed else "401 No"
        await one.say(f"HTTP/1.1 {status}\r\nContent-Length: 4\r\n\r\nlock")

    async def app(peer: Peer, heard: Heard) -> None:
        await peer.until(lambda: heard.ended)
        peer.respond(heard.id, ("x-got", f"{len(heard.body)} {heard.get('x-user')}"), end=True)

    at = await both.world.stand.endpoint(auth)
    both.world.put("auth", {}, at)
    tasks = await both.service(
        "app",
        app,
        forwardauth__address=f"http://auth:{at.endpoint.port}/",
        forwardauth__authresponseheaders="X-User",
    )
    client = await both.client()
    heard = client.ask(("x-user", "root"), ("te", "trailers"), method="POST", end=False)
    sending = asyncio.create_task(client.send(heard.id, bytes(600_000), end=True))
    await asyncio.wait_for(asked.wait(), LIMIT)
    assert tasks.connections == 0
    assert "\r\nX-Forwarded-Method: POST\r\n" in heads[0]
    go_on.set()
    await client.whole(heard)
    if allowed:
        await sending
        assert (heard.status, heard.get("x-got")) == (200, "600000 jane")
    else:
        sending.cancel()
        assert (heard.status, heard.body, tasks.connections) == (401, b"lock", 0)


@pytest.mark.parametrize("body", [b"", b"oops", TEXT * 5])
async def test_pages_for_errors(both: Both, body: bytes) -> None:
    await both.service("pages", saying(200, ("content-type", "text/html"), body=b"<page>"))
    await both.service(
        "app",
        saying(503, ("retry-after", "5"), body=body),
        errors__status="500-599",
        errors__service="pages",
        errors__query="/{status}",
    )
    client = await both.client()
    several = [client.ask(), client.ask(method="POST", end=False), client.ask()]
    for heard in several:
        await client.whole(heard)
        assert (heard.status, heard.body, heard.get("retry-after")) == (503, b"<page>", "5")
    again = await client.whole(client.ask())
    assert again.body == b"<page>"


async def test_who_takes_a_request_back_ends_the_question(both: Both) -> None:
    asked = asyncio.Event()
    dropped = asyncio.Event()

    async def slow(peer: Peer, heard: Heard) -> None:
        asked.set()
        await peer.until(lambda: heard.reset is not None)
        dropped.set()

    await both.service("pages", slow)
    await both.service("app", saying(503), errors__status="500-599", errors__service="pages")
    client = await both.client()
    heard = client.ask()
    await asyncio.wait_for(asked.wait(), LIMIT)
    client.reset(heard.id)
    await asyncio.wait_for(dropped.wait(), LIMIT)
    assert dict(both.world.stand.core.stats["app"].requests) == {(b"GET", 503): 1}
