"""Both sides of HTTP/1.1 without a socket: every conversation whole, byte by byte, cut in two everywhere, and
with more behind it."""

import pytest

from mesh.http import limits
from mesh.http.codec.h1_body import END_OF_CHUNKS
from mesh.http.codec.h1_head import (
    CHUNKED,
    EMPTY_LINES_MAX,
    HEAD_MAX,
    LINE_MAX,
    UNTIL_CLOSE,
    RequestReader,
    ResponseReader,
    read_response,
)
from mesh.http.codec.h1_protocol import H1ClientProtocol, H1ServerProtocol
from mesh.http.codec.h1_states import ClientState, ServerState
from mesh.http.codec.h2_protocol import PREFACE
from mesh.http.faults import HttpFault, RequestRefused
from mesh.http.local_reply import LocalReply
from tests.support.h1_conversation import OK, SWITCHING, ClientConversation, Event, ServerConversation, splits

GET = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"
GET_EVENTS: list[Event] = [("request", b"GET", b"/a"), ("end", b"")]
POST = b"POST /b HTTP/1.1\r\nHost: a\r\n"
FULL_CHUNKS = b"4;x=y\r\nWiki\r\n5\r\npedia\r\n0\r\n"


def request(*lines: bytes, first: bytes = b"GET /a HTTP/1.1") -> bytes:
    return b"".join(line + b"\r\n" for line in (first, b"Host: a", *lines)) + b"\r\n"


