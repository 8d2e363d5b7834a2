"""A connection to an endpoint as the driver of its protocol: what its exchange gets, and its time limits."""

import socket
from collections.abc import Iterator
from time import monotonic

import pytest

from mesh.balance.policies import Endpoint
from mesh.http import limits
from mesh.http.codec.h1_head import RequestReader, ResponseHead
from mesh.http.codec.h1_states import ClientState
from mesh.http.endpoint_pool import HttpEndpointPool, PooledEndpoint
from mesh.http.faults import HttpFault
from mesh.http.upstream.h1_connection import H1Upstream
from mesh.net.idle_timer import NEVER
from mesh.net.poller import PEER_DONE
from tests.support.fake_poller import FakeDeadlines, FakePoller

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
UPGRADE = GET[:-2] + b"Connection: upgrade\r\nUpgrade: x\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\n\r\n"


class Exchange:
    """Sends its request as soon as it is connected, and writes down what it gets."""

    response_timeout = 7.0

    def __init__(self, request: bytes = GET, body: bytes = b"", *, last: bool = True) -> None:
        self.head = RequestReader().read(request)
        self.method = self.head.method
        self.upstream: H1Upstream | None = None
        self.events: list[object] = []
        self.takes = True
        self.discards_at = ""
        self._body, self._last = body, last

    @property
    def upgrades(self) -> bool:
        return bool(self.head.about.upgrade)

    def _note(self, kind: str, *values: object) -> None:
        self.events.append((kind, *values) if values else kind)
        if kind == self.discards_at and self.upstream is not None:
            self.upstream.discard()

    def connected(self) -> None:
        self._note("connected")
        if self.upstream is not None:
            self.send_request()

    def send_request(self) -> None:
        assert self.upstream is not None
        body = [self._body] if self._body else []
        self.upstream.begin(self.head, self.head.target, self.head.fields.raw, body, self._last, b"")

    def not_connected(self, fault: HttpFault) -> None:
        self._note("not connected", fault.name)

    def interim(self, head: ResponseHead) -> None:
        self._note("interim", head.status)

    def responded(self, head: ResponseHead, length: int) -> None:
        self._note("response", head.status)

    def whole(self, head: ResponseHead, body: bytes) -> None:
        self._note("whole", head.status, body)

    def switched(self, head: ResponseHead) -> None:
        self._note("switched")

    def payload(self, data: bytes) -> None:
        self._note("payload", data)

    def ended(self, trailers: bytes) -> None:
        self._note("ended", trailers)

    def broken(self, fault: HttpFault, *, unprocessed: bool = False) -> None:
        self._note("broken", fault.name)

    def pushed(self) -> bool:
        return self.takes

    def upstream_room(self) -> None:
        self._note("room")

    def on_fault(self) -> None:
        self._note("fault")


class World:
    def __init__(self, exchange: Exchange) -> None:
        self.poller, self.deadlines = FakePoller(), FakeDeadlines()
        pool = HttpEndpointPool()
        endpoint = Endpoint("127.0.0.1", 80)
        pool.update_endpoints([endpoint])
        self.server: PooledEndpoint = pool.servers[endpoint]
        self.exchange = exchange
        listener = socket.create_server(("127.0.0.1", 0))
        self.server.endpoint = Endpoint(*listener.getsockname()[:2])
        self.connection = H1Upstream(
            self.poller.as_poller(), self.deadlines.as_deadlines(), self.server, exchange
        )
        exchange.upstream = self.connection
        self.connection.connect(self._socket, 5.0)
        self.task, _ = listener.accept()
        listener.close()
        if self.state is ClientState.CONNECTING:
            self.poller.writable(self.sock)

    def _socket(self) -> socket.socket:
        self.sock = socket.socket()
        self.sock.setblocking(False)
        return self.sock

    def send(self, data: bytes, also: int = 0) -> None:
        """By the task."""
        self.task.sendall(data)
        self.sock.setblocking(True)
        self.sock.recv(1, socket.MSG_PEEK)  # it has arrived
        self.sock.setblocking(False)
        self.poller.readable(self.sock, also)

    def end(self) -> None:
        self.task.shutdown(socket.SHUT_WR)
        self.sock.setblocking(True)
        self.sock.recv(1, socket.MSG_PEEK)
        self.sock.setblocking(False)
        self.poller.readable(self.sock, PEER_DONE)

    @property
    def state(self) -> ClientState:
        return self.connection._protocol.state

    @property
    def seconds_left(self) -> float:
        return self.connection.limit - monotonic()


