"""Somebody else says who may come in: what is asked, what becomes of each answer, and of none."""

import asyncio
from dataclasses import dataclass, field, replace

import pytest

from mesh.catalog.model import Network, Service, ServiceNetwork
from mesh.catalog.snapshot import Change
from mesh.http import limits
from mesh.http.upstream.subrequest import Subrequest
from mesh.net.limits.semaphore import Semaphore
from tests.http.conftest import LIMIT, MIDDLEWARE, NET, Conversation, Handler, Tasks, World, parsed, routed

OK = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


@dataclass
class Told:
    """What the application and whoever is asked were sent."""

    port: int = 0  # of who is asked
    auth: list[str] = field(default_factory=list)
    app: list[str] = field(default_factory=list)


def answering(heads: list[str], response: str) -> Handler:
    async def endpoint(one: Conversation) -> None:
        while head := await one.head():
            heads.append(head)
            length = [line for line in head.split("\r\n") if line.startswith("Content-Length")]
            if length:
                heads[-1] += (await one.read(int(length[0].split(": ")[1]))).decode()
            await one.say(response)

    return endpoint


async def guarded(
    world: World, response: str = OK, address: str = "http://auth:{}/verify", **options: str
) -> Told:
    """An application whose requests are shown to the service `auth`, which answers so."""
    told = Told()
    auth = await world.stand.endpoint(answering(told.auth, response))
    told.port = auth.endpoint.port
    app = await world.stand.endpoint(answering(told.app, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))
    world.put("auth", {}, auth)
    labels = routed("app", "Host(`a`)", app.endpoint.port, middlewares="guard")
    labels[f"{MIDDLEWARE}.guard.forwardauth.address"] = address.format(auth.endpoint.port)
    labels |= {f"{MIDDLEWARE}.guard.forwardauth.{name}": value for name, value in options.items()}
    world.put("app", labels, app)
    return told


def fields_of(head: str) -> dict[str, str]:
    return parsed("HTTP/1.1 200 X\r\n" + head.partition("\r\n")[2])[1]


async def test_what_is_asked(world: World) -> None:
    told = await guarded(world, address="http://auth:{}/verify?rd=x")
    lines = ("Cookie: s=1", "Authorization: Bearer t", "X-Forwarded-Uri: /evil", "X-Forwarded-Method: GET")
    body = "Content-Length: 0", "Accept: */*", "TE: trailers", "X-Forwarded-Host: evil", "Host2: b"
    assert (await world.get("a/x%20/?q=1", *lines, *body, method="PUT"))[0] == 200
    (asked,) = told.auth
    assert asked.startswith("GET /verify?rd=x HTTP/1.1\r\n")
    fields = fields_of(asked)
    assert len(fields.pop("x-request-id")) == 24
    assert fields == {
        "host": f"auth:{told.port}",
        "cookie": "s=1",
        "authorization": "Bearer t",
        "accept": "*/*",
        "host2": "b",
        "x-forwarded-for": "127.0.0.1",
        "x-forwarded-host": "a",
        "x-forwarded-method": "PUT",
        "x-forwarded-port": str(world.fronts["web"].address[1]),
        "x-forwarded-proto": "http",
        "x-forwarded-uri": "/x%20/?q=1",
        "x-real-ip": "127.0.0.1",
    }
    assert told.app[0].startswith("PUT /x%20/?q=1 HTTP/1.1\r\n")


async def test_only_fields_that_are_named_are_shown(world: World) -> None:
    told = await guarded(world, authRequestHeaders="Authorization,X-Key", preserveRequestMethod="true")
    await world.get("a/", "Cookie: s=1", "authorization: b", "x-key: c", method="DELETE")
    (asked,) = told.auth
    fields = fields_of(asked)
    assert asked.startswith("DELETE /verify ")
    assert "cookie" not in fields
    assert (fields["authorization"], fields["x-key"], fields["x-forwarded-for"]) == ("b", "c", "127.0.0.1")


@pytest.mark.parametrize("trusts", [True, False])
@pytest.mark.parametrize("entry", ["web", "behind a proxy"])
async def test_what_a_proxy_says_of_the_request(world: World, trusts: bool, entry: str) -> None:
    told = await guarded(world, trustForwardHeader=str(trusts).lower())
    said = ("X-Forwarded-Uri: /before", "X-Forwarded-Method: POST", "X-Forwarded-Host: b")
    await world.get("a/now", *said, entry=entry)
    fields = fields_of(told.auth[0])
    names = ("x-forwarded-uri", "x-forwarded-method", "x-forwarded-host")
    believed = trusts and entry == "behind a proxy"
    assert [fields[name] for name in names] == (
        ["/before", "POST", "b"] if believed else ["/now", "GET", "a"]
    )


