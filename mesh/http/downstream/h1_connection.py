"""A client's HTTP/1.1 connection: a request is answered before the next is read. A fast path.

`codec.h1_protocol` says what the bytes mean and in which state the connection is (`codec.h1_states`). This
is its driver: it reads the socket, passes requests to their exchange and responses to the client, and keeps
the time limits. `h1_writer` sends; `client_load` counts the bytes that are held.

Requests that come ahead of their turn (pipelining) stay in the kernel's buffer: TCP slows down a client that
sends faster than it is answered.
"""

import socket
import ssl

from mesh.http import limits
from mesh.http.byte_budget import FREE_BYTES, HEAD_COPIES, Over
from mesh.http.codec.h1_head import CHUNKED, KEPT_MAX, RequestFields, RequestHead, ResponseHead
from mesh.http.codec.h1_protocol import H1ServerProtocol
from mesh.http.codec.h1_states import ServerState
from mesh.http.codec.proxy_headers import ClientInfo, given_request_id, request_block, response_lines
from mesh.http.downstream.client_load import ClientLoad, account_of
from mesh.http.downstream.h1_writer import ResponseWriter
from mesh.http.downstream.interfaces import H1ConnectionOwner
from mesh.http.exchange import Exchange
from mesh.http.faults import HttpFault, RequestRefused
from mesh.http.least_rate import LEAST_BYTES, BodyPace
from mesh.http.local_reply import LocalReply
from mesh.net.idle_timer import NEVER, IdleTimer
from mesh.net.isolation import run
from mesh.net.poller import FAILED, PEER_DONE, READABLE, UNUSUAL, WRITABLE
from mesh.net.would_block import WOULD_BLOCK, end_records
from mesh.relay.splice import reset_on_close

INCOMING = READABLE | PEER_DONE | UNUSUAL

HEAD, BODY, RESPONSE, REFUSED, TUNNEL, LINGER, CLOSED = ServerState


