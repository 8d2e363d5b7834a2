"""A client's HTTP/2 connection and its requests. Each stream is the downstream side of one exchange."""

import socket

from mesh.http import limits
from mesh.http.byte_budget import HEAD_COPIES, REQUEST_BYTES, ByteAccount, ByteBudget, Over
from mesh.http.codec.h1_head import CHUNKED, KEPT_MAX, RequestFields, RequestHead, ResponseHead
from mesh.http.codec.h2_headers import RequestLists, answer_list, read_trailers, response_list
from mesh.http.codec.h2_protocol import Code, H2Broken, Stream
from mesh.http.codec.hpack import Fields
from mesh.http.codec.proxy_headers import ClientInfo, given_request_id, request_block
from mesh.http.downstream.interfaces import ConnectionOwner
from mesh.http.exchange import Exchange
from mesh.http.faults import HttpFault, RequestRefused
from mesh.http.h2_transport import H2Connection, H2StreamWriter
from mesh.http.least_rate import LEAST_BYTES, BodyPace
from mesh.http.local_reply import LocalReply, error_answer
from mesh.net.idle_timer import NEVER
from mesh.net.isolation import run
from mesh.relay.splice import reset_on_close

ANSWER_BYTES = 4096  # no local reply is longer: a stream with such a window takes it at once


class H2Client(H2Connection):
    """Call `start`. `host.on_close` is called at the end."""

    account: ByteAccount

    def __init__(self, host: ConnectionOwner, sock: socket.socket, edge: ClientInfo) -> None:
        super().__init__(host.poller, host.deadlines, sock, client=False)
        self.host = host
        self.edge = edge
        edge.version = "HTTP/2.0"
        self.account = edge.account or ByteBudget().account(edge.client)
        self._lists = RequestLists()
        self._requests: dict[int, H2Request] = {}
        self._served = False  # there has been a request
        self._draining = False
        self._goaway_sent = False  # the peer knows the last stream that is accepted
        self._block_of: RequestFields | None = None
        self._block = b""

    def start(self, data: bytes = b"") -> None:
        """`data`: what was read from the socket before."""
        try:
            self.poller.watch(self.sock, self.on_ready)
        except OSError:
            self.close()
            return
        self.protocol.start()
        if data:
            self.receive(data)
        else:
            self.push()
        self.poller.again(self.on_readable)  # the former owner may have had the event for what is there

    @property
    def eviction_order(self) -> tuple[bool, float] | None:
        return None if self._requests or self._held else (self._served, self.limit)

    def finish(self) -> None:
        """Accepts no more requests after those on their way. RFC 9113 section 6.8: GOAWAY with the highest
        number, and the real one once a ping has come back."""
        if not self._draining and not self.closed:
            self._draining = True
            self.protocol.go_away(at_once=False)
            self.protocol.ping()
            self.idle_seconds = limits.LINGER_SECONDS  # if the ping is never answered
            self.push()

    def abort(self) -> None:
        """Closes the connection at once."""
        self.on_lost()

    def block(self, about: RequestFields) -> bytes:
        """The field lines that an endpoint gets, without the request's id. A client repeats most of them, so
        the last block is kept."""
        if about is not self._block_of:
            self._block_of, self._block = about, request_block(about, self.edge)
            if len(self._block) > KEPT_MAX:
                self._block_of = None
        return self._block

    # --- callbacks of the protocol ---

    def on_request(self, stream: Stream, fields: Fields, ended: bool) -> None:
        self._served = True
        request = self._requests[stream.id] = H2Request(self, stream)
        try:
            head, size = self._lists.read(fields, ended), REQUEST_BYTES
            size += HEAD_COPIES * (len(head.target) + len(head.about.fields.raw))
            over = request.count(size)
            if over is None:
                run(request.start, head, ended)
                return
        except RequestRefused as refused:
            if (over := request.count(REQUEST_BYTES)) is None:
                request.refuse(refused)
                return
        request.reject(over)

    def on_headers(self, stream: Stream, fields: Fields, ended: bool) -> None:
        if (request := self._requests.get(stream.id)) is not None:
            run(request.trailers, fields)

    def on_data(self, stream: Stream, data: bytes, ended: bool) -> None:
        if (request := self._requests.get(stream.id)) is not None:
            run(request.body, data, ended)
        else:
            self.protocol.consumed(stream, len(data))

    def writer_of(self, stream: Stream) -> "H2Request | None":
        return self._requests.get(stream.id)

    def on_reset(self, stream: Stream, code: int) -> None:
        if (request := self._requests.pop(stream.id, None)) is not None:
            run(request.on_reset)
            self._close_if_done()

    def on_goaway(self, last: int) -> None:
        """The client sends no more requests; those under way are answered."""
        self._draining = self._goaway_sent = True
        self._close_if_done()

    def on_pong(self) -> None:
        if self._draining and not self._goaway_sent:
            self._goaway_sent = True
            self.protocol.go_away()
            self._close_if_done()

    def on_close(self, request: "H2Request") -> None:
        """This request's stream is closed."""
        self._requests.pop(request.id, None)
        self._close_if_done()

    def _close_if_done(self) -> None:
        if self._goaway_sent and not self._requests:
            self.go_away()
        else:
            self.push_soon()

    # --- the end ---

    def on_protocol_error(self, broken: H2Broken) -> None:
        fault = HttpFault.H2_FLOOD if broken.code is Code.ENHANCE_YOUR_CALM else HttpFault.H2_PROTOCOL
        self.host.on_refused(fault, str(broken))
        self._end_requests()
        super().on_protocol_error(broken)

    def on_timeout(self) -> None:
        if self.peer_keeps_up(LEAST_BYTES * limits.BODY_SECONDS):
            return
        if not self._held and not self._linger_left and not self.protocol.in_block and not self._requests:
            self.go_away()  # idle
        elif self.protocol.in_block:
            self.host.on_refused(HttpFault.HEAD_TIMEOUT, "the head took too long")
            self._end_requests()
            self.go_away(Code.PROTOCOL_ERROR)
        else:
            self.on_lost()

    def on_over_share(self, over: Over) -> None:
        self.host.on_refused(over.refused.fault, str(over.refused))
        self._end_requests()
        reset_on_close(self.sock)
        self.close()

    def on_lost(self) -> None:
        self._end_requests()
        self.close()

    def _end_requests(self) -> None:
        requests = tuple(self._requests.values())
        self._requests.clear()
        for request in requests:
            run(request.on_reset)

    def close(self) -> None:
        if not self.closed:
            super().close()
            self.host.on_close(self)


