"""An HTTP/1.1 connection to an endpoint: one exchange at a time, kept for the next. A fast path.

    connecting   the socket is not through yet
    busy         its exchange's request goes out, its response comes in
    idle         in its server's stack; whatever it says then, or that it ends, takes it out of there
    closed       for good

A response is passed on as payload: how it was framed is this file's business, how the client gets it is the
client's. Bytes after the end of a response are nobody's: such a connection is not used again.
"""

import errno
import socket
from collections.abc import Callable
from enum import Enum
from time import monotonic

from mesh.http import limits
from mesh.http.codec.h1_body import LAST_CHUNK, ChunkedReader, chunk
from mesh.http.codec.h1_head import CHUNKED, UNTIL_CLOSE, RequestHead, ResponseHead
from mesh.http.endpoint_pool import PooledEndpoint
from mesh.http.faults import HttpFault, RequestRefused
from mesh.http.interfaces import UpstreamHandler
from mesh.net.idle_timer import NEVER, IdleTimer
from mesh.net.isolation import run
from mesh.net.poller import PEER_DONE, READABLE, UNUSUAL, WRITABLE, Poller
from mesh.net.timers import Deadlines
from mesh.net.would_block import WOULD_BLOCK
from mesh.peers.tunnel.client import DialledTunnel
from mesh.relay.splice import reset_on_close

INCOMING = READABLE | PEER_DONE | UNUSUAL


class UpstreamState(Enum):
    CONNECTING = 1
    BUSY = 2
    IDLE = 3
    CLOSED = 4


