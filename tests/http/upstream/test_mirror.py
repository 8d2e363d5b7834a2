"""Copies of requests: what the mirror gets, and that nothing that becomes of them touches the requests."""

import asyncio
from dataclasses import replace

import pytest

from mesh.catalog.snapshot import Change
from mesh.http import limits
from mesh.http.upstream.mirror import Mirroring
from tests.http.conftest import LIMIT, MIDDLEWARE, STACK, Conversation, World, parsed, routed
from tests.http.h2_peer import h2_client


class Told:
    """Takes requests with their bodies, and says what it is told to."""

    def __init__(self, *answers: str) -> None:
        self.requests: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()
        self.answers = list(answers)
        self.silent = False

    async def __call__(self, one: Conversation) -> None:
        while head := await one.head():
            _, fields = parsed("X 200 Y\r\n" + head.split("\r\n", 1)[1])
            if "chunked" in fields.get("transfer-encoding", ""):
                body = await one.chunks()
            else:
                body = await one.read(int(fields.get("content-length", "0")))
            self.requests.put_nowait((head, body))
            if self.silent:
                await one.rest()
                return
            answer = self.answers.pop(0) if self.answers else "HTTP/1.1 200 X\r\nContent-Length: 2\r\n\r\nok"
            if not answer:
                return
            await one.say(answer)

    async def get(self) -> tuple[str, bytes]:
        return await asyncio.wait_for(self.requests.get(), LIMIT)


