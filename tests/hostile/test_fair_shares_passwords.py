"""Passwords guessed at one service, and logins at others, and by others at the same one."""

import asyncio
import base64

import bcrypt
import pytest

from mesh.http import limits
from mesh.http.password_queue import Comparison, PasswordQueue
from mesh.net.limits.semaphore import Semaphore, SharedRoom
from tests.http.conftest import MIDDLEWARE, Conversation, World, routed, saying
from tests.support.waiting import until

COST = 9  # of bcrypt: some 25 ms each
GUESSES = 80


def login(password: str) -> str:
    return "Authorization: Basic " + base64.b64encode(f"jane:{password}".encode()).decode()


async def services(world: World, *names: str) -> None:
    app = await world.stand.endpoint(saying("in"))
    for name in names:
        hashed = bcrypt.hashpw(f"secret of {name}".encode(), bcrypt.gensalt(COST)).decode()
        labels = routed(name, f"Host(`{name}`)", app.endpoint.port, middlewares=f"{name}-login")
        labels[f"{MIDDLEWARE}.{name}-login.basicauth.users"] = f"jane:{hashed}"
        world.put(name, labels, app)


async def from_address(world: World, address: str) -> Conversation:
    to = world.fronts["web"].address
    reader, writer = await asyncio.open_connection(*to, local_addr=(address, 0))
    return Conversation(reader, writer)


async def guess(world: World, host: str, number: int, address: str) -> Conversation:
    one = await from_address(world, address)
    await one.say(f"GET / HTTP/1.1\r\nHost: {host}\r\n{login(f'guess {number}')}\r\n\r\n")
    return one


async def good(world: World, host: str, address: str = "127.0.0.1") -> None:
    one = await from_address(world, address)
    await one.say(f"GET / HTTP/1.1\r\nHost: {host}\r\n{login(f'secret of {host}')}\r\n\r\n")
    status, _, body = await one.response()
    assert (status, body) == (200, b"in /")
    one.close()


async def test_guesses_at_one_service_leave_the_logins_of_others_alone(world: World) -> None:
    await services(world, "attacked", "b", "c")
    attackers = [await guess(world, "attacked", n, f"127.0.1.{n % 10 + 1}") for n in range(GUESSES)]
    queue = world.stand.core.passwords
    await until(lambda: len(queue) >= limits.PASSWORDS_PER_SERVICE - 1)
    await good(world, "b")
    await good(world, "c")
    await good(world, "b")
    assert len(queue) > 0  # they did not wait until all of the guesses were compared
    statuses = [(await one.response())[0] for one in attackers]
    assert set(statuses) == {401, 503}
    assert statuses.count(401) <= limits.PASSWORDS_PER_SERVICE + 20


async def test_guesses_of_one_client_leave_the_logins_of_others_alone(world: World) -> None:
    await services(world, "attacked")
    attackers = [await guess(world, "attacked", n, "127.0.1.1") for n in range(GUESSES)]
    queue = world.stand.core.passwords
    await until(lambda: len(queue) >= limits.PASSWORDS_PER_CLIENT - 1)
    await good(world, "attacked", "127.0.0.2")
    assert len(queue) > 0
    for one in attackers:
        one.close()


async def test_guesses_at_many_services_take_each_their_share(world: World) -> None:
    await services(world, "a", "b", "c", "d")
    attackers = [
        await guess(world, "abc"[n % 3], n, f"127.0.1.{n % 20 + 1}")
        for n in range(3 * limits.PASSWORDS_PER_SERVICE)
    ]
    queue = world.stand.core.passwords
    await until(lambda: len(queue) >= limits.PASSWORDS_MAX - 3)
    await good(world, "d")
    assert len(queue) > 0
    for one in attackers:
        one.close()


async def test_clients_that_leave_take_their_guesses_along(world: World) -> None:
    await services(world, "a")
    attackers = [await guess(world, "a", n, "127.0.1.1") for n in range(limits.PASSWORDS_PER_CLIENT)]
    queue = world.stand.core.passwords
    await until(lambda: len(queue) >= limits.PASSWORDS_PER_CLIENT - 2)
    for one in attackers:
        one.reset()
    await good(world, "a")
    assert len(queue) == 0


async def test_guesses_do_not_have_a_right_password_forgotten(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mesh.http.middleware.kinds.basic_auth.VERIFIED_MAX", 3)
    await services(world, "a")
    await good(world, "a")
    for number in range(4):
        one = await guess(world, "a", number, "127.0.1.1")
        assert (await one.response())[0] == 401
        one.close()
    compared: list[str] = []
    monkeypatch.setattr("mesh.http.config.htpasswd.matches", lambda password, _: compared.append(password))
    await good(world, "a")
    assert compared == []


async def test_a_comparison_that_fails_is_refused_and_the_next_one_is_made() -> None:
    queue = PasswordQueue(asyncio.get_running_loop())
    told: list[str] = []

    def fail() -> None:
        raise ValueError

    assert queue.compare(
        Comparison(fail, lambda: told.append("then"), lambda: told.append("refused")), "a", "1"
    )
    assert queue.compare(
        Comparison(int, lambda: told.append("then"), lambda: told.append("refused")), "a", "1"
    )
    await until(lambda: len(told) == 2)
    assert told == ["refused", "then"]
    queue.close()


# --- who may come in: an authority that does not answer ---


async def test_a_silent_authority_leaves_those_of_others_alone(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(world.site._runner, "subrequests", SharedRoom(Semaphore(40)))

    async def silent(one: Conversation) -> None:
        await one.head()
        await one.rest()

    async def authority(one: Conversation) -> None:
        while await one.head():
            await one.say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    app = await world.stand.endpoint(saying("in"))
    for name, handler in (("attacked", silent), ("b", authority)):
        auth = await world.stand.endpoint(handler)
        world.put(f"auth-{name}", {}, auth)
        labels = routed(name, f"Host(`{name}`)", app.endpoint.port, middlewares=f"{name}-asked")
        labels[f"{MIDDLEWARE}.{name}-asked.forwardauth.address"] = f"http://auth-{name}:{auth.endpoint.port}/"
        world.put(name, labels, app)
    attackers = [await guess(world, "attacked", n, "127.0.1.1") for n in range(60)]
    refused = attackers[20:40]
    for one in refused:
        assert (await one.response())[0] == 503  # it has its share
    for _ in range(3):
        assert (await world.get("b/"))[0] == 200
    for one in attackers:
        one.close()
