"""Middlewares that wait, hold back and change, all at once: nothing is left of any request in the end."""

import asyncio
import random
import zlib

import pytest

from mesh.http import limits
from mesh.http.middleware.kinds.in_flight_req import InFlightLimiter
from tests.http.conftest import MIDDLEWARE, SERVICE, Conversation, Stand, World, parsed, routed

TEXT = b"<li>one of many</li>\n" * 5000
CHUNKED = "Content-Type: text/html\r\nTransfer-Encoding: chunked"


async def app(one: Conversation) -> None:
    """What the path says: a page in pieces, one that is all there, an error, nothing."""
    while head := await one.head():
        path = head.split(" ")[1]
        if path == "/pieces":
            await one.say(f"HTTP/1.1 200 OK\r\n{CHUNKED}\r\n\r\n")
            for at in range(0, len(TEXT), 7000):
                piece = TEXT[at : at + 7000]
                await one.say(b"%x\r\n%b\r\n" % (len(piece), piece))
            await one.say("0\r\n\r\n")
        elif path == "/whole":
            await one.say(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n%b"
                % (len(TEXT), TEXT)
            )
        elif path == "/error":
            await one.say("HTTP/1.1 500 No\r\nContent-Length: 4\r\n\r\noops")
        else:
            one.reset()
            return


async def says_yes(one: Conversation) -> None:
    while await one.head():
        await one.say("HTTP/1.1 200 OK\r\nX-User: jane\r\nContent-Length: 0\r\n\r\n")


async def page(one: Conversation) -> None:
    while await one.head():
        await one.say("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<page>")


@pytest.mark.parametrize("seed", range(3))
async def test_nothing_is_left_of_any_request(world: World, stand: Stand, seed: int) -> None:
    rng = random.Random(seed)
    auth, pages, at = [await stand.endpoint(one) for one in (says_yes, page, app)]
    world.put("auth", {}, auth)
    world.put("pages", {f"{SERVICE}.pages.loadbalancer.server.port": str(pages.endpoint.port)}, pages)
    prefix = f"{MIDDLEWARE}.m"
    world.put(
        "app",
        routed("app", "Host(`a`)", at.endpoint.port, middlewares="m1,m2,m3,m4")
        | {
            f"{prefix}1.compress": "true",
            f"{prefix}2.errors.status": "500-599",
            f"{prefix}2.errors.service": "pages",
            f"{prefix}3.inflightreq.amount": "1000",
            f"{prefix}4.forwardauth.address": f"http://auth:{auth.endpoint.port}/",
        },
        at,
    )

    async def ask(path: str, leaves: float) -> None:
        client = await world.client()
        await client.say(f"GET {path} HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n")
        if leaves < 0.2:
            client.reset()
            return
        status, fields = parsed(await client.head())
        if leaves < 0.4:
            client.reset()
            return
        chunked = "transfer-encoding" in fields
        body = await client.chunks() if chunked else await client.read(int(fields["content-length"]))
        if path in ("/pieces", "/whole"):
            assert (status, zlib.decompress(body, 31)) == (200, TEXT)
        else:
            assert (status, body) == (500 if path == "/error" else 502, b"<page>")
        client.close()

    for _ in range(5):
        asked = [(rng.choice(("/pieces", "/whole", "/error", "/nothing")), rng.random()) for _ in range(20)]
        await asyncio.gather(*(ask(*one) for one in asked))
    for front in world.fronts.values():
        await front.close()
    runner = world.site._runner
    assert runner.compressors.left == limits.COMPRESSING_MAX
    assert runner.subrequests._room.left == limits.ASIDES_MAX
    handlers = world.site._prepared["app", "app"].handlers
    (in_flight,) = [one for one in handlers if isinstance(one, InFlightLimiter)]
    assert in_flight._in_flight == {}
    targets = [*world.site._targets, *world.site._lookup._targets]
    assert len(targets) == 3
    assert [server.active for one in targets for server in one.backend.servers.values()] == [0, 0, 0]


async def test_a_tunnel_through_all_of_them(world: World, stand: Stand) -> None:
    async def echo(one: Conversation) -> None:
        assert "X-User: jane\r\n" in await one.head()
        await one.say("HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
        while data := await one.reader.read(100):
            await one.say(data)

    auth, at = [await stand.endpoint(one) for one in (says_yes, echo)]
    world.put("auth", {}, auth)
    world.put(
        "app",
        routed("app", "Host(`a`)", at.endpoint.port, middlewares="m1,m2,m3")
        | {
            f"{MIDDLEWARE}.m1.compress": "true",
            f"{MIDDLEWARE}.m2.errors.status": "400-599",
            f"{MIDDLEWARE}.m2.errors.service": "app",
            f"{MIDDLEWARE}.m3.forwardauth.address": f"http://auth:{auth.endpoint.port}/",
            f"{MIDDLEWARE}.m3.forwardauth.authresponseheaders": "X-User",
        },
        at,
    )
    client = await world.client()
    upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nAccept-Encoding: gzip"
    await client.say(f"GET / HTTP/1.1\r\nHost: a\r\n{upgrade}\r\n\r\nearly")
    assert (await client.head()).startswith("HTTP/1.1 101 ")
    assert await client.read(5) == b"early"
    await client.say(TEXT)
    assert await client.read(len(TEXT)) == TEXT
    client.close()
    assert at.faults == []
