"""The listening sockets of the entry points."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from mesh.http.downstream import entry_points
from mesh.http.downstream.entry_points import EntryPoints
from mesh.http.routing.router import EntryPoint, RequestRouter
from mesh.http.upstream.network_reach import OwnNamespace
from mesh.net.backoff import Backoff
from mesh.net.bound_listener import listen
from mesh.net.tasks import Tasks
from mesh.relay.tcp_port import plain_socket
from tests.http.conftest import Conversation, Stand
from tests.support.waiting import until

LOOPBACK = "127.0.0.1"


class World:
    def __init__(self, stand: Stand, stack: AsyncExitStack) -> None:
        self.stand = stand
        self.opened: list[tuple[str, socket.socket]] = []
        self._stack = stack
        self._tasks = Tasks(lambda _name, error: pytest.fail(str(error)))

    def entry_points(self, *ports: int, elsewhere: bool = False) -> EntryPoints:
        router = RequestRouter(self.stand.core, OwnNamespace(plain_socket), (EntryPoint("web"),))
        made = EntryPoints(
            self._tasks,
            self.stand.core,
            router,
            [("web", LOOPBACK, port) for port in ports],
            lambda _: False,
            on_open=(lambda name, listener: self.opened.append((name, listener))) if elsewhere else None,
        )
        self._stack.push_async_callback(self._tasks.close)
        self._stack.push_async_callback(made.close)
        made.start()
        return made


@pytest.fixture
async def world(stand: Stand) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        yield World(stand, stack)


def port_of(address: str) -> int:
    return int(address.rpartition(":")[2])


async def status_of_a_request(port: int) -> int:
    client = Conversation(*await asyncio.open_connection(LOOPBACK, port))
    await client.request("Connection: close")
    status, _, _ = await client.response()
    client.close()
    return status


async def test_an_entry_point_is_served_where_its_status_says(world: World) -> None:
    (status,) = world.entry_points(0).status()
    assert (status.name, status.fault) == ("web", "")
    assert await status_of_a_request(port_of(status.address)) == 404


async def test_an_address_that_is_taken_is_tried_again_while_others_are_served(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entry_points, "bind_backoff", lambda: Backoff(0.01, 0.01))
    with listen(LOOPBACK, 0) as other:
        taken = other.getsockname()[1]
        made = world.entry_points(taken, 0)
        first, second = made.status()
        assert str(taken) in first.fault
        assert second.fault == ""
        assert await status_of_a_request(port_of(second.address)) == 404
        assert made.ports == {taken, 0}
    await until(lambda: not made.status()[0].fault)
    assert await status_of_a_request(taken) == 404


async def test_a_socket_may_be_served_elsewhere(world: World) -> None:
    made = world.entry_points(0, elsewhere=True)
    ((name, listener),) = world.opened
    assert name == "web"
    other = world.entry_points()
    other.adopt(name, listener)
    (status,) = made.status()
    assert await status_of_a_request(port_of(status.address)) == 404


async def test_refusals_of_all_entry_points_are_added_up(world: World) -> None:
    made = world.entry_points(0)
    client = Conversation(*await asyncio.open_connection(LOOPBACK, port_of(made.status()[0].address)))
    await client.say("nonsense\r\n\r\n")
    assert (await client.response())[0] == 400
    assert made.refusals == {"malformed": 1}
    client.close()