class Pair:
    """`app` at a.example, and its mirror."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.app, self.mirror = Told(), Told()

    async def put(self, percent: str = "100", **more: str) -> None:
        app = await self.world.stand.endpoint(self.app)
        mirror = await self.world.stand.endpoint(self.mirror)
        self.world.put("shadow", {"mesh.http.port": str(mirror.endpoint.port)} | STACK, mirror)
        labels = routed("s", "Host(`a`) || Host(`a.example`)", app.endpoint.port, **more) | {
            "mesh.http.services.s.mirror": "mesh-shadow",
            "mesh.http.services.s.mirror_percent": percent,
            f"{MIDDLEWARE}.strip.stripprefix.prefixes": "/old",
            f"{MIDDLEWARE}.nobody.ipallowlist.sourcerange": "10.0.0.0/8",
        }
        self.world.put("app", labels | STACK, app)

    @property
    def results(self) -> dict[str, int]:
        return dict(self.world.stand.core.stats_of("app").mirrored)

    async def until(self, results: dict[str, int]) -> None:
        async with asyncio.timeout(LIMIT):
            while self.results != results:
                await asyncio.sleep(0.01)


@pytest.fixture
async def pair(world: World) -> Pair:
    return Pair(world)


async def test_the_mirror_gets_what_the_task_got(pair: Pair) -> None:
    await pair.put(middlewares="strip")
    assert (await pair.world.get("a/old/x?y", "X-A: b"))[0] == 200
    client = await pair.world.client()
    await client.say("POST /old/z HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbo")
    await client.say("dy")
    assert (await client.response())[2] == b"ok"
    await client.say("PUT /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
    assert (await client.response())[2] == b"ok"
    got = [await pair.app.get() for _ in range(3)]
    assert [body for _, body in got] == [b"", b"body", b"abc"]
    assert got[0][0].startswith("GET /x?y HTTP/1.1\r\n")
    assert sorted(got) == sorted([await pair.mirror.get() for _ in range(3)])
    await pair.until({"answered": 3})
    assert pair.world.stand.core.stats_of("shadow").by_method() == {
        ("GET", "200"): 1,
        ("POST", "200"): 1,
        ("PUT", "200"): 1,
    }
    assert list(pair.world.site.problems()) == []


async def test_requests_of_http_2_too(pair: Pair) -> None:
    await pair.put()
    client = await h2_client(pair.world.fronts["web"].address)
    asked = [client.ask(method="POST", path=f"/{n}", end=False) for n in range(3)]
    for heard in asked:
        await client.send(heard.id, b"body", end=True)
    for heard in asked:
        assert bytes((await client.whole(heard)).body) == b"ok"
    got = [await pair.app.get() for _ in asked]
    assert sorted(got) == sorted([await pair.mirror.get() for _ in asked])
    assert {body for _, body in got} == {b"body"}
    await pair.until({"answered": 3})
    await client.close()


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "HTTP/1.1 500 X\r\nContent-Length: 2\r\n\r\nno",
        "nonsense\r\n\r\n",
        "HTTP/1.1 200 X\r\nContent-Length: 9\r\n\r\nhalf",
    ],
)
async def test_whatever_the_mirror_does_is_not_the_clients(pair: Pair, answer: str) -> None:
    pair.mirror.answers = [answer] * 3
    await pair.put()
    client = await pair.world.client()
    for _ in range(2):
        await client.say("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx")
        assert (await client.response())[2] == b"ok"
    for _ in range(2):
        assert (await pair.mirror.get())[1] == b"x"
    pair.world.site.close()  # what is under way is dropped, and not counted
    stats = pair.world.stand.core.stats_of("app")
    assert stats.faults == {}
    assert {status for (_, status) in stats.requests} == {200}


async def test_a_large_answer_of_the_mirror_is_read_and_dropped(pair: Pair) -> None:
    size = 2 * limits.ASIDE_BODY_MAX
    pair.mirror.answers = [f"HTTP/1.1 200 X\r\nContent-Length: {size}\r\n\r\n" + "x" * size]
    await pair.put()
    for _ in range(2):
        assert (await pair.world.get("a/"))[2] == "ok"
    await pair.until({"answered": 2})


async def test_a_mirror_that_is_silent_holds_nothing_up_and_not_too_many_are_asked(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MIRRORS_MAX", 2)
    pair.world.site._mirroring = Mirroring(pair.world.stand.core, pair.world.site._targets, lambda: 0.0)
    pair.mirror.silent = True
    await pair.put()
    for _ in range(5):
        assert (await pair.world.get("a/"))[2] == "ok"
    assert pair.results == {"full": 3}
    assert [(await pair.mirror.get())[1] for _ in range(2)] == [b"", b""]
    pair.world.site.close()
    assert pair.results == {"full": 3}


async def test_what_is_not_copied(pair: Pair) -> None:
    await pair.put(middlewares="nobody")
    assert (await pair.world.get("a/"))[0] == 403
    assert pair.results == {}
    pair.world.site.close()


async def test_a_large_body_is_not_copied(pair: Pair) -> None:
    await pair.put()
    body = b"x" * (limits.REPLAY_MAX + 1)
    client = await pair.world.client()
    await client.say(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
    assert (await client.response())[0] == 200
    assert pair.results == {"body": 1}
    assert pair.mirror.requests.empty()


async def test_an_upgrade_is_not_copied(pair: Pair) -> None:
    pair.app.answers = ["HTTP/1.1 426 X\r\nContent-Length: 0\r\n\r\n"]
    await pair.put()
    assert (await pair.world.get("a/", "Connection: upgrade", "Upgrade: x"))[0] == 426
    assert pair.results == {"upgrade": 1}


@pytest.mark.parametrize(("percent", "copied"), [("5", False), ("6", True), ("0", False)])
async def test_a_share_of_them(pair: Pair, percent: str, copied: bool) -> None:
    """The world draws 0.05."""
    await pair.put(percent)
    assert (await pair.world.get("a/"))[0] == 200
    if copied:
        assert (await pair.mirror.get())[0].startswith("GET / ")
    else:
        assert pair.results == {}


async def test_a_mirror_that_is_not_there_is_told(pair: Pair) -> None:
    await pair.put()
    pair.world.put("shadow", {})
    assert [problem.message for problem in pair.world.site.problems()] == [
        "'mesh-shadow' is no service; no copies are sent"
    ]
    assert (await pair.world.get("a/"))[0] == 200
    assert pair.results == {"no_endpoint": 1}


async def test_a_host_that_is_none_is_the_tasks_affair(pair: Pair) -> None:
    await pair.put(middlewares="odd")
    odd = {f"{MIDDLEWARE}.odd.headers.customrequestheaders.Host": "a b"}
    app = pair.world.snapshot.services["app"]
    labels = dict(app.labels) | odd
    pair.world.change(Change(services={"app": replace(app, labels=labels)}))
    assert (await pair.world.get("a/"))[0] == 200
    await pair.until({"failed": 1})