async def test_the_request_goes_on_with_what_the_answer_has_for_it(world: World) -> None:
    answer = (
        "HTTP/1.1 204 No Content\r\nRemote-User: jane\r\nremote-groups: a\r\nRemote-Groups: b\r\n"
        "X-Auth-Mail: j@a\r\nX-Other: 1\r\nSet-Cookie: s=2; Path=/\r\nSet-Cookie: t=3\r\n\r\n"
    )
    told = await guarded(
        world,
        answer,
        authResponseHeaders="Remote-User,Remote-Groups,Remote-Name",
        authResponseHeadersRegex="^X-Auth-",
        addAuthCookiesToResponse="s",
    )
    spoofed = (
        *("Remote-User: root", "remote-name: root", "Remote_User: root", "REMOTE_NAME: root"),
        *("X-Auth-Level: 9", "X-Other: mine"),
    )
    status, fields, body = await world.get("a/", *spoofed)
    assert (status, body, fields["set-cookie"]) == (200, "ok", "s=2; Path=/")
    lines = told.app[0].split("\r\n")
    shown = sorted(line for line in lines if line.lower().startswith(("remote", "x-auth", "x-other")))
    assert shown == [
        "Remote-Groups: a",
        "Remote-Groups: b",
        "Remote-User: jane",
        "X-Auth-Mail: j@a",
        "X-Other: mine",
    ]


@pytest.mark.parametrize(
    ("response", "status", "location"),
    [
        ("401 Unauthorized\r\nWWW-Authenticate: Basic\r\nContent-Length: 4\r\n\r\nlock", 401, None),
        (
            "302 Found\r\nLocation: https://login/x?a\r\nTransfer-Encoding: chunked\r\n\r\n"
            "4\r\nlock\r\n0\r\n\r\n",
            302,
            "https://login/x?a",
        ),
        ("302 Found\r\nLocation: ../in\r\nContent-Length: 4\r\n\r\nlock", 302, "http://auth:{}/in"),
        ("403 No\r\nConnection: X-Hop\r\nX-Hop: 1\r\nContent-Length: 4\r\n\r\nlock", 403, None),
    ],
)
async def test_any_other_answer_is_the_clients(
    world: World, response: str, status: int, location: str | None
) -> None:
    told = await guarded(world, f"HTTP/1.1 {response}", authResponseHeaders="X-User")
    client = await world.client()
    for _ in range(2):  # both connections are used again
        await client.say("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc")
        got, fields, body = await client.response()
        assert (got, body) == (status, b"lock")
        assert fields.get("location") == (location.format(told.port) if location else None)
        assert "x-hop" not in fields
    assert told.app == []
    assert len(told.auth) == 2


async def test_a_body_waits_for_the_verdict(world: World) -> None:
    """It arrives whole, and none of it before."""
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def auth(one: Conversation) -> None:
        await one.head()
        asked.set()
        await go_on.wait()
        await one.say(OK)

    told = await guarded(world)
    world.put("auth", {}, at := await world.stand.endpoint(auth))
    _lead_to(world, at)
    client = await world.client()
    body = b"x" * 300_000
    await client.say(f"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n")
    await asyncio.wait_for(asked.wait(), LIMIT)
    sending = asyncio.create_task(client.say(body))
    assert told.app == []
    go_on.set()
    assert (await client.response())[2] == b"ok"
    await sending
    assert told.app[0].endswith("x" * len(body))


async def test_a_client_that_leaves_is_not_asked_for(world: World) -> None:
    asked, dropped = asyncio.Event(), asyncio.Event()

    async def auth(one: Conversation) -> None:
        await one.head()
        asked.set()
        assert await one.rest() == b""
        dropped.set()

    told = await guarded(world)
    world.put("auth", {}, at := await world.stand.endpoint(auth))
    _lead_to(world, at)
    client = await world.client()
    await client.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    await asyncio.wait_for(asked.wait(), LIMIT)
    client.reset()
    await asyncio.wait_for(dropped.wait(), LIMIT)
    assert told.app == []


def _lead_to(world: World, at: Tasks) -> None:
    """The address names the port of this endpoint from now on."""
    labels = dict(world.snapshot.services["app"].labels)
    labels[f"{MIDDLEWARE}.guard.forwardauth.address"] = f"http://auth:{at.endpoint.port}/verify"
    app = replace(world.snapshot.services["app"], labels=labels)
    world.change(Change(services={"app": app}))


