"""HTTP's parsers under any bytes: a value that can be passed on safely, or the documented refusal.

`heads`    a request's head, with what an endpoint would get of it; the same bytes as a response's
`chunks`   a chunked body, whole and in pieces: both read the same
`hellos`   the first message of TLS, in any pieces
`frames`   a connection of HTTP/2, in pieces, down to heads
"""

from mesh.errors import WireError
from mesh.http.codec.h1_body import EXTENSIONS_MAX, SIZE_LINE_MAX, TRAILERS_MAX, ChunkedReader
from mesh.http.codec.h1_head import CHUNKED, HEAD_MAX, RequestHead, RequestReader
from mesh.http.codec.h1_head import Fields as Lines
from mesh.http.codec.h1_head import read_response as read_h1_response
from mesh.http.codec.h1_states import ClientState
from mesh.http.codec.h2_headers import RequestLists, read_response, read_trailers, request_list
from mesh.http.codec.h2_protocol import (
    CONNECTION_WINDOW,
    FIELDS_BYTES_MAX,
    FRAME_MAX,
    GROWTH,
    PREFACE,
    STREAMS_MAX,
    Code,
    H2Broken,
    H2Protocol,
    Stream,
)
from mesh.http.codec.hpack import Fields
from mesh.http.codec.proxy_headers import (
    ClientInfo,
    given_request_id,
    request_block,
    response_lines,
    source_of,
)
from mesh.http.faults import FaultSide, HttpFault, RequestRefused
from mesh.http.tls.client_hello import server_name
from tests.support.h1_conversation import ClientConversation, Event, ServerConversation

STRANGER = ClientInfo("192.0.2.1", "http", 80)
PROXY = ClientInfo("192.0.2.1", "https", 443, lambda address: address.startswith("192.0.2."))
FORBIDDEN = (b"\0", b"\n", b"\r")


class Heads:
    """Input: a head up to its empty line, or not."""

    def __call__(self, data: bytes) -> None:
        head = data[:HEAD_MAX] + b"\r\n\r\n"
        self._request(head)
        self._response(head)

    def _request(self, head: bytes) -> None:
        reader = RequestReader()
        try:
            found = reader.read(head)
        except RequestRefused as refused:
            check_client(refused)
            return
        again = reader.read(head)  # from memory
        assert (again.method, again.target, again.host) == (found.method, found.target, found.host)
        for edge in (STRANGER, PROXY):
            check_forwarded(found, edge)

    def _response(self, head: bytes) -> None:
        try:
            found = read_h1_response(head)
        except RequestRefused as refused:
            check_is(refused, HttpFault.BAD_RESPONSE)
            return
        lines = response_lines(found)
        assert lines.endswith(b"\r\n")
        assert b"\r\n\r\n" not in lines
        assert not Lines(lines.partition(b"\r\n")[2]).has(b"transfer-encoding")
        for method in (b"GET", b"HEAD"):
            assert found.body_length(method) >= -2


def check_client(refused: RequestRefused) -> None:
    assert refused.fault.side is FaultSide.CLIENT


def check_is(refused: RequestRefused, fault: HttpFault) -> None:
    assert refused.fault is fault


def check_code(broken: H2Broken) -> None:
    assert broken.code in Code
    assert broken.code is not Code.NO_ERROR


def check_forwarded(found: RequestHead, edge: ClientInfo) -> None:
    """What goes on is a head that is read the same way by whoever is behind us."""
    assert found.target[:1] == b"/" or found.target == b"*"
    assert not any(byte in found.target for byte in (b" ", *FORBIDDEN))
    block = request_block(found.about, edge)
    line = b"%b %b HTTP/1.1\r\n" % (found.method, found.target)
    behind = RequestReader().read(line + block + b"\r\n")
    assert (behind.method, behind.target, behind.length) == (found.method, found.target, found.length)
    assert behind.host == found.host
    fields = Lines(block)
    sized, coded = len(fields.all(b"content-length")), len(fields.all(b"transfer-encoding"))
    assert sized + coded <= 1
    assert (found.length == CHUNKED) == bool(coded)
    if not edge.trusted:
        assert fields.all(b"x-forwarded-for") == [edge.client.encode()]
        assert source_of(found.fields, edge) == edge.client
    given_request_id(found.about)


class Chunks:
    """Input: a byte that says how it is cut, then the body."""

    def __call__(self, data: bytes) -> None:
        step, body = (data[0] % 32 + 1 if data else 1), data[1:]
        whole, pieces = (
            self._read([body]),
            self._read([body[at : at + step] for at in range(0, len(body), step)]),
        )
        # A refusal may come sooner in pieces, never another payload.
        if whole is not None and pieces is not None:
            assert whole == pieces
        assert (whole is None) == (pieces is None)

    @staticmethod
    def _read(pieces: list[bytes]) -> tuple[bytes, bool, bytes] | None:
        reader, payload = ChunkedReader(HttpFault.BAD_BODY), b""
        rest: list[bytes] = []
        try:
            for piece in pieces:
                if reader.done:
                    rest.append(piece)
                    continue
                payload += reader.feed(piece)
                assert len(reader._line) <= max(SIZE_LINE_MAX, TRAILERS_MAX)
                assert reader._extensions <= EXTENSIONS_MAX
        except RequestRefused as refused:
            check_is(refused, HttpFault.BAD_BODY)
            return None
        assert b"\r\n\r\n" not in reader.trailers
        return payload, reader.done, reader.trailers


