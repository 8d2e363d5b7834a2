"""Compressed responses, byte for byte: which, what their heads say, and that nothing waits in the coder."""

import asyncio
import gzip
import zlib
from collections.abc import Sequence
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.http import limits
from mesh.http.codec.h1_head import ResponseHead, read_response
from mesh.http.codec.proxy_headers import ClientInfo
from mesh.http.interfaces import Downstream
from mesh.http.middleware.kinds.compress import Compress, CompressFilter, accepts_gzip, is_compressible
from mesh.net.limits.semaphore import Semaphore
from tests.http.conftest import LIMIT, MIDDLEWARE, Conversation, Handler, World, parsed, routed

TEXT = b"<p>all the same, again and again</p>\n" * 100
GZIP = "Accept-Encoding: gzip, deflate, br, zstd"


@pytest.mark.parametrize(
    ("values", "understood"),
    [
        (["gzip, deflate, br"], True),
        (["br", "gzip"], True),
        (["GZIP;Q=0.5"], True),
        (["x-gzip"], True),
        (["*"], True),
        (["br, *;q=0.1"], True),
        (["gzip;q=0, *"], False),
        (["gzip;q=0.000"], False),
        (["gzip;q=nonsense"], False),
        (["*;q=0"], False),
        (["br, zstd"], False),
        (["identity"], False),
        ([""], False),
        ([], False),
        (["gzipped"], False),
    ],
)
def test_which_clients_accept_gzip(values: Sequence[str], understood: bool) -> None:
    assert accepts_gzip(values) is understood


@pytest.mark.parametrize(
    ("status", "lines", "one", "expected"),
    [
        (200, "Content-Type: text/html; charset=utf-8\r\nContent-Length: 1024", Compress(), True),
        (200, "Content-Type: text/html\r\nContent-Length: 1023", Compress(), False),
        (200, "Content-Type: text/html\r\nContent-Length: 1023", Compress(minimum=0), True),
        (404, "Content-Type: application/problem+json\r\nTransfer-Encoding: chunked", Compress(), True),
        (200, "Content-Type: image/svg+xml", Compress(), True),
        (200, "Content-Type: Application/JavaScript", Compress(), True),
        (200, "Content-Type: image/png", Compress(), False),
        (200, "Content-Type: image/png", Compress(included=("image/png",)), True),
        (200, "Content-Type: text/html", Compress(included=("image/png",)), False),
        (200, "Content-Type: text/html; x", Compress(excluded=("text/html",)), False),
        (200, "Content-Type: text/css", Compress(excluded=("text/html",)), True),
        (200, "Content-Type: application/grpc", Compress(included=("application/grpc",)), False),
        (200, "X: y", Compress(), False),
        (206, "Content-Type: text/html", Compress(), False),
        (200, "Content-Type: text/html\r\nContent-Range: bytes 0-1/5000", Compress(), False),
        (200, "Content-Type: text/html\r\nContent-Encoding: br", Compress(), False),
        (200, "Content-Type: text/html\r\nCache-Control: private, No-Transform", Compress(), False),
        (200, "Content-Type: text/html\r\nX: no-transform", Compress(), True),
        (200, "Content-Type: text/html\r\nRepr-Digest: sha-256=:x:", Compress(), False),
    ],
)
def test_which_responses_are_compressible(status: int, lines: str, one: Compress, expected: bool) -> None:
    head = read_response(f"HTTP/1.1 {status} X\r\n{lines}\r\n\r\n".encode())
    assert is_compressible(one, head) is expected


def saying(head: str, body: bytes = b"") -> Handler:
    """Answers every request so."""

    async def endpoint(one: Conversation) -> None:
        while await one.head():
            await one.say(f"HTTP/1.1 {head}\r\n\r\n".encode() + body)

    return endpoint