@pytest.fixture
def worlds() -> Iterator[list[World]]:
    made: list[World] = []
    yield made
    for one in made:
        one.task.close()
        one.sock.close()


@pytest.fixture
def world(worlds: list[World]) -> World:
    worlds.append(World(Exchange()))
    return worlds[0]


class TestResponses:
    def test_a_response_in_one_read_frees_the_connection_before_it_is_passed_on(self, world: World) -> None:
        world.send(OK)
        assert world.task.recv(1000) == GET
        assert world.exchange.events == ["connected", ("whole", 200, b"ok")]
        assert world.state is ClientState.IDLE
        assert world.server.idle == [world.connection]

    def test_a_response_in_pieces_is_passed_on_as_it_comes(self, world: World) -> None:
        world.send(b"HTTP/1.1 103 X\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Enc")
        world.send(b"oding: chunked\r\n\r\n3\r\nabc\r\n")
        world.send(b"0\r\nX: 1\r\n\r\n")
        assert world.exchange.events == [
            "connected",
            ("interim", 103),
            ("response", 200),
            ("payload", b"abc"),
            ("ended", b"X: 1\r\n"),
        ]
        assert world.server.idle == [world.connection]

    def test_a_kept_connection_serves_another_exchange(self, world: World) -> None:
        world.send(OK)
        other = Exchange()
        other.upstream = world.server.idle.pop()  # type: ignore[assignment]
        world.connection.take(other)
        other.send_request()
        world.send(OK)
        assert other.events == [("whole", 200, b"ok")]
        assert world.connection.reused

    def test_bytes_while_it_is_idle_end_the_connection(self, world: World) -> None:
        world.send(OK)
        world.send(b"more")
        assert (world.state, world.server.idle) == (ClientState.CLOSED, [])

    def test_bytes_behind_a_response_end_the_connection(self, world: World) -> None:
        world.send(OK + b"more")
        assert world.exchange.events[-1] == ("ended", b"")
        assert (world.state, world.server.idle) == (ClientState.CLOSED, [])

    def test_a_task_that_says_it_closes_is_not_kept(self, world: World) -> None:
        world.send(OK, PEER_DONE)
        assert world.exchange.events[-1] == ("ended", b"")
        assert world.server.idle == []

    def test_a_response_to_a_request_that_is_not_sent_yet_frees_nothing(self, worlds: list[World]) -> None:
        large = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 33554432\r\n\r\n"
        worlds.append(World(Exchange(large, bytes(32 << 20))))
        (world,) = worlds
        assert world.connection._held
        world.send(OK)
        assert world.exchange.events[-1] == ("ended", b"")
        assert (world.state, world.server.idle) == (ClientState.CLOSED, [])

    def test_a_malformed_response_breaks_the_exchange(self, world: World) -> None:
        world.send(b"nonsense\r\n\r\n")
        assert world.exchange.events[-1] == ("broken", "BAD_RESPONSE")
        assert world.state is ClientState.CLOSED

    @pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel"])
    def test_an_end_too_soon_breaks_the_exchange(self, world: World, said: bytes) -> None:
        if said:
            world.send(said)
        world.end()
        assert world.exchange.events[-1] == ("broken", "ENDPOINT_CLOSED")

    def test_a_client_that_is_behind_stops_the_reading(self, world: World) -> None:
        world.exchange.takes = False
        world.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc")
        world.send(b"def")
        assert world.exchange.events[-1] == ("payload", b"abc")
        world.connection.resume()
        world.poller.run()
        assert world.exchange.events[-2:] == [("payload", b"def"), ("ended", b"")]

    @pytest.mark.parametrize("at", ["response", "payload", "interim"])
    def test_an_exchange_that_gives_up_hears_no_more(self, world: World, at: str) -> None:
        world.exchange.discards_at = at
        world.send(b"HTTP/1.1 103 X\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\nX: 1\r\n\r\nabc")
        last = world.exchange.events[-1]
        assert isinstance(last, tuple)
        assert last[0] == at
        assert (world.state, world.server.idle) == (ClientState.CLOSED, [])

    def test_101_makes_a_tunnel(self, worlds: list[World]) -> None:
        worlds.append(World(Exchange(UPGRADE)))
        (world,) = worlds
        world.send(b"HTTP/1.1 101 X\r\n\r\nbytes")
        assert world.exchange.events[-2:] == ["switched", ("payload", b"bytes")]
        world.connection.send(b"\0any", False)
        assert world.task.recv(1000).endswith(b"\r\n\r\n\0any")
        world.end()
        assert world.exchange.events[-1] == ("ended", b"")


