"""What clients notice of tasks that fail: through real sockets, labels in, responses out."""

import asyncio
from collections.abc import Callable
from time import monotonic

import pytest

from mesh.http.routing.router import RequestRouter
from tests.http.conftest import SERVICE, Conversation, Handler, Tasks, World, routed, saying
from tests.http.h2_peer import h2_client

Answer = Callable[[], int]
MESH = "mesh.http.services"


def answering(status: Answer) -> Handler:
    """Every request with the status that the function gives."""

    async def endpoint(one: Conversation) -> None:
        while await one.head():
            await one.say(f"HTTP/1.1 {status()} X\r\nContent-Length: 2\r\n\r\nme")

    return endpoint


async def tasks(world: World, *handlers: Handler) -> list[Tasks]:
    """At 127.0.0.1, .2 … on one port, as tasks of a service are."""
    found: list[Tasks] = []
    for number, handler in enumerate(handlers, 1):
        port = found[0].endpoint.port if found else 0
        found.append(await world.stand.endpoint_at(f"127.0.0.{number}", port, handler))
    return found


def left_out(site: RequestRouter, name: str) -> dict[str, str]:
    """Address → why."""
    target = next(found for route, _, found in site.routes() if route.name == name)
    assert target is not None
    health = target.backend.health
    return {
        one.address: health.why(one) for one in target.backend.servers if health.ejected_for(one, monotonic())
    }


async def statuses(world: World, count: int) -> list[int]:
    return [(await world.get("a/"))[0] for _ in range(count)]


