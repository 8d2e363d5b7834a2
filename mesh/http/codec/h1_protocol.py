"""HTTP/1.1 on one connection without a socket: bytes in, heads and payload out. Pure.

Both sides are here: `H1ServerProtocol` reads requests and encodes responses, `H1ClientProtocol` does the
reverse. `h1_states` has the states and their transitions. Whoever owns the socket passes in what it has read
and looks at `state` to know what it is part of:

    receive_head   a head that is complete now, or None: more bytes are needed
    receive_body   the payload in these bytes; `body_left` is 0 when the body is complete
    TUNNEL         bytes pass through as they are, without a call here

Bytes that belong to what comes next stay in `buffer`. What is malformed raises RequestRefused; the connection
cannot be used afterwards. This is a fast path: payload is not wrapped in event objects, and a transition that
is possible from one state only is a constant, read from the table at import.
"""

from mesh.http import limits
from mesh.http.codec.h1_body import END_OF_CHUNKS, LAST_CHUNK, ChunkedReader, chunk
from mesh.http.codec.h1_head import (
    CHUNKED,
    EMPTY_LINES_MAX,
    HEAD_MAX,
    UNTIL_CLOSE,
    RequestHead,
    RequestReader,
    ResponseHead,
    ResponseReader,
    check_beginning,
)
from mesh.http.codec.h1_states import (
    CLIENT_TRANSITIONS,
    SERVER_TRANSITIONS,
    ClientEvent,
    ClientState,
    ServerEvent,
    ServerState,
)
from mesh.http.codec.h2_protocol import PREFACE
from mesh.http.codec.proxy_headers import response_lines
from mesh.http.faults import HttpFault, RequestRefused
from mesh.http.local_reply import LocalReply, as_http1, error_answer

_H2_PREFACE_HEAD = PREFACE[:18]  # the part that looks like a head of HTTP/1

_REQUEST_COMPLETE = SERVER_TRANSITIONS[ServerState.HEAD][ServerEvent.REQUEST]
_BODY_FOLLOWS = SERVER_TRANSITIONS[ServerState.HEAD][ServerEvent.REQUEST_WITH_BODY]
_BODY_COMPLETE = SERVER_TRANSITIONS[ServerState.BODY][ServerEvent.BODY_END]
_NEXT_REQUEST = SERVER_TRANSITIONS[ServerState.RESPONSE][ServerEvent.RESPONSE_END]
_REQUEST_BEGUN = CLIENT_TRANSITIONS[ClientState.IDLE][ClientEvent.REQUEST]
_RESPONSE_BEGUN = CLIENT_TRANSITIONS[ClientState.HEAD][ClientEvent.RESPONSE]
_SWITCHED = CLIENT_TRANSITIONS[ClientState.HEAD][ClientEvent.UPGRADE]
_WHOLE_RESPONSE = CLIENT_TRANSITIONS[ClientState.HEAD][ClientEvent.RESPONSE_END]


def _has_body(status: int, method: bytes) -> bool:
    """Of a final response. One without must not be given a Content-Length: RFC 9110 section 8.6."""
    return status not in (204, 304) and method != b"HEAD"


class _MessageReader:
    """What both sides need to read a body."""

    __slots__ = ("_chunks", "body_left", "buffer")

    def __init__(self) -> None:
        self.buffer = b""  # received, not parsed: part of a head, or what follows the current message
        self.body_left = 0  # bytes of the body that are still to come; or CHUNKED, UNTIL_CLOSE
        self._chunks: ChunkedReader | None = None

    @property
    def trailers(self) -> bytes:
        """Field lines after a chunked body, each with its CRLF. Empty until the body is complete."""
        return self._chunks.trailers if self._chunks is not None else b""

    def _payload(self, data: bytes) -> bytes:
        """Reads a body with a length or in chunks. Bytes after its end go to `buffer`."""
        left = self.body_left
        if left >= 0:
            if len(data) > left:
                data, self.buffer = data[:left], data[left:]
            self.body_left = left - len(data)
            return data
        chunks = self._chunks
        assert chunks is not None
        payload = chunks.feed(data) if data else b""
        if chunks.done:
            self.body_left = 0
            self.buffer = chunks.rest
        return payload


