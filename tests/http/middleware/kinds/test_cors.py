"""Pages of other origins: what browsers are told, and preflights that never reach the application."""

import pytest

from mesh.http.config.regex import Expression
from mesh.http.middleware.kinds import cors
from mesh.http.middleware.kinds.cors import Cors
from tests.http.conftest import MIDDLEWARE, Conversation, World, routed
from tests.support.http_requests import FakeRequest

A, B = "https://a.example", "https://b.example"


def from_origin(origin: str) -> FakeRequest:
    return FakeRequest(fields={"origin": [origin]} if origin else {})


@pytest.mark.parametrize(
    ("one", "origin", "lines"),
    [
        (Cors((A, B)), A, {"Access-Control-Allow-Origin": A, "Vary": "Origin"}),
        (Cors((A, B)), "https://evil.example", {"Vary": "Origin"}),
        (Cors((A,)), "", {"Vary": "Origin"}),
        (Cors(("*",)), B, {"Access-Control-Allow-Origin": "*"}),
        (Cors(("*",), vary=True), B, {"Access-Control-Allow-Origin": "*", "Vary": "Origin"}),
        (
            Cors(expressions=(Expression(r"^https://[a-z]\.example$"),)),
            B,
            {"Access-Control-Allow-Origin": B, "Vary": "Origin"},
        ),
        (
            Cors(expressions=(Expression(r"^https://[a-z]\.example$"),)),
            "https://a.example.evil",
            {"Vary": "Origin"},
        ),
        (
            Cors(("*",), credentials=True, exposed=("X-A", "X-B")),
            A,
            {
                "Access-Control-Allow-Origin": "*",
                "Access-Control-Allow-Credentials": "true",
                "Access-Control-Expose-Headers": "X-A, X-B",
            },
        ),
    ],
)
def test_what_responses_say(one: Cors, origin: str, lines: dict[str, str]) -> None:
    assert dict(cors.response_fields(one, from_origin(origin))) == lines


LABELS = {
    f"{MIDDLEWARE}.cors.headers.accesscontrolalloworiginlist": f"{A},{B}",
    f"{MIDDLEWARE}.cors.headers.accesscontrolallowmethods": "GET,PUT",
    f"{MIDDLEWARE}.cors.headers.accesscontrolallowheaders": "X-Key",
    f"{MIDDLEWARE}.cors.headers.accesscontrolmaxage": "100",
    f"{MIDDLEWARE}.cors.headers.customresponseheaders.Set-Cookie": "",
}
ASKS = ("Access-Control-Request-Method: PUT", "Access-Control-Request-Headers: x-key")


async def asked(world: World, *lines: str, method: str = "GET") -> tuple[int, dict[str, str], str, list[str]]:
    heads: list[str] = []

    async def endpoint(one: Conversation) -> None:
        while head := await one.head():
            heads.append(head.split(" ")[0])
            await one.say(
                "HTTP/1.1 200 OK\r\nVary: Cookie\r\nAccess-Control-Allow-Origin: null\r\n"
                "Set-Cookie: a=b\r\nContent-Length: 2\r\n\r\nok"
            )

    one = await world.stand.endpoint(endpoint)
    world.put("one", routed("one", "Host(`a`)", one.endpoint.port, middlewares="cors") | LABELS, one)
    return (*await world.get("a/", *lines, method=method), heads)


async def test_a_preflight_is_answered_here(world: World) -> None:
    status, fields, body, heads = await asked(world, f"Origin: {B}", *ASKS, method="OPTIONS")
    assert (status, body, heads) == (200, "", [])
    assert fields == {
        "access-control-allow-origin": B,
        "access-control-allow-methods": "GET, PUT",
        "access-control-allow-headers": "X-Key",
        "access-control-max-age": "100",
        "vary": "Origin",
        "content-length": "0",
        "connection": "close",
    }


async def test_a_preflight_from_elsewhere_allows_nothing(world: World) -> None:
    _, fields, _, heads = await asked(world, "Origin: https://evil.example", *ASKS, method="OPTIONS")
    assert heads == []
    assert "access-control-allow-origin" not in fields


async def test_options_that_is_no_preflight_is_the_applications(world: World) -> None:
    _, _, _, heads = await asked(world, f"Origin: {A}", method="OPTIONS")
    assert heads == ["OPTIONS"]


async def test_a_response_says_it_in_place_of_the_application(world: World) -> None:
    status, fields, body, _ = await asked(world, f"Origin: {A}")
    assert (status, body, fields["access-control-allow-origin"]) == (200, "ok", A)
    assert "set-cookie" not in fields, "what is to be taken away is"


async def test_what_responses_vary_by_is_added_to_what_the_application_said(world: World) -> None:
    one = await world.stand.endpoint(_varying)
    world.put("one", routed("one", "Host(`a`)", one.endpoint.port, middlewares="cors") | LABELS, one)
    client = await world.client()
    await client.say(f"GET / HTTP/1.1\r\nHost: a\r\nOrigin: {A}\r\n\r\n")
    head = await client.head()
    assert [line for line in head.split("\r\n") if line.startswith("Vary")] == [
        "Vary: Cookie",
        "Vary: Origin",
    ]


async def _varying(one: Conversation) -> None:
    while await one.head():
        await one.say("HTTP/1.1 200 OK\r\nVary: Cookie\r\nContent-Length: 0\r\n\r\n")