class TestTasksThatKeepFailing:
    async def test_are_left_out(self, world: World) -> None:
        both = await tasks(world, answering(lambda: 503), saying("well"))
        world.put("s", routed("s", "Host(`a`)", both[0].endpoint.port), *both)
        assert sorted(await statuses(world, 6)) == [200] * 3 + [503] * 3
        assert await statuses(world, 6) == [200] * 6
        assert left_out(world.site, "s") == {"127.0.0.1": "503"}
        assert world.stand.core.stats_of("s").ejections == 1

    async def test_500_does_not_count_unless_asked_for(self, world: World) -> None:
        both = await tasks(world, answering(lambda: 500), saying("well"))
        labels = routed("s", "Host(`a`)", both[0].endpoint.port)
        world.put("s", labels, *both)
        assert sorted(await statuses(world, 10)) == [200] * 5 + [500] * 5
        assert left_out(world.site, "s") == {}
        world.put(
            "s", labels | {f"{MESH}.s.outlier_statuses": "500", f"{MESH}.s.outlier_failures": "1"}, *both
        )
        assert (await statuses(world, 5)).count(500) == 1
        assert left_out(world.site, "s") == {"127.0.0.1": "500"}

    async def test_no_cookie_holds_a_client_there(self, world: World) -> None:
        both = await tasks(world, answering(lambda: 503), saying("well"))
        labels = routed("s", "Host(`a`)", both[0].endpoint.port)
        labels |= {f"{SERVICE}.s.loadbalancer.sticky.cookie.name": "lb"}
        world.put("s", labels, *both)
        cookies = [(await world.get("a/"))[1]["set-cookie"].split(";")[0] for _ in range(2)]
        held = [[(await world.get("a/", f"Cookie: {one}"))[0] for _ in range(4)] for one in cookies]
        assert sorted(held) == [[200] * 4, [503, 503, 200, 200]]

    async def test_a_tunnel_is_an_answer_too(self, world: World) -> None:
        async def endpoint(one: Conversation) -> None:
            if (await one.head()).startswith("GET"):
                await one.say("HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
                await one.rest()

        (task,) = await tasks(world, endpoint)
        world.put("s", routed("s", "Host(`a`)", task.endpoint.port), task)
        target = world.site._targets.get("s@service s")
        assert target is not None
        assert (await world.get("a/", "Content-Length: 0", method="POST"))[0] == 502
        assert target.backend.health.known_bad
        client = await world.client()
        await client.say("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
        assert (await client.head()).startswith("HTTP/1.1 101 ")
        assert not target.backend.health.known_bad
        client.close()

    async def test_never_all_of_them(self, world: World) -> None:
        all_three = await tasks(world, *[answering(lambda: 502)] * 3)
        labels = routed("s", "Host(`a`)", all_three[0].endpoint.port)
        labels |= {f"{SERVICE}.s.loadbalancer.passivehealthcheck.maxfailedattempts": "1"}
        world.put("s", labels, *all_three)
        assert await statuses(world, 9) == [502] * 9
        assert world.stand.core.stats_of("s").ejections >= 2

    @pytest.mark.parametrize("option", ["outlier_failures", "outlier_share"])
    async def test_nobody_is_where_the_label_says_so(self, world: World, option: str) -> None:
        both = await tasks(world, answering(lambda: 503), saying("well"))
        labels = routed("s", "Host(`a`)", both[0].endpoint.port) | {f"{MESH}.s.{option}": "0"}
        world.put("s", labels, *both)
        assert sorted(await statuses(world, 12)) == [200] * 6 + [503] * 6


def options(name: str, **given: str) -> dict[str, str]:
    return {f"{MESH}.{name}.{option}": value for option, value in given.items()}


class Silent:
    """Takes requests and says nothing until the client is gone."""

    def __init__(self) -> None:
        self.heads: list[str] = []

    async def __call__(self, one: Conversation) -> None:
        self.heads.append(await one.head())
        assert await one.rest() == b""


class TestTimeLimits:
    async def test_streams_of_one_connection_each_have_theirs(self, world: World) -> None:
        """One gets an answer of ours, one breaks off, one goes on."""
        go_on = asyncio.Event()

        async def endpoint(one: Conversation) -> None:
            head = await one.head()
            if "/half" in head:
                await one.say("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
            if "/well" not in head:
                assert await one.rest() == b""
                return
            await go_on.wait()
            await one.say("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nwell")

        (task,) = await tasks(world, endpoint)
        labels = routed("s", "PathPrefix(`/`)", task.endpoint.port) | options("s", timeout="100ms")
        world.put("s", labels, task)
        world.put("slow", routed("slow", "Path(`/well`) && Host(`a.example`)", task.endpoint.port), task)
        client = await h2_client(world.fronts["web"].address)
        silent, half, well = (client.ask(path=path) for path in ("/silent", "/half", "/well"))
        await client.whole(silent)
        assert (silent.status, b"(timeout)" in silent.body) == (504, True)
        await client.whole(half)
        assert (half.status, half.ended, half.reset is not None) == (200, False, True)
        go_on.set()
        await client.whole(well)
        assert (well.status, bytes(well.body), client.ended) == (200, b"well", False)
        await client.close()

    async def test_a_task_that_does_not_answer_in_time_is_given_up_for_another(self, world: World) -> None:
        silent = Silent()
        both = await tasks(world, silent, saying("well"))
        labels = routed("s", "Host(`a`)", both[0].endpoint.port) | options("s", try_timeout="100ms")
        world.put("s", labels, *both)
        assert [(await world.get("a/"))[2] for _ in range(2)] == ["well /"] * 2
        assert len(silent.heads) == 1
        stats = world.stand.core.stats_of("s")
        assert (stats.retries, stats.retries_refused, sum(stats.faults.values())) == (1, 0, 0)

    @pytest.mark.parametrize("method", ["GET", "POST"])
    async def test_when_nobody_answers_in_time_the_client_is_told(self, world: World, method: str) -> None:
        """And what must not be repeated is not."""
        first, second = Silent(), Silent()
        both = await tasks(world, first, second)
        labels = routed("s", "Host(`a`)", both[0].endpoint.port)
        world.put("s", labels | options("s", try_timeout="50ms"), *both)
        status, _, body = await world.get("a/", "Content-Length: 0", method=method)
        assert (status, "(try_timeout)" in body) == (504, True)
        assert len(first.heads) + len(second.heads) == (2 if method == "GET" else 1)
        assert all(head.startswith(method) for head in first.heads + second.heads)

    async def test_silence_on_a_connection_that_served_before_counts_against_the_task(
        self, world: World
    ) -> None:
        async def once(one: Conversation) -> None:
            await one.head()
            await one.say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            await one.head()
            assert await one.rest() == b""

        both = await tasks(world, once, once)
        labels = routed("s", "Host(`a`)", both[0].endpoint.port)
        labels |= options("s", response_timeout="50ms", outlier_failures="1")
        world.put("s", labels, *both)
        assert await statuses(world, 2) == [200, 200]
        status, _, body = await world.get("a/")
        assert (status, "(response_timeout)" in body) == (504, True)
        assert list(left_out(world.site, "s").values()) == ["response_timeout"]

    @pytest.mark.parametrize("attempts", ["1", "3"])
    async def test_all_of_a_request(self, world: World, attempts: str) -> None:
        silent = Silent()
        (task,) = await tasks(world, silent)
        labels = routed("s", "Host(`a`)", task.endpoint.port)
        world.put("s", labels | options("s", timeout="50ms", attempts=attempts), task)
        status, _, body = await world.get("a/")
        assert (status, "(timeout)" in body) == (504, True)
        assert len(silent.heads) == 1
        assert world.stand.core.stats_of("s").faults == {"timeout": 1}

    async def test_a_response_that_takes_too_long_breaks_off(self, world: World) -> None:
        async def slow(one: Conversation) -> None:
            await one.head()
            await one.say("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
            assert await one.rest() == b""

        (task,) = await tasks(world, slow)
        labels = routed("s", "Host(`a`)", task.endpoint.port) | options("s", timeout="50ms")
        world.put("s", labels, task)
        client = await world.client()
        await client.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await client.head()).startswith("HTTP/1.1 200 ")
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await client.read(9)

    async def test_an_upload_that_takes_too_long(self, world: World) -> None:
        """It is not the task's failure."""

        async def reading(one: Conversation) -> None:
            await one.head()
            await one.rest()

        both = await tasks(world, reading, reading)
        labels = routed("s", "Host(`a`)", both[0].endpoint.port)
        world.put("s", labels | options("s", timeout="50ms", outlier_failures="1"), *both)
        client = await world.client()
        await client.say("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf")
        assert (await client.response())[0] == 504
        assert left_out(world.site, "s") == {}

    async def test_a_tunnel_has_no_such_limit(self, world: World) -> None:
        async def echo(one: Conversation) -> None:
            head = await one.head()
            if "/silent" in head:
                await one.rest()
                return
            await one.say("HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
            await one.say(await one.read(4))

        (task,) = await tasks(world, echo)
        labels = routed("s", "Host(`a`)", task.endpoint.port) | options("s", timeout="50ms")
        world.put("s", labels, task)
        client = await world.client()
        await client.say("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
        assert (await client.head()).startswith("HTTP/1.1 101 ")
        assert (await world.get("a/silent"))[0] == 504  # it came later, so the tunnel's time is over too
        await client.say("ping")
        assert await client.read(4) == b"ping"


class TestRetryBudget:
    async def test_so_many_are_repeated_at_once_and_the_others_fail(self, world: World) -> None:
        """Five requests whose task closes instead of answering; one may be repeated at a time."""
        asked = 0
        all_asked, let_go = asyncio.Event(), asyncio.Event()

        async def closing(one: Conversation) -> None:
            nonlocal asked
            await one.head()
            asked += 1
            if asked > 5:
                await let_go.wait()
                await one.say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            elif asked == 5:
                all_asked.set()
            else:
                await all_asked.wait()

        both = await tasks(world, closing, closing)
        labels = routed("s", "Host(`a`)", both[0].endpoint.port)
        labels |= options("s", retry_budget="0", retry_min="1", outlier_failures="0")
        world.put("s", labels, *both)
        clients = [asyncio.create_task(world.get("a/")) for _ in range(5)]
        answers = [await one for _, one in zip(range(4), asyncio.as_completed(clients), strict=False)]
        assert {(status, "(closed)" in body) for status, _, body in answers} == {(502, True)}
        stats = world.stand.core.stats_of("s")
        assert stats.retries_refused == 4
        let_go.set()
        done = await asyncio.gather(*clients)
        assert sorted(status for status, _, _ in done) == [200, 502, 502, 502, 502]
        assert asked == 6
        target = world.site._targets.get("s@service s")
        assert target is not None
        assert target.budget.taken == 0

    async def test_what_was_never_sent_does_not_count(self, world: World) -> None:
        (well,) = await tasks(world, saying("well"))
        gone = Tasks(type(well.endpoint)("127.0.0.9", well.endpoint.port))
        labels = routed("s", "Host(`a`)", well.endpoint.port)
        world.put("s", labels | options("s", retry_budget="0", retry_min="0"), well, gone)
        assert await statuses(world, 4) == [200] * 4
        stats = world.stand.core.stats_of("s")
        assert (stats.retries_refused, stats.retries > 0) == (0, True)


class TestByWhatARequestSays:
    @pytest.mark.parametrize(
        ("by", "line"), [("header:X-User", "x-user: {}"), ("cookie:user", "Cookie: a=b; user={}; c=d")]
    )
    async def test_what_has_it_in_common_goes_to_the_same_task(
        self, world: World, by: str, line: str
    ) -> None:
        found = await tasks(world, *(saying(name) for name in "xyz"))
        labels = routed("s", "Host(`a`)", found[0].endpoint.port) | options("s", hash_by=by)
        world.put("s", labels, *found)

        async def whose(user: int) -> str:
            return (await world.get("a/", line.format(user)))[2]

        users = range(20)
        before = {user: await whose(user) for user in users}
        assert set(before.values()) == {"x /", "y /", "z /"}
        assert {user: await whose(user) for user in users} == before
        world.put("s", labels, found[0], found[2])
        after = {user: await whose(user) for user in users}
        assert {user for user in users if after[user] != before[user]} == {
            user for user in users if before[user] == "y /"
        }
        without = {(await world.get("a/"))[2] for _ in range(6)}
        assert len(without) == 1  # by the client's address
