"""A listener accepts clients, limits them, and drains at the end."""

import asyncio

import pytest

from mesh.http import limits
from mesh.http.codec.h2_protocol import PREFACE
from mesh.http.downstream.listener import HttpListener
from mesh.http.downstream.published_port import HttpPort
from mesh.net.bound_listener import listen
from mesh.relay.tcp_connection import RelayOptions
from mesh.relay.tcp_port import plain_socket
from tests.http.conftest import Conversation, Stand
from tests.support.waiting import until

OK = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def ok(to: Conversation) -> None:
    while await to.head():
        await to.say(OK)


@pytest.fixture
async def port(stand: Stand) -> HttpPort:
    return await stand.port((await stand.endpoint(ok)).endpoint)


def listener_of(port: HttpPort) -> HttpListener:
    return port._http_listener


class TestAccepting:
    async def test_a_full_listener_closes_connections_that_wait_for_a_request(
        self, stand: Stand, port: HttpPort, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(limits, "CONNECTIONS_MAX", 2)
        idle = [await stand.client(port) for _ in range(2)]
        await until(lambda: listener_of(port).active == 2)
        new = await stand.client(port)
        await new.request()
        assert (await new.response())[0] == 200
        assert [await one.rest() for one in idle] == [b"", b""]
        assert listener_of(port).refusals["gave_way"] == 2

    async def test_a_full_listener_refuses_newcomers_while_all_have_requests_under_way(
        self, stand: Stand, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        answer = asyncio.Event()

        async def slow(to: Conversation) -> None:
            await to.head()
            await answer.wait()
            await to.say(OK)

        monkeypatch.setattr(limits, "CONNECTIONS_MAX", 1)
        client = await stand.before(slow)
        await client.request()
        await until(lambda: stand.endpoints[0].connections)
        with pytest.raises(ConnectionResetError):
            await (await stand.client(stand.port_)).rest()
        assert listener_of(stand.port_).refusals == {"full": 1}
        answer.set()
        assert (await client.response())[0] == 200

    async def test_http2_with_prior_knowledge_gets_a_connection_of_http2(
        self, stand: Stand, port: HttpPort
    ) -> None:
        client = await stand.client(port)
        await client.say(PREFACE + b"\0\0\0\4\0\0\0\0\0")
        header = await client.read(9)
        assert header[3] == 4  # SETTINGS
        assert listener_of(port).refusals == {}

    async def test_what_is_no_request_is_counted_by_reason(self, stand: Stand, port: HttpPort) -> None:
        client = await stand.client(port)
        await client.say("nonsense\r\n\r\n")
        assert (await client.response())[0] == 400
        assert listener_of(port).refusals == {"malformed": 1}


class TestClosing:
    async def test_requests_under_way_are_answered_and_idle_connections_closed(self, stand: Stand) -> None:
        answer = asyncio.Event()

        async def slow(to: Conversation) -> None:
            await to.head()
            await answer.wait()
            await to.say(OK)

        busy = await stand.before(slow)
        await busy.request()
        await until(lambda: stand.endpoints[0].connections)
        closing = asyncio.create_task(listener_of(stand.port_).close(drain_seconds=10))
        await until(lambda: listener_of(stand.port_).closing)
        answer.set()
        status, fields, _ = await busy.response()
        assert (status, fields["connection"]) == (200, "close")
        await closing
        assert listener_of(stand.port_).active == 0

    async def test_after_the_drain_time_what_is_left_is_aborted(self, stand: Stand) -> None:
        async def silent(to: Conversation) -> None:
            await to.head()
            await to.rest()

        client = await stand.before(silent)
        await client.request()
        await until(lambda: stand.endpoints[0].connections)
        await listener_of(stand.port_).close(drain_seconds=0.05)
        assert await client.rest() == b""
        assert listener_of(stand.port_).active == 0

    async def test_a_closed_listener_accepts_no_connection(self, stand: Stand, port: HttpPort) -> None:
        address = port.address
        await port.close()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*address)


async def test_a_published_port_counts_connections_and_takes_new_endpoints(
    stand: Stand, port: HttpPort
) -> None:
    client = await stand.client(port)
    await client.request()
    await client.response()
    assert (port.stats.connections, port.stats.active, port.stats.mode) == (1, 1, "http")
    other = await stand.endpoint(ok)
    port.update_endpoints([other.endpoint])
    assert port.endpoints == (other.endpoint,)
    await client.request()
    assert (await client.response())[0] == 200
    assert other.connections == 1


async def test_a_published_port_trusts_the_proxies_of_its_options(stand: Stand) -> None:
    made = HttpPort(stand.core, "s", listen("127.0.0.1", 0), (), RelayOptions(), plain_socket)
    assert not made._trusts("127.0.0.1")
    await made.close()
