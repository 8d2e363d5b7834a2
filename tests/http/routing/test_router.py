"""Host-routed HTTP through real sockets: labels in, responses out, and changes that disturb nobody else."""

import asyncio
import base64
import threading
from typing import ClassVar

import pytest

from mesh.catalog.model import Attachment, Container, Network, Service, ServiceNetwork
from mesh.catalog.snapshot import Change, Snapshot
from mesh.http.config import htpasswd
from mesh.http.routing.router import EntryPoint, RequestRouter
from mesh.http.upstream.network_reach import OwnNamespace
from mesh.relay.tcp_port import plain_socket
from tests.http.conftest import MIDDLEWARE, ROUTER, SERVICE, STACK, Conversation, Stand, World, routed, saying


async def test_host_path_and_priority(world: World) -> None:
    shop = await world.stand.endpoint(saying("shop"))
    api = await world.stand.endpoint(saying("api"))
    world.put("shop", routed("shop", "Host(`a.example`)", shop.endpoint.port) | STACK, shop)
    world.put("api", routed("api", "Host(`a.example`) && PathPrefix(`/api`)", api.endpoint.port) | STACK, api)
    assert await world.get("a.example/x?y") == (
        200,
        {"content-length": "9", "connection": "close"},
        "shop /x?y",
    )
    assert (await world.get("a.example/api/1"))[2] == "api /api/1"
    assert (await world.get("A.EXAMPLE:80/x/../api/%31"))[2] == "api /api/1"
    status, _, body = await world.get("b.example/")
    assert (status, "no_route" in body) == (404, True)


async def test_entry_points(world: World) -> None:
    one = await world.stand.endpoint(saying("one"))
    labels = routed("one", "Host(`a`)", one.endpoint.port, entrypoints="internal,nowhere")
    world.put("one", labels, one)
    assert (await world.get("a/", entry="internal"))[0] == 200
    assert (await world.get("a/"))[0] == 404
    (problem,) = world.site.problems()
    assert "no entry point 'nowhere'" in problem.message


async def test_middlewares(world: World) -> None:
    heads: list[str] = []

    async def endpoint(one: Conversation) -> None:
        while head := await one.head():
            heads.append(head)
            await one.say("HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 0\r\n\r\n")

    one = await world.stand.endpoint(endpoint)
    labels = routed("one", "Host(`a`)", one.endpoint.port, middlewares="strip,add,chain") | {
        f"{MIDDLEWARE}.strip.stripprefix.prefixes": "/old",
        f"{MIDDLEWARE}.add.headers.customrequestheaders.X-Added": "1",
        f"{MIDDLEWARE}.add.headers.customresponseheaders.Server": "",
        f"{MIDDLEWARE}.add.headers.stsSeconds": "60",
        f"{MIDDLEWARE}.chain.chain.middlewares": "limit",
        f"{MIDDLEWARE}.limit.buffering.maxRequestBodyBytes": "10",
    }
    world.put("one", labels, one)
    status, fields, _ = await world.get("a/old/x?q=1")
    assert (status, fields["strict-transport-security"], "server" in fields) == (200, "max-age=60", False)
    assert heads[0].startswith("GET /x?q=1 HTTP/1.1\r\n")
    assert "X-Added: 1\r\n" in heads[0]
    assert "X-Forwarded-Prefix: /old\r\n" in heads[0]
    assert (await world.get("a/", "Content-Length: 11", method="POST"))[0] == 413
    client = await world.client()
    await client.say("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n")
    await client.say("6\r\n123456\r\n")
    assert (await client.response())[0] == 413