class H1ServerProtocol(_MessageReader):
    """A client's connection: its requests are read, responses to it are encoded."""

    __slots__ = (
        "_empty_lines",
        "_reader",
        "chunked_response",
        "head_begun",
        "head_size",
        "keep_alive",
        "request",
        "served",
        "state",
    )

    def __init__(self) -> None:
        super().__init__()
        self._reader = RequestReader()
        self._empty_lines = 0  # before the next request, so far
        self.state = ServerState.HEAD
        self.head_begun = False  # `buffer` is part of a head; otherwise it was received ahead of its turn
        self.head_size = 0  # bytes of the last head
        self.request: RequestHead | None = None  # until its response is sent
        self.served = False  # there has been a request
        self.keep_alive = True  # the connection persists after this response
        self.chunked_response = False  # payload goes out in chunks

    # --- requests ---

    def receive_head(self, data: bytes) -> RequestHead | None:
        """In HEAD: the next request's head, or None until it is complete. With `b""`, `buffer` is parsed.

        Raises RequestRefused. Then `buffer` has all bytes of the head, for `begins_http2`.
        """
        known = 0  # so many bytes were searched before: a head that trickles in costs no more for it
        if self.buffer:
            if self.head_begun:
                known = len(self.buffer)
            data, self.buffer = self.buffer + data, b""
        if data[0] in b"\r\n":
            data, known = self._skip_empty_lines(data), 0
        end = data.find(b"\r\n\r\n", known - 3 if known > 3 else 0) + 4
        if end < 4 or end > HEAD_MAX:
            check_beginning(data, known, end)
            self.buffer = data
            self.head_begun = self.head_begun or data != b""
            return None
        try:
            head = self._reader.read(data if end == len(data) else data[:end])
        except RequestRefused:
            self.buffer = data
            raise
        if end < len(data):
            self.buffer = data[end:]
        self.head_begun = False
        self.head_size = end
        self._empty_lines = 0
        self.served = True
        self.request = head
        about = head.about
        if about.close or not (head.minor or about.keep_alive):  # as RequestHead.persistent, without a call
            self.keep_alive = False
        if about.length == 0:
            self.state = _REQUEST_COMPLETE
        else:
            self.state = _BODY_FOLLOWS
            self.body_left = about.length
            self._chunks = ChunkedReader(HttpFault.BAD_BODY) if about.length == CHUNKED else None
        return head

    def _skip_empty_lines(self, data: bytes) -> bytes:
        """RFC 9112 section 2.2. They are counted over all reads until a request begins."""
        while data.startswith(b"\r\n"):
            if self._empty_lines == EMPTY_LINES_MAX:
                raise RequestRefused(
                    HttpFault.BAD_HEAD, f"more than {EMPTY_LINES_MAX} empty lines before a request"
                )
            self._empty_lines += 1
            data = data[2:]
        return data

    def receive_body(self, data: bytes) -> bytes:
        """In BODY: the payload in `buffer` and `data`. The state is RESPONSE once the body is complete.

        Raises RequestRefused.
        """
        if self.buffer:
            data, self.buffer = self.buffer + data, b""
        left = self.body_left - len(data)
        if left > 0:
            self.body_left = left
            return data
        payload = self._payload(data)
        if self.body_left == 0:
            self.state = _BODY_COMPLETE
        return payload

    @property
    def begins_http2(self) -> bool:
        """What was refused is HTTP/2's preface, with which a client that knows of HTTP/2 begins (RFC 9113
        section 3.3)."""
        return not self.served and self.buffer.startswith(_H2_PREFACE_HEAD)

    def take_buffer(self) -> bytes:
        """What was received after the request. An upgrade makes it the tunnel's first bytes."""
        data, self.buffer = self.buffer, b""
        return data

    # --- responses ---

    def interim(self, head: ResponseHead) -> bytes:
        """A response with a status of 1xx; empty for HTTP/1.0, which has none (RFC 9110 section 15.2)."""
        request = self.request
        return b"%b\r\n" % response_lines(head) if request is not None and request.minor else b""

    def response_head(self, head: ResponseHead, length: int, *, last: bool) -> bytes:
        """The head of the final response. `length` of its body: bytes, CHUNKED or UNTIL_CLOSE; `last`: the
        connection is to be closed afterwards."""
        request = self.request
        assert request is not None
        keep = self.keep_alive and self.state is ServerState.RESPONSE and not last
        framing = b""
        self.chunked_response = False
        if length < 0:
            if request.minor:
                framing = b"Transfer-Encoding: chunked\r\n"
                self.chunked_response = True
            else:
                keep = False
        elif length == 0 and head.length < 0 and _has_body(head.status, request.method):
            framing = b"Content-Length: 0\r\n"
        if not keep:
            framing += b"Connection: close\r\n"
        elif not request.minor:
            framing += b"Connection: keep-alive\r\n"
        self.keep_alive = keep
        return b"%b%b\r\n" % (response_lines(head), framing)

    def payload(self, data: bytes) -> bytes:
        """Part of the response's body, which is not empty, with the framing that the head has announced."""
        return chunk(data) if self.chunked_response else data

    def body_end(self, trailers: bytes) -> bytes:
        """What marks the end of the response's body."""
        if not self.chunked_response:
            return b""
        return LAST_CHUNK + trailers + b"\r\n" if trailers else END_OF_CHUNKS

    def local_reply(self, reply: LocalReply, *, last: bool) -> bytes:
        """A response that no endpoint gave. `last` as for `response_head`."""
        request = self.request
        minor, method = (request.minor, request.method) if request is not None else (1, b"")
        keep = self.keep_alive and self.state is ServerState.RESPONSE and not last and minor == 1
        self.keep_alive = keep
        return as_http1(reply, keep=keep, head_only=method == b"HEAD")

    def refusal(self, refused: RequestRefused, request_id: bytes) -> bytes:
        """The answer to bytes that are not a request. Where the next one would begin is not known."""
        self._move(ServerEvent.REFUSAL)
        self.keep_alive = False
        self.buffer = b""
        self.request = None  # its head may be large, and the connection lives on for a while
        return as_http1(error_answer(refused.fault, request_id), keep=False, head_only=False)

    def upgrade(self, head: ResponseHead) -> bytes:
        """The response 101, after which the connection is a tunnel."""
        request = self.request
        assert request is not None
        self._move(ServerEvent.UPGRADE)
        self.keep_alive = False
        self.chunked_response = False
        chosen = head.fields.get(b"upgrade") or request.about.upgrade
        return b"%bConnection: Upgrade\r\nUpgrade: %b\r\n\r\n" % (response_lines(head), chosen)

    def end_response(self) -> bool:
        """The response is sent. True: another request can be read; False: call `linger` or `close`."""
        if not self.keep_alive or self.state is not ServerState.RESPONSE:
            return False
        self.state = _NEXT_REQUEST
        self.request = None
        self._chunks = None
        return True

    def linger(self) -> None:
        """Nothing more is sent; what still comes is to be discarded."""
        self._move(ServerEvent.LAST_RESPONSE_END)
        self.request = None

    def close(self) -> None:
        self._move(ServerEvent.CLOSE)

    def _move(self, event: ServerEvent) -> None:
        self.state = SERVER_TRANSITIONS[self.state][event]


