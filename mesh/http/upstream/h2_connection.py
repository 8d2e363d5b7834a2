"""HTTP/2 connections to an endpoint. Many exchanges share one: each has a stream.

A connection accepts no more streams after the endpoint's GOAWAY, or when the endpoint has left the pool. Its
open streams are finished. A request that the endpoint has not processed (RFC 9113 section 8.7) is sent to
another endpoint, whatever its method.
"""

import errno
import socket
import ssl
from collections.abc import Callable, Sequence

from mesh.http import limits
from mesh.http.codec.h1_head import RequestHead, ResponseHead
from mesh.http.codec.h2_headers import read_response, read_trailers, request_list
from mesh.http.codec.h2_protocol import STREAMS_MAX, Code, H2Broken, Stream
from mesh.http.codec.hpack import Fields
from mesh.http.endpoint_pool import PooledEndpoint
from mesh.http.exchange import Exchange
from mesh.http.faults import HttpFault, RequestRefused
from mesh.http.h2_transport import H2Connection, H2StreamWriter
from mesh.http.interfaces import UpstreamHandler
from mesh.net.idle_timer import NEVER
from mesh.net.isolation import run
from mesh.net.poller import UNUSUAL, WRITABLE, Poller
from mesh.net.timers import Deadlines
from mesh.peers.tunnel.client import DialledTunnel

IDLE_SECONDS = 60.0  # without a stream