class H2Request(H2StreamWriter):
    """The downstream side of one exchange."""

    __slots__ = (
        "_body_held",
        "_body_left",
        "_client",
        "_complete",
        "_exchange",
        "_grpc",
        "_head",
        "_head_only",
        "_held_in",
        "_held_out",
        "_pace",
        "_unreturned",
        "edge",
        "id",
        "request_id",
    )

    def __init__(self, client: H2Client, stream: Stream) -> None:
        super().__init__(client, stream, client.deadlines)
        self._client = client
        self.id = stream.id
        self.edge = client.edge
        self.request_id = b""
        self._exchange: Exchange | None = None
        self._complete = stream.ended_in  # all of the request has come
        self._body_left = -1  # bytes until the announced length; -1: none was announced
        self._body_held = False
        self._unreturned = 0  # bytes of the body whose window was not given back, as the exchange holds them
        self._held_in = self._held_out = 0  # bytes of the request, of the response, that are counted
        self._head: list[tuple[bytes, bytes]] | None = None  # of the response, to be sent with what follows
        self._head_only = False
        self._pace: BodyPace | None = None  # of the request's body, if there is one
        self._grpc = False

    # --- the request ---

    def start(self, head: RequestHead, ended: bool) -> None:
        host = self._client.host
        self.request_id = (self.edge.trusted and given_request_id(head.about)) or host.request_id()
        self._head_only = head.method == b"HEAD"
        self._body_left = head.length
        if not ended:
            self._grpc = (head.fields.get(b"content-type") or b"").startswith(b"application/grpc")
            self._pace = BodyPace(self._client.account, head.length != CHUNKED)
            self._wait_for_body()
        exchange = self._exchange = host.exchange(self, head)
        exchange.begin(b"", ended)

    def body(self, data: bytes, ended: bool) -> None:
        stream = self.stream
        assert stream is not None
        exchange, protocol = self._exchange, self._client.protocol
        if exchange is None:  # it is answered; the rest of the body is discarded
            protocol.consumed(stream, len(data))
            return
        if self._body_left >= 0:
            self._body_left -= len(data)
            if self._body_left < 0 or (ended and self._body_left):
                self._malformed("the body is not of the length announced")
                return
        self._complete = ended
        if ended:
            self.limit = NEVER
        elif self._pace is not None:
            self._pace.received += len(data)
        exchange.body(data, ended)
        if self._body_held:
            if (over := self.count(len(data))) is not None:
                exchange.give_up(over.refused.fault)
            else:
                self._unreturned += len(data)
        else:
            protocol.consumed(stream, len(data))
            self._client.push_soon()

    def _wait_for_body(self) -> None:
        """Starts the time limit. Messages of a gRPC stream may be rare."""
        self.within(limits.TUNNEL_SECONDS if self._grpc else limits.BODY_SECONDS)

    def _keeps_up(self) -> bool:
        """Does the client read, or send its body, fast enough? Then its time limit begins anew."""
        if self.blocked:
            least = 1 if self._grpc else LEAST_BYTES * limits.BODY_SECONDS
            if not self.keeps_up(least):
                return False
            self.within(limits.BODY_SECONDS)
            return True
        exchange, pace = self._exchange, self._pace
        if exchange is None or exchange.status or pace is None:
            return False
        if self._grpc:
            keeps_up, pace.received = pace.received > 0, 0
        else:
            keeps_up = pace.keeps_up(limits.BODY_SECONDS)
        if keeps_up:
            self._wait_for_body()
        return keeps_up

    def trailers(self, fields: Fields) -> None:
        exchange = self._exchange
        if exchange is None:
            return
        self.limit = NEVER
        try:
            trailers = read_trailers(fields, HttpFault.BAD_BODY)
        except RequestRefused as refused:
            self._malformed(str(refused))
            return
        if self._body_left > 0:
            self._malformed("the body is shorter than announced")
            return
        self._complete = True
        exchange.body_ended(trailers)

    def hold_body(self, hold: bool) -> None:
        self._body_held = hold
        if self.stream is None:
            return
        if hold:
            if not self._complete:
                self.limit = NEVER
            return
        if not self._complete and self._exchange is not None and not self._exchange.status:
            self._wait_for_body()
        if self._unreturned:
            returned, self._unreturned = self._unreturned, 0
            self._held_in -= returned
            self._client.account.give_back(returned)
            self._client.protocol.consumed(self.stream, returned)
            self._client.push_soon()

    def forwarded(self, head: RequestHead) -> bytes:
        return b"%bX-Request-Id: %b\r\n" % (self._client.block(head.about), self.request_id)

    def refuse(self, refused: RequestRefused) -> None:
        """Answers what is not a valid request. There is no exchange for it."""
        self._client.host.on_refused(refused.fault, str(refused))
        self.request_id = self._client.host.request_id()
        self.answer(error_answer(refused.fault, self.request_id))

    # --- bytes that are held ---

    def count(self, more: int) -> Over | None:
        """Counts so many more bytes of the request. Returns the limit that they would exceed, if any."""
        over = self._client.account.take(more)
        if over is None:
            self._held_in += more
        return over

    def _count_out(self, more: int) -> None:
        over = self._client.account.take(more)
        if over is None:
            self._held_out += more
        else:
            self._on_over_share(over.refused)

    def _on_over_share(self, refused: RequestRefused) -> None:
        """The client does not take so much of the response that no more may be held."""
        if self._exchange is not None:
            self._exchange.give_up(refused.fault)
        else:
            self._client.host.on_refused(refused.fault, str(refused))
            self._reset(Code.ENHANCE_YOUR_CALM)

    def _release(self) -> None:
        if self._pace is not None:
            self._pace.end()
        account = self._client.account
        account.give_back(self._held_in + self._held_out)
        self._held_in = self._held_out = 0

    def reject(self, over: Over) -> None:
        """Refuses a request for which no more bytes may be held. It is answered only if the answer can go out
        at once; otherwise its stream is reset."""
        client, stream, refused = self._client, self.stream, over.refused
        assert stream is not None
        if over is not Over.CONNECTION and stream.send_window >= ANSWER_BYTES and not client.is_full:
            self.refuse(refused)
            return
        client.host.on_refused(refused.fault, str(refused))
        self._close()
        client.protocol.refuse(stream)

    def _malformed(self, message: str) -> None:
        """RFC 9113 section 8.1.1."""
        self._client.host.on_refused(HttpFault.BAD_BODY, message)
        stream = self.stream
        assert stream is not None
        self._client.protocol.fail(stream, Code.PROTOCOL_ERROR)
        self._client.push_soon()

    # --- the response ---

    def interim(self, head: ResponseHead) -> None:
        if self.stream is not None:
            self._client.protocol.send_headers(self.stream, response_list(head), False)
            self._client.push_soon()

    def respond(self, head: ResponseHead, length: int) -> None:
        self.limit = NEVER  # from now on the endpoint's side has the time limit
        self._head = response_list(head)

    def whole(self, head: ResponseHead, body: bytes) -> None:
        self.respond(head, len(body))
        if body:
            self.put(body)
        self.end(b"")

    def switch(self, head: ResponseHead) -> None:
        raise AssertionError("there is no Upgrade in HTTP/2")

    def write(self, data: bytes) -> None:
        self.put(data)

    def flush(self) -> bool:
        listed, self._head = self._head, None
        if listed is not None and self.stream is not None:
            self._client.protocol.send_headers(self.stream, listed, False)
            self._client.push_soon()
        sent = super().flush()
        if len(self._held) != self._held_out and self.stream is not None:
            self._count_out(len(self._held) - self._held_out)
        return sent

    def end(self, trailers: bytes) -> None:
        self._exchange = None
        listed, stream = self._head, self.stream
        if listed is not None and stream is not None and not self._out and not trailers:
            self._head = None
            self._client.protocol.send_headers(stream, listed, True)
            self._client.push_soon()
            self.on_sent()
        else:
            self.finish(trailers)

    def answer(self, answer: LocalReply) -> None:
        self._head = answer_list(answer)
        if answer.body and not self._head_only:
            self.put(answer.body)
        self.end(b"")

    def cut(self) -> None:
        self._reset(Code.INTERNAL_ERROR)

    def on_room(self) -> None:
        if self._exchange is not None:
            self._exchange.client_room()

    def on_sent(self) -> None:
        if self.stream is not None and not self.stream.ended_in:
            self._reset(Code.NO_ERROR)  # RFC 9113 section 8.1: the client can stop sending
        else:
            self._close()

    # --- the end ---

    def on_timeout(self) -> None:
        if self._keeps_up():
            return
        exchange = self._exchange
        if self.blocked or exchange is None or exchange.status:
            self._exchange = None
            self._reset(Code.CANCEL)
            if exchange is not None:
                exchange.gone()
        else:
            self._exchange = None
            self._client.host.on_refused(HttpFault.BODY_TIMEOUT, "the body took too long")
            exchange.gone()
            self.answer(error_answer(HttpFault.BODY_TIMEOUT, self.request_id))

    def on_fault(self) -> None:
        """A bug was met at this request."""
        exchange, self._exchange = self._exchange, None
        run(self._reset, Code.INTERNAL_ERROR)
        if exchange is not None:
            exchange.on_fault()

    def on_reset(self) -> None:
        """The client has ended the stream, or the connection is lost."""
        self.stream = None
        self.stop_clock()
        self._release()
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            run(exchange.gone)

    def _reset(self, code: Code) -> None:
        if self.stream is not None:
            self._client.protocol.cancel(self.stream, code)
        self._close()

    def _close(self) -> None:
        self.stream = None
        self._exchange = None
        self.stop_clock()
        self._release()
        self._client.on_close(self)
