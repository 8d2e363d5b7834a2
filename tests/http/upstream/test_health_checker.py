"""Active checks through real sockets: who gets requests after what they found."""

import asyncio
import logging
from collections.abc import Callable

import pytest

from mesh.balance.health_state import FALL
from mesh.http.limits import CHECKS_AT_ONCE
from mesh.http.upstream.subrequest import Subrequest
from tests.http.conftest import LIMIT, SERVICE, Conversation, Tasks, World, routed
from tests.http.h2_peer import Heard, Peer, h2_serving


class App:
    """Says its name, and at /health what it is told to say, if anything."""

    def __init__(self, name: str, health: int = 200) -> None:
        self.name = name
        self.health = health
        self.checks: list[str] = []
        self.checked = asyncio.Event()

    async def __call__(self, one: Conversation) -> None:
        while head := await one.head():
            if "User-Agent: mesh-probe\r\n" in head:
                self.checks.append(head)
                self.checked.set()
                await self.answer_check(one, head)
            else:
                await self.say(one, 200)

    async def answer_check(self, one: Conversation, head: str) -> None:
        if self.health == 0:
            await one.rest()
        await self.say(one, self.health)

    async def say(self, one: Conversation, status: int) -> None:
        await one.say(f"HTTP/1.1 {status} X\r\nContent-Length: {len(self.name)}\r\n\r\n{self.name}")


class Site:
    """A service `s` at a.example, of such applications."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.tasks: list[Tasks] = []
        self.labels: dict[str, str] = {}

    async def put(self, *apps: App, **check: str) -> None:
        check = {"path": "/health", "interval": "100ms", "timeout": "100ms"} | check
        for number, app in enumerate(apps, 1):
            port = self.tasks[0].endpoint.port if self.tasks else 0
            self.tasks.append(await self.world.stand.endpoint_at(f"127.0.0.{number}", port, app))
        self.labels = routed("s", "Host(`a`)", self.tasks[0].endpoint.port) | {
            f"{SERVICE}.s.loadbalancer.healthcheck.{option}": text for option, text in check.items()
        }
        self.world.put("s", self.labels, *self.tasks)

    @property
    def unwell(self) -> dict[str, str]:
        return {one.address: str(why) for one, why in self.world.site.unwell("s").items()}

    async def until(self, unwell: dict[str, str]) -> None:
        await _until(lambda: self.unwell == unwell)

    async def who(self, count: int = 6) -> set[str]:
        return {(await self.world.get("a/"))[2] for _ in range(count)}

    @property
    def checks(self) -> dict[str, int]:
        return dict(self.world.stand.core.stats_of("s").checks)


@pytest.fixture
async def site(world: World) -> Site:
    return Site(world)


@pytest.mark.parametrize(("health", "why"), [(503, "status"), (0, "timeout")])
async def test_who_fails_gets_no_request_until_it_is_well(site: Site, health: int, why: str) -> None:
    first, second = App("first"), App("second")
    await site.put(first, second)
    assert await site.who() == {"first", "second"}
    first.health = health
    await site.until({"127.0.0.1": why})
    assert await site.who() == {"second"}
    assert site.checks[why] >= FALL
    assert [problem.message for problem in site.world.site.problems()] == [
        f"task at {site.tasks[0].endpoint} does not pass its check ({why})"
    ]
    first.health = 204
    await site.until({})
    assert await site.who() == {"first", "second"}


async def test_where_all_fail_all_get_requests_and_the_log_says_so(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    apps = App("first", 500), App("second", 404)
    with caplog.at_level(logging.INFO, "mesh.http.upstream.health_checker"):
        await site.put(*apps)
        await site.until({"127.0.0.1": "status", "127.0.0.2": "status"})
        assert "s: no task passes its check, so all get requests" in caplog.messages
        assert await site.who() == {"first", "second"}
        apps[0].health = 200
        await site.until({"127.0.0.2": "status"})
    assert "s: there are tasks again that pass their check" in caplog.messages
    assert await site.who() == {"first"}


async def test_a_new_task_has_to_pass_first(site: Site) -> None:
    first, second = App("first"), App("second", 503)
    await site.put(first)
    second_at = await site.world.stand.endpoint_at("127.0.0.2", site.tasks[0].endpoint.port, second)
    site.world.put("s", site.labels, *site.tasks, second_at)
    assert site.unwell == {"127.0.0.2": "None"}
    assert await site.who() == {"first"}
    await site.until({"127.0.0.2": "status"})
    second.health = 0
    await site.until({"127.0.0.2": "timeout"})
    second.health = 200
    await site.until({})
    assert await site.who() == {"first", "second"}


async def test_that_the_only_task_is_replaced_is_no_alarm(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = App("first"), App("second")
    await site.put(first)
    second_at = await site.world.stand.endpoint_at("127.0.0.2", site.tasks[0].endpoint.port, second)
    site.world.put("s", site.labels, second_at)
    assert await site.who(1) == {"second"}  # rather than nobody
    await site.until({})
    assert not [one for one in caplog.records if one.levelno >= logging.WARNING]


async def test_a_cookie_holds_nobody_at_a_task_that_fails(site: Site) -> None:
    first, second = App("first"), App("second")
    await site.put(first, second)
    site.world.put("s", site.labels | {f"{SERVICE}.s.loadbalancer.sticky.cookie.name": "lb"}, *site.tasks)
    _, fields, name = await site.world.get("a/")
    cookie = "Cookie: " + fields["set-cookie"].split(";")[0]
    assert {(await site.world.get("a/", cookie))[2] for _ in range(4)} == {name}
    held, other = (first, second) if name == "first" else (second, first)
    held.health = 503
    await _until(lambda: bool(site.unwell))
    assert (await site.world.get("a/", cookie))[2] == other.name


async def test_a_port_of_its_own_a_host_and_fields(site: Site) -> None:
    app, health = App("app", 503), App("health")
    beside = await site.world.stand.endpoint_at("127.0.0.1", 0, health)
    more = {"headers.X-Key": "k", "hostname": "app.example", "port": str(beside.endpoint.port)}
    await site.put(app, path="/up?x", method="head", **more)
    health.name = ""  # HEAD has no body
    await asyncio.wait_for(health.checked.wait(), LIMIT)
    first, *lines = health.checks[0].split("\r\n")[:-2]
    assert first == "HEAD /up?x HTTP/1.1"
    assert lines == ["Host: app.example", "User-Agent: mesh-probe", "X-Key: k"]
    assert app.checks == []


async def test_redirects_lead_to_the_answer_and_not_round_and_round(site: Site) -> None:
    class Moved(App):
        async def answer_check(self, one: Conversation, head: str) -> None:
            to = "/health" if self.health == 302 else "/up"
            if " /up " in head and self.health != 302:
                await self.say(one, self.health)
            else:
                await one.say(f"HTTP/1.1 302 X\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n")

    moved, other = Moved("moved"), App("other")
    await site.put(moved, other, status="200")
    moved.health = 404
    await site.until({"127.0.0.1": "status"})
    moved.health = 200
    await site.until({})
    moved.health = 302
    await site.until({"127.0.0.1": "status"})


async def test_nothing_is_left_of_a_service_that_goes(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither clocks nor connections, nor a place among those that are asked at once."""
    app = App("app", 0)
    await site.put(app, App("other"), timeout="9s")
    await asyncio.wait_for(app.checked.wait(), LIMIT)
    before = site.world.stand.core.checking._left
    asked: list[Subrequest] = []
    monkeypatch.setattr(Subrequest, "ask", lambda self, *_: asked.append(self))
    site.world.put("s", {})
    assert site.world.stand.core.checking._left > before
    assert site.world.stand.core.checking._left == CHECKS_AT_ONCE
    assert site.unwell == {}
    assert asked == []


