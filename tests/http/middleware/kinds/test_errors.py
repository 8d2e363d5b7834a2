"""Pages of another service in place of errors, the application's and our own; and what happens without."""

import asyncio
from dataclasses import replace

import pytest

from mesh.catalog.snapshot import Change
from tests.http.conftest import LIMIT, MIDDLEWARE, SERVICE, Conversation, Handler, World, routed

PAGE = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nETag: x\r\nContent-Length: 6\r\n\r\n<page>"


def saying(response: str, heads: list[str]) -> Handler:
    async def endpoint(one: Conversation) -> None:
        while head := await one.head():
            heads.append(head)
            await one.say(response)

    return endpoint


async def with_pages(
    world: World, response: str, page: str = PAGE, middlewares: str = "errors", **labels: str
) -> list[str]:
    """An application that answers so; the heads that the pages' service gets."""
    return await with_endpoint(world, saying(response, []), page, middlewares, **labels)


async def with_endpoint(
    world: World, handler: Handler, page: str = PAGE, middlewares: str = "errors", **labels: str
) -> list[str]:
    heads: list[str] = []
    app = await world.stand.endpoint(handler)
    pages = await world.stand.endpoint(saying(page, heads))
    world.put("pages", {f"{SERVICE}.pages.loadbalancer.server.port": str(pages.endpoint.port)}, pages)
    errors = {
        "status": "404,500-599",
        "service": "pages@swarm",
        "query": "/{status}.html?from={url}",
    } | labels
    world.put(
        "app",
        routed("app", "Host(`a`)", app.endpoint.port, middlewares=middlewares)
        | {f"{MIDDLEWARE}.errors.errors.{name}": value for name, value in errors.items()}
        | {
            f"{MIDDLEWARE}.fields.headers.customresponseheaders.X-Frame-Options": "DENY",
            f"{MIDDLEWARE}.nobody.ipallowlist.sourcerange": "192.0.2.1",
            f"{MIDDLEWARE}.nobody.ipallowlist.rejectstatuscode": "404",
        },
        app,
    )
    return heads


@pytest.mark.parametrize(
    "body",
    [
        "Content-Length: 4\r\n\r\noops",
        "Transfer-Encoding: chunked\r\n\r\n4\r\noops\r\n0\r\n\r\n",
        "Content-Length: 0\r\n\r\n",
        f"Content-Length: 200000\r\n\r\n{'x' * 200_000}",
    ],
)
async def test_a_page_in_place_of_a_response(world: World, body: str) -> None:
    said = "ETag: y\r\nSet-Cookie: a=b\r\nRetry-After: 5\r\nContent-Type: text/plain"
    heads = await with_pages(world, f"HTTP/1.1 503 No\r\n{said}\r\n{body}")
    client = await world.client()
    for _ in range(2):  # the connections go on
        asked = (
            "Cookie: s=1",
            "Authorization: x",
            "If-None-Match: *",
            "Range: bytes=0-1",
            "Accept-Language: de",
        )
        lines = "\r\n".join(("POST /x?y=1 HTTP/1.1", "Host: a", *asked, "Transfer-Encoding: chunked"))
        await client.say(f"{lines}\r\n\r\n1\r\n.\r\n0\r\n\r\n")
        status, fields, got = await client.response()
        assert (status, got) == (503, b"<page>")
        assert fields == {
            "content-type": "text/html",
            "etag": "x",
            "set-cookie": "a=b",
            "retry-after": "5",
            "content-length": "6",
        }
    first, *rest = heads[0].split("\r\n")[:-2]
    assert first == "GET /503.html?from=%2Fx%3Fy%3D1 HTTP/1.1"
    names = {line.partition(":")[0].lower() for line in rest}
    assert {"host", "accept-language", "x-request-id", "x-forwarded-for"} <= names
    assert not names & {"cookie", "authorization", "if-match", "range", "transfer-encoding"}


@pytest.mark.parametrize("status", ["200 OK", "403 No", "304 Not Modified"])
async def test_other_responses_are_not_touched(world: World, status: str) -> None:
    body = "" if status.startswith("304") else "Content-Length: 2\r\n\r\nok"
    heads = await with_pages(
        world, f"HTTP/1.1 {status}\r\n{body or chr(13) + chr(10)}", status="404,304,500-599"
    )
    got, _, text = await world.get("a/")
    assert (got, text, heads) == (int(status[:3]), body[-2:], [])


async def test_a_page_in_place_of_our_own_answer(world: World) -> None:
    heads = await with_pages(world, "HTTP/1.1 nonsense\r\n\r\n")
    status, _, body = await world.get("a/")
    assert (status, body) == (502, "<page>")
    world.change(Change(services={"app": _without_tasks(world)}))
    status, _, body = await world.get("a/")
    assert (status, body) == (503, "<page>")
    assert [head.split(" ")[1] for head in heads] == ["/502.html?from=%2F", "/503.html?from=%2F"]


def _without_tasks(world: World):

    return replace(world.snapshot.services["app"], tasks=())