class H1ClientProtocol(_MessageReader):
    """A connection to an endpoint: requests to it are encoded, its responses are read."""

    __slots__ = (
        "_chunked_request",
        "_method",
        "_reader",
        "_upgrade",
        "head_size",
        "keep_alive",
        "request_sent",
        "state",
    )

    def __init__(self, reader: ResponseReader) -> None:
        """`reader`: the endpoint's. Its connections share it, for many of their heads are the same."""
        super().__init__()
        self._reader = reader
        self._method = b""
        self._upgrade = b""  # the protocol that the request asks for
        self._chunked_request = False
        self.state = ClientState.CONNECTING
        self.request_sent = False  # to its end
        self.keep_alive = False  # the connection persists after this response
        self.head_size = 0  # bytes of the response's head, after `receive_whole`

    def connected(self) -> None:
        self._move(ClientEvent.CONNECTED)

    # --- requests ---

    def request(
        self, head: RequestHead, target: bytes, lines: bytes, body: list[bytes], last: bool, trailers: bytes
    ) -> bytes:
        """From IDLE: a request with what there is of its body. `lines`: its field lines; `last`: `body` is
        all of it."""
        self.state = _REQUEST_BEGUN
        self._method = head.method
        about = head.about
        self._upgrade = about.upgrade
        self._chunked_request = about.length == CHUNKED
        self.request_sent = last
        if not body and not (last and self._chunked_request):
            return b"%b %b HTTP/1.1\r\n%b\r\n" % (head.method, target, lines)
        parts = [chunk(one) for one in body if one] if self._chunked_request else body
        end = b"%b%b\r\n" % (LAST_CHUNK, trailers) if last and self._chunked_request else b""
        return b"%b %b HTTP/1.1\r\n%b\r\n%b%b" % (head.method, target, lines, b"".join(parts), end)

    def request_body(self, data: bytes, last: bool, trailers: bytes) -> bytes:
        """More of the request's body; `last`: the end of it."""
        if last:
            self.request_sent = True
        if not self._chunked_request:
            return data
        coded = chunk(data) if data else b""
        return coded + LAST_CHUNK + trailers + b"\r\n" if last else coded

    # --- responses ---

    def receive_whole(self, data: bytes) -> ResponseHead | None:
        """In HEAD, with an empty `buffer`: the head if `data` is one complete response that leaves the
        connection open, as most are; its body is `data[head_size:]`. None: nothing was consumed.

        Raises RequestRefused.
        """
        end = data.find(b"\r\n\r\n") + 4
        if end < 4 or not self.request_sent:
            return None
        head = self._reader.read(data[:end])
        if head.body_length(self._method) != len(data) - end or head.close or head.status < 200:
            return None
        self.state = _WHOLE_RESPONSE
        self.head_size = end
        return head

    def receive_head(self, data: bytes) -> ResponseHead | None:
        """In HEAD: the next head, or None until it is complete. With `b""`, `buffer` is parsed. After a head
        with a status of 1xx other than 101 the state is HEAD again.

        Raises RequestRefused.
        """
        if self.buffer:
            data, self.buffer = self.buffer + data, b""
        end = data.find(b"\r\n\r\n") + 4
        if end < 4 or end > limits.RESPONSE_HEAD_MAX:
            if len(data) > limits.RESPONSE_HEAD_MAX:
                raise RequestRefused(HttpFault.BAD_RESPONSE, "the head of the response is too large")
            self.buffer = data
            return None
        head = self._reader.read(data[:end])
        self.buffer = data[end:]
        if head.status >= 200:
            self.state = _RESPONSE_BEGUN
            self.body_left = left = head.body_length(self._method)
            self.keep_alive = not head.close and left != UNTIL_CLOSE and self.request_sent
            self._chunks = ChunkedReader(HttpFault.BAD_RESPONSE) if left == CHUNKED else None
        elif head.status == 101:
            if not self._upgrade:
                raise RequestRefused(HttpFault.BAD_RESPONSE, "101 to a request that asked for no upgrade")
            self.state = _SWITCHED
            self.body_left = UNTIL_CLOSE
            self.keep_alive = False
            self._chunked_request = False
            self._chunks = None
        return head

    def receive_body(self, data: bytes) -> bytes:
        """In BODY or TUNNEL: the payload in `buffer` and `data`. `body_left` is 0 when the response is
        complete. If bytes follow its end, the connection does not persist.

        Raises RequestRefused.
        """
        if self.buffer:
            data, self.buffer = self.buffer + data, b""
        left = self.body_left - len(data)
        if left > 0:
            self.body_left = left
            return data
        if self.body_left == UNTIL_CLOSE:
            return data
        payload = self._payload(data)
        if self.buffer:
            self.keep_alive = False
        return payload

    @property
    def complete_at_eof(self) -> bool:
        """The end of the connection is the end of the response, and not too soon."""
        return self.state in (ClientState.BODY, ClientState.TUNNEL) and self.body_left == UNTIL_CLOSE

    def end_response(self) -> None:
        """The response is complete and the connection persists."""
        self._move(ClientEvent.RESPONSE_END)

    def close(self) -> None:
        self._move(ClientEvent.CLOSE)

    def _move(self, event: ClientEvent) -> None:
        self.state = CLIENT_TRANSITIONS[self.state][event]