async def test_so_many_at_once_and_the_others_later(site: Site) -> None:
    core = site.world.stand.core
    taken = 0
    while core.checking.take():
        taken += 1
    app = App("app")
    await site.put(app)
    assert (await site.world.get("a/"))[2] == "app"
    assert app.checks == []
    for _ in range(taken):
        core.checking.give_back()
    await asyncio.wait_for(app.checked.wait(), LIMIT)


async def test_checks_of_a_service_that_does_not_answer_leave_places_for_others(site: Site) -> None:
    checks = site.world.stand.core.checks
    while checks.take("silent"):
        pass
    app = App("app")
    await site.put(app)
    await asyncio.wait_for(app.checked.wait(), LIMIT)


@pytest.mark.parametrize(("status", "unwell"), [(1, False), (2, True)])
async def test_a_grpc_server_is_asked_over_http_2(world: World, status: int, unwell: bool) -> None:
    async def serve(peer: Peer, heard: Heard) -> None:
        await peer.until(lambda: heard.ended)
        assert (heard.get(":path"), bytes(heard.body)) == ("/grpc.health.v1.Health/Check", bytes(5))
        peer.respond(heard.id, ("content-type", "application/grpc"))
        await peer.send(heard.id, b"\0\0\0\0\2\x08" + bytes([status]))
        peer.trailers(heard.id, ("grpc-status", "0"))

    async with h2_serving(serve) as one:
        labels = routed("s", "Host(`a`)", one.endpoint.port) | {
            f"{SERVICE}.s.loadbalancer.healthcheck.mode": "grpc",
            f"{SERVICE}.s.loadbalancer.healthcheck.interval": "100ms",
        }
        world.put("s", labels, one)
        stats = world.stand.core.stats_of("s")

        def seen() -> bool:
            return stats.checks["status" if unwell else "well"] >= FALL

        await _until(seen)
        assert bool(world.site.unwell("s")) is unwell
        assert set(stats.checks) == {"status" if unwell else "well"}
        assert one.faults == []
        world.put("s", {})


async def _until(check: Callable[[], bool]) -> None:
    async with asyncio.timeout(LIMIT):
        while not check():
            await asyncio.sleep(0.01)


async def test_a_host_that_is_none_fails_the_check_and_nothing_else(site: Site) -> None:
    await site.put(App("app"), App("other"), hostname="a:b:c")
    await site.until({"127.0.0.1": "broken", "127.0.0.2": "broken"})
    assert await site.who() == {"app", "other"}
