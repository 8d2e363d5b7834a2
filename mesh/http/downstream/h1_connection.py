"""A client's HTTP/1.1 connection: a request is answered before the next is read. A fast path.

    HEAD      between requests, or in the midst of a head
    BODY      a request's body comes in
    WAIT      the request is whole, its response is not
    TUNNEL    after an upgrade: bytes both ways
    LINGER    we have said our last word; what still comes is read over, so that the client can read ours
    CLOSED    for good

Requests that come ahead of their turn (pipelining) stay in the kernel's buffer: who sends faster than we
answer is slowed down by TCP itself.
"""

import socket
import ssl
from collections.abc import Callable
from enum import Enum

from mesh.http import limits
from mesh.http.byte_budget import FREE_BYTES, HEAD_COPIES, ByteAccount, ByteBudget, HeldByConnection, Over
from mesh.http.codec.h1_body import END_OF_CHUNKS, LAST_CHUNK, ChunkedReader, chunk
from mesh.http.codec.h1_head import (
    CHUNKED,
    HEAD_MAX,
    KEPT_MAX,
    RequestFields,
    RequestHead,
    RequestReader,
    ResponseHead,
    check_beginning,
    without_empty_lines,
)
from mesh.http.codec.h2_protocol import PREFACE
from mesh.http.codec.proxy_headers import ClientInfo, given_request_id, request_block, response_lines
from mesh.http.downstream.interfaces import H1Host
from mesh.http.exchange import Exchange
from mesh.http.faults import HttpFault, RequestRefused
from mesh.http.least_rate import LEAST_BYTES, BodyPace, ReaderPace
from mesh.http.local_reply import LocalReply, as_http1, error_answer
from mesh.net.idle_timer import NEVER, IdleTimer
from mesh.net.isolation import run
from mesh.net.poller import FAILED, PEER_DONE, READABLE, UNUSUAL, WRITABLE
from mesh.net.would_block import WOULD_BLOCK, end_records, unsent
from mesh.relay.splice import reset_on_close

INCOMING = READABLE | PEER_DONE | UNUSUAL


class DownstreamState(Enum):
    HEAD = 1
    BODY = 2
    WAIT = 3
    TUNNEL = 4
    LINGER = 5
    CLOSED = 6


HEAD, BODY, WAIT, TUNNEL, LINGER, CLOSED = DownstreamState