class Client:
    """What the exchange's other side is told, without sockets."""

    edge = ClientInfo("127.0.0.1", "http", 80)
    request_id = b""

    def __init__(self) -> None:
        self.head: ResponseHead | None = None
        self.got = b""
        self.flushed = b""  # of it
        self.over = False

    def respond(self, head: ResponseHead, length: int) -> None:
        assert self.head is None
        self.head = head

    def write(self, data: bytes) -> None:
        assert self.head is not None
        assert data
        self.got += data

    def flush(self) -> bool:
        assert self.head is not None
        self.flushed = self.got
        return True

    def end(self, trailers: bytes) -> None:
        self.over = True


@given(
    pieces=st.lists(st.one_of(st.none(), st.binary(min_size=1, max_size=3000)), max_size=12),
    sized=st.booleans(),
    wanted=st.booleans(),
    minimum=st.sampled_from([0, 1, 1024]),
)
def test_however_it_comes_it_is_the_same(
    pieces: list[bytes | None], sized: bool, wanted: bool, minimum: int
) -> None:
    """None: what was read so far is sent. Nothing that was is held back, where nobody knows the length."""
    whole = b"".join(filter(None, pieces))
    framing = f"Content-Length: {len(whole)}" if sized else "Transfer-Encoding: chunked"
    head = read_response(f"HTTP/1.1 200 OK\r\nContent-Type: text/css\r\n{framing}\r\n\r\n".encode())
    client, compressors = Client(), Semaphore(1)
    response = CompressFilter(cast(Downstream, client), Compress(minimum), wanted, False, compressors)
    response.respond(head, head.length)
    said = b""
    for piece in pieces:
        if piece is not None:
            response.write(piece)
            said += piece
            continue
        assert response.flush()
        assert client.head is not None
        if not sized:
            coding = client.head.fields.get(b"content-encoding")
            assert (zlib.decompressobj(31).decompress(client.flushed) if coding else client.flushed) == said
    response.end(b"")
    response.on_end()
    assert client.over
    assert client.head is not None
    coded = client.head.fields.get(b"content-encoding") == b"gzip"
    assert not coded or wanted
    assert (gzip.decompress(client.got) if coded else client.got) == whole
    assert client.head.fields.has(b"content-length") == (sized and not coded)
    assert compressors.take(), "the coder is given back"


async def client_of(world: World, handler: Handler, **options: str) -> Conversation:
    one = await world.stand.endpoint(handler)
    labels = routed("one", "Host(`a`)", one.endpoint.port, middlewares="zip")
    labels |= {f"{MIDDLEWARE}.zip.compress": "true"}
    labels |= {f"{MIDDLEWARE}.zip.compress.{name}": value for name, value in options.items()}
    world.put("one", labels, one)
    return await world.client()


async def ask(client: Conversation, *lines: str, method: str = "GET", version: str = "1.1") -> None:
    head = "".join(f"{line}\r\n" for line in (f"{method} / HTTP/{version}", "Host: a", *lines))
    await client.say(head + "\r\n")


async def test_a_response_that_is_all_there(world: World) -> None:
    lines = 'Content-Type: text/html\r\nETag: "x"\r\nAccept-Ranges: bytes\r\nVary: Cookie'
    client = await client_of(world, saying(f"200 OK\r\n{lines}\r\nContent-Length: {len(TEXT)}", TEXT))
    for _ in range(2):  # the connection goes on
        await ask(client, GZIP)
        head = await client.head()
        _, fields = parsed(head)
        body = await client.read(int(fields["content-length"]))
        assert gzip.decompress(body) == TEXT
        assert len(body) < len(TEXT) / 10
        assert sorted(head.split("\r\n")[1:-2]) == [
            "Content-Encoding: gzip",
            f"Content-Length: {len(body)}",
            "Content-Type: text/html",
            'ETag: W/"x"',
            "Vary: Accept-Encoding",
            "Vary: Cookie",
        ]


