"""`contenttype`: which responses get a media type, and which one."""

from dataclasses import dataclass, field
from typing import cast

import pytest

from mesh.http.codec.h1_head import CHUNKED, ResponseHead, read_response
from mesh.http.middleware.kind import FilterContext
from mesh.http.middleware.kinds.content_type import (
    ContentType,
    ContentTypeFilter,
    detect_media_type,
    is_untyped,
)
from mesh.http.middleware.options import LabelError
from mesh.http.middleware.table import NOTHING, parse_middleware
from tests.http.conftest import MIDDLEWARE, Conversation, World, parsed, routed

PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
MP4 = b"\0\0\0\x18ftypisom\0\0\0\0isommp42"


@pytest.mark.parametrize(
    ("body", "media_type"),
    [
        (b"\r\n <!doctype html><p>", "text/html; charset=utf-8"),
        (b"<a href=x>", "text/html; charset=utf-8"),
        (b"<article>", "text/plain; charset=utf-8"),  # `<A` needs a space or `>` behind it
        (b"<?xml version='1.0'?>", "text/xml; charset=utf-8"),
        (b"<?XML version='1.0'?>", "text/plain; charset=utf-8"),
        (b'{"a": 1}', "text/plain; charset=utf-8"),
        (b"\xff\xfea\0", "text/plain; charset=utf-16le"),
        (PNG, "image/png"),
        (MP4, "video/mp4"),
        (b"RIFF\1\2\n\4WEBPVP8 ", "image/webp"),
        (b"%PDF-1.7", "application/pdf"),
        (b"\0asm\1\0\0\0", "application/wasm"),
        (b"text\1", "application/octet-stream"),
        (b"a" * 512 + b"\0", "text/plain; charset=utf-8"),  # only 512 bytes are looked at
    ],
)
def test_the_first_bytes_show_the_media_type(body: bytes, media_type: str) -> None:
    assert detect_media_type(body) == media_type.encode()


def head_of(status: int, *lines: str) -> ResponseHead:
    return read_response("\r\n".join((f"HTTP/1.1 {status} X", *lines, "", "")).encode())


def test_a_type_that_is_there_is_left_alone() -> None:
    assert is_untyped(head_of(200, "Content-Length: 5"))
    assert is_untyped(head_of(404, "X-Content-Type: text/css"))
    assert not is_untyped(head_of(200, "content-TYPE: text/css"))
    assert not is_untyped(head_of(200, "Content-Type:"))


def test_what_is_encoded_or_has_no_body_is_not_looked_at() -> None:
    assert not is_untyped(head_of(200, "Content-Encoding: gzip"))
    assert not is_untyped(head_of(304))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"": "true"}, ContentType()),
        ({"autoDetect": "true"}, ContentType()),
        ({"autoDetect": "false"}, NOTHING),
    ],
)
def test_the_deprecated_option_turns_it_off(options: dict[str, str], expected: object) -> None:
    assert parse_middleware("contenttype", options) == (expected, [])


@pytest.mark.parametrize("text", ["yes", "", "2"])
def test_an_option_that_is_no_boolean_is_refused(text: str) -> None:
    with pytest.raises(LabelError, match="neither true nor false"):
        parse_middleware("contenttype", {"autodetect": text})


class Client:
    """The client's side: what it was sent, in order."""

    edge, request_id = None, b""

    def __init__(self) -> None:
        self.sent: list[object] = []

    def respond(self, head: ResponseHead, _length: int) -> None:
        self.sent.append(head.fields.get(b"content-type"))

    def write(self, data: bytes) -> None:
        self.sent.append(data)

    def flush(self) -> bool:
        self.sent.append("flush")
        return True

    def end(self, _trailers: bytes) -> None:
        self.sent.append("end")


@dataclass
class Context:
    client: Client = field(default_factory=Client)


def test_the_head_is_held_back_until_the_body_begins() -> None:
    context = Context()
    response = ContentTypeFilter(cast(FilterContext, context))
    response.respond(head_of(200, "Transfer-Encoding: chunked"), CHUNKED)
    assert response.flush()
    assert context.client.sent == []
    response.write(PNG)
    response.write(b"more")
    response.flush()
    response.end(b"")
    assert context.client.sent == [b"image/png", PNG, b"more", "flush", "end"]


def test_a_response_whose_body_turns_out_to_be_empty_has_no_type() -> None:
    context = Context()
    response = ContentTypeFilter(cast(FilterContext, context))
    response.respond(head_of(200, "Transfer-Encoding: chunked"), CHUNKED)
    response.end(b"")
    assert context.client.sent == [None, "end"]


@pytest.mark.parametrize(
    ("response", "media_type"),
    [
        ("Content-Length: 6\r\n\r\n<html>", "text/html; charset=utf-8"),
        ("Transfer-Encoding: chunked\r\n\r\n6\r\n<html>\r\n0\r\n\r\n", "text/html; charset=utf-8"),
        ("Content-Type: a/b\r\nContent-Length: 6\r\n\r\n<html>", "a/b"),
        ("Content-Length: 0\r\n\r\n", None),
    ],
)
@pytest.mark.parametrize("typed", [True, False])
async def test_a_type_is_detected_only_with_the_middleware(
    world: World, response: str, media_type: str | None, typed: bool
) -> None:
    async def answer(one: Conversation) -> None:
        while await one.head():
            await one.say(f"HTTP/1.1 200 OK\r\n{response}")

    app = await world.stand.endpoint(answer)
    labels = routed("app", "Host(`a.example`)", app.endpoint.port, middlewares="m" if typed else "")
    if not typed:
        labels = {key: value for key, value in labels.items() if not key.endswith(".middlewares")}
        media_type = "a/b" if "a/b" in response else None
    world.put("app", labels | {f"{MIDDLEWARE}.m.contenttype": "true"}, app)
    client = await world.client()
    for _ in range(2):  # the connection can be used again
        await client.request()
        status, fields, _ = await client.response()
        assert (status, fields.get("content-type")) == (200, media_type)


async def test_head_is_answered_without_a_guess(world: World) -> None:
    async def answer(one: Conversation) -> None:
        while await one.head():
            await one.say("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n")

    app = await world.stand.endpoint(answer)
    labels = routed("app", "Host(`a.example`)", app.endpoint.port, middlewares="m")
    world.put("app", labels | {f"{MIDDLEWARE}.m.contenttype": "true"}, app)
    client = await world.client()
    await client.request(first="HEAD / HTTP/1.1")
    assert "content-type" not in parsed(await client.head())[1]