class Conversations:
    """Input: a byte that says how it is cut and which side we are, then what the peer sends."""

    def __call__(self, data: bytes) -> None:
        how, sent = data[0] if data else 0, data[1:]
        step = how % 32 + 1
        pieces = [sent[at : at + step] for at in range(0, len(sent), step)]
        if how & 0x80:
            whole, cut = self._as_client([sent] if sent else []), self._as_client(pieces)
        else:
            whole, cut = self._as_server([sent] if sent else []), self._as_server(pieces)
        # What is wrong in two ways may be refused for the other one; the rest is the same however it is cut.
        assert whole == cut

    @staticmethod
    def _as_server(pieces: list[bytes]) -> list[Event]:
        conversation = ServerConversation()
        for piece in pieces:
            conversation.feed(piece)
        for answer in conversation.sent:
            assert answer.startswith(b"HTTP/1.1 ")
        return [(one[0],) if one[0] == "refused" else one for one in conversation.events]

    @staticmethod
    def _as_client(pieces: list[bytes]) -> list[Event]:
        conversation = ClientConversation()
        for piece in pieces:
            conversation.feed(piece)
        conversation.eof()
        assert conversation.protocol.state in (ClientState.IDLE, ClientState.CLOSED)
        return conversation.events


class Hellos:
    """Input: a byte that says how it is cut, then the beginning of a connection with TLS."""

    def __call__(self, data: bytes) -> None:
        found: str | None = None
        said, begun = self._name(data), False
        for end in range(0, len(data) + 1, data[0] % 16 + 1 if data else 1):
            found = self._name(data[:end])
            # More bytes never change what has been found.
            assert not begun or found == said
            begun = found is not None
        if found is not None:
            assert found == said

    @staticmethod
    def _name(data: bytes) -> str | None:
        try:
            return server_name(data)
        except WireError:
            return "nonsense"


class Frames:
    """Input: a byte that says how it is cut and which side we are, then what the peer sends."""

    def __call__(self, data: bytes) -> None:
        how, sent = data[0] if data else 0, data[1:]
        client = bool(how & 0x80)
        step = (how & 0x7F) * 3 + 1
        side = Peer(client)
        if not client:
            sent = PREFACE + sent
        try:
            for at in range(0, len(sent), step):
                side.protocol.receive(sent[at : at + step])
                side.check()
        except H2Broken as broken:
            check_code(broken)
        side.check()


class Peer:
    """Answers what it is asked, gives back what it gets."""

    def __init__(self, client: bool) -> None:
        self.protocol = H2Protocol(self, client=client, clock=lambda: 0.0)
        self.lists = RequestLists()
        self.protocol.start()
        if client:
            for _ in range(3):
                self.protocol.open([(b":method", b"GET"), (b":path", b"/")], ended=True)

    def check(self) -> None:
        protocol = self.protocol
        assert len(protocol.streams) <= STREAMS_MAX
        assert len(protocol._buffer) < FRAME_MAX + 9 + len(PREFACE)
        assert sum(map(len, protocol._block)) <= FIELDS_BYTES_MAX + FRAME_MAX
        assert 0 <= protocol._received < CONNECTION_WINDOW // 2
        assert 0 <= protocol._growth <= GROWTH
        protocol.out.clear()

    def on_request(self, stream: Stream, fields: Fields, ended: bool) -> None:
        try:
            head = self.lists.read(fields, ended)
        except RequestRefused:
            self.protocol.cancel(stream, Code.PROTOCOL_ERROR)
            return
        check_forwarded(head, STRANGER)
        listed = request_list(head, head.target, request_block(head.about, PROXY), b"http")
        assert RequestLists().read([one for one in listed if one[0] != b"te"], ended).host == head.host
        self.protocol.send_headers(stream, [(b":status", b"204")], ended=True)

    def on_headers(self, stream: Stream, fields: Fields, ended: bool) -> None:
        try:
            read_response(fields)
        except RequestRefused:
            pass
        try:
            trailers = read_trailers(fields, HttpFault.BAD_BODY)
        except RequestRefused:
            return
        assert b"\r\n\r\n" not in trailers

    def on_data(self, stream: Stream, data: bytes, ended: bool) -> None:
        self.protocol.consumed(stream, len(data))

    def on_reset(self, stream: Stream, code: int) -> None:
        assert stream.id not in self.protocol.streams

    def on_window(self, stream: Stream | None) -> None:
        pass

    def on_goaway(self, last: int) -> None:
        pass

    def on_pong(self) -> None:
        pass
