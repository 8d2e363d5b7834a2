"""HTTP/1.1 through a port, byte for byte: what the endpoint is sent, what the client gets."""

import asyncio
import gc
import socket

import pytest

from mesh.balance.policies import Endpoint
from mesh.http import limits
from mesh.http.exchange import Exchange
from tests.http.conftest import LIMIT, Conversation, Handler, Stand, parsed

OK = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def echo_heads(one: Conversation) -> None:
    """Answers every request with its own head."""
    while head := await one.head():
        body = head.encode("latin-1")
        await one.say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))


def nobody() -> Endpoint:
    """An endpoint that refuses connections."""
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        return Endpoint(*reserved.getsockname())


class TestHeads:
    async def test_the_endpoint_learns_who_asked_and_nothing_that_was_only_for_us(self, stand: Stand) -> None:
        client = await stand.before(echo_heads)
        await client.request(
            "Connection: keep-alive, X-Secret",
            "X-Secret: 1",
            "Keep-Alive: timeout=5",
            "Proxy-Connection: x",
            "TE: trailers, gzip",
            "X-Forwarded-For: 6.6.6.6",
            "x_forwarded_for: 6.6.6.6",
            "X-Real-IP: 6.6.6.6",
            "Forwarded: for=6.6.6.6",
            "X-Request-Id: mine",
            "Accept: */*",
        )
        _, _, body = await client.response()
        first, *lines = body.decode().split("\r\n")
        fields = dict(line.split(": ", 1) for line in lines if line)
        request_id = fields.pop("X-Request-Id")
        assert first == "GET / HTTP/1.1"
        assert len(request_id) == 24
        assert fields == {
            "Host": "a.example",
            "Accept": "*/*",
            "X-Forwarded-For": "127.0.0.1",
            "X-Forwarded-Proto": "http",
            "X-Forwarded-Host": "a.example",
            "X-Forwarded-Port": str(stand.port_.address[1]),
            "X-Real-Ip": "127.0.0.1",
            "TE": "trailers",
            "Connection": "TE",
        }

    async def test_each_request_has_an_id_of_its_own(self, stand: Stand) -> None:
        client = await stand.before(echo_heads)
        seen = set()
        for _ in range(3):
            await client.request()
            _, _, body = await client.response()
            seen.add(next(line for line in body.decode().split("\r\n") if line.startswith("X-Request-Id")))
        assert len(seen) == 3

    async def test_the_client_gets_the_response_without_what_was_only_for_us(self, stand: Stand) -> None:
        async def endpoint(one: Conversation) -> None:
            await one.head()
            await one.say(
                "HTTP/1.1 201 Made\r\nServer: x\r\nConnection: keep-alive, Y\r\nY: 1\r\nKeep-Alive: z\r\n"
                "Content-Length: 2\r\nSet-Cookie: a=b\r\nSet-Cookie: c=d\r\n\r\nok"
            )
            await one.head()

        client = await stand.before(endpoint)
        await client.request()
        assert await client.head() == (
            "HTTP/1.1 201 Made\r\nServer: x\r\nContent-Length: 2\r\n"
            "Set-Cookie: a=b\r\nSet-Cookie: c=d\r\n\r\n"
        )
        assert await client.read(2) == b"ok"

    async def test_a_head_may_come_byte_by_byte(self, stand: Stand) -> None:
        async def endpoint(one: Conversation) -> None:
            while await one.head():
                for byte in OK.encode():
                    await one.say(bytes([byte]))

        client = await stand.before(endpoint)
        for byte in b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n":
            await client.say(bytes([byte]))
        assert (await client.response())[2] == b"ok"

    async def test_a_connection_that_is_kept_keeps_nothing_of_its_last_request(self, stand: Stand) -> None:
        client = await stand.before(echo_heads)
        await client.request(first="GET /kept HTTP/1.1")
        await client.response()
        exchanges = (one for one in gc.get_objects() if type(one) is Exchange)
        assert not [one for one in exchanges if one.target == b"/kept"]


