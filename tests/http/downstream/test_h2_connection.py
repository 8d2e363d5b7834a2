"""Clients that speak HTTP/2, before endpoints of HTTP/1.1: as the library h2 and curl see it."""

import asyncio
import re
import shutil
import subprocess

import h2.errors
import pytest

from mesh.http import limits
from mesh.http.codec import h2_protocol
from mesh.http.downstream.published_port import HttpPort
from tests.http.conftest import LIMIT, Conversation, Handler, Stand, parsed
from tests.http.h2_peer import Peer, h2_client


@pytest.fixture
async def before(stand: Stand):
    """A client of HTTP/2 in front of endpoints that do this."""
    peers: list[Peer] = []

    async def make(*handlers: Handler, window: int | None = None) -> Peer:
        stand.endpoints = [await stand.endpoint(handler) for handler in handlers]
        stand.port_ = await stand.port(*(one.endpoint for one in stand.endpoints))
        peer = await h2_client(stand.port_.address, window)
        peers.append(peer)
        return peer

    yield make
    for peer in peers:
        await peer.close()


async def hello(to: Conversation) -> None:
    while head := await to.head():
        _, fields = parsed(head.replace("HTTP/1.1\r\n", "HTTP/1.1 0\r\n", 1).replace(" ", " 200 ", 1))
        body = head.split(" ")[1].encode()
        if "content-length" in fields:
            body += b":" + await to.read(int(fields["content-length"]))
        elif fields.get("transfer-encoding") == "chunked":
            body += b":" + await to.chunks()
        await to.say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))


