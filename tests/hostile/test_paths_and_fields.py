"""Paths and fields that are to be read otherwise behind us than here; a good client is served beside."""

import base64
from dataclasses import dataclass, field, replace

import pytest

from mesh.catalog.snapshot import Change
from mesh.http.codec.path_check import EncodedCharacters
from tests.http.conftest import MIDDLEWARE, Conversation, World, routed, saying

DENY = {
    f"{MIDDLEWARE}.nobody.ipallowlist.sourcerange": "192.0.2.1/32",
    f"{MIDDLEWARE}.strip.stripprefix.prefixes": "/api",
    f"{MIDDLEWARE}.stripregex.stripprefixregex.regex": "/v[0-9]+",
    f"{MIDDLEWARE}.replaced.replacepathregex.regex": "^/from/(.*)-(.*)$",
    f"{MIDDLEWARE}.replaced.replacepathregex.replacement": "/$1/$2",
    f"{MIDDLEWARE}.added.addprefix.prefix": "/added",
}


async def denied(world: World) -> None:
    """An application of which nobody may have what is below /admin."""
    app = await world.stand.endpoint(saying("app"))
    port = app.endpoint.port
    labels = routed("app", "Host(`a`)", port, service="app") | DENY
    labels |= routed("deny", "Host(`a`) && PathPrefix(`/admin`)", port, middlewares="nobody", service="app")
    labels |= routed(
        "colon", "Host(`a`) && PathPrefix(`/v:admin`)", port, middlewares="nobody", service="app"
    )
    for name, prefix in (("strip", "/api"), ("stripregex", "/v"), ("replaced", "/from"), ("added", "/add")):
        rule = f"Host(`a`) && PathPrefix(`{prefix}`)"
        labels |= routed(name, rule, port, middlewares=name, service="app")
    world.put("app", labels, app)


async def good(world: World) -> None:
    status, _, body = await world.get("a/public/x%20y?z=/../%2f;")
    assert (status, body) == (200, "app /public/x%20y?z=/../%2f;")


@pytest.mark.parametrize(
    "path",
    [
        *(
            "x/..%2fadmin",
            "x/..;/admin",
            "x\\..\\admin",
            "x/..%5cadmin",
            "%2fadmin",
            ";/admin",
            "x/%252e%252e/admin",
        ),
        *("x/..;x=1/admin", "x/%c0%ae%c0%ae/admin", "x/..%00/admin", "x/..%253b/admin", "x%2f..%2fadmin"),
        *("api../admin", "api..;/admin", "api%2f..%2fadmin", "v1../admin", "from/.-./admin", "from/..-admin"),
        *("api..%2fadmin", "api./admin", "%5cadmin", ";a=b/;c/admin"),
    ],
)
async def test_no_other_spelling_gets_past_a_rule(world: World, path: str) -> None:
    await denied(world)
    await good(world)
    status, _, body = await world.get(f"a/{path}")
    assert status == 403 or (status == 400 and "ambiguous_path" in body), body
    await good(world)


@pytest.mark.parametrize(
    "path", ["admin", "x/../admin", "%61dmin/", "x/%2e%2e/admin", "//admin", "./admin", "v%3Aadmin"]
)
async def test_what_is_the_same_path_is_denied(world: World, path: str) -> None:
    await denied(world)
    assert (await world.get(f"a/{path}"))[0] == 403
    await good(world)


async def test_an_absolute_target_is_read_in_the_same_way(world: World) -> None:
    await denied(world)
    one = await world.client()
    await one.say("GET http://a/x/..%2fadmin HTTP/1.1\r\nHost: b\r\n\r\n")
    status, _, body = await one.response()
    assert (status, b"ambiguous_path" in body) == (400, True)
    await one.say("GET http://a/x/../admin HTTP/1.1\r\nHost: b\r\n\r\n")  # it may go on on that connection
    assert (await one.response())[0] == 403
    for target in ("http://a#/admin", "http://a/x#/../admin", "/x\t/admin", "http://a\\@b/", "/x\0"):
        two = await world.client()
        await two.say(f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await two.response())[0] == 400
    await good(world)


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ("api/x", "/x"),
        ("api", "/"),
        ("apix", "/x"),  # as Traefik: a prefix of the text
        ("api/x/..", "/"),
        ("api/a%2fb", "/a%2Fb"),
        ("v12/x;y=1", "/x;y=1"),
        ("from/a-b", "/a/b"),
        ("add/x", "/added/add/x"),
        ("group%2fproject", "/group%2Fproject"),
        ("x;jsessionid=1/y", "/x;jsessionid=1/y"),
        ("https%3A%2F%2Fb", "/https%3A%2F%2Fb"),
    ],
)
async def test_what_everybody_reads_alike_goes_on(world: World, path: str, sent: str) -> None:
    await denied(world)
    status, _, body = await world.get(f"a/{path}")
    assert (status, body) == (200, f"app {sent}")


