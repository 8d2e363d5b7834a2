"""An HTTP/1.1 connection to an endpoint, for one exchange after the other. A fast path.

`codec.h1_protocol` says what the bytes mean and in which state the connection is (`codec.h1_states`). This
is its driver: it connects and reads the socket, sends the request, passes the response to the exchange, and
keeps the time limits. While the connection is idle it is in its endpoint's list; it leaves the list when the
endpoint sends anything or closes it.

A response is passed on as payload: the client's connection frames it anew. A connection on which bytes follow
the end of a response is not used again.
"""

import errno
import socket
from collections.abc import Callable

from mesh.http import limits
from mesh.http.codec.h1_head import RequestHead, ResponseHead
from mesh.http.codec.h1_protocol import H1ClientProtocol
from mesh.http.codec.h1_states import ClientState
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

CONNECTING, IDLE, HEAD, BODY, TUNNEL, CLOSED = ClientState


class H1Upstream(IdleTimer):
    __slots__ = (
        "_eof_follows",
        "_exchange",
        "_held",
        "_in_records",
        "_last_exchange",
        "_paused",
        "_poller",
        "_protocol",
        "_sock",
        "_unread",
        "idle_since",
        "reused",
        "server",
    )

    def __init__(
        self, poller: Poller, deadlines: Deadlines, server: PooledEndpoint, exchange: UpstreamHandler
    ) -> None:
        super().__init__(deadlines)
        self._poller = poller
        self.server = server
        self._protocol = H1ClientProtocol(server.reader)
        self._exchange: UpstreamHandler | None = exchange
        # Also while it finishes, when this connection is free already: a bug met there is its own.
        self._last_exchange: UpstreamHandler | None = exchange
        self._sock: socket.socket | None = None
        self._held = b""  # what the endpoint has not taken yet
        self._paused = False
        self._unread = False
        self._eof_follows = False
        self._in_records = False  # TLS: bytes may be left in a record, for which the socket has no event
        self.reused = False
        self.idle_since = 0.0

    # --- connecting ---

    def connect(self, make: Callable[[], socket.socket], seconds: float) -> None:
        """Connects the socket that `make` returns. Tells the exchange once, now or later: `connected` or
        `not_connected`. Raises KernelError as `make` does."""
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
        self._start_request()

    def _start_request(self) -> None:
        """The connection can be used."""
        assert self._exchange is not None
        self.limit = NEVER
        self._protocol.connected()
        self._exchange.connected()

    def take(self, exchange: UpstreamHandler) -> None:
        """Serves another exchange. It is out of the endpoint's list already."""
        self._exchange = self._last_exchange = exchange
        self.reused = True

    # --- the request ---

    def begin(
        self, head: RequestHead, target: bytes, lines: bytes, body: list[bytes], last: bool, trailers: bytes
    ) -> bool:
        """Sends the request with what there is of its body. Returns as `send`."""
        data = self._protocol.request(head, target, lines, body, last, trailers)
        if last:
            exchange = self._exchange
            assert exchange is not None
            self.within(exchange.response_timeout)
        return self._send(data, last)

    def send(self, data: bytes, last: bool, trailers: bytes = b"") -> bool:
        """Part of the request's body; `last`: the end of it. True: all is sent. False: `upstream_room` tells
        the exchange when it is."""
        protocol = self._protocol
        coded = protocol.request_body(data, last, trailers)
        if last and protocol.state is HEAD:
            exchange = self._exchange
            assert exchange is not None
            self.within(exchange.response_timeout)
        if self._held:
            self._held += coded
            return False
        return self._send(coded, last)

    def _send(self, data: bytes, last: bool) -> bool:
        assert self._sock is not None
        try:
            sent = self._sock.send(data)
        except WOULD_BLOCK:
            sent = 0
        except OSError:
            # It may have answered before it closed: the response counts, and reading finds the end.
            self._poller.again(self._readable)
            return True
        if sent == len(data):
            return True
        self._held = data[sent:]
        if not last:
            self.within(limits.BODY_SECONDS)
        return False

    def _writable(self) -> None:
        held, self._held = self._held, b""
        sent = self._protocol.request_sent
        if not sent:
            self.limit = NEVER
        if self._send(held, sent) and self._exchange is not None:
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
        state = self._protocol.state
        if state is CONNECTING:
            if mask & (WRITABLE | UNUSUAL):
                assert self._sock is not None
                code = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) if mask & UNUSUAL else 0
                self._connected(code)
            return
        if mask & INCOMING:
            if mask & (PEER_DONE | UNUSUAL):
                self._eof_follows = True
            if state is IDLE:
                if self._eof_follows or self._has_bytes():
                    self._leave_pool()
                return
            if self._paused:
                self._unread = True
            else:
                self._readable()
        if self._held and mask & WRITABLE and self._exchange is not None:
            self._writable()

    def _has_bytes(self) -> bool:
        """Is there something to read? The event may be of bytes that were read ahead of their turn."""
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
        protocol, exchange = self._protocol, self._exchange
        reads = 0
        while reads < limits.READS_AT_ONCE:
            reads += 1
            if exchange is None or exchange is not self._exchange:
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
                # The fast path of most responses. Not with TLS: another record may wait, without an event.
                if (
                    protocol.state is HEAD
                    and not (protocol.buffer or self._held or self._eof_follows or self._in_records)
                    and (head := protocol.receive_whole(data)) is not None
                ):
                    self._finish_whole(head, data, exchange)
                    return
                self._receive(data, exchange)
            except RequestRefused as refused:
                self._close()
                exchange.broken(refused.fault)
                return
            if exchange is not self._exchange:
                return
            if not exchange.pushed():
                self._paused = True
            if self._paused:
                self._unread = True
                return
            if len(data) < limits.READ_BYTES and not self._eof_follows and not self._in_records:
                return
        self._poller.again(self._readable)

    def _finish_whole(self, head: ResponseHead, data: bytes, exchange: UpstreamHandler) -> None:
        """The response is `data`. The connection is free before the exchange hears of it."""
        self.limit = NEVER
        self._exchange = None
        self.server.keep(self)
        exchange.whole(head, data[self._protocol.head_size :])
        if self._last_exchange is exchange:
            self._last_exchange = None  # nothing can fail any more: its client and heads need not stay

    def _receive(self, data: bytes, exchange: UpstreamHandler) -> None:
        protocol = self._protocol
        if protocol.state is HEAD:
            if not self._receive_heads(data, exchange):
                return
            data = b""
        payload = protocol.receive_body(data)
        if protocol.body_left == 0:
            if payload:
                exchange.payload(payload)
            if exchange is self._exchange:
                self._end_response(exchange)
            return
        if protocol.state is BODY:
            self.within(limits.RESPONSE_IDLE_SECONDS)
        elif payload:
            self.within(limits.TUNNEL_SECONDS)
        if payload:
            exchange.payload(payload)

    def _receive_heads(self, data: bytes, exchange: UpstreamHandler) -> bool:
        """Interim responses and the final one, or 101. False: that has not come yet, or the exchange has
        given up."""
        protocol = self._protocol
        while (head := protocol.receive_head(data)) is not None:
            data = b""
            state = protocol.state
            if state is HEAD:
                exchange.interim(head)
            elif state is BODY:
                self.limit = NEVER
                exchange.responded(head, protocol.body_left)
            else:
                exchange.switched(head)
                self.limit = NEVER
            if exchange is not self._exchange:
                return False
            if state is not HEAD:
                return True
        return False

    def _end_response(self, exchange: UpstreamHandler) -> None:
        protocol = self._protocol
        self.limit = NEVER
        self._exchange = None
        self._paused = self._unread = False
        if protocol.keep_alive and not self._eof_follows and not self._held:
            protocol.end_response()
            self.server.keep(self)
        else:
            self._close()
        exchange.ended(protocol.trailers)

    def _at_eof(self) -> None:
        exchange, protocol = self._exchange, self._protocol
        broken = isinstance(self._sock, DialledTunnel) and self._sock.broken
        if exchange is not None and protocol.complete_at_eof and not broken:
            self._end_response(exchange)
        else:
            self._lost()

    def _lost(self) -> None:
        exchange = self._exchange
        self._close()
        if exchange is not None:
            exchange.broken(HttpFault.ENDPOINT_CLOSED)

    # --- the end ---

    def on_timeout(self) -> None:
        exchange, connecting = self._exchange, self._protocol.state is CONNECTING
        self._close()
        if exchange is None:
            return
        if connecting:
            exchange.not_connected(HttpFault.CONNECT_TIMEOUT)
        else:
            exchange.broken(HttpFault.RESPONSE_TIMEOUT)

    def shut_request(self) -> None:
        """After an upgrade: the client has ended its side."""
        if self._sock is not None:
            try:
                self._sock.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # the connection is lost: the next read finds that

    def discard(self) -> None:
        """Its exchange has given up, or it was idle for too long."""
        self._close()

    def on_fault(self) -> None:
        """A bug was met, here or in the exchange."""
        run(self._leave_pool)
        if self._last_exchange is not None:
            self._last_exchange.on_fault()

    def _leave_pool(self) -> None:
        if self in self.server.idle:
            self.server.idle.remove(self)
        self._close()

    def _close(self) -> None:
        protocol = self._protocol
        state = protocol.state
        if state is CLOSED:
            return
        protocol.close()
        self._exchange = None
        self.stop_clock()
        if self._sock is not None:
            if state in (HEAD, BODY, TUNNEL) and not protocol.request_sent:
                reset_on_close(self._sock)  # a request that is cut off must not look complete
            self._poller.close(self._sock)
            self._sock = None