@pytest.mark.parametrize("leaves", [False, True])
async def test_a_password_is_compared_while_others_are_served(
    world: World, monkeypatch: pytest.MonkeyPatch, leaves: bool
) -> None:
    """Comparing takes until the test says so; who goes away meanwhile is forgotten."""
    comparing, go_on = threading.Event(), threading.Event()

    def slowly(password: str, hashed: str) -> bool:
        comparing.set()
        return go_on.wait(10) and password == f"secret{leaves}"

    monkeypatch.setattr(htpasswd, "matches", slowly)
    one = await world.stand.endpoint(saying("one"))
    labels = routed("one", "Host(`a`)", one.endpoint.port, middlewares="auth,limit")
    labels |= {f"{MIDDLEWARE}.limit.inflightreq.amount": "1"}
    world.put(
        "one", labels | {f"{MIDDLEWARE}.auth.basicauth.users": "u:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ="}, one
    )
    world.put("two", routed("two", "Host(`b`)", one.endpoint.port), one)
    authorization = "Authorization: Basic " + base64.b64encode(f"u:secret{leaves}".encode()).decode()
    client = await world.client()
    await client.say(f"GET /x HTTP/1.1\r\nHost: a\r\n{authorization}\r\n\r\n")
    await asyncio.wait_for(asyncio.to_thread(comparing.wait), 10)
    assert (await world.get("b/"))[0] == 200
    if leaves:
        client.reset()
    go_on.set()
    if not leaves:
        assert (await client.response())[2] == b"one /x"
    assert (await world.get("a/y", authorization))[2] == "one /y"
    assert (await world.get("a/z"))[0] == 401


async def test_a_sticky_cookie_holds(world: World) -> None:
    port = 0
    tasks = []
    for number in (1, 2, 3):
        task = await world.stand.endpoint_at(f"127.0.0.{number}", port, saying(str(number)))
        port = task.endpoint.port
        tasks.append(task)
    cookie = {f"{SERVICE}.s.loadbalancer.sticky.cookie.name": "lb"}
    world.put("s", routed("s", "Host(`a`)", port) | cookie, *tasks)
    _, fields, first = await world.get("a/")
    given = fields["set-cookie"].split(";")[0]
    assert given.startswith("lb=")
    for _ in range(5):
        _, fields, body = await world.get("a/", f"Cookie: x=y; {given}")
        assert (body, "set-cookie" in fields) == (first, False)
    left = [task for task in tasks if not first.startswith(task.endpoint.address[-1])]
    world.put("s", routed("s", "Host(`a`)", port) | cookie, *left)
    _, fields, body = await world.get("a/", f"Cookie: {given}")
    assert body != first
    assert fields["set-cookie"].split(";")[0] != given


async def test_the_host_that_tasks_get(world: World) -> None:
    heads: list[str] = []

    async def endpoint(one: Conversation) -> None:
        while head := await one.head():
            heads.append(head)
            await one.say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    one = await world.stand.endpoint(endpoint)
    labels = routed("one", "Host(`a`)", one.endpoint.port)
    world.put("one", labels, one)
    await world.get("a/")
    world.put("one", labels | {f"{SERVICE}.one.loadbalancer.passhostheader": "false"}, one)
    await world.get("a/")
    assert "\r\nHost: a\r\n" in heads[0]
    assert f"\r\nHost: {one.endpoint}\r\n" in heads[1]


async def test_what_a_proxy_in_front_has_taken_by_tls_is_not_redirected_to_it(world: World) -> None:
    one = await world.stand.endpoint(saying("one"))
    redirect = {f"{MIDDLEWARE}.red.redirectscheme.scheme": "https"}
    world.put("one", routed("one", "Host(`a`)", one.endpoint.port, middlewares="red") | redirect, one)
    said = "X-Forwarded-Proto: https"
    assert (await world.get("a/", said, entry="behind a proxy"))[0] == 200
    assert (await world.get("a/", entry="behind a proxy"))[0] == 302
    assert (await world.get("a/", "X-Forwarded-Proto: gopher", entry="behind a proxy"))[0] == 302
    status, fields, _ = await world.get("a/x", said)
    assert (status, fields["location"]) == (302, "https://a/x"), "anybody could say so"


async def test_a_name_of_two_services_goes_to_the_other_when_the_first_ends(world: World) -> None:
    one, two = await world.stand.endpoint(saying("one")), await world.stand.endpoint(saying("two"))
    service = f"{SERVICE}.app.loadbalancer.server.port"
    world.put("s1", routed("app", "Host(`a`)", one.endpoint.port) | STACK, one)
    world.put("s2", {f"{ROUTER}.b.rule": "Host(`b`)", service: str(two.endpoint.port)} | STACK, two)
    assert (await world.get("b/"))[2] == "one /"
    world.change(Change(services={"s1": None}))
    assert (await world.get("b/"))[2] == "two /"
    world.put("s1", routed("app", "Host(`a`)", one.endpoint.port) | STACK, one)
    assert (await world.get("b/"))[2] == "one /"