async def test_a_client_that_does_not_accept_gzip_gets_the_response_unchanged(world: World) -> None:
    lines = 'Content-Type: text/html\r\nETag: "x"\r\nAccept-Ranges: bytes'
    client = await client_of(world, saying(f"200 OK\r\n{lines}\r\nContent-Length: {len(TEXT)}", TEXT))
    for asked in ((), ("Accept-Encoding: br",)):
        await ask(client, *asked)
        _, fields, body = await client.response()
        assert body == TEXT
        assert fields["vary"] == "Accept-Encoding"
        assert (fields["etag"], fields["accept-ranges"]) == ('"x"', "bytes")
    await ask(client, GZIP, "Cache-Control: no-transform")
    _, fields, body = await client.response()
    assert (body, fields["etag"]) == (TEXT, '"x"')


@pytest.mark.parametrize(
    "head",
    [
        f"200 OK\r\nContent-Type: image/png\r\nContent-Length: {len(TEXT)}",
        f"206 Partial\r\nContent-Type: text/html\r\nContent-Range: bytes 0-9\r\nContent-Length: {len(TEXT)}",
        f"200 OK\r\nContent-Type: text/html\r\nContent-Encoding: br\r\nContent-Length: {len(TEXT)}",
        f"200 OK\r\nContent-Type: text/html\r\nCache-Control: no-transform\r\nContent-Length: {len(TEXT)}",
    ],
)
async def test_what_is_left_alone_is_not_touched(world: World, head: str) -> None:
    client = await client_of(world, saying(head, TEXT))
    await ask(client, GZIP)
    got = await client.head()
    assert await client.read(len(TEXT)) == TEXT
    assert got == f"HTTP/1.1 {head}\r\n\r\n"


async def test_a_large_response_of_known_length(world: World) -> None:
    """It comes in many reads, and so do its pieces go."""
    rows = b"".join(b'{"id": %d, "name": "row %d"}\n' % (n, n * 7919) for n in range(60_000))
    head = f"200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(rows)}"
    assert len(rows) > 20 * limits.READ_BYTES
    client = await client_of(world, saying(head, rows))
    for _ in range(2):
        await ask(client, GZIP)
        _, fields, body = await client.response()
        assert (fields["transfer-encoding"], "content-length" in fields) == ("chunked", False)
        assert gzip.decompress(body) == rows
    assert len(body) < len(rows) / 3
    await ask(client, GZIP, version="1.0")  # nobody can say there how long it is
    _, fields = parsed(await client.head())
    assert (fields["connection"], "transfer-encoding" in fields) == ("close", False)
    assert gzip.decompress(await client.rest()) == rows


async def test_events_wait_for_nothing(world: World) -> None:
    """Each is with the client before the application says the next."""
    events = [b"data: %d\n\n" % n for n in range(5)]

    async def endpoint(one: Conversation) -> None:
        await one.head()
        head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        await one.say(head)
        for event in events:
            assert await one.read(1) == b"."
            await one.say(b"%x\r\n%b\r\n" % (len(event), event))
        await one.say("0\r\nX-Sum: 1\r\n\r\n")

    client = await client_of(world, endpoint)
    # What the client says meanwhile is its body: the application's sign to go on.
    await client.say(f"POST / HTTP/1.1\r\nHost: a\r\n{GZIP}\r\nContent-Length: 5\r\n\r\n")
    _, fields = parsed(await client.head())
    assert fields["content-encoding"] == "gzip"
    decoder = zlib.decompressobj(31)
    for event in events:
        await client.say(".")
        got = b""
        while len(got) < len(event):
            got += decoder.decompress(await next_chunk(client))
        assert got == event
    got = b""
    while chunk := await next_chunk(client):
        got += decoder.decompress(chunk)
    assert (got, decoder.eof) == (b"", True)
    assert await client.until(b"\r\n\r\n") == b"X-Sum: 1\r\n\r\n"


async def next_chunk(client: Conversation) -> bytes:
    size = int(await client.until(b"\r\n"), 16)
    if not size:
        return b""
    return (await client.read(size + 2))[:-2]