class H1Client(IdleTimer):
    __slots__ = (
        "_block",
        "_block_of",
        "_blocked",
        "_chunked_out",
        "_chunks",
        "_counts",
        "_cut",
        "_eof_follows",
        "_exchange",
        "_got",
        "_held",
        "_hold",
        "_host",
        "_in_records",
        "_keep",
        "_left",
        "_out",
        "_pace",
        "_partial",
        "_poller",
        "_reader",
        "_reading",
        "_served",
        "_sock",
        "_state",
        "_then",
        "_unread",
        "edge",
        "request_id",
    )

    def __init__(self, host: H1Host, sock: socket.socket, edge: ClientInfo) -> None:
        super().__init__(host.deadlines)
        self._host = host
        self._poller = host.poller
        self._sock = sock
        # TLS: there can be more in the record that was read, whatever the socket has.
        self._in_records = isinstance(sock, ssl.SSLSocket)
        self.edge = edge
        self._counts: HeldByConnection | None = None  # None: never more than little
        self._pace: BodyPace | None = None  # of a request's body that is not all there
        self._reading: ReaderPace | None = None  # of a client that does not take all
        self._reader = RequestReader()
        self._state = HEAD
        self._exchange: Exchange | None = None
        self._got = b""  # read, not yet understood
        self._partial = False  # of a head, whose clock runs
        self._left = 0  # of the request's body; or CHUNKED
        self._chunks: ChunkedReader | None = None
        self._hold = False  # the exchange wants no more of the body for now
        self._unread = False  # there is, or may be, more in the socket
        self._eof_follows = False
        self._keep = True  # the connection, after this response
        self._served = False  # there has been a request
        self._cut = False  # a response could not be completed
        self._chunked_out = False
        self._out: list[bytes] = []  # written, to be sent with the next flush
        self._held = b""  # what the client has not taken yet
        self._blocked = False  # and the exchange was told so
        self._then: Callable[[], None] | None = None  # to be done when all is sent
        self._block_of: RequestFields | None = None
        self._block = b""
        self.request_id = b""

    def start(self) -> None:
        """Whoever watched the socket before may have been told of bytes that are still there."""
        self.within(limits.HEAD_SECONDS)
        try:
            self._poller.watch(self._sock, self._on_ready)
        except OSError:
            self._close()
            return
        if self._in_records:
            self._poller.again(self._readable)

    @property
    def spare_order(self) -> tuple[bool, float] | None:
        waits = self._state is HEAD and self._exchange is None and not self._held
        return (self._served, self.limit) if waits else None

    def finish(self) -> None:
        """No more requests after the one under way. A connection that had none yet still gets its first."""
        self._keep = False
        if self._state is HEAD and self._served and not self._got and not self._held:
            self._readable()  # one that has come already is answered
            if self._state is HEAD and not self._got:
                self._close()

    def abort(self) -> None:
        """Now."""
        self._gone()

    def on_fault(self) -> None:
        """Something of ours has failed at it: what was said must not look whole."""
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
            state = self._state
            if state is WAIT or self._hold:
                self._unread = True
                if mask & FAILED:
                    self._gone()
            else:
                self._readable()
        if mask & WRITABLE and self._held:
            self._drain()

    def _readable(self) -> None:
        reads = 0
        while reads < limits.READS_AT_ONCE:
            reads += 1
            if self._state is CLOSED:
                return
            if self._state is WAIT or self._hold or (self._got and self._state is HEAD and not self._partial):
                self._unread = True  # the last: `_ahead` has its turn first
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
            whole = len(data) == limits.READ_BYTES or self._eof_follows or self._in_records
            self._take(data)
            if not whole:
                return
        self._poller.again(self._readable)

    def _take(self, data: bytes) -> None:
        state = self._state
        if state is HEAD:
            if self._got:
                got, self._got = self._got, b""
                self._of_head(got + data, len(got))
            else:
                self._of_head(data)
        elif state is BODY:
            if self._pace is not None:
                self._pace.received += len(data)
            try:
                payload, complete = self._of_body(data)
            except RequestRefused as refused:
                self._refuse(refused)
                return
            self._pass_on(payload, complete)
        elif state is TUNNEL:
            self.within(limits.TUNNEL_SECONDS)
            if self._exchange is not None:
                self._exchange.body(data, False)
                if self._hold:
                    self._check(self._counting().body.set(len(data)))
        elif state is LINGER:
            self._left -= len(data)
            if self._left < 0:
                self._close()

    def _of_head(self, data: bytes, known: int = 0) -> None:
        """`known`: so many of its bytes were looked at before; one that trickles in costs no more for it."""
        if data[0] in b"\r\n":
            data, known = without_empty_lines(data), 0
        end = data.find(b"\r\n\r\n", max(known - 3, 0)) + 4
        if end < 4 or end > HEAD_MAX:
            self._incomplete(data, known, end)
            return
        try:
            head = self._reader.read(data if end == len(data) else data[:end])
            rest = data[end:]
            if end > FREE_BYTES or self._counts is not None:
                self._hold_head(HEAD_COPIES * end)
            self.limit = NEVER
            self._partial = False
            length = head.about.length
            if length == 0:
                self._got, body, complete = rest, b"", True
                self._state = WAIT
            else:
                self._state = BODY
                self._left = length
                self._chunks = ChunkedReader(HttpFault.BAD_BODY) if length == CHUNKED else None
                body, complete = self._of_body(rest)
                if not complete:
                    self._pace = BodyPace(self._account(), length != CHUNKED)
                    self.within(limits.BODY_SECONDS)
        except RequestRefused as refused:
            if not self._served and data.startswith(PREFACE[:18]) and not self._in_records:
                self._hand_over(data)
            else:
                self._refuse(refused)
            return
        self._keep = head.persistent and self._keep
        self._served = True
        self.request_id = (self.edge.trusted and given_request_id(head.about)) or self._host.request_id()
        exchange = self._exchange = self._host.exchange(self, head)
        trailers = self._chunks.trailers if complete and self._chunks is not None else b""
        exchange.begin(body, complete, trailers)
        if self._hold and body:
            self._check(self._counting().body.set(len(body)))

    def _hand_over(self, data: bytes) -> None:
        """HTTP/2 with prior knowledge: RFC 9113 section 3.3."""
        self.stop_clock()
        if self._counts is not None:
            self._counts.head.set(0)
        self._host.speaks_h2(self, self._sock, data)
        self._state = CLOSED  # not before: should that fail, the socket is still ours to close

    def _incomplete(self, data: bytes, known: int, end: int) -> None:
        """Wait for the rest of a head, if it can become one and within its time."""
        try:
            check_beginning(data, known, end)
            if len(data) > FREE_BYTES:
                self._hold_head(len(data))
        except RequestRefused as refused:
            self._refuse(refused)
            return
        self._got = data
        if data and not self._partial:
            self._partial = True
            self.within(limits.HEAD_SECONDS)

    def _of_body(self, data: bytes) -> tuple[bytes, bool]:
        """Its payload, and whether it is complete; what follows is kept."""
        if self._chunks is not None:
            payload = self._chunks.feed(data) if data else b""
            if self._chunks.done:
                self._got = self._chunks.rest
                self._state = WAIT
                self.limit = NEVER
            return payload, self._chunks.done
        left = self._left - len(data)
        if left > 0:
            self._left = left
            return data, False
        if left < 0:
            self._got = data[left:]
            data = data[:left]
        self._state = WAIT
        self.limit = NEVER
        return data, True

    def _pass_on(self, payload: bytes, complete: bool) -> None:
        exchange = self._exchange
        if exchange is None:
            return
        if complete:
            self.limit = NEVER
        trailers = self._chunks.trailers if complete and self._chunks is not None else b""
        if trailers:
            if payload:
                exchange.body(payload, False)
            exchange.body_ended(trailers)
        elif payload or complete:
            exchange.body(payload, complete)
        if self._hold and payload:
            self._check(self._counting().body.set(len(payload)))

    def hold_body(self, hold: bool) -> None:
        self._hold = hold
        if hold:
            return
        if self._counts is not None:
            self._counts.body.set(0)
        if self._state is BODY:
            self.within(limits.BODY_SECONDS)
        if self._unread:
            self._unread = False
            self._poller.again(self._readable)

    def _at_eof(self) -> None:
        state = self._state
        if state is TUNNEL and self._exchange is not None:
            self._exchange.client_ended()
        elif state is HEAD and self._got:
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
        exchange = self._exchange
        if exchange is not None and exchange.head.minor:  # RFC 9110 section 15.2: not to HTTP/1.0
            self._out.append(b"%b\r\n" % response_lines(head))

    def respond(self, head: ResponseHead, length: int) -> None:
        exchange = self._exchange
        assert exchange is not None
        keep = self._keep and self._state is WAIT and not self._host.closing
        framing = b""
        self._chunked_out = False
        if length < 0:
            if exchange.head.minor:
                framing = b"Transfer-Encoding: chunked\r\n"
                self._chunked_out = True
            else:
                keep = False
        elif length == 0 and head.length < 0 and head.status not in (204, 304) and exchange.method != b"HEAD":
            framing = b"Content-Length: 0\r\n"
        if not keep:
            framing += b"Connection: close\r\n"
        elif not exchange.head.minor:
            framing += b"Connection: keep-alive\r\n"
        self._keep = keep
        self._out.append(b"%b%b\r\n" % (response_lines(head), framing))

    def whole(self, head: ResponseHead, body: bytes) -> None:
        exchange = self._exchange
        if (
            exchange is None
            or self._out
            or self._held
            or not self._keep
            or self._state is not WAIT
            or self._host.closing
            or not exchange.head.minor
            or head.length < 0
        ):
            self.respond(head, len(body))
            if body:
                self._out.append(body)
            self._ended()
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
            self._next()
            return
        self._held = data[sent:]
        self._then = self._next
        self._wait_for_reader(sent)
        self._check(self._counting().out.set(len(self._held)))

    def switch(self, head: ResponseHead) -> None:
        exchange = self._exchange
        assert exchange is not None
        self._keep = False
        self._chunked_out = False
        upgrade = head.fields.get(b"upgrade") or exchange.head.about.upgrade
        self._out.append(b"%bConnection: Upgrade\r\nUpgrade: %b\r\n\r\n" % (response_lines(head), upgrade))
        self._state = TUNNEL
        self.within(limits.TUNNEL_SECONDS)
        if self._got:
            early, self._got = self._got, b""
            exchange.body(early, False)
        if self._unread:
            self._unread = False
            self._poller.again(self._readable)

    def write(self, data: bytes) -> None:
        if self._state is TUNNEL:
            self.within(limits.TUNNEL_SECONDS)
        self._out.append(chunk(data) if self._chunked_out else data)

    def flush(self) -> bool:
        out = self._out
        if not out:
            return not self._held
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        if self._state is CLOSED:
            return True
        if self._held:
            self._held += data
            self._check(self._counting().out.set(len(self._held)))
            return False
        try:
            sent = self._sock.send(data)
        except WOULD_BLOCK:
            sent = 0
        except OSError:
            self._gone()
            return True
        if sent == len(data):
            return True
        self._held = data[sent:]
        self._blocked = True
        self._wait_for_reader(sent)
        self._check(self._counting().out.set(len(self._held)))
        return False

    def _drain(self) -> None:
        held, self._held = self._held, b""
        self._out.insert(0, held)
        if not self.flush():
            return
        self.limit = NEVER
        if self._counts is not None:
            self._counts.out.set(0)
        self._reading = None
        if self._then is not None:
            then, self._then = self._then, None
            then()
        elif self._blocked and self._exchange is not None:
            self._blocked = False
            self._exchange.client_room()

    def _wait_for_reader(self, sent: int) -> None:
        """The client does not take all; so much of it the kernel has taken just now."""
        if self._reading is None:
            self._reading = ReaderPace(unsent(self._sock))
            self.within(limits.BODY_SECONDS)
            return
        self._reading.sent += sent
        if self.limit is NEVER:
            self.within(limits.BODY_SECONDS)

    def _still(self) -> bool:
        """Does it read, or send its body, fast enough to go on? A tunnel's messages may be read slowly."""
        seconds = limits.BODY_SECONDS
        if self._held:
            least = 1 if self._state is TUNNEL else LEAST_BYTES * seconds
            return self._reading is not None and self._reading.keeps_up(unsent(self._sock), least)
        return self._state is BODY and self._pace is not None and self._pace.keeps_up(seconds)

    def end(self, trailers: bytes) -> None:
        if self._chunked_out:
            self._out.append(LAST_CHUNK + trailers + b"\r\n" if trailers else END_OF_CHUNKS)
        self._ended()

    def answer(self, answer: LocalReply) -> None:
        exchange = self._exchange
        minor = exchange.head.minor if exchange is not None else 1
        keep = self._keep and self._state is WAIT and not self._host.closing and minor == 1
        self._keep = keep
        head_only = exchange is not None and exchange.method == b"HEAD"
        self._out.append(as_http1(answer, keep=keep, head_only=head_only))
        self._ended()

    def cut(self) -> None:
        """What was sent so far must not look complete: no last chunk, and a reset."""
        self._exchange = None
        if self._state is not CLOSED:
            self.flush()
            self._cut = True
            reset_on_close(self._sock)
            self._close()

    def _ended(self) -> None:
        """The response is written. On to the next request, when it is sent."""
        self._exchange = None
        if self.flush():
            self._next()
        else:
            self._then = self._next

    def _next(self) -> None:
        state = self._state
        if state is CLOSED:
            return
        if not self._keep or state is not WAIT:
            self._last_word()
            return
        self._state = HEAD
        self._hold = False
        self._chunks = None
        if self._pace is not None:
            self._pace.end()
            self._pace = None
        if self._counts is not None:
            self._counts.head.set(0)
            self._counts.body.set(0)
        self.within(limits.KEEP_ALIVE_SECONDS)
        if self._got:
            self._poller.again(self._ahead)
        elif self._unread:
            self._unread = False
            self._poller.again(self._readable)
        elif self._host.closing:
            self._close()

    def _ahead(self) -> None:
        """A request that came before its turn."""
        if self._state is HEAD and self._got:
            got, self._got = self._got, b""
            self._of_head(got)
            if self._unread and self._state is HEAD:
                self._unread = False
                self._readable()

    # --- what is held for it ---

    def _account(self) -> ByteAccount:
        return self.edge.account or ByteBudget().account(self.edge.client)

    def _counting(self) -> HeldByConnection:
        if self._counts is None:
            self._counts = HeldByConnection(self._account())
        return self._counts

    def _hold_head(self, size: int) -> None:
        """Raises Refused when that is too much."""
        if (over := self._counting().head.set(size)) is not None:
            raise over.refused

    def _check(self, over: Over | None) -> None:
        """With too much of what it sends or does not take: it is told, or its response is cut off."""
        if over is None:
            return
        exchange, refused = self._exchange, over.refused
        if exchange is not None:
            exchange.give_up(refused.fault)
        else:
            self._host.refused(refused.fault, str(refused))
            self.cut()

    # --- the end ---

    def _refuse(self, refused: RequestRefused) -> None:
        """It cannot be understood, so it is not known where the next request would begin."""
        self._host.refused(refused.fault, str(refused))
        self._keep = False
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            started = exchange.status != 0
            exchange.gone()
            if started:
                self.cut()
                return
        answer = error_answer(refused.fault, self.request_id)
        self._out.append(as_http1(answer, keep=False, head_only=False))
        self._ended()

    def _last_word(self) -> None:
        """To close with bytes unread would reset the connection, and the client lose what we said."""
        if self._state is WAIT and not self._got and not self._unread:
            self._close()
            return
        self._state = LINGER
        self._hold = False
        self._left = limits.LINGER_BYTES
        self.within(limits.LINGER_SECONDS)
        try:
            end_records(self._sock)
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._close()
            return
        if self._unread:
            self._unread = False
            self._poller.again(self._readable)

    def on_timeout(self) -> None:
        state = self._state
        if (self._held or (state is BODY and not self._hold)) and self._still():
            self.within(limits.BODY_SECONDS)
            return
        if self._held or state in (LINGER, TUNNEL):
            self._gone()
        elif state is HEAD and self._partial:
            self._refuse(RequestRefused(HttpFault.HEAD_TIMEOUT, "the head took too long"))
        elif state is BODY and not self._hold:
            self._refuse(RequestRefused(HttpFault.BODY_TIMEOUT, "the body took too long"))
        elif state is HEAD:
            self._close()

    def _gone(self) -> None:
        exchange, self._exchange = self._exchange, None
        self._close()
        if exchange is not None:
            run(exchange.gone)

    def _close(self) -> None:
        if self._state is CLOSED:
            return
        if self._in_records and self._state is not LINGER and not self._cut:
            end_records(self._sock)
        self._state = CLOSED
        self.stop_clock()
        self.edge.close()
        self._poller.close(self._sock)
        self._host.on_close(self)