class H1Client(IdleTimer):
    __slots__ = (
        "_block",
        "_block_of",
        "_blocked",
        "_body_held",
        "_body_pace",
        "_cut",
        "_eof_follows",
        "_exchange",
        "_host",
        "_in_records",
        "_linger_bytes",
        "_load",
        "_poller",
        "_protocol",
        "_response_written",
        "_sock",
        "_unread",
        "_writer",
        "edge",
        "request_id",
    )

    def __init__(self, host: H1ConnectionOwner, sock: socket.socket, edge: ClientInfo) -> None:
        super().__init__(host.deadlines)
        self._host = host
        self._poller = host.poller
        self._sock = sock
        # TLS: there can be more in the record that was read, whatever the socket has.
        self._in_records = isinstance(sock, ssl.SSLSocket)
        self.edge = edge
        self._protocol = H1ServerProtocol()
        self._writer = ResponseWriter(sock)
        self._load: ClientLoad | None = None  # None: never more than little
        self._body_pace: BodyPace | None = None  # of a request's body that is not complete
        self._exchange: Exchange | None = None
        self._body_held = False  # the exchange takes no more of the body for now
        self._unread = False  # there is, or may be, more in the socket
        self._eof_follows = False
        self._cut = False  # a response could not be completed
        self._blocked = False  # the exchange knows that the client is behind
        self._response_written = False  # to its end; part of it is not sent yet
        self._linger_bytes = 0  # that may still come
        self._block_of: RequestFields | None = None
        self._block = b""  # the field lines that an endpoint gets for `_block_of`
        self.request_id = b""

    def start(self) -> None:
        """Watches the socket. Its former owner may have had the event for bytes that are still in it."""
        self.within(limits.HEAD_SECONDS)
        try:
            self._poller.watch(self._sock, self._on_ready)
        except OSError:
            self._close()
            return
        if self._in_records:
            self._poller.again(self._readable)

    @property
    def eviction_order(self) -> tuple[bool, float] | None:
        protocol = self._protocol
        idle = protocol.state is HEAD and self._exchange is None and not self._writer.held
        return (protocol.served, self.limit) if idle else None

    def finish(self) -> None:
        """No more requests after the one under way. A connection that had none yet still gets its first."""
        protocol = self._protocol
        protocol.keep_alive = False
        if protocol.state is HEAD and protocol.served and not protocol.buffer and not self._writer.held:
            self._readable()  # one that has come already is answered
            if protocol.state is HEAD and not protocol.buffer:
                self._close()

    def abort(self) -> None:
        """Closes the connection at once."""
        self._gone()

    def on_fault(self) -> None:
        """A bug was met at this connection: the response must not look complete."""
        exchange, self._exchange = self._exchange, None
        self._cut = True
        reset_on_close(self._sock)
        run(self._close)
        if exchange is not None:
            exchange.on_fault()

    # --- reading ---

    def _on_ready(self, mask: int) -> None:
        if mask & INCOMING:
            if mask & (PEER_DONE | UNUSUAL):
                self._eof_follows = True
            if self._protocol.state is RESPONSE or self._body_held:
                self._unread = True
                if mask & FAILED:
                    self._gone()
            else:
                self._readable()
        if mask & WRITABLE and self._writer.held:
            self._drain()

    def _readable(self) -> None:
        protocol = self._protocol
        reads = 0
        while reads < limits.READS_AT_ONCE:
            reads += 1
            state = protocol.state
            if state is HEAD:
                if protocol.buffer and not protocol.head_begun:
                    self._unread = True  # `_on_pipelined` parses the buffer first
                    return
            elif state is CLOSED:
                return
            elif state is RESPONSE or state is REFUSED or self._body_held:
                self._unread = True
                return
            try:
                data = self._sock.recv(limits.READ_BYTES)
            except WOULD_BLOCK:
                return
            except OSError:
                self._gone()
                return
            if not data:
                self._at_eof()
                return
            may_have_more = len(data) == limits.READ_BYTES or self._eof_follows or self._in_records
            if state is HEAD:
                self._receive_head(data)
            else:
                self._receive(state, data)
            if not may_have_more:
                return
        self._poller.again(self._readable)

    def _receive(self, state: ServerState, data: bytes) -> None:
        """Bytes that are not part of a head."""
        if state is BODY:
            self._receive_body(data)
        elif state is TUNNEL:
            self.within(limits.TUNNEL_SECONDS)
            if self._exchange is not None:
                self._exchange.body(data, False)
                if self._body_held:
                    self._check(self._counted().hold_body(len(data)))
        elif state is LINGER:
            self._linger_bytes -= len(data)
            if self._linger_bytes < 0:
                self._close()

    def _receive_head(self, data: bytes) -> None:
        protocol = self._protocol
        was_begun = protocol.head_begun
        body, complete, trailers = b"", True, b""
        try:
            head = protocol.receive_head(data)
            if head is None:
                self._wait_for_head(was_begun)
                return
            if protocol.head_size > FREE_BYTES or self._load is not None:
                self._counted().hold_head(HEAD_COPIES * protocol.head_size)
            self.limit = NEVER
            if head.about.length:
                body = protocol.receive_body(b"")
                complete, trailers = protocol.state is RESPONSE, protocol.trailers
                if not complete:
                    self._body_pace = BodyPace(account_of(self.edge), head.about.length != CHUNKED)
                    self.within(limits.BODY_SECONDS)
        except RequestRefused as refused:
            if protocol.begins_http2 and not self._in_records:
                self._hand_over()
            else:
                self._refuse(refused)
            return
        self.request_id = (self.edge.trusted and given_request_id(head.about)) or self._host.request_id()
        exchange = self._exchange = self._host.exchange(self, head)
        exchange.begin(body, complete, trailers)
        if self._body_held and body:
            self._check(self._counted().hold_body(len(body)))

    def _hand_over(self) -> None:
        """HTTP/2 with prior knowledge: RFC 9113 section 3.3."""
        self.stop_clock()
        if self._load is not None:
            self._load.release_request()
        self._host.on_http2(self, self._sock, self._protocol.take_buffer())
        self._protocol.close()  # not before: should that fail, the socket is still to be closed here

    def _wait_for_head(self, was_begun: bool) -> None:
        """Counts the part of a head that has come, and starts its time limit. Raises RequestRefused."""
        protocol = self._protocol
        if len(protocol.buffer) > FREE_BYTES:
            self._counted().hold_head(len(protocol.buffer))
        if protocol.head_begun and not was_begun:
            self.within(limits.HEAD_SECONDS)

    def _receive_body(self, data: bytes) -> None:
        protocol = self._protocol
        if self._body_pace is not None:
            self._body_pace.received += len(data)
        try:
            payload = protocol.receive_body(data)
        except RequestRefused as refused:
            self._refuse(refused)
            return
        complete = protocol.state is RESPONSE
        if complete:
            self.limit = NEVER
        exchange = self._exchange
        if exchange is None:
            return
        if complete and protocol.trailers:
            if payload:
                exchange.body(payload, False)
            exchange.body_ended(protocol.trailers)
        elif payload or complete:
            exchange.body(payload, complete)
        if self._body_held and payload:
            self._check(self._counted().hold_body(len(payload)))

    def hold_body(self, hold: bool) -> None:
        self._body_held = hold
        if hold:
            return
        if self._load is not None:
            self._load.hold_body(0)
        if self._protocol.state is BODY:
            self.within(limits.BODY_SECONDS)
        if self._unread:
            self._read_again()

    def _read_again(self) -> None:
        self._unread = False
        self._poller.again(self._readable)

    def _at_eof(self) -> None:
        protocol = self._protocol
        if protocol.state is TUNNEL and self._exchange is not None:
            self._exchange.client_ended()
        elif protocol.state is HEAD and protocol.buffer:
            self._refuse(RequestRefused(HttpFault.BAD_HEAD, "the head is cut off"))
        else:
            self._gone()

    # --- the response ---

    def forwarded(self, head: RequestHead) -> bytes:
        if head.about is not self._block_of:
            self._block_of, self._block = head.about, request_block(head.about, self.edge)
            if len(self._block) > KEPT_MAX:
                self._block_of = None
        return b"%bX-Request-Id: %b\r\n" % (self._block, self.request_id)

    def interim(self, head: ResponseHead) -> None:
        if self._exchange is not None and (lines := self._protocol.interim(head)):
            self._writer.queue.append(lines)

    def respond(self, head: ResponseHead, length: int) -> None:
        self._writer.queue.append(self._protocol.response_head(head, length, last=self._host.closing))

    def whole(self, head: ResponseHead, body: bytes) -> None:
        """Sends a complete response. Most need no framing and no queue: their bytes are sent as they are."""
        protocol, writer = self._protocol, self._writer
        request = protocol.request
        if (
            request is None
            or writer.queue
            or writer.held
            or not protocol.keep_alive
            or protocol.state is not RESPONSE
            or self._host.closing
            or not request.minor
            or head.length < 0
        ):
            self.respond(head, len(body))
            if body:
                writer.queue.append(body)
            self._end_response()
            return
        self._exchange = None
        data = b"%b\r\n%b" % (head.forwarded or response_lines(head), body)
        try:
            sent = self._sock.send(data)
        except WOULD_BLOCK:
            sent = 0
        except OSError:
            self._close()
            return
        if sent == len(data):
            self._next_request()
            return
        self._response_written = True
        started = not writer.is_behind
        writer.hold(data, sent)
        self._wait_for_client(started)

    def switch(self, head: ResponseHead) -> None:
        exchange = self._exchange
        assert exchange is not None
        self._writer.queue.append(self._protocol.upgrade(head))
        self.within(limits.TUNNEL_SECONDS)
        if early := self._protocol.take_buffer():
            exchange.body(early, False)
        if self._unread:
            self._read_again()

    def write(self, data: bytes) -> None:
        protocol = self._protocol
        if protocol.state is TUNNEL:
            self.within(limits.TUNNEL_SECONDS)
        self._writer.queue.append(protocol.payload(data))

    def flush(self) -> bool:
        writer = self._writer
        if not writer.queue:
            return not writer.held
        if self._protocol.state is CLOSED:
            writer.queue.clear()
            return True
        started = not writer.is_behind
        try:
            if writer.flush():
                return True
        except OSError:
            self._gone()
            return True
        self._blocked = True
        self._wait_for_client(started)
        return False

    def _drain(self) -> None:
        writer = self._writer
        if self._protocol.state is CLOSED:
            return
        try:
            if not writer.drain():
                self._blocked = True
                self._wait_for_client(False)
                return
        except OSError:
            self._gone()
            return
        self.limit = NEVER
        if self._load is not None:
            self._load.hold_response(0)
        if self._response_written:
            self._response_written = False
            self._next_request()
        elif self._blocked and self._exchange is not None:
            self._blocked = False
            self._exchange.client_room()

    def _wait_for_client(self, started: bool) -> None:
        """The client does not take all of the response. `started`: it did until now."""
        if started or self.limit is NEVER:
            self.within(limits.BODY_SECONDS)
        self._check(self._counted().hold_response(len(self._writer.held)))

    def _keeps_up(self) -> bool:
        """Does the client read, or send its body, fast enough? A tunnel's messages may be read slowly."""
        seconds = limits.BODY_SECONDS
        state = self._protocol.state
        if self._writer.held:
            return self._writer.keeps_up(1 if state is TUNNEL else LEAST_BYTES * seconds)
        return state is BODY and self._body_pace is not None and self._body_pace.keeps_up(seconds)

    def end(self, trailers: bytes) -> None:
        if last := self._protocol.body_end(trailers):
            self._writer.queue.append(last)
        self._end_response()

    def answer(self, answer: LocalReply) -> None:
        self._writer.queue.append(self._protocol.local_reply(answer, last=self._host.closing))
        self._end_response()

    def cut(self) -> None:
        """Ends the connection so that what was sent does not look complete: no last chunk, and a reset."""
        self._exchange = None
        if self._protocol.state is not CLOSED:
            self.flush()
            self._cut = True
            reset_on_close(self._sock)
            self._close()

    def _end_response(self) -> None:
        """The response is written. The next request is read when all of it is sent."""
        self._exchange = None
        if self.flush():
            self._next_request()
        else:
            self._response_written = True

    def _next_request(self) -> None:
        protocol = self._protocol
        if not protocol.end_response():
            if protocol.state is not CLOSED:
                self._end_connection()
            return
        self._body_held = False
        if self._body_pace is not None:
            self._body_pace.end()
            self._body_pace = None
        if self._load is not None:
            self._load.release_request()
        self.within(limits.KEEP_ALIVE_SECONDS)
        if protocol.buffer:
            self._poller.again(self._on_pipelined)
        elif self._unread:
            self._read_again()
        elif self._host.closing:
            self._close()

    def _on_pipelined(self) -> None:
        """It is the turn of a request that came before the last response was sent."""
        if self._protocol.state is HEAD and self._protocol.buffer:
            self._receive_head(b"")
            if self._unread and self._protocol.state is HEAD:
                self._unread = False
                self._readable()

    # --- limits ---

    def _counted(self) -> ClientLoad:
        if self._load is None:
            self._load = ClientLoad(account_of(self.edge))
        return self._load

    def _check(self, over: Over | None) -> None:
        """A client that makes us hold too much gets an error, or its response is cut off."""
        if over is None:
            return
        exchange, refused = self._exchange, over.refused
        if exchange is not None:
            exchange.give_up(refused.fault)
        else:
            self._host.on_refused(refused.fault, str(refused))
            self.cut()

    def on_timeout(self) -> None:
        protocol = self._protocol
        state, held = protocol.state, self._writer.held
        body_awaited = state is BODY and not self._body_held
        if (held or body_awaited) and self._keeps_up():
            self.within(limits.BODY_SECONDS)
            return
        if held or state in (LINGER, TUNNEL):
            self._gone()
        elif body_awaited:
            self._refuse(RequestRefused(HttpFault.BODY_TIMEOUT, "the body took too long"))
        elif state is HEAD and protocol.head_begun:
            self._refuse(RequestRefused(HttpFault.HEAD_TIMEOUT, "the head took too long"))
        elif state is HEAD:
            self._close()

    # --- the end ---

    def _refuse(self, refused: RequestRefused) -> None:
        self._host.on_refused(refused.fault, str(refused))
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            started = exchange.status != 0
            exchange.gone()
            if started:
                self.cut()
                return
        self._writer.queue.append(self._protocol.refusal(refused, self.request_id))
        self._end_response()

    def _end_connection(self) -> None:
        """To close with bytes unread would reset the connection, and the client would lose the response."""
        protocol = self._protocol
        if protocol.state is RESPONSE and not protocol.buffer and not self._unread:
            self._close()
            return
        protocol.linger()
        self._body_held = False
        self._linger_bytes = limits.LINGER_BYTES
        self.within(limits.LINGER_SECONDS)
        try:
            end_records(self._sock)
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._close()
            return
        if self._unread:
            self._read_again()

    def _gone(self) -> None:
        exchange, self._exchange = self._exchange, None
        self._close()
        if exchange is not None:
            run(exchange.gone)

    def _close(self) -> None:
        protocol = self._protocol
        if protocol.state is CLOSED:
            return
        if self._in_records and protocol.state is not LINGER and not self._cut:
            end_records(self._sock)
        protocol.close()
        self.stop_clock()
        self.edge.close()
        self._poller.close(self._sock)
        self._host.on_close(self)