async def test_a_response_in_chunks_that_is_small_stays_as_it_is(world: World) -> None:
    head = "200 OK\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked"
    client = await client_of(world, saying(head, b"5\r\nhello\r\n0\r\n\r\n"))
    for _ in range(2):
        await ask(client, GZIP)
        _, fields, body = await client.response()
        assert (body, fields["vary"], "content-encoding" in fields) == (b"hello", "Accept-Encoding", False)
    large = await client_of(world, saying(head, b"%x\r\n%b\r\n0\r\n\r\n" % (len(TEXT), TEXT)))
    await ask(large, GZIP)
    _, fields, body = await large.response()
    assert (fields["content-encoding"], gzip.decompress(body)) == ("gzip", TEXT)


async def test_a_response_that_breaks_off_does_not_look_whole(world: World) -> None:
    async def endpoint(one: Conversation) -> None:
        await one.head()
        await one.say(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n%b"
            % (len(TEXT) + 1, TEXT)
        )
        one.close()

    client = await client_of(world, endpoint)
    await ask(client, GZIP)
    with pytest.raises(ConnectionResetError):
        await client.rest()


async def test_head_says_what_get_would(world: World) -> None:
    lines = 'Content-Type: text/html\r\nETag: "x"\r\nContent-Length: 5000'
    client = await client_of(world, saying(f"200 OK\r\n{lines}"))
    await ask(client, GZIP, method="HEAD")
    head = await client.head()
    assert sorted(head.split("\r\n")[1:-2]) == [
        "Content-Encoding: gzip",
        "Content-Type: text/html",
        'ETag: W/"x"',
        "Vary: Accept-Encoding",
    ]
    await ask(client, method="HEAD")
    _, fields = parsed(await client.head())
    assert (fields["content-length"], fields["vary"]) == ("5000", "Accept-Encoding")


async def test_not_modified_names_what_the_client_has(world: World) -> None:
    client = await client_of(world, saying('304 Not Modified\r\nETag: "x"'))
    await ask(client, GZIP, 'If-None-Match: W/"x"')
    status, fields = parsed(await client.head())
    assert (status, fields["etag"], fields["vary"]) == (304, 'W/"x"', "Accept-Encoding")
    await ask(client, 'If-None-Match: "x"')
    assert parsed(await client.head())[1]["etag"] == '"x"'


async def test_an_upgrade_is_not_touched(world: World) -> None:
    async def endpoint(one: Conversation) -> None:
        await one.head()
        await one.say("HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
        await one.say(await one.read(5))

    client = await client_of(world, endpoint)
    await ask(client, GZIP, "Connection: Upgrade", "Upgrade: websocket")
    assert parsed(await client.head())[0] == 101
    await client.say("hello")
    assert await client.read(5) == b"hello"


async def test_beyond_so_many_at_once_responses_go_as_they_are(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a coder is free again when its request is over, however it ended."""
    monkeypatch.setattr(world.site._runner, "compressors", Semaphore(1))

    async def endpoint(one: Conversation) -> None:
        while await one.head():
            await one.say(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\n\r\n"
                b"%x\r\n%b\r\n" % (len(TEXT), TEXT)
            )
            if await one.reader.read(1) == b"":
                dropped.set()
                return

    dropped = asyncio.Event()
    first = await client_of(world, endpoint)
    await ask(first, GZIP)
    assert parsed(await first.head())[1]["content-encoding"] == "gzip"
    second = await world.client()
    await ask(second, GZIP)
    _, fields = parsed(await second.head())
    assert (fields["vary"], "content-encoding" in fields) == ("Accept-Encoding", False)
    assert await next_chunk(second) == TEXT
    first.reset()
    await asyncio.wait_for(dropped.wait(), LIMIT)
    third = await world.client()
    await ask(third, GZIP)
    assert parsed(await third.head())[1]["content-encoding"] == "gzip"