async def test_a_canary_takes_its_share(world: World) -> None:
    old, new = await world.stand.endpoint(saying("old")), await world.stand.endpoint(saying("new"))
    world.put("old", routed("app", "Host(`a`)", old.endpoint.port) | STACK, old)
    labels = {"mesh.http.port": str(new.endpoint.port), "mesh.http.canary_of": "app"} | STACK
    world.put("new", labels | {"mesh.http.canary": "5"}, new)
    assert (await world.get("a/"))[2] == "old /", "5 is drawn of 100, and 0 … 4 are the canary's"
    world.put("new", labels | {"mesh.http.canary": "6"}, new)
    assert (await world.get("a/"))[2] == "new /"
    world.change(Change(services={"new": None}))
    assert (await world.get("a/"))[2] == "old /"


async def test_too_many_requests_under_way(world: World) -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def endpoint(one: Conversation) -> None:
        while await one.head():
            asked.set()
            await go_on.wait()
            await one.say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    one = await world.stand.endpoint(endpoint)
    labels = {"mesh.http.host": "a", "mesh.http.port": str(one.endpoint.port), "mesh.http.max_requests": "1"}
    world.put("one", labels, one)
    first = asyncio.create_task(world.get("a/"))
    await asyncio.wait_for(asked.wait(), 10)
    status, _, body = await world.get("a/")
    assert (status, "overloaded" in body) == (503, True)
    go_on.set()
    assert (await first)[0] == 200


async def test_other_services_changes_disturb_no_open_websocket(world: World) -> None:
    async def echo(one: Conversation) -> None:
        await one.head()
        await one.say("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
        while data := await one.reader.read(100):
            await one.say(data)

    socket, other = await world.stand.endpoint(echo), await world.stand.endpoint(saying("other"))
    world.put("ws", routed("ws", "Host(`ws`)", socket.endpoint.port), socket)
    client = await world.client()
    await client.say("GET / HTTP/1.1\r\nHost: ws\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
    await client.head()
    for turn in range(20):
        world.put("other", routed(f"r{turn}", f"Host(`h{turn}`)", other.endpoint.port), other)
        assert (await world.get(f"h{turn}/"))[0] == 200
    world.change(Change(services={"other": None}))
    assert (await world.get("h19/"))[0] == 404
    await client.say("still there")
    assert await client.read(11) == b"still there"
    client.close()


async def test_a_service_that_cannot_be_reached_is_told(world: World) -> None:
    labels = routed("r", "Host(`a`)", 80) | {"traefik.swarm.network": "elsewhere"}
    world.put("s", labels)
    assert (await world.get("a/"))[0] == 503
    (problem,) = world.site.problems()
    assert problem.message == "cannot be reached: it is not on network 'elsewhere'"


async def test_a_network_that_comes_to_the_node_makes_its_services_reachable(stand: Stand) -> None:
    """And no other service is looked at for it."""

    class Here(OwnNamespace):
        asked: ClassVar[list[str]] = []

        def here(self, network: Network, snapshot: Snapshot) -> bool:
            self.asked.append(network.id)
            return any(
                one.network == network.id for box in snapshot.containers.values() for one in box.attachments
            )

    networks = {id_: Network(id_, id_, ("127.0.0.0/8",)) for id_ in ("a", "b")}
    site = RequestRouter(stand.core, Here(plain_socket), (EntryPoint("web"),))
    services = {
        id_: Service(id_, id_, networks=(ServiceNetwork(id_),), labels=routed(id_, f"Host(`{id_}`)", 80))
        for id_ in networks
    }
    before = Snapshot().apply(Change(networks=networks, services=services))
    site.start(before)
    assert sorted(problem.file for problem in site.problems()) == ["a", "b"]
    Here.asked.clear()
    change = Change(containers={"c": Container("c", "c", "/ns", (Attachment("a", "127.0.0.9"),))})
    site.update(before, before.apply(change), change)
    assert Here.asked == ["a"]
    assert sorted(problem.file for problem in site.problems()) == ["b"]
    after = before.apply(change)
    site.update(after, before, Change(containers={"c": None}))
    assert sorted(problem.file for problem in site.problems()) == ["a", "b"]