class H2Link(H2Connection):
    """One connection. It is in its endpoint's `links` as long as it accepts streams."""

    idle_seconds = IDLE_SECONDS
    unsent_max = 2**31  # what an endpoint can make us send is bounded: see `frame_budget`

    def __init__(
        self, poller: Poller, deadlines: Deadlines, sock: socket.socket, server: PooledEndpoint
    ) -> None:
        super().__init__(poller, deadlines, sock, client=True)
        self.server = server
        self.served = False  # it has sent the head of a response
        self._open = False
        self._connecting: list[H2Upstream] = []
        self._upstreams: dict[int, H2Upstream] = {}

    @property
    def scheme(self) -> bytes:
        return b"https" if isinstance(self.sock, ssl.SSLSocket) else b"http"

    @property
    def accepts_streams(self) -> bool:
        """Can one more stream be opened?"""
        under_way = len(self._upstreams) + len(self._connecting)
        return under_way < min(self.protocol.streams_max, STREAMS_MAX) and not self.protocol.exhausted

    @property
    def stalled(self) -> bool:
        """No body can be sent now, on any stream."""
        return self._open and (self.is_full or not self.protocol.can_send)

    def connect(self, seconds: float) -> None:
        """Connects within so many seconds. Those who joined are told by `on_joined` or `not_connected`."""
        endpoint = self.server.endpoint
        try:
            code = self.sock.connect_ex((endpoint.address, endpoint.port))
            if isinstance(self.sock, DialledTunnel):
                self.sock.when_open(self._connected)
            else:
                self.poller.watch(self.sock, self._on_ready)
        except OSError as error:
            code = error.errno or errno.EIO
        if code == errno.EINPROGRESS:
            self.within(seconds)
        else:
            self._connected(code)

    def adopt(self, upstream: "H2Upstream") -> None:
        """Starts on a socket that is connected and not watched."""
        self.poller.watch(self.sock, self._on_ready)
        self._connecting.append(upstream)
        self._opened()

    def join(self, upstream: "H2Upstream") -> None:
        if self._open:
            upstream.on_joined(self)
        else:
            self._connecting.append(upstream)

    def open_stream(self, upstream: "H2Upstream", fields: list[tuple[bytes, bytes]], ended: bool) -> Stream:
        stream = self.protocol.open(fields, ended)
        self._upstreams[stream.id] = upstream
        self.push_soon()
        return stream

    def on_close(self, upstream: "H2Upstream", stream: Stream | None) -> None:
        """The exchange is done with its stream. None: the stream was not opened."""
        if stream is not None:
            self._upstreams.pop(stream.id, None)
        elif upstream in self._connecting:
            self._connecting.remove(upstream)
        else:  # a bug while its stream was opened: it does not know the stream
            self._upstreams = {id_: one for id_, one in self._upstreams.items() if one is not upstream}
        self._close_if_done()

    def retire(self) -> None:
        """Accepts no more streams. The connection is closed when the last one has ended."""
        if self in self.server.links:
            self.server.links.remove(self)
        self._close_if_done()

    def _close_if_done(self) -> None:
        if self.closed:
            return
        if not self._upstreams and not self._connecting and self not in self.server.links:
            if self._open:
                self.go_away()
            else:
                self.close()
        else:
            self.push_soon()

    def _on_ready(self, mask: int) -> None:
        if self._open:
            self.on_ready(mask)
        elif mask & (WRITABLE | UNUSUAL):
            code = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) if mask & UNUSUAL else 0
            self._connected(code)

    def _connected(self, code: int) -> None:
        if code:
            self._fail(HttpFault.CONNECT_FAILED)
            return
        if isinstance(self.sock, DialledTunnel):
            self.poller.watch(self.sock, self._on_ready)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._opened()

    def _opened(self) -> None:
        self.limit = NEVER
        self._open = True
        self.protocol.start()
        waiting, self._connecting = self._connecting, []
        for upstream in waiting:
            run(upstream.on_joined, self)
        self.push()

    # --- callbacks of the protocol ---

    def on_headers(self, stream: Stream, fields: Fields, ended: bool) -> None:
        self.served = True
        if (upstream := self._upstreams.get(stream.id)) is not None:
            run(upstream.on_headers, fields, ended)

    def on_data(self, stream: Stream, data: bytes, ended: bool) -> None:
        if (upstream := self._upstreams.get(stream.id)) is not None:
            run(upstream.on_data, stream, data, ended)
        else:
            self.protocol.consumed(stream, len(data))

    def writer_of(self, stream: Stream) -> "H2Upstream | None":
        return self._upstreams.get(stream.id)

    def on_reset(self, stream: Stream, code: int) -> None:
        if (upstream := self._upstreams.pop(stream.id, None)) is not None:
            run(upstream.on_reset, code)
            self._close_if_done()

    def on_goaway(self, last: int) -> None:
        if self in self.server.links:
            self.server.links.remove(self)
        for id_ in [id_ for id_ in self._upstreams if id_ > last]:
            upstream = self._upstreams.pop(id_)
            run(upstream.broken, HttpFault.ENDPOINT_CLOSED, unprocessed=True)
        self._close_if_done()

    # --- the end ---

    def on_protocol_error(self, broken: H2Broken) -> None:
        self._break_all(HttpFault.BAD_RESPONSE)
        super().on_protocol_error(broken)

    def on_lost(self) -> None:
        self._fail(HttpFault.ENDPOINT_CLOSED)

    def on_timeout(self) -> None:
        if self._open and self.peer_keeps_up(1):
            return
        if not self._open:
            self._fail(HttpFault.CONNECT_TIMEOUT)
        elif not self._upstreams:
            self.retire()
            if self._linger_left:
                self.close()
        else:
            self._fail(HttpFault.RESPONSE_TIMEOUT)

    def _fail(self, fault: HttpFault) -> None:
        self.close()
        self._break_all(fault)

    def _break_all(self, fault: HttpFault) -> None:
        if self in self.server.links:
            self.server.links.remove(self)
        connecting, self._connecting = self._connecting, []
        upstreams = tuple(self._upstreams.values())
        self._upstreams.clear()
        for one in connecting:
            run(one.not_connected, fault)
        for one in upstreams:
            run(one.broken, fault)


