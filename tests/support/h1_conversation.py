"""HTTP/1.1 without sockets: drives the pure protocol as the connections do, and writes down what it finds.

Used by the tests of the protocol and by its fuzz target. Consecutive payload is one event, so that the events
do not depend on how the bytes were cut.
"""

from collections.abc import Iterator

from mesh.http import limits
from mesh.http.codec.h1_body import SIZE_LINE_MAX, TRAILERS_MAX
from mesh.http.codec.h1_head import HEAD_MAX, RequestHead, RequestReader, ResponseReader, read_response
from mesh.http.codec.h1_protocol import H1ClientProtocol, H1ServerProtocol
from mesh.http.codec.h1_states import ClientState, ServerState
from mesh.http.faults import RequestRefused

OK = read_response(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
SWITCHING = read_response(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")

Event = tuple[object, ...]


def splits(data: bytes) -> Iterator[list[bytes]]:
    """The data whole, byte by byte, and cut in two at every place."""
    yield [data]
    yield [data[at : at + 1] for at in range(len(data))]
    for at in range(1, len(data)):
        yield [data[:at], data[at:]]


class _Events:
    def __init__(self) -> None:
        self.events: list[Event] = []

    def payload(self, data: bytes, kind: str = "body") -> None:
        if not data:
            return
        if self.events and self.events[-1][0] == kind:
            before = self.events.pop()[1]
            assert isinstance(before, bytes)
            data = before + data
        self.events.append((kind, data))

    def refused(self, refused: RequestRefused) -> None:
        """How much payload was passed on before depends on the cuts."""
        if self.events and self.events[-1][0] == "body":
            self.events.pop()
        self.events.append(("refused", refused.fault.name))


class ServerConversation(_Events):
    """A client's bytes. Each request is answered as soon as it is complete; those for an upgrade with 101."""

    def __init__(self) -> None:
        super().__init__()
        self.protocol = H1ServerProtocol()
        self.sent: list[bytes] = []

    def feed(self, data: bytes) -> None:
        protocol = self.protocol
        while data or (protocol.buffer and not protocol.head_begun and protocol.state is ServerState.HEAD):
            state = protocol.state
            try:
                if state is ServerState.HEAD:
                    self._head(protocol.receive_head(data))
                elif state is ServerState.BODY:
                    self._body(data)
                elif state is ServerState.TUNNEL:
                    self.payload(data, "tunnel")
                else:  # nothing is read any more
                    return
            except RequestRefused as refused:
                self.refused(refused)
                http2 = protocol.begins_http2
                self.sent.append(protocol.refusal(refused, b"id"))
                if http2:
                    self.events[-1] = ("http2",)
            data = b""
        self._check_bounds()

    def _head(self, head: RequestHead | None) -> None:
        protocol = self.protocol
        if head is None:
            assert protocol.head_begun or not protocol.buffer
            return
        self.events.append(("request", head.method, head.target))
        if head.about.length == 0:
            self._complete()
        else:
            self._body(b"")

    def _body(self, data: bytes) -> None:
        self.payload(self.protocol.receive_body(data))
        if self.protocol.state is ServerState.RESPONSE:
            self._complete()

    def _complete(self) -> None:
        protocol, request = self.protocol, self.protocol.request
        assert request is not None
        self.events.append(("end", protocol.trailers))
        if request.about.upgrade:
            self.sent.append(protocol.upgrade(SWITCHING))
            self.payload(protocol.take_buffer(), "tunnel")
            return
        self.sent.append(protocol.response_head(OK, 0, last=False))
        if not protocol.end_response():
            protocol.linger()

    def _check_bounds(self) -> None:
        protocol = self.protocol
        if protocol.state is ServerState.HEAD:
            assert len(protocol.buffer) <= HEAD_MAX
        elif protocol.state is ServerState.BODY:
            assert not protocol.buffer
            chunks = protocol._chunks
            assert chunks is None or len(chunks._line) <= max(SIZE_LINE_MAX, TRAILERS_MAX)


class ClientConversation(_Events):
    """An endpoint's bytes, for one request. `short`: tries the short way first, as the connection does."""

    def __init__(self, request: bytes = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", *, short: bool = True) -> None:
        super().__init__()
        self.protocol = H1ClientProtocol(ResponseReader())
        self.protocol.connected()
        self._short = short
        self.reusable = True
        head = RequestReader().read(request)
        self.sent = self.protocol.request(head, head.target, head.fields.raw, [], True, b"")

    def feed(self, data: bytes) -> None:
        protocol = self.protocol
        if protocol.state is ClientState.CLOSED:
            return
        if protocol.state is ClientState.IDLE:  # the connection leaves the pool
            self.reusable = False
            return
        try:
            self._receive(data)
        except RequestRefused as refused:
            self.refused(refused)
            self._close()
        if protocol.state is ClientState.HEAD:
            assert len(protocol.buffer) <= limits.RESPONSE_HEAD_MAX

    def eof(self) -> None:
        protocol = self.protocol
        if protocol.state in (ClientState.CLOSED, ClientState.IDLE):
            return
        self.events.append(("end", protocol.trailers) if protocol.complete_at_eof else ("cut",))
        self._close()

    def _receive(self, data: bytes) -> None:
        protocol = self.protocol
        if protocol.state is ClientState.HEAD:
            if self._short and not protocol.buffer and (head := protocol.receive_whole(data)) is not None:
                self.events.append(("response", head.status))
                self.payload(data[protocol.head_size :])
                self.events.append(("end", b""))
                return
            while protocol.state is ClientState.HEAD:
                if (head := protocol.receive_head(data)) is None:
                    return
                data = b""
                kind = "interim" if protocol.state is ClientState.HEAD else "response"
                self.events.append((kind, head.status))
        tunnel = protocol.state is ClientState.TUNNEL
        self.payload(protocol.receive_body(data), "tunnel" if tunnel else "body")
        if protocol.body_left == 0:
            self.events.append(("end", protocol.trailers))
            if protocol.keep_alive:
                protocol.end_response()
            else:
                self._close()

    def _close(self) -> None:
        self.reusable = False
        self.protocol.close()