class TestExchanges:
    async def test_a_request_becomes_one_of_http_1(self, stand: Stand, before) -> None:
        asked = asyncio.get_running_loop().create_future()

        async def endpoint(to: Conversation) -> None:
            asked.set_result(await to.head())
            await to.say(
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-A: b\r\nConnection: x-b\r\nX-B: c\r\n\r\nhi"
            )

        client = await before(endpoint)
        heard = await client.whole(
            client.ask(("cookie", "a=1"), ("cookie", "b=2"), ("te", "trailers"), ("x-q", "z"), path="/p?q")
        )
        assert (heard.status, heard.body) == (200, b"hi")
        assert heard.get("x-a") == "b"
        assert not {"x-b", "connection"} & dict(heard.fields).keys()
        head = (await asked).split("\r\n")
        assert head[0] == "GET /p?q HTTP/1.1"
        fields = {line.split(": ")[0].lower(): line.split(": ", 1)[1] for line in head[1:-2]}
        assert fields["host"] == "a.example"
        assert fields["cookie"] == "a=1; b=2"
        assert fields["x-forwarded-proto"] == "http"
        assert fields["x-q"] == "z"
        assert re.fullmatch("[0-9a-f]{16,}", fields["x-request-id"])
        assert not {"transfer-encoding", "content-length"} & fields.keys()

    @pytest.mark.parametrize("size", [0, 1, 70_000, 2_000_000])
    @pytest.mark.parametrize("sized", [True, False])
    async def test_bodies_go_both_ways(self, before, size: int, sized: bool) -> None:
        client = await before(hello)
        body = bytes(i % 251 for i in range(size))
        fields = [("content-length", str(size))] if sized else []
        heard = client.ask(*fields, method="POST", end=False)
        await client.send(heard.id, body, end=True)
        await client.whole(heard)
        assert heard.status == 200
        assert heard.body == b"/:" + body

    async def test_one_connection_has_many_requests_at_once(self, stand: Stand, before) -> None:
        arrived = 0
        all_there = asyncio.Event()

        async def endpoint(to: Conversation) -> None:
            nonlocal arrived
            head = await to.head()
            arrived += 1
            if arrived == 100:
                all_there.set()
            await asyncio.wait_for(all_there.wait(), LIMIT)
            path = head.split(" ")[1]
            await to.say(f"HTTP/1.1 200 OK\r\nContent-Length: {len(path)}\r\n\r\n{path}")

        client = await before(endpoint)
        asked = [client.ask(path=f"/{number}") for number in range(100)]
        for number, heard in enumerate(asked):
            assert (await client.whole(heard)).body == f"/{number}".encode()
        assert stand.port_.stats.connections == 1

    async def test_a_post_without_a_body_has_a_length_of_0(self, before) -> None:
        client = await before(hello)
        heard = await client.whole(client.ask(method="POST", path="/x"))
        assert heard.body == b"/x:"  # the endpoint was told a length, of nothing

    async def test_head_and_some_statuses_have_no_body(self, before) -> None:
        async def endpoint(to: Conversation) -> None:
            while head := await to.head():
                if head.startswith("HEAD"):
                    await to.say("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
                else:
                    await to.say("HTTP/1.1 304 Not Modified\r\nETag: a\r\n\r\n")

        client = await before(endpoint)
        heard = await client.whole(client.ask(method="HEAD"))
        assert (heard.status, heard.body, heard.get("content-length")) == (200, b"", "5")
        heard = await client.whole(client.ask())
        assert (heard.status, heard.body) == (304, b"")

    async def test_trailers_go_both_ways(self, before) -> None:
        async def endpoint(to: Conversation) -> None:
            assert "TE: trailers" in await to.head()
            assert await to.until(b"\r\n\r\n") == b"3\r\nabc\r\n0\r\nx-sum: 1\r\n\r\n"
            await to.say(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 2\r\n\r\n"
            )

        client = await before(endpoint)
        heard = client.ask(("te", "trailers"), end=False, method="POST")
        await client.send(heard.id, b"abc")
        client.trailers(heard.id, ("x-sum", "1"))
        await client.whole(heard)
        assert heard.body == b"hi"
        assert heard.trailers == [("x-sum", "2")]

    async def test_interim_responses_are_passed_on(self, before) -> None:
        async def endpoint(to: Conversation) -> None:
            assert "expect: 100-continue" in await to.head()
            await to.say("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
            assert await to.read(2) == b"ab"
            await to.say("HTTP/1.1 204 No Content\r\n\r\n")

        client = await before(endpoint)
        heard = client.ask(("expect", "100-continue"), ("content-length", "2"), end=False, method="PUT")
        await client.until(lambda: len(heard.interim) == 2)
        assert heard.interim == [[(":status", "100")], [(":status", "103"), ("link", "</a>")]]
        await client.send(heard.id, b"ab", end=True)
        assert (await client.whole(heard)).status == 204

    async def test_a_response_before_the_end_of_the_request_ends_the_request(self, before) -> None:
        async def endpoint(to: Conversation) -> None:
            await to.head()
            await to.say("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
            await to.rest()

        client = await before(endpoint)
        heard = client.ask(end=False, method="POST")
        await client.until(lambda: heard.reset is not None)
        assert (heard.status, heard.body, heard.reset) == (403, b"no", h2.errors.ErrorCodes.NO_ERROR)

    async def test_request_and_response_bodies_can_flow_at_the_same_time(self, before) -> None:
        async def endpoint(to: Conversation) -> None:
            await to.head()
            await to.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            for _ in range(3):
                assert await to.until(b"\r\n") == b"1\r\n"
                await to.say(b"1\r\n" + await to.read(3))
            assert await to.until(b"\r\n\r\n") == b"0\r\n\r\n"
            await to.say("0\r\n\r\n")

        client = await before(endpoint)
        heard = client.ask(end=False, method="POST")
        await client.until(lambda: bool(heard.fields))
        for sent in (b"a", b"b", b"c"):
            await client.send(heard.id, sent)
            await client.until(lambda sent=sent: heard.body.endswith(sent))
        await client.send(heard.id, b"", end=True)
        assert (await client.whole(heard)).body == b"abc"
        assert heard.reset is None


class TestWindows:
    async def test_a_slow_reader_slows_its_endpoint_and_no_other_stream(self, stand: Stand, before) -> None:
        size = 50_000_000
        said = 0

        async def endpoint(to: Conversation) -> None:
            nonlocal said
            while head := await to.head():
                if "/slow" in head:
                    await to.say(f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n")
                    while said < size:
                        await to.say(bytes(100_000))
                        said += 100_000
                else:
                    await to.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")

        client = await before(endpoint, window=1000)
        client.taking = False
        slow = client.ask(path="/slow")
        await client.until(lambda: len(slow.body) == 1000)
        for _ in range(20):
            assert (await client.whole(client.ask())).body == b"hi"
        assert len(slow.body) == 1000
        assert said < size / 2  # the rest fits neither kernel's buffers nor ours
        client.taking = True
        client.give_back(slow)
        await client.whole(slow)
        assert len(slow.body) == size

    async def test_a_slow_endpoint_slows_its_client(self, before) -> None:
        go_on = asyncio.Event()

        async def endpoint(to: Conversation) -> None:
            await to.head()
            await asyncio.wait_for(go_on.wait(), LIMIT)
            body = await to.chunks()
            await to.say(f"HTTP/1.1 200 OK\r\nContent-Length: {len(str(len(body)))}\r\n\r\n{len(body)}")

        client = await before(endpoint)
        heard = client.ask(end=False, method="POST")
        sending = asyncio.create_task(client.send(heard.id, bytes(20_000_000), end=True))
        # Its windows are used up, and stay so: what the kernel took is far less than all.
        await client.until(
            lambda: (
                client.h2.local_flow_control_window(heard.id) == 0
                and not client.writer.transport.get_write_buffer_size()
            )
        )
        assert not sending.done()
        go_on.set()
        await sending
        assert (await client.whole(heard)).body == b"20000000"

    async def test_a_client_that_reads_nothing_of_a_stream_loses_that_stream_alone(
        self, stand: Stand, before, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(limits, "BODY_SECONDS", 0.2)

        async def endpoint(to: Conversation) -> None:
            while head := await to.head():
                size = 1_000_000 if "/large" in head else 2
                await to.say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (size, bytes(size)))

        client = await before(endpoint, window=1000)
        client.taking = False
        large = client.ask(path="/large")
        await client.until(lambda: large.reset is not None)
        assert large.reset == h2.errors.ErrorCodes.CANCEL
        assert (await client.whole(client.ask())).body == bytes(2)
        assert stand.port_.target.stats.faults["client_gone"] == 1


class TestEnds:
    async def test_a_cancelled_request_is_cancelled_at_the_endpoint(self, stand: Stand, before) -> None:
        left = asyncio.Event()

        async def endpoint(to: Conversation) -> None:
            if "/long" in await to.head():
                assert await to.rest() == b""
                left.set()
            else:
                await to.say("HTTP/1.1 204 No Content\r\n\r\n")

        client = await before(endpoint)
        heard = client.ask(path="/long")
        await client.until(lambda: stand.endpoints[0].connections == 1 or True)
        other = await client.whole(client.ask())
        assert other.status == 204
        client.reset(heard.id)
        await asyncio.wait_for(left.wait(), LIMIT)
        assert stand.port_.target.stats.faults["client_gone"] == 1

    async def test_a_response_that_breaks_off_is_reset(self, before) -> None:
        async def endpoint(to: Conversation) -> None:
            await to.head()
            await to.say("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")

        client = await before(endpoint)
        heard = await client.whole(client.ask())
        assert (heard.ended, heard.reset) == (False, h2.errors.ErrorCodes.INTERNAL_ERROR)

    async def test_a_drain_loses_no_request(self, stand: Stand, before) -> None:
        go_on = asyncio.Event()

        async def endpoint(to: Conversation) -> None:
            while await to.head():
                await asyncio.wait_for(go_on.wait(), LIMIT)
                await to.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")

        client = await before(endpoint)
        first = client.ask()
        await client.until(
            lambda: client.h2.remote_settings.max_concurrent_streams == h2_protocol.STREAMS_MAX
        )
        closing = asyncio.create_task(stand.port_.close(LIMIT))
        # The library ends a connection at GOAWAY, so the frames are looked at as bytes.
        client._task.cancel()
        await asyncio.wait({client._task})
        got = b""
        while (
            b"\x00\x00\x08\x06" not in got
        ):  # PING: it waits for our answer before it says which is the last
            got += await asyncio.wait_for(client.reader.read(65536), LIMIT)
        assert b"\x00\x00\x08\x07\x00\x00\x00\x00\x00\x7f\xff\xff\xff\x00\x00\x00\x00" in got
        client.raw(b"\x00\x00\x08\x06\x01\x00\x00\x00\x00" + bytes(8))
        while b"\x00\x00\x08\x07\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00" not in got:
            got += await asyncio.wait_for(client.reader.read(65536), LIMIT)
        go_on.set()
        rest = await asyncio.wait_for(client.reader.read(), LIMIT)
        assert b"hi" in got + rest
        await asyncio.wait_for(closing, LIMIT)
        assert first.id == 1

    async def test_a_client_that_sends_goaway_gets_its_responses(self, stand: Stand, before) -> None:
        go_on = asyncio.Event()

        async def endpoint(to: Conversation) -> None:
            await to.head()
            await asyncio.wait_for(go_on.wait(), LIMIT)
            await to.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")

        client = await before(endpoint)
        client.ask()
        client._task.cancel()
        await asyncio.wait({client._task})
        client.raw(b"\x00\x00\x08\x07\x00\x00\x00\x00\x00" + bytes(8))  # GOAWAY
        go_on.set()
        assert b"hi" in await asyncio.wait_for(client.reader.read(), LIMIT)

    async def test_an_idle_connection_is_closed(self, before, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("mesh.http.downstream.h2_connection.H2Client.idle_seconds", 0.05)
        client = await before(hello)
        assert (await client.whole(client.ask())).status == 200
        await client.over()
        assert [one.error_code for one in client.goaways] == [h2.errors.ErrorCodes.NO_ERROR]

    async def test_a_body_that_is_too_slow_is_refused(self, before, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(limits, "BODY_SECONDS", 0.05)

        async def endpoint(to: Conversation) -> None:
            await to.head()
            await to.rest()

        client = await before(endpoint)
        heard = client.ask(end=False, method="POST")
        await client.until(lambda: heard.reset is not None)
        assert heard.status == 408
        assert b"body_timeout" in heard.body

    async def test_a_request_without_an_endpoint_is_503(self, stand: Stand, before) -> None:
        client = await before()
        heard = await client.whole(client.ask())
        assert heard.status == 503
        assert b"no_endpoint" in heard.body
        assert heard.get("x-request-id").encode() in heard.body


MALFORMED = [
    [(":method", "GET"), (":scheme", "http"), (":path", "/")],  # no authority
    [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a"), ("host", "b")],
    [(":method", "GET"), (":scheme", "http"), (":path", "a"), (":authority", "a")],
    [(":method", "GET"), (":scheme", "http"), (":path", "/ b"), (":authority", "a")],
    [(":method", "GET"), (":scheme", "ftp"), (":path", "/"), (":authority", "a")],
    [(":method", "G T"), (":scheme", "http"), (":path", "/"), (":authority", "a")],
    [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a b")],
    [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a\r\nb: c")],
    [(":method", "GET"), (":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a")],
    [("a", "b"), (":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a")],
    [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a"), (":new", "a")],
]
FIELDS = [
    ("A", "b"),
    ("a:b", "c"),
    ("a", "b\r\nc: d"),
    ("a", "b\0"),
    ("a", " b"),
    ("a b", "c"),
    ("", "c"),
    ("connection", "close"),
    ("transfer-encoding", "chunked"),
    ("upgrade", "websocket"),
    ("keep-alive", "1"),
    ("proxy-connection", "close"),
    ("te", "gzip"),
    ("content-length", "1"),
    ("content-length", "+1"),
]


class TestMalformed:
    @pytest.mark.parametrize(
        "fields", MALFORMED + [[*MALFORMED[0], (":authority", "a"), one] for one in FIELDS]
    )
    async def test_a_malformed_request_is_400_and_other_streams_go_on(
        self, stand: Stand, before, fields
    ) -> None:
        client = await before(hello)
        id_ = client.h2.get_next_available_stream_id()
        heard = client.heard[id_]
        client.h2.send_headers(id_, fields, end_stream=True)
        client.push()
        await client.whole(heard)
        assert heard.status == 400, heard
        assert (await client.whole(client.ask())).status == 200
        assert stand.endpoints[0].connections == 1
        assert stand.port_.stats.errors["malformed"] == 1

    @pytest.mark.parametrize(("length", "body"), [("3", b"abcd"), ("3", b"ab")], ids=["longer", "shorter"])
    async def test_a_body_of_another_length_resets_the_stream(
        self, stand: Stand, before, length: str, body: bytes
    ) -> None:
        client = await before(hello, hello)
        heard = client.ask(("content-length", length), end=False, method="POST")
        client.h2.send_data(heard.id, body, end_stream=True)
        client.push()
        await client.whole(heard)
        assert heard.reset == h2.errors.ErrorCodes.PROTOCOL_ERROR
        assert (await client.whole(client.ask())).status == 200
        assert stand.port_.stats.errors["malformed_body"] == 1

    async def test_connect_is_refused(self, before) -> None:
        client = await before(hello)
        assert (await client.whole(client.ask(method="CONNECT"))).status == 405

    async def test_a_path_that_is_too_long_is_refused(self, before) -> None:
        client = await before(hello)
        assert (await client.whole(client.ask(path="/" + 17_000 * "a"))).status == 414


async def _curl(port: HttpPort, *arguments: str) -> str:
    program = shutil.which("curl")
    assert program is not None
    host, number = port.address
    run = await asyncio.create_subprocess_exec(
        program,
        "-sS",
        "--max-time",
        str(LIMIT),
        *arguments,
        f"http://{host}:{number}/x",
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, error = await run.communicate()
    assert run.returncode == 0, error.decode()
    return out.decode()


class TestCurl:
    async def test_curl_speaks_http2_with_prior_knowledge(self, stand: Stand) -> None:
        port = await stand.port((await stand.endpoint(hello)).endpoint)
        assert await _curl(port, "--http2-prior-knowledge", "-w", " %{http_version}") == "/x 2"

    async def test_an_upgrade_to_http2_is_ignored(self, stand: Stand) -> None:
        """RFC 9113 section 3.1 has given it up."""
        port = await stand.port((await stand.endpoint(hello)).endpoint)
        assert await _curl(port, "--http2", "-w", " %{http_version}") == "/x 1.1"