class TestBodies:
    @pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 65_537, 3_000_000])
    async def test_sized_both_ways(self, stand: Stand, size: int) -> None:
        async def endpoint(one: Conversation) -> None:
            while head := await one.head():
                _, fields = parsed("X 200 Y\r\n" + head.split("\r\n", 1)[1])
                body = await one.read(int(fields["content-length"]))
                await one.say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

        client = await stand.before(endpoint)
        body = bytes(i % 251 for i in range(size))
        for _ in range(2):
            sending = asyncio.create_task(
                client.request(f"Content-Length: {size}", body=body, first="PUT / HTTP/1.1")
            )
            status, _, got = await client.response()
            await sending
            assert status == 200
            assert got == body
        assert stand.endpoints[0].connections == 1

    async def test_in_chunks_both_ways(self, stand: Stand) -> None:
        async def endpoint(one: Conversation) -> None:
            while head := await one.head():
                assert "transfer-encoding: chunked" in head.lower()
                body = await one.chunks()
                await one.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                for byte in body:
                    await one.say(b"1;x=y\r\n" + bytes([byte]) + b"\r\n")
                await one.say("0\r\n\r\n")

        client = await stand.before(endpoint)
        for _ in range(2):
            await client.request(
                "Transfer-Encoding: chunked",
                body=b"3;ext=1\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
                first="POST / HTTP/1.1",
            )
            status, fields, body = await client.response()
            assert (status, body) == (200, b"abcde")
            assert fields["transfer-encoding"] == "chunked"
        assert stand.endpoints[0].connections == 1
        assert not stand.endpoints[0].faults

    async def test_trailers_both_ways(self, stand: Stand) -> None:
        async def endpoint(one: Conversation) -> None:
            await one.head()
            got = await one.until(b"\r\n\r\n")
            assert got == b"2\r\nab\r\n0\r\nSum: 1\r\n\r\n", got
            await one.say(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nSum: 2\r\n\r\n"
            )

        client = await stand.before(endpoint)
        await client.request(
            "Transfer-Encoding: chunked", body=b"2\r\nab\r\n0\r\nSum: 1\r\n\r\n", first="POST / HTTP/1.1"
        )
        await client.head()
        assert await client.until(b"\r\n\r\n") == b"1\r\nx\r\n0\r\nSum: 2\r\n\r\n"
        assert not stand.endpoints[0].faults

    async def test_until_close_becomes_chunks(self, stand: Stand) -> None:
        async def endpoint(one: Conversation) -> None:
            await one.head()
            await one.say("HTTP/1.0 200 OK\r\n\r\nsome")
            await one.say("thing")

        client = await stand.before(endpoint)
        for _ in range(2):
            await client.request()
            assert (await client.response())[2] == b"something"

    async def test_http_1_0_clients_get_no_chunks(self, stand: Stand) -> None:
        async def endpoint(one: Conversation) -> None:
            await one.head()
            await one.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")

        client = await stand.before(endpoint)
        await client.request("Connection: keep-alive", first="GET / HTTP/1.0")
        assert await client.rest() == b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabc"

    async def test_http_1_0_keeps_its_connection_if_asked(self, stand: Stand) -> None:
        client = await stand.before(echo_heads)
        for _ in range(2):
            await client.request("Connection: keep-alive", first="GET / HTTP/1.0")
            assert (await client.response())[1]["connection"] == "keep-alive"
        await client.request(first="GET / HTTP/1.0")
        assert b"Connection: close\r\n" in await client.rest()

    @pytest.mark.parametrize("fields", ["Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n", ""])
    async def test_head_has_no_body(self, stand: Stand, fields: str) -> None:
        async def endpoint(one: Conversation) -> None:
            while await one.head():
                await one.say(f"HTTP/1.1 200 OK\r\n{fields}\r\n")

        client = await stand.before(endpoint)
        for _ in range(2):
            await client.request(first="HEAD / HTTP/1.1")
            status, _ = parsed(await client.head())
            assert status == 200

    @pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
    async def test_some_statuses_have_none(self, stand: Stand, status: str) -> None:
        async def endpoint(one: Conversation) -> None:
            while await one.head():
                await one.say(f"HTTP/1.1 {status}\r\nETag: x\r\n\r\n")

        client = await stand.before(endpoint)
        for _ in range(2):
            await client.request()
            assert await client.head() == f"HTTP/1.1 {status}\r\nETag: x\r\n\r\n"
        assert stand.endpoints[0].connections == 1

    async def test_a_slow_reader_holds_its_endpoint_up(self, stand: Stand) -> None:
        """Not more than our buffers and the kernel's are taken from the endpoint."""
        total = 64 * 1024 * 1024
        said = 0

        async def endpoint(one: Conversation) -> None:
            nonlocal said
            await one.head()
            await one.say(f"HTTP/1.1 200 OK\r\nContent-Length: {total}\r\n\r\n")
            piece = b"x" * 65_536
            while said < total:
                await one.say(piece)
                said += len(piece)

        client = await stand.before(endpoint)
        await client.request()
        await client.head()
        before = -1
        while before != said:  # until it stands still for a while
            before = said
            await asyncio.sleep(0.2)
        assert said < total / 2
        assert len(await client.read(total)) == total