# What clients send on a connection that persists, and what is found in it.
REQUESTS: dict[str, tuple[bytes, list[Event]]] = {
    "no body": (GET, GET_EVENTS),
    "as many empty lines before it as are allowed": (b"\r\n" * EMPTY_LINES_MAX + GET, GET_EVENTS),
    "a length": (
        POST + b"Content-Length: 5\r\n\r\nhello",
        [("request", b"POST", b"/b"), ("body", b"hello"), ("end", b"")],
    ),
    "a length of 0": (POST + b"Content-Length: 0\r\n\r\n", [("request", b"POST", b"/b"), ("end", b"")]),
    "chunks": (
        POST + b"Transfer-Encoding: chunked\r\n\r\n" + FULL_CHUNKS + b"\r\n",
        [("request", b"POST", b"/b"), ("body", b"Wikipedia"), ("end", b"")],
    ),
    "no chunk but the last": (
        POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        [("request", b"POST", b"/b"), ("end", b"")],
    ),
    "trailers": (
        POST + b"Transfer-Encoding: chunked\r\n\r\n" + FULL_CHUNKS + b"X-Sum: 1\r\n\r\n",
        [("request", b"POST", b"/b"), ("body", b"Wikipedia"), ("end", b"X-Sum: 1\r\n")],
    ),
    "HTTP/1.0 that asks to be kept": (
        request(b"Connection: keep-alive", first=b"GET /a HTTP/1.0"),
        GET_EVENTS,
    ),
    "three in a row": (GET + GET + GET, GET_EVENTS * 3),
    "a body between two": (
        GET + POST + b"Content-Length: 3\r\n\r\nabc" + GET,
        [*GET_EVENTS, ("request", b"POST", b"/b"), ("body", b"abc"), ("end", b""), *GET_EVENTS],
    ),
}
# What is refused, and as what.
REFUSED: dict[str, tuple[bytes, list[Event]]] = {
    "a line without CR": (b"GET /a HTTP/1.1\nHost: a\r\n\r\n", [("refused", "BAD_HEAD")]),
    "no request line": (b"nonsense\r\n\r\n", [("refused", "BAD_HEAD")]),
    "no Host": (b"GET /a HTTP/1.1\r\n\r\n", [("refused", "BAD_HEAD")]),
    "another version": (b"GET /a HTTP/3.0\r\nHost: a\r\n\r\n", [("refused", "VERSION")]),
    "two framings": (
        POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc",
        [("refused", "BAD_HEAD")],
    ),
    "one empty line too many": (b"\r\n" * (EMPTY_LINES_MAX + 1) + GET, [("refused", "BAD_HEAD")]),
    "a chunk's size": (
        POST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nxyz\r\n",
        [("request", b"POST", b"/b"), ("refused", "BAD_BODY")],
    ),
    "after a good one": (GET + b"nonsense\r\n\r\n", [*GET_EVENTS, ("refused", "BAD_HEAD")]),
    "CONNECT": (b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", [("refused", "METHOD")]),
}
# After which nothing more is read.
LAST: dict[str, tuple[bytes, list[Event]]] = {
    "Connection: close": (request(b"Connection: close"), GET_EVENTS),
    "HTTP/1.0": (b"GET /a HTTP/1.0\r\nHost: a\r\n\r\n", GET_EVENTS),
    **REFUSED,
}
UPGRADE = request(b"Connection: Upgrade", b"Upgrade: x")


def served(pieces: list[bytes]) -> ServerConversation:
    conversation = ServerConversation()
    for piece in pieces:
        conversation.feed(piece)
    return conversation


class TestRequests:
    @pytest.mark.parametrize(("data", "events"), REQUESTS.values(), ids=list(REQUESTS))
    def test_are_read_the_same_however_their_bytes_are_cut(self, data: bytes, events: list[Event]) -> None:
        for pieces in splits(data):
            conversation = served(pieces)
            assert conversation.events == events, pieces
            assert conversation.protocol.state is ServerState.HEAD
            assert conversation.protocol.buffer == b""

    @pytest.mark.parametrize(("data", "events"), REQUESTS.values(), ids=list(REQUESTS))
    def test_are_read_the_same_with_another_behind_them(self, data: bytes, events: list[Event]) -> None:
        for pieces in splits(data + GET):
            assert served(pieces).events == [*events, *GET_EVENTS], pieces

    @pytest.mark.parametrize(("data", "events"), REQUESTS.values(), ids=list(REQUESTS))
    def test_leave_the_beginning_of_the_next_one_alone(self, data: bytes, events: list[Event]) -> None:
        for pieces in splits(data + GET[:9]):
            conversation = served(pieces)
            assert conversation.events == events, pieces
            assert conversation.protocol.buffer == GET[:9]
            assert conversation.protocol.head_begun

    @pytest.mark.parametrize(("data", "events"), LAST.values(), ids=list(LAST))
    def test_nothing_is_read_after_the_last(self, data: bytes, events: list[Event]) -> None:
        for pieces in splits(data + GET):
            conversation = served(pieces)
            assert conversation.events == events, pieces
            assert conversation.protocol.state in (ServerState.LINGER, ServerState.REFUSED)

    def test_an_upgrade_makes_a_tunnel_of_all_that_follows(self) -> None:
        for pieces in splits(UPGRADE + b"\0any\r\n\r\nbytes"):
            conversation = served(pieces)
            assert conversation.events == [*GET_EVENTS, ("tunnel", b"\0any\r\n\r\nbytes")], pieces
            assert conversation.protocol.state is ServerState.TUNNEL

    def test_the_preface_of_http2_is_recognized_with_all_its_bytes(self) -> None:
        for pieces in splits(PREFACE[:18]):
            assert served(pieces).events == [("http2",)], pieces
        protocol = H1ServerProtocol()
        with pytest.raises(RequestRefused):
            protocol.receive_head(PREFACE + b"\0\0\0\4")
        assert protocol.begins_http2
        assert protocol.take_buffer() == PREFACE + b"\0\0\0\4"

    def test_the_preface_of_http2_is_no_request_after_a_request(self) -> None:
        for pieces in splits(GET + PREFACE):
            assert served(pieces).events == [*GET_EVENTS, ("refused", "VERSION")], pieces

    def test_empty_lines_are_counted_for_each_request_whatever_the_reads(self) -> None:
        protocol = H1ServerProtocol()
        for _ in range(EMPTY_LINES_MAX):
            assert protocol.receive_head(b"\r\n") is None
        with pytest.raises(RequestRefused):
            protocol.receive_head(b"\r\n")
        for pieces in splits((b"\r\n" * EMPTY_LINES_MAX + GET) * 2):
            assert served(pieces).events == GET_EVENTS * 2, pieces

    @pytest.mark.parametrize(
        ("data", "fault"),
        [
            (b"GET /" + b"a" * LINE_MAX, HttpFault.TARGET_TOO_LONG),
            (GET[:-2] + b"X: " + b"a" * HEAD_MAX, HttpFault.HEAD_TOO_LARGE),
            (GET[:-2] + b"X: " + b"a" * HEAD_MAX + b"\r\n\r\n", HttpFault.HEAD_TOO_LARGE),
        ],
    )
    def test_a_head_beyond_its_limits_is_not_waited_for(self, data: bytes, fault: HttpFault) -> None:
        for pieces in ([data], [data[at : at + 1000] for at in range(0, len(data), 1000)]):
            assert served(pieces).events == [("refused", fault.name)]

    def test_payload_is_passed_on_as_it_comes(self) -> None:
        protocol = H1ServerProtocol()
        protocol.receive_head(POST + b"Content-Length: 6\r\n\r\n")
        assert protocol.receive_body(b"") == b""
        piece = b"abc"
        assert protocol.receive_body(piece) is piece
        assert (protocol.state, protocol.body_left) == (ServerState.BODY, 3)
        assert protocol.receive_body(b"def" + GET) == b"def"
        assert (protocol.state, protocol.buffer) == (ServerState.RESPONSE, GET)

    def test_a_request_that_waits_its_turn_is_no_head_that_has_begun(self) -> None:
        protocol = H1ServerProtocol()
        protocol.receive_head(GET + GET)
        assert (protocol.buffer, protocol.head_begun) == (GET, False)
        assert protocol.state is ServerState.RESPONSE


def asked(data: bytes) -> H1ServerProtocol:
    protocol = H1ServerProtocol()
    assert protocol.receive_head(data) is not None
    return protocol


class TestResponses:
    def test_unknown_length_goes_out_in_chunks(self) -> None:
        protocol = asked(GET)
        head = protocol.response_head(read_response(b"HTTP/1.1 200 OK\r\n\r\n"), CHUNKED, last=False)
        assert head == b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        assert protocol.payload(b"abc") == b"3\r\nabc\r\n"
        assert protocol.body_end(b"") == END_OF_CHUNKS
        assert protocol.body_end(b"X: 1\r\n") == b"0\r\nX: 1\r\n\r\n"
        assert protocol.end_response()

    def test_to_http_1_0_an_unknown_length_ends_with_the_connection(self) -> None:
        protocol = asked(request(b"Connection: keep-alive", first=b"GET /a HTTP/1.0"))
        head = protocol.response_head(read_response(b"HTTP/1.1 200 OK\r\n\r\n"), UNTIL_CLOSE, last=False)
        assert head.endswith(b"Connection: close\r\n\r\n")
        assert protocol.payload(b"abc") == b"abc"
        assert protocol.body_end(b"X: 1\r\n") == b""
        assert not protocol.end_response()

    def test_http_1_0_that_asked_for_it_is_told_that_the_connection_persists(self) -> None:
        protocol = asked(request(b"Connection: keep-alive", first=b"GET /a HTTP/1.0"))
        assert b"Connection: keep-alive\r\n" in protocol.response_head(OK, 0, last=False)
        assert protocol.end_response()

    @pytest.mark.parametrize(
        ("method", "status", "has_length"),
        [(b"GET", 200, True), (b"HEAD", 200, False), (b"GET", 204, False), (b"GET", 304, False)],
    )
    def test_an_empty_body_has_a_length_where_there_can_be_a_body(
        self, method: bytes, status: int, has_length: bool
    ) -> None:
        protocol = asked(GET.replace(b"GET", method))
        head = protocol.response_head(read_response(b"HTTP/1.1 %d X\r\n\r\n" % status), 0, last=False)
        assert (b"Content-Length: 0\r\n" in head) is has_length

    def test_the_last_response_says_so(self) -> None:
        protocol = asked(GET)
        assert b"Connection: close\r\n" in protocol.response_head(OK, 0, last=True)
        assert not protocol.end_response()
        protocol.linger()
        assert protocol.state is ServerState.LINGER

    def test_a_response_before_the_request_is_complete_is_the_last(self) -> None:
        protocol = asked(POST + b"Content-Length: 3\r\n\r\n")
        assert b"Connection: close\r\n" in protocol.response_head(OK, 0, last=False)
        assert not protocol.end_response()

    def test_a_local_reply_persists_as_other_responses_do(self) -> None:
        protocol = asked(GET)
        assert b"Connection: close" not in protocol.local_reply(LocalReply(404), last=False)
        assert protocol.end_response()
        protocol = asked(GET.replace(b"GET", b"HEAD"))
        reply = protocol.local_reply(LocalReply(404, body=b"no"), last=True)
        assert reply.endswith(b"Content-Length: 2\r\nConnection: close\r\n\r\n")

    def test_a_refusal_is_the_last_response(self) -> None:
        protocol = H1ServerProtocol()
        with pytest.raises(RequestRefused) as refused:
            protocol.receive_head(b"nonsense\r\n\r\n" + GET)
        answer = protocol.refusal(refused.value, b"id")
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b"Connection: close\r\n" in answer
        assert (protocol.state, protocol.buffer) == (ServerState.REFUSED, b"")
        assert not protocol.end_response()

    def test_interim_responses_are_for_http_1_1_only(self) -> None:
        hints = read_response(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
        assert asked(GET).interim(hints) == b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
        assert asked(b"GET / HTTP/1.0\r\nHost: a\r\n\r\n").interim(hints) == b""

    def test_101_names_the_protocol_that_was_asked_for_unless_it_names_one(self) -> None:
        assert b"Upgrade: x\r\n" in asked(UPGRADE).upgrade(SWITCHING)
        named = read_response(b"HTTP/1.1 101 X\r\nUpgrade: y\r\nConnection: upgrade\r\n\r\n")
        assert asked(UPGRADE).upgrade(named) == b"HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: y\r\n\r\n"

    def test_what_the_table_does_not_list_is_a_bug(self) -> None:
        protocol = H1ServerProtocol()
        with pytest.raises(KeyError):
            protocol.linger()
        assert protocol.state is ServerState.HEAD


# What endpoints send, and what is found in it. After the first kind the connection serves another request.
RESPONSES: dict[str, tuple[bytes, list[Event]]] = {
    "a length": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        [("response", 200), ("body", b"hello"), ("end", b"")],
    ),
    "a length of 0": (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", [("response", 200), ("end", b"")]),
    "no body": (b"HTTP/1.1 204 No Content\r\n\r\n", [("response", 204), ("end", b"")]),
    "chunks": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + FULL_CHUNKS + b"\r\n",
        [("response", 200), ("body", b"Wikipedia"), ("end", b"")],
    ),
    "trailers": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + FULL_CHUNKS + b"X-Sum: 1\r\n\r\n",
        [("response", 200), ("body", b"Wikipedia"), ("end", b"X-Sum: 1\r\n")],
    ),
    "interim responses before it": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nA: b\r\n\r\n"
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx",
        [("interim", 100), ("interim", 103), ("response", 200), ("body", b"x"), ("end", b"")],
    ),
    "HTTP/1.0 that persists": (
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\nx",
        [("response", 200), ("body", b"x"), ("end", b"")],
    ),
}
CLOSED: dict[str, tuple[bytes, list[Event]]] = {
    "Connection: close": (
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx",
        [("response", 200), ("body", b"x"), ("end", b"")],
    ),
    "until the connection ends": (
        b"HTTP/1.1 200 OK\r\n\r\nall that comes",
        [("response", 200), ("body", b"all that comes"), ("end", b"")],
    ),
    "nothing at all": (b"", [("cut",)]),
    "part of a head": (b"HTTP/1.1 200 O", [("cut",)]),
    "part of a body": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel",
        [("response", 200), ("body", b"hel"), ("cut",)],
    ),
    "no last chunk": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        [("response", 200), ("body", b"abc"), ("cut",)],
    ),
    "no status line": (b"nonsense\r\n\r\n", [("refused", "BAD_RESPONSE")]),
    "a chunk's size": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nxyz\r\n",
        [("response", 200), ("refused", "BAD_RESPONSE")],
    ),
    "101 that nobody asked for": (b"HTTP/1.1 101 X\r\n\r\n", [("refused", "BAD_RESPONSE")]),
}
SHORT = pytest.mark.parametrize("short", [True, False], ids=["short way", "long way"])


