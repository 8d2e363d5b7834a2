"""What clients notice of tasks that fail: through real sockets, labels in, responses out."""

from collections.abc import Callable
from time import monotonic

import pytest

from mesh.http.site import Site
from tests.http.conftest import SERVICE, Conversation, Handler, Tasks, World, routed, saying

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


def left_out(site: Site, name: str) -> dict[str, str]:
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