class TestInterim:
    async def test_100_continue(self, stand: Stand) -> None:
        async def endpoint(one: Conversation) -> None:
            assert "Expect: 100-continue" in await one.head()
            await one.say("HTTP/1.1 100 Continue\r\n\r\n")
            assert await one.read(3) == b"abc"
            await one.say(OK)
            await one.head()

        client = await stand.before(endpoint)
        await client.request("Expect: 100-continue", "Content-Length: 3", first="POST / HTTP/1.1")
        assert await client.head() == "HTTP/1.1 100 Continue\r\n\r\n"
        await client.say("abc")
        assert (await client.response())[2] == b"ok"
        assert not stand.endpoints[0].faults

    async def test_a_final_response_instead_of_100(self, stand: Stand) -> None:
        async def endpoint(one: Conversation) -> None:
            await one.head()
            await one.say("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
            await one.rest()

        client = await stand.before(endpoint)
        await client.request("Expect: 100-continue", "Content-Length: 3", first="POST / HTTP/1.1")
        status, fields, body = await client.response()
        assert (status, body, fields["connection"]) == (403, b"no", "close")

    async def test_early_hints(self, stand: Stand) -> None:
        async def endpoint(one: Conversation) -> None:
            await one.head()
            await one.say("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK)

        client = await stand.before(endpoint)
        await client.request()
        assert await client.head() == "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
        assert (await client.response())[2] == b"ok"


class TestConnections:
    async def test_both_sides_are_kept(self, stand: Stand) -> None:
        client = await stand.before(echo_heads)
        for _ in range(5):
            await client.request()
            assert (await client.response())[0] == 200
        other = await stand.client(stand.port_)
        await other.request()
        await other.response()
        assert stand.endpoints[0].connections == 1

    async def test_pipelined_requests_are_answered_in_order(self, stand: Stand) -> None:
        client = await stand.before(echo_heads)
        ahead = "".join(f"GET /{i} HTTP/1.1\r\nHost: a\r\n\r\n" for i in range(50))
        await client.say(ahead + "POST /last HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
        for i in range(50):
            assert (await client.response())[2].startswith(b"GET /%d " % i)
        assert (await client.response())[2].startswith(b"POST /last ")

    async def test_what_follows_a_body_is_the_next_request(self, stand: Stand) -> None:
        async def endpoint(one: Conversation) -> None:
            while head := await one.head():
                if head.startswith("POST"):
                    assert await one.read(3) == b"abc"
                await one.say(OK)

        client = await stand.before(endpoint)
        await client.request(
            "Content-Length: 3", body=b"abcGET / HTTP/1.1\r\nHost: a\r\n\r\n", first="POST / HTTP/1.1"
        )
        assert (await client.response())[0] == 200
        assert (await client.response())[0] == 200
        assert not stand.endpoints[0].faults

    async def test_close_is_kept_to(self, stand: Stand) -> None:
        client = await stand.before(echo_heads)
        await client.request("Connection: close")
        assert (await client.response())[1]["connection"] == "close"
        assert await client.rest() == b""

    async def test_a_client_that_said_all_still_gets_its_response(self, stand: Stand) -> None:
        async def endpoint(one: Conversation) -> None:
            await one.head()
            await one.say(OK)

        client = await stand.before(endpoint)
        await client.request()
        client.writer.write_eof()
        assert (await client.rest()).endswith(b"ok")

    async def test_more_than_the_response_says_spoils_the_connection(self, stand: Stand) -> None:
        async def endpoint(one: Conversation) -> None:
            while await one.head():
                await one.say(OK + "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")

        client = await stand.before(endpoint)
        for _ in range(3):
            await client.request()
            assert (await client.response())[2] == b"ok"
        assert stand.endpoints[0].connections == 3

    async def test_an_upgrade_becomes_a_tunnel(self, stand: Stand) -> None:
        async def endpoint(one: Conversation) -> None:
            head = (await one.head()).lower()
            assert "connection: upgrade\r\nupgrade: websocket\r\n" in head or "upgrade: websocket" in head
            await one.say(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
                "Sec-WebSocket-Accept: x\r\n\r\nhello"
            )
            while data := await one.reader.read(100):
                await one.say(data.upper())
            await one.say("bye")

        client = await stand.before(endpoint)
        await client.request("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: k")
        status, fields = parsed(await client.head())
        assert (status, fields["upgrade"], fields["connection"]) == (101, "websocket", "Upgrade")
        assert fields["sec-websocket-accept"] == "x"
        assert await client.read(5) == b"hello"
        await client.say("abc")
        assert await client.read(3) == b"ABC"
        client.writer.write_eof()
        assert await client.rest() == b"bye"
        assert not stand.endpoints[0].faults

    async def test_an_upgrade_of_http_1_0_is_none(self, stand: Stand) -> None:
        """RFC 9110 section 7.8."""
        client = await stand.before(echo_heads)
        await client.request("Connection: Upgrade", "Upgrade: websocket", first="GET / HTTP/1.0")
        status, _, body = await client.response()
        assert status == 200
        assert b"pgrade" not in body

    async def test_an_upgrade_that_nobody_asked_for_is_no_response(self, stand: Stand) -> None:
        async def endpoint(one: Conversation) -> None:
            await one.head()
            await one.say("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
            await one.rest()

        client = await stand.before(endpoint)
        await client.request(
            "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"
        )
        assert (await client.response())[0] == 502


class TestRefusals:
    @pytest.mark.parametrize(
        ("data", "status"),
        [
            (b"GET / HTTP/1.1\r\n\r\n", 400),
            (b"GET / HTTP/1.1\nHost: a\n\n", 400),
            (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
            (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
            (b"GET / HTTP/2.0\r\n\r\n", 505),
            (b"GET /" + b"a" * 70_000, 414),
            (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 12_000, 431),
            (b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", 405),
        ],
    )
    async def test_are_said_and_end_the_connection(self, stand: Stand, data: bytes, status: int) -> None:
        client = await stand.before(echo_heads)
        await client.say(data)
        got, fields, body = await client.response()
        assert (got, fields["connection"]) == (status, "close")
        assert str(status).encode() in body
        assert await client.rest() == b""
        assert stand.endpoints[0].connections == 0 or b"chunked" in data
        assert sum(stand.port_.stats.errors.values()) == 1

    async def test_a_large_request_that_is_refused_can_be_read_to_the_end(self, stand: Stand) -> None:
        """The client reads our answer even though it had sent more than we took."""
        client = await stand.before(echo_heads)
        await client.say(b"BAD\r\n\r\n" + b"x" * 300_000)
        assert (await client.rest()).startswith(b"HTTP/1.1 400 ")

    async def test_a_slow_head(self, stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(limits, "HEAD_SECONDS", 0.2)
        client = await stand.before(echo_heads)
        await client.say("GET / HT")
        assert (await client.response())[0] == 408

    async def test_a_slow_body(self, stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
        async def endpoint(one: Conversation) -> None:
            await one.head()
            await one.rest()

        monkeypatch.setattr(limits, "BODY_SECONDS", 0.2)
        client = await stand.before(endpoint)
        await client.request("Content-Length: 10", body=b"123", first="POST / HTTP/1.1")
        assert (await client.response())[0] == 408
        assert await client.rest() == b""

    async def test_silence_between_requests_ends_the_connection(
        self, stand: Stand, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(limits, "KEEP_ALIVE_SECONDS", 0.2)
        client = await stand.before(echo_heads)
        await client.request()
        await client.response()
        assert await client.rest() == b""


class TestEndpointFaults:
    async def test_nobody_there(self, stand: Stand) -> None:
        client = await stand.client(await stand.port())
        for _ in range(2):
            await client.request()
            status, fields, body = await client.response()
            assert status == 503
            assert fields["x-request-id"].encode() in body

    async def test_a_refused_connect_goes_to_the_next(self, stand: Stand) -> None:
        good = await stand.endpoint(echo_heads)
        port = await stand.port(nobody(), good.endpoint)
        for _ in range(4):
            client = await stand.client(port)
            await client.request("Content-Length: 2", body=b"ab", first="POST / HTTP/1.1")
            status, _, body = await client.response()
            assert (status, body[:4]) == (200, b"POST")
        assert port.stats.errors == {}
        assert port.stats.retries > 0

    async def test_all_refuse(self, stand: Stand) -> None:
        port = await stand.port(nobody())
        client = await stand.client(port)
        await client.request()
        assert (await client.response())[0] == 502
        assert port.stats.errors == {"connect": 1}

    async def test_a_kept_connection_that_was_closed_costs_no_request(self, stand: Stand) -> None:
        """The endpoint answers one request on each connection and closes when the second arrives."""

        async def endpoint(one: Conversation) -> None:
            await one.head()
            await one.say(OK)
            await one.head()

        client = await stand.before(endpoint)
        for _ in range(3):
            await client.request()
            assert (await client.response())[2] == b"ok"

    async def test_a_post_is_not_repeated(self, stand: Stand) -> None:
        async def endpoint(one: Conversation) -> None:
            await one.head()
            await one.say(OK)
            await one.head()

        client = await stand.before(endpoint)
        await client.request()
        await client.response()
        await client.request("Content-Length: 0", first="POST / HTTP/1.1")
        assert (await client.response())[0] == 502
        assert stand.endpoints[0].connections == 1

    @pytest.mark.parametrize(
        "said",
        ["HTTP/1.1 200\r\nA : b\r\n\r\n", "nonsense\r\n\r\n", "HTTP/1.1 200 OK\r\n" + "A: b\r\n" * 12_000],
    )
    async def test_a_malformed_response(self, stand: Stand, said: str) -> None:
        async def endpoint(one: Conversation) -> None:
            await one.head()
            await one.say(said)
            await one.rest()

        client = await stand.before(endpoint)
        await client.request()
        assert (await client.response())[0] == 502
        assert stand.port_.stats.errors == {"bad_response": 1}

    @pytest.mark.parametrize("framing", ["Content-Length: 10", "Transfer-Encoding: chunked"])
    async def test_a_response_cut_short_does_not_look_whole(self, stand: Stand, framing: str) -> None:
        async def endpoint(one: Conversation) -> None:
            await one.head()
            await one.say(f"HTTP/1.1 200 OK\r\n{framing}\r\n\r\n2\r\nab\r\n")
            one.reset()

        client = await stand.before(endpoint)
        await client.request()
        await client.until(b"ab\r\n")
        with pytest.raises(ConnectionResetError):
            await client.rest()

    async def test_no_response_in_time(self, stand: Stand) -> None:
        async def endpoint(one: Conversation) -> None:
            await one.head()
            await one.rest()

        client = await stand.before(endpoint)
        stand.port_.target.response_timeout = 0.2
        await client.request()
        assert (await client.response())[0] == 504

    async def test_a_client_that_goes_away_ends_its_request(self, stand: Stand) -> None:
        ended = asyncio.Event()

        async def endpoint(one: Conversation) -> None:
            await one.head()
            await one.say("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345")
            await one.rest()
            ended.set()

        client = await stand.before(endpoint)
        await client.request()
        await client.head()
        client.reset()
        await asyncio.wait_for(ended.wait(), LIMIT)
        assert stand.port_.stats.errors == {"client_gone": 1}


class TestChanges:
    async def test_an_endpoint_that_leaves_ends_what_it_has_and_gets_no_more(self, stand: Stand) -> None:
        asked, go_on = asyncio.Event(), asyncio.Event()

        async def old(one: Conversation) -> None:
            while await one.head():
                asked.set()
                await go_on.wait()
                await one.say("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nold")

        async def new(one: Conversation) -> None:
            while await one.head():
                await one.say("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nnew")

        client = await stand.before(old)
        other = await stand.endpoint(new)
        await client.request()
        await asyncio.wait_for(asked.wait(), LIMIT)
        stand.port_.update_endpoints([other.endpoint])
        go_on.set()
        assert (await client.response())[2] == b"old"
        await client.request()
        assert (await client.response())[2] == b"new"

    async def test_closing_lets_requests_end_and_says_so(self, stand: Stand) -> None:
        asked, go_on = asyncio.Event(), asyncio.Event()

        async def endpoint(one: Conversation) -> None:
            await one.head()
            asked.set()
            await go_on.wait()
            await one.say(OK)

        client = await stand.before(endpoint)
        idle, fresh = await stand.client(stand.port_), await stand.client(stand.port_)
        go_on.set()
        await idle.request()
        await idle.response()
        go_on.clear()
        asked.clear()
        await client.request()
        await asyncio.wait_for(asked.wait(), LIMIT)
        closing = asyncio.create_task(stand.port_.close(LIMIT))
        assert await idle.rest() == b""
        go_on.set()
        await fresh.request()  # nobody told it that it comes too late
        assert (await fresh.response())[1]["connection"] == "close"
        status, fields, body = await client.response()
        assert (status, fields["connection"], body) == (200, "close", b"ok")
        await asyncio.wait_for(closing, LIMIT)

    async def test_requests_are_spread_one_by_one(self, stand: Stand) -> None:
        def named(name: str) -> Handler:
            async def endpoint(one: Conversation) -> None:
                while await one.head():
                    await one.say(f"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{name}")

            return endpoint

        client = await stand.before(*(named(name) for name in "abc"))
        got = b""
        for _ in range(9):
            await client.request()
            got += (await client.response())[2]
        assert sorted(got) == sorted(b"aaabbbccc")
