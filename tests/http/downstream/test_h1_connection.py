"""A client's HTTP/1.1 connection as the driver of its protocol: what it reads when, and how it ends."""

import socket
from collections.abc import Iterator
from typing import Any, cast

import pytest

from mesh.http import limits
from mesh.http.codec.h1_head import CHUNKED, RequestHead, ResponseHead, read_response
from mesh.http.codec.h1_states import ServerState
from mesh.http.codec.h2_protocol import PREFACE
from mesh.http.codec.proxy_headers import ClientInfo
from mesh.http.downstream.h1_connection import H1Client
from mesh.http.exchange import Exchange
from mesh.http.faults import HttpFault
from mesh.net.idle_timer import NEVER
from mesh.net.poller import PEER_DONE
from tests.support.fake_poller import FakeDeadlines, FakePoller

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\n"
LARGE = 4 << 20  # more than a socket pair takes


def ok(length: int | None = 2) -> ResponseHead:
    framing = b"" if length is None else b"Content-Length: %d\r\n" % length
    return read_response(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n")


class Request:
    """An exchange that writes down what it gets."""

    def __init__(self, head: RequestHead) -> None:
        self.head = head
        self.method = head.method
        self.status = 0
        self.received: list[bytes] = []
        self.complete = False
        self.trailers = b""
        self.ends: list[str] = []

    def begin(self, body: bytes, complete: bool, trailers: bytes = b"") -> None:
        self.body(body, complete)
        self.trailers = trailers

    def body(self, data: bytes, complete: bool) -> None:
        if data:
            self.received.append(data)
        self.complete = complete

    def body_ended(self, trailers: bytes) -> None:
        self.complete, self.trailers = True, trailers

    def gone(self) -> None:
        self.ends.append("gone")

    def client_ended(self) -> None:
        self.ends.append("client_ended")

    def client_room(self) -> None:
        self.ends.append("room")

    def give_up(self, fault: HttpFault) -> None:
        self.ends.append(fault.name)

    def on_fault(self) -> None:
        self.ends.append("fault")


class World:
    """The host of one connection, and the client at the other end of it."""

    def __init__(self) -> None:
        self.fake_poller, self.fake_deadlines = FakePoller(), FakeDeadlines()
        self.poller = self.fake_poller.as_poller()
        self.deadlines = self.fake_deadlines.as_deadlines()
        self.closing = False
        self.requests: list[Request] = []
        self.refusals: list[HttpFault] = []
        self.handed_over: list[bytes] = []
        self.closed = False
        self.sock, self.client = socket.socketpair()
        self.sock.setblocking(False)
        self.client.setblocking(False)
        self.connection = H1Client(cast(Any, self), self.sock, ClientInfo("192.0.2.1", "http", 80))
        self.connection.start()

    # --- the host ---

    def exchange(self, client: H1Client, head: RequestHead) -> Exchange:
        self.requests.append(Request(head))
        return cast(Exchange, self.requests[-1])

    def request_id(self) -> bytes:
        return b"id"

    def on_refused(self, fault: HttpFault, message: str) -> None:
        self.refusals.append(fault)

    def on_http2(self, client: H1Client, sock: socket.socket, data: bytes) -> None:
        self.handed_over.append(data)

    def on_close(self, client: H1Client) -> None:
        self.closed = True

    # --- the client ---

    def send(self, data: bytes) -> None:
        self.client.send(data)
        self.fake_poller.readable(self.sock)

    def end(self) -> None:
        self.client.shutdown(socket.SHUT_WR)
        self.fake_poller.readable(self.sock, PEER_DONE)

    def receive(self) -> bytes:
        data = b""
        try:
            while piece := self.client.recv(1 << 20):
                data += piece
        except BlockingIOError:
            pass
        return data

    def receive_all(self) -> bytes:
        data = self.receive()
        while self.connection._writer.held:
            self.fake_poller.writable(self.sock)
            data += self.receive()
        return data

    def respond(self, body: bytes = b"ok") -> None:
        self.connection.whole(ok(len(body)), body)
        self.fake_poller.run()

    @property
    def state(self) -> ServerState:
        return self.connection._protocol.state


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.sock.close()
    made.client.close()


class TestReading:
    def test_a_request_is_answered_before_the_next_is_read(self, world: World) -> None:
        world.send(GET + GET)
        world.send(GET)
        assert len(world.requests) == 1
        for answered in (1, 2, 3):
            world.respond()
            assert world.receive().startswith(b"HTTP/1.1 200 OK\r\n")
            assert len(world.requests) == min(answered + 1, 3)

    def test_what_comes_while_a_response_is_awaited_stays_in_the_socket(self, world: World) -> None:
        world.send(GET)
        world.send(b"x" * 1000)
        assert len(world.sock.recv(2000, socket.MSG_PEEK)) == 1000
        assert world.connection._protocol.buffer == b""

    def test_a_body_that_its_exchange_does_not_take_stays_in_the_socket(self, world: World) -> None:
        world.send(POST)
        world.connection.hold_body(True)
        world.send(b"abc")
        (request,) = world.requests
        assert request.received == []
        world.connection.hold_body(False)
        world.fake_poller.run()
        assert (request.received, request.complete) == ([b"abc"], False)
        world.send(b"def")
        assert (request.received, request.complete) == ([b"abc", b"def"], True)

    def test_trailers_come_after_the_last_payload(self, world: World) -> None:
        world.send(POST.replace(b"Content-Length: 6", b"Transfer-Encoding: chunked"))
        world.send(b"3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n")
        (request,) = world.requests
        assert (request.received, request.complete, request.trailers) == ([b"abc"], True, b"X-Sum: 1\r\n")

    def test_after_an_upgrade_bytes_go_through_as_they_are(self, world: World) -> None:
        world.send(GET[:-2] + b"Connection: upgrade\r\nUpgrade: x\r\n\r\nearly")
        world.connection.switch(read_response(b"HTTP/1.1 101 X\r\n\r\n"))
        world.connection.flush()
        world.send(GET)
        (request,) = world.requests
        assert request.received == [b"early", GET]
        world.connection.write(b"\0")
        world.connection.flush()
        assert world.receive().endswith(b"Upgrade: x\r\n\r\n\0")
        world.end()
        assert request.ends == ["client_ended"]

    def test_http2_with_prior_knowledge_is_handed_over_with_all_its_bytes(self, world: World) -> None:
        world.send(PREFACE[:10])
        world.send(PREFACE[10:] + b"frames")
        assert world.handed_over == [PREFACE + b"frames"]
        assert world.refusals == []
        assert not world.closed


class TestResponses:
    def test_a_response_that_is_not_taken_is_continued_when_there_is_room(self, world: World) -> None:
        world.send(GET)
        world.respond(bytes(LARGE))
        assert world.state is ServerState.RESPONSE
        got = world.receive_all()
        assert len(got.partition(b"\r\n\r\n")[2]) == LARGE
        assert world.state is ServerState.HEAD

    def test_the_exchange_is_told_when_there_is_room_again(self, world: World) -> None:
        world.send(GET)
        world.connection.respond(ok(LARGE), LARGE)
        world.connection.write(bytes(LARGE))
        assert not world.connection.flush()
        world.receive_all()
        assert world.requests[0].ends == ["room"]

    def test_a_response_of_unknown_length_is_chunked(self, world: World) -> None:
        world.send(GET)
        world.connection.respond(ok(None), CHUNKED)
        world.connection.write(b"abc")
        world.connection.end(b"")
        assert world.receive().endswith(b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
        assert world.state is ServerState.HEAD

    def test_a_response_that_breaks_off_does_not_look_complete(self, world: World) -> None:
        world.send(GET)
        world.connection.respond(ok(None), CHUNKED)
        world.connection.write(b"abc")
        world.connection.cut()
        assert world.closed
        assert not world.receive().endswith(b"0\r\n\r\n")

    def test_closing_makes_the_response_under_way_the_last(self, world: World) -> None:
        world.send(GET)
        world.closing = True
        world.connection.finish()
        world.respond()
        assert b"Connection: close\r\n" in world.receive()
        assert world.closed

    def test_closing_ends_a_connection_between_requests_but_not_one_before_its_first(self) -> None:
        before, between = World(), World()
        between.send(GET)
        between.respond()
        for one in (before, between):
            one.connection.finish()
        assert (before.closed, between.closed) == (False, True)
        for one in (before, between):
            one.client.close()
        before.sock.close()


class TestRefusals:
    def test_a_refusal_is_answered_and_what_still_comes_is_discarded(self, world: World) -> None:
        world.send(b"nonsense\r\n\r\n")
        assert world.receive().startswith(b"HTTP/1.1 400 ")
        assert world.state is ServerState.LINGER
        world.send(GET)
        assert world.requests == []
        assert not world.closed
        world.end()
        assert world.closed

    def test_after_a_refusal_nothing_is_parsed_even_if_the_answer_is_not_taken(self, world: World) -> None:
        world.connection._writer.held = b"x"  # as if the kernel took nothing
        world.send(b"nonsense\r\n\r\n")
        assert world.state is ServerState.REFUSED
        world.send(GET)
        assert world.requests == []
        world.fake_poller.writable(world.sock)
        assert world.state is ServerState.LINGER
        assert world.requests == []

    def test_who_sends_without_an_end_after_a_refusal_is_closed(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(limits, "LINGER_BYTES", 100)
        world.send(b"nonsense\r\n\r\n")
        world.send(bytes(101))
        assert world.closed

    def test_empty_lines_are_counted_over_reads(self, world: World) -> None:
        for _ in range(4):
            world.send(b"\r\n")
        assert world.refusals == []
        world.send(b"\r\n")
        assert world.refusals == [HttpFault.BAD_HEAD]

    def test_a_malformed_body_ends_its_request(self, world: World) -> None:
        world.send(POST.replace(b"Content-Length: 6", b"Transfer-Encoding: chunked"))
        world.send(b"nonsense\r\n")
        assert world.requests[0].ends == ["gone"]
        assert world.receive().startswith(b"HTTP/1.1 400 ")

    def test_a_head_that_is_cut_off_is_refused(self, world: World) -> None:
        world.send(GET[:-2])
        world.end()
        assert world.refusals == [HttpFault.BAD_HEAD]


class TestLimits:
    def test_a_head_has_its_time_from_its_first_byte(self, world: World) -> None:
        world.send(GET)
        world.respond()
        idle = world.connection.limit
        world.send(GET[:5])
        assert world.connection.limit < idle
        world.connection.on_timeout()
        assert world.refusals == [HttpFault.HEAD_TIMEOUT]
        assert b" 408 " in world.receive()

    def test_silence_between_requests_closes_without_a_word(self, world: World) -> None:
        world.connection.on_timeout()
        assert world.closed
        assert world.receive() == b""

    def test_there_is_no_limit_while_the_response_is_awaited(self, world: World) -> None:
        world.send(GET)
        assert world.connection.limit is NEVER

    def test_a_body_that_is_slow_is_refused_unless_the_exchange_holds_it(self, world: World) -> None:
        world.send(POST + b"a")
        world.connection.hold_body(True)
        world.connection.on_timeout()
        assert world.refusals == []
        world.connection.hold_body(False)
        world.connection.on_timeout()
        assert world.refusals == [HttpFault.BODY_TIMEOUT]

    def test_who_takes_nothing_of_a_response_is_closed(self, world: World) -> None:
        world.send(GET)
        world.respond(bytes(LARGE))
        assert world.connection.limit is not NEVER
        world.connection.on_timeout()
        assert world.closed

    def test_who_takes_enough_of_a_response_goes_on(self, world: World) -> None:
        world.send(GET)
        world.respond(bytes(LARGE))
        world.receive()
        world.fake_poller.writable(world.sock)
        world.connection.on_timeout()
        assert not world.closed


class TestEnds:
    def test_a_client_that_goes_ends_its_request(self, world: World) -> None:
        world.send(POST)
        world.end()
        assert world.requests[0].ends == ["gone"]
        assert world.closed

    def test_a_bug_at_it_ends_its_request_and_closes(self, world: World) -> None:
        world.send(GET)
        world.connection.on_fault()
        assert world.requests[0].ends == ["fault"]
        assert world.closed

    def test_idle_connections_can_be_spared_and_others_cannot(self, world: World) -> None:
        assert world.connection.eviction_order == (False, world.connection.limit)
        world.send(GET)
        assert world.connection.eviction_order is None
        world.respond()
        assert world.connection.eviction_order == (True, world.connection.limit)

    def test_nothing_is_left_of_a_closed_connection(self, world: World) -> None:
        world.send(GET[:5])
        world.connection.abort()
        assert world.closed
        assert world.fake_poller.handlers == {}
        assert world.fake_deadlines.waiting == set()
        world.connection.abort()  # once more does nothing