@pytest.mark.parametrize("allowed", [True, False, None])
async def test_an_entry_points_option_decides(world: World, allowed: bool | None) -> None:
    await denied(world)
    entry = world.site._entries["web"]
    object.__setattr__(entry, "encoded_characters", EncodedCharacters(allowEncodedSlash=allowed))
    assert (await world.get("a/group%2fproject"))[0] == (400 if allowed is False else 200)
    assert (await world.get("a/%2fadmin"))[0] == (200 if allowed else 400)
    assert (await world.get("a/x/..%2fadmin"))[0] == 400
    assert (await world.get("a/group%2fproject", entry="internal"))[0] == 200
    await good(world)


# --- fields ---

SPOOFED = (
    *(
        "X-Forwarded-For: 6.6.6.6",
        "x_forwarded_for: 6.6.6.6",
        "X-FORWARDED_For: 6.6.6.6",
        "X.Forwarded.For: 6.6.6.6",
    ),
    *("X-Real-IP: 6.6.6.6", "X_Real_IP: 6.6.6.6", "X-Request-Id: 6.6.6.6", "x_request-id: 6.6.6.6"),
    *(
        "Forwarded: for=6.6.6.6",
        "True-Client-IP: 6.6.6.6",
        "X-Client-Ip: 6.6.6.6",
        "X-Original-URL: /6.6.6.6",
    ),
    *(
        "X-Rewrite-URL: /6.6.6.6",
        "X_Rewrite_URL: /6.6.6.6",
        "CF-Connecting-IP: 6.6.6.6",
        "X-Replaced-Path: /6.6.6.6",
    ),
    *("X-Forwarded-Tls-Client-Cert: 6.6.6.6", "X-Cluster-Client-Ip: 6.6.6.6", "Proxy: http://6.6.6.6"),
    *("X_Auth_User: 6.6.6.6", "x.user: 6.6.6.6"),
)
GUARD = "Basic " + base64.b64encode(b"jane:secret").decode()


@dataclass
class Seen:
    """What the application got: heads, and what followed the bodies."""

    heads: list[str] = field(default_factory=list)
    trailers: list[str] = field(default_factory=list)

    async def serve(self, one: Conversation) -> None:
        while head := await one.head():
            self.heads.append(head)
            if "chunked" in head.lower():
                await one.until(b"\r\n0\r\n")
                lines = await one.until(b"\r\n")
                while not lines.endswith(b"\r\n\r\n") and lines != b"\r\n":
                    lines += await one.until(b"\r\n")
                self.trailers.append(lines.decode("latin-1"))
            await one.say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


async def guarded(world: World) -> Seen:
    """Behind a login and an authority, which both say who it is."""
    seen = Seen()
    app = await world.stand.endpoint(seen.serve)

    async def authority(one: Conversation) -> None:
        while await one.head():
            await one.say("HTTP/1.1 200 OK\r\nX-Auth-User: jane\r\nContent-Length: 0\r\n\r\n")

    auth = await world.stand.endpoint(authority)
    world.put("auth", {}, auth)
    labels = routed("app", "Host(`a`)", app.endpoint.port, middlewares="login,asked")
    labels |= {
        f"{MIDDLEWARE}.login.basicauth.users": "jane:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=",
        f"{MIDDLEWARE}.login.basicauth.headerfield": "X-User",
        f"{MIDDLEWARE}.login.basicauth.removeheader": "true",
        f"{MIDDLEWARE}.asked.forwardauth.address": f"http://auth:{auth.endpoint.port}/",
        f"{MIDDLEWARE}.asked.forwardauth.authresponseheaders": "X-Auth-User,X-Auth-Mail",
    }
    world.put("app", labels, app)
    return seen


async def test_a_stranger_is_nobody_else(world: World) -> None:
    seen = await guarded(world)
    assert (await world.get("a/", f"Authorization: {GUARD}", *SPOOFED))[0] == 200
    (head,) = seen.heads
    assert "6.6.6.6" not in head
    fields = dict(line.split(": ", 1) for line in head.lower().split("\r\n")[1:-2])
    assert (fields["x-forwarded-for"], fields["x-real-ip"]) == ("127.0.0.1", "127.0.0.1")
    assert (fields["x-user"], fields["x-auth-user"]) == ("jane", "jane")
    assert "authorization" not in fields