class H1Upstream(IdleTimer):
    __slots__ = (
        "_chunked",
        "_chunks",
        "_eof_follows",
        "_exchange",
        "_got",
        "_held",
        "_idle",
        "_in_records",
        "_keep",
        "_last",
        "_left",
        "_paused",
        "_poller",
        "_request_sent",
        "_sock",
        "_unread",
        "head",
        "idle_since",
        "reused",
        "server",
        "state",
    )

    def __init__(
        self, poller: Poller, deadlines: Deadlines, server: PooledEndpoint, exchange: UpstreamHandler
    ) -> None:
        super().__init__(deadlines)
        self._poller = poller
        self.server = server
        self._exchange: UpstreamHandler | None = exchange
        self._last: UpstreamHandler | None = (
            exchange  # also when it is done with us: what it does then may fail
        )
        self._sock: socket.socket | None = None
        self._got = b""  # the beginning of a head
        self._held = b""  # what the endpoint has not taken yet
        self._left = 0  # of the response's body; or CHUNKED, UNTIL_CLOSE
        self._chunks: ChunkedReader | None = None
        self._keep = False
        self._idle = limits.RESPONSE_IDLE_SECONDS  # without a byte from it
        self._paused = False
        self._unread = False
        self._eof_follows = False
        self._request_sent = False
        self._chunked = False  # the request's body
        self._in_records = False  # there may be more to read than the socket tells of
        self.head: ResponseHead | None = None
        self.reused = False
        self.idle_since = 0.0
        self.state = UpstreamState.CONNECTING

    # --- begin ---

    def connect(self, make: Callable[[], socket.socket], seconds: float) -> None:
        """Told to the exchange, now or later, once. KernelError as `make`."""
        endpoint = self.server.endpoint
        try:
            self._sock = make()
            code = self._sock.connect_ex((endpoint.address, endpoint.port))
            if code == errno.EINPROGRESS:
                self.within(seconds)
                if isinstance(self._sock, DialledTunnel):
                    self._sock.when_open(self._connected)
                else:
                    self._poller.watch(self._sock, self._on_ready)
                return
            if code == 0:
                self._poller.watch(self._sock, self._on_ready)
        except OSError as error:
            code = error.errno or errno.EIO
        self._connected(code)

    def _connected(self, code: int) -> None:
        exchange = self._exchange
        assert exchange is not None
        if code:
            self._close()
            exchange.not_connected(HttpFault.CONNECT_FAILED)
            return
        assert self._sock is not None
        if isinstance(self._sock, DialledTunnel):
            self._poller.watch(self._sock, self._on_ready)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._through()

    def _through(self) -> None:
        assert self._exchange is not None
        self.limit = NEVER
        self.state = UpstreamState.BUSY
        self._exchange.connected()

    def take(self, exchange: UpstreamHandler) -> None:
        """From the stack, for another exchange."""
        self._exchange = self._last = exchange
        self.state = UpstreamState.BUSY
        self.reused = True
        self.head = None
        self._request_sent = False

    # --- the request ---

    def begin(
        self, head: RequestHead, target: bytes, lines: bytes, body: list[bytes], last: bool, trailers: bytes
    ) -> bool:
        """The request, with what there is of its body. As `send`."""
        self._chunked = head.about.length == CHUNKED
        if not body and not (last and self._chunked):
            data = b"%b %b HTTP/1.1\r\n%b\r\n" % (head.method, target, lines)
        else:
            parts = [self._coded(one) for one in body]
            if last and self._chunked:
                parts.append(b"%b%b\r\n" % (LAST_CHUNK, trailers))
            data = b"%b %b HTTP/1.1\r\n%b\r\n%b" % (head.method, target, lines, b"".join(parts))
        return self._send(data, last)

    def send(self, data: bytes, last: bool, trailers: bytes = b"") -> bool:
        """True when all of it is taken, or else `upstream_room` tells when. `last`: the request ends here."""
        coded = self._coded(data)
        if last and self._chunked:
            coded += LAST_CHUNK + trailers + b"\r\n"
        return self._send(coded, last)

    def _coded(self, data: bytes) -> bytes:
        return chunk(data) if self._chunked and data else data

    def _send(self, data: bytes, last: bool) -> bool:
        if last:
            self._request_sent = True
            if self.head is None:
                exchange = self._exchange
                assert exchange is not None
                self.within(exchange.response_timeout)
        if self._held:
            self._held += data
            return False
        if self._write(data):
            return True
        if not last:
            self.within(limits.BODY_SECONDS)
        return False

    def _write(self, data: bytes) -> bool:
        assert self._sock is not None
        try:
            sent = self._sock.send(data)
        except WOULD_BLOCK:
            sent = 0
        except OSError:
            # It may have answered before it closed: what it said counts, and reading tells the rest.
            self._held = b""
            self._poller.again(self._readable)
            return True
        if sent == len(data):
            return True
        self._held = data[sent:]
        return False

    def _writable(self) -> None:
        held, self._held = self._held, b""
        taken = self._write(held)
        if not self._request_sent:
            self.limit = NEVER
            if not taken:
                self.within(limits.BODY_SECONDS)
        if taken and self._exchange is not None:
            self._exchange.upstream_room()

    # --- the response ---

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        if self._paused:
            self._paused = False
            if self._unread:
                self._unread = False
                self._poller.again(self._readable)

    def _on_ready(self, mask: int) -> None:
        state = self.state
        if state is UpstreamState.CONNECTING:
            if mask & (WRITABLE | UNUSUAL):
                assert self._sock is not None
                code = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) if mask & UNUSUAL else 0
                self._connected(code)
            return
        if mask & INCOMING:
            if mask & (PEER_DONE | UNUSUAL):
                self._eof_follows = True
            if state is UpstreamState.IDLE:
                if self._eof_follows or self._says_something():
                    self._leave_stack()
                return
            if self._paused:
                self._unread = True
            else:
                self._readable()
        if self._held and mask & WRITABLE and self.state is UpstreamState.BUSY:
            self._writable()

    def _says_something(self) -> bool:
        """Or is this the event of bytes that were read meanwhile, ahead of their turn (`again`)?"""
        assert self._sock is not None
        try:
            socket.socket.recv(self._sock, 1, socket.MSG_PEEK)  # of the wire, below TLS
        except WOULD_BLOCK:
            return False
        except OSError:
            return True
        return True

    def _readable(self) -> None:
        if self._paused:
            self._unread = True
            return
        exchange = self._exchange
        reads = 0
        while reads < limits.READS_AT_ONCE:
            reads += 1
            if self.state is not UpstreamState.BUSY or exchange is not self._exchange or exchange is None:
                return
            assert self._sock is not None
            try:
                data = self._sock.recv(limits.READ_BYTES)
            except WOULD_BLOCK:
                return
            except OSError:
                self._lost()
                return
            if not data:
                self._at_eof()
                return
            try:
                if self.head is None and not self._got and self._whole(data, exchange):
                    return
                self._take(data, exchange)
            except RequestRefused as refused:
                self._close()
                exchange.broken(refused.fault)
                return
            if self.state is not UpstreamState.BUSY or exchange is not self._exchange:
                return
            if not exchange.pushed():
                self._paused = True
            if self._paused:
                self._unread = True
                return
            if len(data) < limits.READ_BYTES and not self._eof_follows and not self._in_records:
                return
        self._poller.again(self._readable)

    def _whole(self, data: bytes, exchange: UpstreamHandler) -> bool:
        """Most responses come in one read and fit what their head says: the short way."""
        end = data.find(b"\r\n\r\n") + 4
        if end < 4 or self._eof_follows or not self._request_sent:
            return False
        head = self.server.reader.read(data[:end])
        if head.body_length(exchange.method) != len(data) - end or head.close or head.status < 200:
            return False
        self.limit = NEVER
        self._exchange = None
        self.state = UpstreamState.IDLE
        self.server.keep(self)
        exchange.whole(head, data[end:])
        if self._last is exchange:
            self._last = (
                None  # nothing can fail any more; its client and heads need not stay for the next one
            )
        return True

    def _take(self, data: bytes, exchange: UpstreamHandler) -> None:
        if self.head is None:
            if self._got:
                data = self._got + data
                self._got = b""
            rest = self._heads(data, exchange)
            if rest is None:
                return
            data = rest
        left = self._left
        if left > 0:
            if len(data) < left:
                self._left = left - len(data)
                self.within(self._idle)
                exchange.payload(data)
                return
            if len(data) > left:
                data, self._keep = data[:left], False
            exchange.payload(data)
            self._done(exchange)
        elif left == CHUNKED:
            chunks = self._chunks
            assert chunks is not None
            if payload := chunks.feed(data):
                exchange.payload(payload)
            if chunks.done:
                if chunks.rest:
                    self._keep = False
                self._done(exchange, chunks.trailers)
            else:
                self.within(self._idle)
        elif left == UNTIL_CLOSE:
            if data:
                self.within(self._idle)
                exchange.payload(data)
        else:
            if data:
                self._keep = False
            self._done(exchange)

    def _heads(self, data: bytes, exchange: UpstreamHandler) -> bytes | None:
        """Interim responses and the final one; what follows it. None: it is not whole yet."""
        while True:
            end = data.find(b"\r\n\r\n") + 4
            if end < 4 or end > limits.RESPONSE_HEAD_MAX:
                if len(data) > limits.RESPONSE_HEAD_MAX:
                    raise RequestRefused(HttpFault.BAD_RESPONSE, "the head of the response is too large")
                self._got = data
                return None
            head = self.server.reader.read(data[:end])
            data = data[end:]
            if head.status >= 200:
                break
            if head.status == 101:
                if not exchange.upgrades:
                    raise RequestRefused(HttpFault.BAD_RESPONSE, "101 to a request that asked for no upgrade")
                self._switch(head, exchange)
                return data
            exchange.interim(head)
        self.head = head
        self._left = left = head.body_length(exchange.method)
        self._keep = not head.close and left != UNTIL_CLOSE and self._request_sent
        self._chunks = ChunkedReader(HttpFault.BAD_RESPONSE) if left == CHUNKED else None
        self.limit = NEVER
        exchange.responded(head, left)
        return data

    def _switch(self, head: ResponseHead, exchange: UpstreamHandler) -> None:
        """Another protocol from here on: bytes both ways until one side ends."""
        self.head = head
        self._chunked = False
        self._left = UNTIL_CLOSE
        self._keep = False
        self._idle = limits.TUNNEL_SECONDS
        exchange.switched(head)
        self.limit = NEVER

    def _done(self, exchange: UpstreamHandler, trailers: bytes = b"") -> None:
        self.limit = NEVER
        self._exchange = None
        self._paused = self._unread = False
        if self._keep and not self._eof_follows and not self._held:
            self.state = UpstreamState.IDLE
            self.server.keep(self)
        else:
            self._close()
        exchange.ended(trailers)

    def _at_eof(self) -> None:
        exchange = self._exchange
        broken = isinstance(self._sock, DialledTunnel) and self._sock.broken
        if exchange is not None and self.head is not None and self._left == UNTIL_CLOSE and not broken:
            self._keep = False
            self._done(exchange)
        else:
            self._lost()

    def _lost(self) -> None:
        exchange = self._exchange
        self._close()
        if exchange is not None:
            exchange.broken(HttpFault.ENDPOINT_CLOSED)

    # --- the end ---

    def on_timeout(self) -> None:
        exchange, connecting = self._exchange, self.state is UpstreamState.CONNECTING
        self._close()
        if exchange is None:
            return
        if connecting:
            exchange.not_connected(HttpFault.CONNECT_TIMEOUT)
        else:
            exchange.broken(HttpFault.RESPONSE_TIMEOUT)

    def shut_request(self) -> None:
        """After an upgrade: the client has said all."""
        if self._sock is not None:
            try:
                self._sock.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # it is gone: reading tells

    def discard(self) -> None:
        """Its exchange wants no more of it, or nobody has used it for long."""
        self._close()

    def on_fault(self) -> None:
        """Something of ours has failed, here or in the exchange."""
        run(self._leave_stack)
        if self._last is not None:
            self._last.on_fault()

    def _leave_stack(self) -> None:
        if self in self.server.idle:
            self.server.idle.remove(self)
        self._close()

    def _close(self) -> None:
        if self.state is UpstreamState.CLOSED:
            return
        busy = self.state is UpstreamState.BUSY
        self.state = UpstreamState.CLOSED
        self._exchange = None
        self.stop_clock()
        if self._sock is not None:
            if busy and self._request_sent is False:
                reset_on_close(self._sock)  # a request that is cut off must not look whole
            self._poller.close(self._sock)
            self._sock = None


def age(connection: H1Upstream) -> float:
    """Seconds since it was last used."""
    return monotonic() - connection.idle_since