class TestLimits:
    def test_a_response_has_its_time_once_the_request_is_sent(self, worlds: list[World]) -> None:
        worlds.append(World(Exchange()))
        assert worlds[0].seconds_left == pytest.approx(Exchange.response_timeout, abs=1)
        slow = Exchange(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n", b"a", last=False)
        worlds.append(World(slow))
        assert worlds[1].connection.limit is NEVER
        worlds[1].connection.send(b"b", True)
        assert worlds[1].seconds_left == pytest.approx(Exchange.response_timeout, abs=1)

    @pytest.mark.parametrize(
        "said",
        [
            UNTIL_CLOSE,
            UNTIL_CLOSE + b"all of it",
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        ],
    )
    def test_a_response_that_has_begun_may_be_silent_for_so_long_and_is_broken_then(
        self, world: World, said: bytes
    ) -> None:
        """Also one that ends with its connection, when the task does not close it."""
        world.send(said)
        assert world.seconds_left == pytest.approx(limits.RESPONSE_IDLE_SECONDS, abs=1)
        world.connection.on_timeout()
        assert world.exchange.events[-1] == ("broken", "RESPONSE_TIMEOUT")
        assert world.state is ClientState.CLOSED

    def test_a_tunnel_has_a_longer_one(self, worlds: list[World]) -> None:
        worlds.append(World(Exchange(UPGRADE)))
        worlds[0].send(b"HTTP/1.1 101 X\r\n\r\nbytes")
        assert worlds[0].seconds_left == pytest.approx(limits.TUNNEL_SECONDS, abs=1)

    def test_an_idle_connection_has_none_of_its_own(self, world: World) -> None:
        world.send(OK)
        assert world.connection.limit is NEVER

    def test_a_task_that_takes_no_body_is_given_up(self, worlds: list[World]) -> None:
        large = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 33554433\r\n\r\n"
        worlds.append(World(Exchange(large, bytes(32 << 20), last=False)))
        assert worlds[0].seconds_left == pytest.approx(limits.BODY_SECONDS, abs=1)
        worlds[0].connection.on_timeout()
        assert worlds[0].exchange.events[-1] == ("broken", "RESPONSE_TIMEOUT")


class TestEnds:
    def test_a_refused_connect_is_told(self) -> None:
        poller, exchange = FakePoller(), Exchange()
        pool = HttpEndpointPool()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            endpoint = Endpoint(*listener.getsockname()[:2])
        pool.update_endpoints([endpoint])
        deadlines = FakeDeadlines().as_deadlines()
        connection = H1Upstream(poller.as_poller(), deadlines, pool.servers[endpoint], exchange)
        connection.connect(socket.socket, 5.0)
        assert exchange.events == [("not connected", "CONNECT_FAILED")]

    def test_a_bug_while_it_is_idle_is_still_its_exchanges(self, world: World) -> None:
        world.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
        world.send(b"ok")
        world.connection.on_fault()
        assert world.exchange.events[-1] == "fault"
        assert (world.state, world.server.idle) == (ClientState.CLOSED, [])

    def test_nothing_is_left_of_a_discarded_connection(self, world: World) -> None:
        world.connection.discard()
        assert world.poller.handlers == {}
        assert world.deadlines.waiting == set()
        assert world.exchange.events == ["connected"]