@pytest.mark.parametrize("entry", ["web", "behind a proxy"])
async def test_trailers_say_nothing_of_the_client(world: World, entry: str) -> None:
    seen = await guarded(world)
    one = await world.client(entry)
    lines = "".join(
        f"{line}\r\n" for line in (*SPOOFED, "X-Auth-Mail: 6.6.6.6", "X-User: 6.6.6.6", "X-Sum: 1")
    )
    lines += "Authorization: Basic 6.6.6.6\r\nContent-Type: 6.6.6.6\r\nHost: 6.6.6.6\r\n"
    head = f"POST / HTTP/1.1\r\nHost: a\r\nAuthorization: {GUARD}\r\nTransfer-Encoding: chunked\r\n\r\n"
    await one.say(f"{head}4\r\nbody\r\n0\r\n{lines}\r\n")
    assert (await one.response())[0] == 200
    (trailers,) = seen.trailers
    assert trailers == "X-Sum: 1\r\n\r\n"


async def test_a_response_does_not_take_back_in_trailers_what_a_middleware_says(world: World) -> None:
    async def endpoint(one: Conversation) -> None:
        while await one.head():
            late = "X-Shown: task\r\nx_shown: task\r\nSet-Cookie: a=b\r\nX-Sum: 1\r\n"
            head = "HTTP/1.1 200 OK\r\nConnection: X-Shown\r\nTransfer-Encoding: chunked\r\n\r\n"
            await one.say(f"{head}1\r\na\r\n0\r\n{late}\r\n")

    app = await world.stand.endpoint(endpoint)
    labels = routed("app", "Host(`a`)", app.endpoint.port, middlewares="shown")
    labels[f"{MIDDLEWARE}.shown.headers.customresponseheaders.X-Shown"] = "ours"
    world.put("app", labels, app)
    one = await world.client()
    await one.say("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    head, _, body = (await one.rest()).decode().partition("\r\n\r\n")
    assert "X-Shown: ours" in head
    assert body == "1\r\na\r\n0\r\nX-Sum: 1\r\n\r\n"


@pytest.mark.parametrize("entry", ["web", "behind a proxy"])
async def test_a_connection_list_takes_nothing_away_that_names_the_client(world: World, entry: str) -> None:
    seen = await guarded(world)
    options = (
        "X-Forwarded-For, X-Forwarded-Proto, x-real-ip, X-Request-Id, Forwarded, X-User, X-Auth-User, X-Drop"
    )
    lines = ("X-Forwarded-For: 192.0.2.7", "X-Forwarded-Proto: https", "X-Real-Ip: 192.0.2.7", "X-Drop: 1")
    one = await world.client(entry)
    head = "\r\n".join(
        ("GET / HTTP/1.1", "Host: a", f"Authorization: {GUARD}", f"Connection: {options}", *lines)
    )
    await one.say(head + "\r\n\r\n")
    assert (await one.response())[0] == 200
    fields = dict(line.split(": ", 1) for line in seen.heads[0].lower().split("\r\n")[1:-2])
    proxied = entry == "behind a proxy"
    assert fields["x-forwarded-for"] == ("192.0.2.7, 127.0.0.1" if proxied else "127.0.0.1")
    assert fields["x-forwarded-proto"] == ("https" if proxied else "http")
    assert fields["x-real-ip"] == ("192.0.2.7" if proxied else "127.0.0.1")
    assert fields["x-user"] == fields["x-auth-user"] == "jane"
    assert "x-request-id" in fields
    assert "x-drop" not in fields


async def test_a_trusted_proxy_may_say_what_other_proxies_set(world: World) -> None:
    seen = await guarded(world)
    lines = ("True-Client-IP: 192.0.2.7", "X-Original-URL: /x", "X_Forwarded_For: 6.6.6.6")
    await world.get("a/", f"Authorization: {GUARD}", *lines, entry="behind a proxy")
    head = seen.heads[0].lower()
    assert "true-client-ip: 192.0.2.7" in head
    assert "x-original-url: /x" in head
    assert "6.6.6.6" not in head


async def test_there_is_one_request_id(world: World) -> None:
    seen = await guarded(world)
    for given in ("abc", "not one"):
        lines = (f"X-Request-Id: {given}", "X_Request_Id: 6.6.6.6", f"Authorization: {GUARD}")
        assert (await world.get("a/", *lines, entry="behind a proxy"))[0] == 200
    ids = [
        line for head in seen.heads for line in head.split("\r\n") if line.lower().startswith("x-request-id")
    ]
    assert len(ids) == 2
    assert ids[0] == "X-Request-Id: abc"
    assert "not one" not in ids[1]


async def test_a_name_by_expression_holds_in_all_spellings(world: World) -> None:
    seen = await guarded(world)
    labels = dict(world.snapshot.services["app"].labels)
    labels[f"{MIDDLEWARE}.asked.forwardauth.authresponseheadersregex"] = "^X-Auth-"
    world.change(Change(services={"app": replace(world.snapshot.services["app"], labels=labels)}))
    lines = ("X_Auth_Role: 6.6.6.6", "x.auth.role: 6.6.6.6", "X-Auth-Role: 6.6.6.6")
    assert (await world.get("a/", f"Authorization: {GUARD}", *lines))[0] == 200
    assert "6.6.6.6" not in seen.heads[0]