@pytest.mark.parametrize(
    ("middlewares", "replaced"),
    [("errors,nobody", True), ("nobody,errors", False), ("fields,errors,nobody", True)],
)
async def test_only_what_stands_behind_it_is_replaced(world: World, middlewares: str, replaced: bool) -> None:
    await with_pages(world, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", middlewares=middlewares)
    status, fields, body = await world.get("a/")
    assert (status, body == "<page>") == (404, replaced)
    assert ("x-frame-options" in fields) == ("fields" in middlewares)


@pytest.mark.parametrize(
    "page",
    [
        "HTTP/1.1 nonsense\r\n\r\n",
        f"HTTP/1.1 200 OK\r\nContent-Length: 999999\r\n\r\n{'x' * 999_999}",
    ],
)
@pytest.mark.parametrize(
    "coding", ["Content-Length: 4\r\n\r\noops", "Transfer-Encoding: chunked\r\n\r\n4\r\noops\r\n0\r\n\r\n"]
)
async def test_without_a_page_the_response_is_the_clients(world: World, page: str, coding: str) -> None:
    await with_pages(world, f"HTTP/1.1 500 No\r\nX-A: 1\r\n{coding}", page)
    status, fields, body = await world.get("a/")
    assert (status, body, fields["x-a"]) == (500, "oops", "1")


async def test_without_the_service_responses_go_as_they_are(world: World) -> None:
    await with_pages(world, "HTTP/1.1 500 No\r\nContent-Length: 4\r\n\r\noops", service="other")
    assert (await world.get("a/"))[::2] == (500, "oops")
    (problem,) = world.site.problems()
    assert (problem.file, problem.message) == ("app", "there is no service 'other' for error pages")


async def test_a_response_too_large_to_be_held_is_not_waited_for(world: World) -> None:
    """It would go on for ever: its connection is cut, and the page asked for."""
    cut = asyncio.Event()

    async def endpoint(one: Conversation) -> None:
        await one.head()
        await one.say("HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\n")
        try:
            while True:
                await one.say(b"1000\r\n" + b"x" * 0x1000 + b"\r\n")
        except OSError:
            cut.set()

    await with_endpoint(world, endpoint)
    assert (await world.get("a/"))[::2] == (500, "<page>")
    await asyncio.wait_for(cut.wait(), LIMIT)


async def test_a_response_that_breaks_off(world: World) -> None:
    async def endpoint(one: Conversation) -> None:
        await one.head()
        await one.say("HTTP/1.1 500 No\r\nAllow: GET\r\nX-A: b\r\nContent-Length: 10\r\n\r\noops")

    await with_endpoint(world, endpoint, "HTTP/1.1 nonsense\r\n\r\n")
    status, fields, body = await world.get("a/")
    assert (status, body.split("\n")[0]) == (500, "500 Internal Server Error")
    assert (fields["allow"], "x-a" in fields) == ("GET", False)


async def test_a_client_that_leaves_while_the_page_is_made(world: World) -> None:
    asked, dropped = asyncio.Event(), asyncio.Event()

    async def slow(one: Conversation) -> None:
        await one.head()
        asked.set()
        assert await one.rest() == b""
        dropped.set()

    await with_pages(world, "HTTP/1.1 500 No\r\nContent-Length: 4\r\n\r\noops")
    pages = await world.stand.endpoint(slow)
    world.put("pages", {f"{SERVICE}.pages.loadbalancer.server.port": str(pages.endpoint.port)}, pages)
    client = await world.client()
    await client.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    await asyncio.wait_for(asked.wait(), LIMIT)
    client.reset()
    await asyncio.wait_for(dropped.wait(), LIMIT)
    stats = world.stand.core.stats["app"]
    assert dict(stats.requests) == {(b"GET", 500): 1}, "it is counted once"


async def answers_at_once(one: Conversation) -> None:
    await one.head()
    await one.say("HTTP/1.1 500 No\r\nContent-Length: 4\r\n\r\noops")
    await one.rest()


async def test_a_client_that_is_still_sending_can_read_the_page(world: World) -> None:
    await with_endpoint(world, answers_at_once)
    client = await world.client()
    await client.say("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9000\r\n\r\nbeginning")
    status, fields, body = await client.response()
    assert (status, body, fields["connection"]) == (500, b"<page>", "close")


async def test_what_a_client_sends_while_the_page_is_made_stays_where_it_is(world: World) -> None:
    asked = asyncio.Event()

    async def slow(one: Conversation) -> None:
        await one.head()
        asked.set()
        await one.rest()

    await with_endpoint(world, answers_at_once)
    pages = await world.stand.endpoint(slow)
    world.put("pages", {f"{SERVICE}.pages.loadbalancer.server.port": str(pages.endpoint.port)}, pages)
    client = await world.client()
    body = bytes(40_000_000)  # more than sockets' buffers hold
    await client.say(f"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body) + 1}\r\n\r\n.")
    await asyncio.wait_for(asked.wait(), LIMIT)
    sending = asyncio.create_task(client.say(body))
    for _ in range(100):
        assert (await world.get("nobody/"))[0] == 404
    assert not sending.done()
    client.writer.transport.abort()
    await asyncio.gather(sending, return_exceptions=True)


async def test_head(world: World) -> None:
    heads = await with_pages(world, "HTTP/1.1 404 No\r\nContent-Length: 4\r\n\r\n")
    client = await world.client()
    for _ in range(2):
        await client.say("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
        head = await client.head()
        assert head.startswith("HTTP/1.1 404 ")
        assert "Content-Length: 6\r\n" in head
    assert len(heads) == 2