class H2Upstream(H2StreamWriter):
    """The endpoint's side of one exchange."""

    __slots__ = (
        "_body_left",
        "_deadlines_of",
        "_exchange",
        "_idle",
        "_last_exchange",
        "_paused",
        "_poller",
        "_unreturned",
        "head",
        "link",
        "reused",
        "server",
    )

    def __init__(
        self, poller: Poller, deadlines: Deadlines, server: PooledEndpoint, exchange: UpstreamHandler
    ) -> None:
        super().__init__(None, None, deadlines)
        self._poller = poller
        self._deadlines_of = deadlines
        self.server = server
        self._exchange: UpstreamHandler | None = exchange
        self._last_exchange = exchange  # also while it finishes: a bug met there is its own
        self.link: H2Link | None = None
        self.reused = False
        self.head: ResponseHead | None = None
        self._body_left = -1
        self._paused = False
        self._unreturned = 0
        self._idle = limits.RESPONSE_IDLE_SECONDS

    # --- begin ---

    def connect(self, make: Callable[[], socket.socket], seconds: float) -> None:
        """Tells the exchange once, now or later: `connected` or `not_connected`."""
        link = free_link(self.server)
        if link is not None:
            self.link = link
            self.reused = link.served
            link.join(self)
            return
        try:
            sock = make()
        except OSError:
            self.not_connected(HttpFault.CONNECT_FAILED)
            return
        self.link = link = H2Link(self._poller, self._deadlines_of, sock, self.server)
        link.join(self)
        if not self.server.leaving:
            self.server.links.append(link)
        run(link.connect, seconds)

    def on_joined(self, link: H2Link) -> None:
        if self._exchange is not None:
            self._exchange.connected()

    def not_connected(self, fault: HttpFault) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.not_connected(fault)

    # --- the request ---

    def begin(
        self,
        head: RequestHead,
        target: bytes,
        lines: bytes,
        body: Sequence[bytes],
        last: bool,
        trailers: bytes,
    ) -> bool:
        link = self.link
        assert link is not None
        ended = last and not body and not trailers
        self.connection = link
        self.stream = link.open_stream(self, request_list(head, target, lines, link.scheme), ended)
        for one in body:
            self.put(one)
        return self._send_queued(last, trailers) if not ended else self._await_response()

    def send(self, data: bytes, last: bool, trailers: bytes = b"") -> bool:
        if data:
            self.put(data)
        return self._send_queued(last, trailers)

    def _send_queued(self, last: bool, trailers: bytes) -> bool:
        if not last:
            return self.flush()
        self.finish(trailers)
        return True

    def on_room(self) -> None:
        if self._exchange is not None:
            self._exchange.upstream_room()

    def on_sent(self) -> None:
        self._await_response()

    def _await_response(self) -> bool:
        if self._exchange is not None and self.head is None:
            self.within(self._exchange.response_timeout)
        return True

    # --- the response ---

    def on_headers(self, fields: Fields, ended: bool) -> None:
        exchange = self._exchange
        if exchange is None:
            return
        try:
            if self.head is not None:
                self._done(read_trailers(fields, HttpFault.BAD_RESPONSE))
                return
            head = read_response(fields)
            if head.status < 200 and ended:
                raise RequestRefused(HttpFault.BAD_RESPONSE, "an interim response that is the last")
        except RequestRefused as refused:
            self._fail(refused)
            return
        if head.status < 200:
            exchange.interim(head)
            return
        self.head = head
        if (head.fields.get(b"content-type") or b"").startswith(b"application/grpc"):
            self._idle = limits.TUNNEL_SECONDS  # messages of a stream may be rare
        length = head.body_length(exchange.method)
        self._body_left = length
        self.within(self._idle)
        exchange.responded(head, 0 if ended else length)
        if ended:
            self._done(b"")
        else:
            exchange.pushed()

    def on_data(self, stream: Stream, data: bytes, ended: bool) -> None:
        exchange, link = self._exchange, self.link
        assert link is not None
        if exchange is None or self.head is None:
            link.protocol.consumed(stream, len(data))
            if exchange is not None:
                self._fail(RequestRefused(HttpFault.BAD_RESPONSE, "content without a head"))
            return
        if self._body_left >= 0:
            self._body_left -= len(data)
            if self._body_left < 0 or (ended and self._body_left):
                self._fail(RequestRefused(HttpFault.BAD_RESPONSE, "the body is not of the length announced"))
                return
        if data:
            exchange.payload(data)
        if ended:
            self._done(b"")
            return
        self.within(self._idle)
        if not exchange.pushed():
            self._paused = True
        if self._paused:
            self._unreturned += len(data)
        else:
            link.protocol.consumed(stream, len(data))

    def resume(self) -> None:
        self._paused = False
        if self._unreturned and self.stream is not None and self.link is not None:
            returned, self._unreturned = self._unreturned, 0
            self.link.protocol.consumed(self.stream, returned)
            self.link.push_soon()

    def shut_request(self) -> None:
        raise AssertionError("there is no Upgrade in HTTP/2")

    def _done(self, trailers: bytes) -> None:
        exchange = self._exchange
        self._end(Code.NO_ERROR)  # the rest of the request, if any, is not read
        if exchange is not None:
            exchange.ended(trailers)

    def _fail(self, refused: RequestRefused) -> None:
        exchange = self._exchange
        self._end(Code.PROTOCOL_ERROR)
        if exchange is not None:
            exchange.broken(refused.fault)

    # --- the end ---

    def on_reset(self, code: int) -> None:
        refused = code == Code.REFUSED_STREAM
        if refused:
            self.reused = False  # the endpoint is busy: another one may not be
        self.broken(HttpFault.ENDPOINT_CLOSED, unprocessed=refused)

    def broken(self, fault: HttpFault, *, unprocessed: bool = False) -> None:
        """The stream has ended without a complete response."""
        exchange, self._exchange = self._exchange, None
        self.stream = None
        self.stop_clock()
        if exchange is not None:
            exchange.broken(fault, unprocessed=unprocessed)

    def on_timeout(self) -> None:
        if self.blocked and self.keeps_up(1):
            self.within(limits.BODY_SECONDS)
            return
        exchange = self._exchange
        self._end(Code.CANCEL)
        if exchange is not None:
            exchange.broken(HttpFault.RESPONSE_TIMEOUT)

    def discard(self) -> None:
        self._end(Code.CANCEL)

    def on_fault(self) -> None:
        """A bug was met, here or in the exchange."""
        run(self._end, Code.CANCEL)
        self._last_exchange.on_fault()

    def _end(self, code: Code) -> None:
        self._exchange = None
        self.stop_clock()
        stream, self.stream = self.stream, None
        link, self.connection = self.link, None
        if link is None:
            return
        if stream is not None:
            link.protocol.cancel(stream, code)
        link.on_close(self, stream)


def free_link(server: PooledEndpoint) -> H2Link | None:
    """A connection that accepts one more stream. None: open another one.

    Streams whose bodies the endpoint does not take can use up their connection's window. While the endpoint
    has few connections, further streams get a new one."""
    taking = [one for one in server.links if isinstance(one, H2Link) and one.accepts_streams]
    for one in taking:
        if not one.stalled:
            return one
    return taking[0] if len(server.links) >= limits.LINKS_PER_ENDPOINT else None


def adopt_connection(
    poller: Poller, deadlines: Deadlines, server: PooledEndpoint, sock: socket.socket, exchange: Exchange
) -> None:
    """Makes a link of a connected socket on which the endpoint has chosen HTTP/2, for this exchange."""
    poller.unwatch(sock)  # so that the link gets an event for what has come already
    link = H2Link(poller, deadlines, sock, server)
    if not server.leaving:
        server.links.append(link)
    upstream = H2Upstream(poller, deadlines, server, exchange)
    upstream.link = link
    exchange.goes_by(upstream)
    link.adopt(upstream)