def answered(pieces: list[bytes], *, short: bool, request: bytes = GET) -> ClientConversation:
    conversation = ClientConversation(request, short=short)
    for piece in pieces:
        conversation.feed(piece)
    return conversation


@SHORT
class TestEndpoints:
    @pytest.mark.parametrize(("data", "events"), RESPONSES.values(), ids=list(RESPONSES))
    def test_responses_are_read_the_same_however_their_bytes_are_cut(
        self, data: bytes, events: list[Event], short: bool
    ) -> None:
        for pieces in splits(data):
            conversation = answered(pieces, short=short)
            assert conversation.events == events, pieces
            assert conversation.reusable
            assert conversation.protocol.state is ClientState.IDLE

    @pytest.mark.parametrize(("data", "events"), RESPONSES.values(), ids=list(RESPONSES))
    def test_bytes_behind_a_response_belong_to_nobody_and_spoil_the_connection(
        self, data: bytes, events: list[Event], short: bool
    ) -> None:
        for pieces in splits(data + b"HTTP/1.1 200 OK\r\n\r\n"):
            conversation = answered(pieces, short=short)
            assert conversation.events == events, pieces
            assert not conversation.reusable

    @pytest.mark.parametrize(("data", "events"), CLOSED.values(), ids=list(CLOSED))
    def test_what_ends_the_connection_is_read_the_same_however_it_is_cut(
        self, data: bytes, events: list[Event], short: bool
    ) -> None:
        for pieces in splits(data):
            conversation = answered(pieces, short=short)
            conversation.eof()
            assert conversation.events == events, pieces
            assert not conversation.reusable

    def test_101_makes_a_tunnel_that_ends_with_the_connection(self, short: bool) -> None:
        for pieces in splits(b"HTTP/1.1 101 X\r\nUpgrade: x\r\n\r\n\0any\r\n\r\nbytes"):
            conversation = answered(pieces, short=short, request=UPGRADE)
            assert conversation.events == [("response", 101), ("tunnel", b"\0any\r\n\r\nbytes")], pieces
            assert conversation.protocol.complete_at_eof

    def test_the_response_to_head_has_no_body(self, short: bool) -> None:
        for pieces in splits(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"):
            conversation = answered(pieces, short=short, request=GET.replace(b"GET", b"HEAD"))
            assert conversation.events == [("response", 200), ("end", b"")]
            assert conversation.reusable

    def test_a_head_beyond_its_limit_is_not_waited_for(self, short: bool) -> None:
        data = b"HTTP/1.1 200 OK\r\nX: " + b"a" * limits.RESPONSE_HEAD_MAX
        for pieces in ([data], [data[at : at + 1000] for at in range(0, len(data), 1000)]):
            assert answered(pieces, short=short).events == [("refused", "BAD_RESPONSE")]


class TestRequestsToEndpoints:
    def test_a_request_keeps_its_fields_and_gets_its_target(self) -> None:
        head = RequestReader().read(GET)
        protocol = H1ClientProtocol(ResponseReader())
        protocol.connected()
        data = protocol.request(head, b"/other", b"Host: b\r\n", [], True, b"")
        assert data == b"GET /other HTTP/1.1\r\nHost: b\r\n\r\n"
        assert (protocol.state, protocol.request_sent) == (ClientState.HEAD, True)

    def test_a_body_goes_out_framed_as_its_head_says(self) -> None:
        for framing, whole in (
            (b"Content-Length: 6", b"abcdef"),
            (b"Transfer-Encoding: chunked", b"3\r\nabc\r\n3\r\ndef\r\n0\r\n"),
        ):
            head = RequestReader().read(POST + framing + b"\r\n\r\n")
            protocol = H1ClientProtocol(ResponseReader())
            protocol.connected()
            trailers = b"X: 1\r\n" if head.length == CHUNKED else b""
            first = protocol.request(head, b"/", b"", [b"abc"], False, b"")
            assert not protocol.request_sent
            rest = protocol.request_body(b"def", True, trailers)
            assert protocol.request_sent
            end = trailers + b"\r\n" if head.length == CHUNKED else b""
            assert first + rest == b"POST / HTTP/1.1\r\n\r\n" + whole + end

    def test_an_empty_piece_is_not_the_last_chunk(self) -> None:
        head = RequestReader().read(POST + b"Transfer-Encoding: chunked\r\n\r\n")
        protocol = H1ClientProtocol(ResponseReader())
        protocol.connected()
        assert protocol.request(head, b"/", b"", [b""], False, b"") == b"POST / HTTP/1.1\r\n\r\n"
        assert protocol.request_body(b"", False, b"") == b""
        assert protocol.request_body(b"", True, b"") == END_OF_CHUNKS

    def test_a_response_before_the_request_is_sent_spoils_the_connection(self) -> None:
        head = RequestReader().read(POST + b"Content-Length: 6\r\n\r\n")
        protocol = H1ClientProtocol(ResponseReader())
        protocol.connected()
        protocol.request(head, b"/", b"", [], False, b"")
        data = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
        assert protocol.receive_whole(data) is None
        assert protocol.receive_head(data) is not None
        assert not protocol.keep_alive

    def test_a_connection_serves_one_request_after_the_other(self) -> None:
        head = RequestReader().read(GET)
        protocol = H1ClientProtocol(ResponseReader())
        protocol.connected()
        for _ in range(3):
            protocol.request(head, b"/", b"", [], True, b"")
            assert protocol.receive_whole(RESPONSES["a length"][0]) is not None
            assert protocol.state is ClientState.IDLE
