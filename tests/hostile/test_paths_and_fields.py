"""Paths and fields that are to be read otherwise behind us than here; a good client is served beside."""

import pytest

from mesh.http.path_check import EncodedCharacters
from tests.http.conftest import MIDDLEWARE, World, routed, saying

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