@pytest.mark.parametrize(
    "response",
    [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        f"HTTP/1.1 200 OK\r\nContent-Length: {limits.ASIDE_BODY_MAX + 1}\r\n\r\n"
        + "x" * (limits.ASIDE_BODY_MAX + 1),
        "HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    ],
)
async def test_without_an_answer_nobody_comes_in(world: World, response: str) -> None:
    told = await guarded(world, response)
    client = await world.client()
    for _ in range(2):
        await client.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        status, _, body = await client.response()
        assert (status, b"auth_unavailable" in body) == (503, True)
    assert told.app == []


async def test_without_anybody_to_ask_nobody_comes_in(world: World) -> None:
    told = await guarded(world)
    assert (await world.get("a/"))[0] == 200
    world.put("auth", {})
    assert (await world.get("a/"))[0] == 503
    world.change(Change(services={"auth": None}))
    assert (await world.get("a/"))[0] == 503
    (problem,) = world.site.problems()
    assert (problem.file, problem.message) == ("app", "no service of the Swarm has this name")
    assert len(told.app) == 1


async def test_an_answer_that_takes_too_long_is_none(world: World) -> None:
    """The time limit comes by itself: the test stands in for the clock."""
    told = await guarded(world)
    taken: list[Subrequest] = []

    async def auth(one: Conversation) -> None:
        await one.head()
        await one.say("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n1")
        due = [one for slot in world.stand.core.deadlines._slots.values() for one in slot]
        taken.extend(one for one in due if isinstance(one, Subrequest))
        for aside in taken:
            aside.due()
        await one.rest()

    world.put("auth", {}, at := await world.stand.endpoint(auth))
    _lead_to(world, at)
    assert (await world.get("a/"))[0] == 503
    assert len(taken) == 1
    assert told.app == []


async def test_beyond_so_many_questions_nobody_comes_in(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(world.site._runner, "subrequests", Semaphore(0))
    told = await guarded(world)
    assert (await world.get("a/"))[0] == 503
    assert told.auth == []


async def test_it_stands_in_its_place_among_the_others(world: World) -> None:
    """Asked is with what those before it made of the request; what it answers, those before it change."""
    told = await guarded(world, "HTTP/1.1 401 No\r\nContent-Length: 0\r\nServer: x\r\n\r\n")
    app = world.snapshot.services["app"]
    more = {
        f"{MIDDLEWARE}.strip.stripprefix.prefixes": "/old",
        f"{MIDDLEWARE}.fields.headers.customrequestheaders.X-Added": "1",
        f"{MIDDLEWARE}.fields.headers.customresponseheaders.Server": "",
        "traefik.http.routers.app.middlewares": "strip,fields,guard,guard",
    }
    world.change(Change(services={"app": replace(app, labels={**app.labels, **more})}))
    status, fields, _ = await world.get("a/old/x")
    assert (status, "server" in fields) == (401, False)
    (asked,) = told.auth
    assert (fields_of(asked)["x-forwarded-uri"], fields_of(asked)["x-added"]) == ("/x", "1")


async def test_two_questions_in_a_row(world: World) -> None:
    told = await guarded(world, authResponseHeaders="X-User")
    app = world.snapshot.services["app"]
    more = {"traefik.http.routers.app.middlewares": "guard,guard"}
    world.change(Change(services={"app": replace(app, labels={**app.labels, **more})}))
    for _ in range(2):
        assert (await world.get("a/"))[0] == 200
    assert (len(told.auth), len(told.app)) == (4, 2)


class TestNames:
    """Which service an address means."""

    async def test_an_alias(self, world: World) -> None:
        told = await guarded(world, address="http://Gate:{}/")
        assert (await world.get("a/"))[0] == 503
        self.alias(world, "auth", "gate")
        assert (await world.get("a/"))[0] == 200
        assert len(told.auth) == 1

    async def test_an_alias_of_several_means_the_one_beside_the_router(self, world: World) -> None:
        told = await guarded(world, address="http://gate:{}/")
        other = Network("n2", "other", ("127.0.0.0/8",))
        stranger = Service("x", "x", networks=(ServiceNetwork("n2", aliases=("gate",)),))
        world.change(Change(networks={"n2": other}, services={"x": stranger}))
        self.alias(world, "auth", "gate")
        assert (await world.get("a/"))[0] == 200
        assert len(told.auth) == 1
        app = world.snapshot.services["app"]
        both = (*app.networks, ServiceNetwork("n2"))
        world.change(Change(services={"app": replace(app, networks=both)}))
        assert (await world.get("a/"))[0] == 503, "it is beside the stranger as well now"
        world.change(Change(services={"app": app}))
        assert (await world.get("a/"))[0] == 200
        beside = (ServiceNetwork(NET.id, aliases=("gate",)),)
        world.change(Change(services={"y": Service("y", "y", networks=beside)}))
        assert (await world.get("a/"))[0] == 503
        (problem,) = world.site.problems()
        assert problem.message == "several services have this name: auth, y"
        world.change(Change(services={"y": None}))
        assert (await world.get("a/"))[0] == 200

    async def test_a_name_before_aliases(self, world: World) -> None:
        told = await guarded(world)
        world.put("x", {})
        self.alias(world, "x", "auth")
        assert (await world.get("a/"))[0] == 200
        assert len(told.auth) == 1

    def alias(self, world: World, id_: str, alias: str) -> None:
        service = world.snapshot.services[id_]
        networks = (ServiceNetwork(NET.id, aliases=(alias,)),)
        world.change(Change(services={id_: replace(service, networks=networks)}))

    async def test_what_no_router_names_any_more_is_forgotten(self, world: World) -> None:
        await guarded(world)
        await world.get("a/")
        named = world.site._lookup
        assert named.concerns("auth")
        world.change(Change(services={"app": None}))
        assert not named.concerns("auth")
        assert list(named._targets) == []
