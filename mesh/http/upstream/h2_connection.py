"""HTTP/2 connections to an endpoint, each shared by many exchanges; an exchange has a stream of one.

A connection takes no more streams when its endpoint says so (GOAWAY) or is no endpoint any more; those that
it has are finished. A stream that the endpoint says it has not looked at goes elsewhere, whatever its method.
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
from mesh.http.h2_transport import H2Connection, Outgoing
from mesh.http.interfaces import UpstreamHandler
from mesh.net.idle_timer import NEVER
from mesh.net.isolation import run
from mesh.net.poller import UNUSUAL, WRITABLE, Poller
from mesh.net.timers import Deadlines
from mesh.peers.tunnel.client import DialledTunnel

IDLE_SECONDS = 60.0  # without a stream


class H2Link(H2Connection):
    """One connection. `join` it; it is in its server's `links` as long as it takes streams."""

    idle_seconds = IDLE_SECONDS
    unheard_max = 2**31  # what it can make us say is bounded: see `frame_budget`

    def __init__(
        self, poller: Poller, deadlines: Deadlines, sock: socket.socket, server: PooledEndpoint
    ) -> None:
        super().__init__(poller, deadlines, sock, client=True)
        self.server = server
        self.served = False  # something has come from it
        self._open = False
        self._connecting: list[H2Upstream] = []
        self._asked: dict[int, H2Upstream] = {}

    @property
    def scheme(self) -> bytes:
        return b"https" if isinstance(self.sock, ssl.SSLSocket) else b"http"

    @property
    def takes(self) -> bool:
        """One more stream?"""
        under_way = len(self._asked) + len(self._connecting)
        return under_way < min(self.wire.streams_max, STREAMS_MAX) and not self.wire.exhausted

    @property
    def stalled(self) -> bool:
        """Can no body go out on it just now, whose ever?"""
        return self._open and (self.full or not self.wire.has_room)

    def connect(self, seconds: float) -> None:
        """Those who joined are told."""
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

    def take_over(self, asked: "H2Upstream") -> None:
        """The socket is connected, and watched by nobody."""
        self.poller.watch(self.sock, self._on_ready)
        self._connecting.append(asked)
        self._opened()

    def join(self, asked: "H2Upstream") -> None:
        if self._open:
            asked.joined(self)
        else:
            self._connecting.append(asked)

    def ask(self, asked: "H2Upstream", fields: list[tuple[bytes, bytes]], ended: bool) -> Stream:
        stream = self.wire.open(fields, ended)
        self._asked[stream.id] = asked
        self.dirty()
        return stream

    def on_close(self, asked: "H2Upstream", stream: Stream | None) -> None:
        """It has all that it wanted."""
        if stream is not None:
            self._asked.pop(stream.id, None)
        elif asked in self._connecting:
            self._connecting.remove(asked)
        else:  # a fault while it asked: it does not know its stream
            self._asked = {id_: one for id_, one in self._asked.items() if one is not asked}
        self._look_at_end()

    def retire(self) -> None:
        """No new streams; when the last has ended, it is closed."""
        if self in self.server.links:
            self.server.links.remove(self)
        self._look_at_end()

    def _look_at_end(self) -> None:
        if self.closed:
            return
        if not self._asked and not self._connecting and self not in self.server.links:
            if self._open:
                self.leave()
            else:
                self.close()
        else:
            self.dirty()

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
        self.wire.start()
        waiting, self._connecting = self._connecting, []
        for asked in waiting:
            run(asked.joined, self)
        self.push()

    # --- what the wire tells ---

    def headers(self, stream: Stream, fields: Fields, ended: bool) -> None:
        self.served = True
        if (asked := self._asked.get(stream.id)) is not None:
            run(asked.headers, fields, ended)

    def data(self, stream: Stream, data: bytes, ended: bool) -> None:
        if (asked := self._asked.get(stream.id)) is not None:
            run(asked.data, stream, data, ended)
        else:
            self.wire.consumed(stream, len(data))

    def outgoing(self, stream: Stream) -> "H2Upstream | None":
        return self._asked.get(stream.id)

    def was_reset(self, stream: Stream, code: int) -> None:
        if (asked := self._asked.pop(stream.id, None)) is not None:
            run(asked.was_reset, code)
            self._look_at_end()

    def going_away(self, last: int) -> None:
        if self in self.server.links:
            self.server.links.remove(self)
        for id_ in [id_ for id_ in self._asked if id_ > last]:
            asked = self._asked.pop(id_)
            run(asked.broken, HttpFault.ENDPOINT_CLOSED, unprocessed=True)
        self._look_at_end()

    # --- the end ---

    def broke(self, broken: H2Broken) -> None:
        self._all_broken(HttpFault.BAD_RESPONSE)
        super().broke(broken)

    def lost(self) -> None:
        self._fail(HttpFault.ENDPOINT_CLOSED)

    def on_timeout(self) -> None:
        if self._open and self.reads(1):
            return
        if not self._open:
            self._fail(HttpFault.CONNECT_TIMEOUT)
        elif not self._asked:
            self.retire()
            if self._lingering:
                self.close()
        else:
            self._fail(HttpFault.RESPONSE_TIMEOUT)

    def _fail(self, fault: HttpFault) -> None:
        self.close()
        self._all_broken(fault)

    def _all_broken(self, fault: HttpFault) -> None:
        if self in self.server.links:
            self.server.links.remove(self)
        connecting, self._connecting = self._connecting, []
        asked = tuple(self._asked.values())
        self._asked.clear()
        for one in connecting:
            run(one.not_connected, fault)
        for one in asked:
            run(one.broken, fault)


class H2Upstream(Outgoing):
    """The endpoint's side of one exchange."""

    __slots__ = (
        "_body_left",
        "_deadlines_of",
        "_exchange",
        "_idle",
        "_last",
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
        self._last = exchange  # also when it is done with us: what it does then may fail
        self.link: H2Link | None = None
        self.reused = False
        self.head: ResponseHead | None = None
        self._body_left = -1
        self._paused = False
        self._unreturned = 0
        self._idle = limits.RESPONSE_IDLE_SECONDS

    # --- begin ---

    def connect(self, make: Callable[[], socket.socket], seconds: float) -> None:
        """Told to the exchange, now or later, once."""
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

    def joined(self, link: H2Link) -> None:
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
        self.stream = link.ask(self, request_list(head, target, lines, link.scheme), ended)
        for one in body:
            self.put(one)
        return self._sent(last, trailers) if not ended else self._clock_of_answer()

    def send(self, data: bytes, last: bool, trailers: bytes = b"") -> bool:
        if data:
            self.put(data)
        return self._sent(last, trailers)

    def _sent(self, last: bool, trailers: bytes) -> bool:
        if not last:
            return self.flush()
        self.finish(trailers)
        return True

    def has_room(self) -> None:
        if self._exchange is not None:
            self._exchange.upstream_room()

    def all_sent(self) -> None:
        self._clock_of_answer()

    def _clock_of_answer(self) -> bool:
        if self._exchange is not None and self.head is None:
            self.within(self._exchange.response_timeout)
        return True

    # --- the response ---

    def headers(self, fields: Fields, ended: bool) -> None:
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
            self._wrong(refused)
            return
        if head.status < 200:
            exchange.interim(head)
            return
        self.head = head
        if (head.fields.get(b"content-type") or b"").startswith(b"application/grpc"):
            self._idle = limits.TUNNEL_SECONDS  # streams of messages that may be rare
        length = head.body_length(exchange.method)
        self._body_left = length
        self.within(self._idle)
        exchange.responded(head, 0 if ended else length)
        if ended:
            self._done(b"")
        else:
            exchange.pushed()

    def data(self, stream: Stream, data: bytes, ended: bool) -> None:
        exchange, link = self._exchange, self.link
        assert link is not None
        if exchange is None or self.head is None:
            link.wire.consumed(stream, len(data))
            if exchange is not None:
                self._wrong(RequestRefused(HttpFault.BAD_RESPONSE, "content without a head"))
            return
        if self._body_left >= 0:
            self._body_left -= len(data)
            if self._body_left < 0 or (ended and self._body_left):
                self._wrong(RequestRefused(HttpFault.BAD_RESPONSE, "the body is not of the length announced"))
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
            link.wire.consumed(stream, len(data))

    def resume(self) -> None:
        self._paused = False
        if self._unreturned and self.stream is not None and self.link is not None:
            returned, self._unreturned = self._unreturned, 0
            self.link.wire.consumed(self.stream, returned)
            self.link.dirty()

    def shut_request(self) -> None:
        raise AssertionError("there is no Upgrade in HTTP/2")

    def _done(self, trailers: bytes) -> None:
        exchange = self._exchange
        self._end(Code.NO_ERROR)  # if there is more of the request, nobody reads it
        if exchange is not None:
            exchange.ended(trailers)

    def _wrong(self, refused: RequestRefused) -> None:
        exchange = self._exchange
        self._end(Code.PROTOCOL_ERROR)
        if exchange is not None:
            exchange.broken(refused.fault)

    # --- the end ---

    def was_reset(self, code: int) -> None:
        refused = code == Code.REFUSED_STREAM
        if refused:
            self.reused = False  # it does not want more just now: another endpoint may
        self.broken(HttpFault.ENDPOINT_CLOSED, unprocessed=refused)

    def broken(self, fault: HttpFault, *, unprocessed: bool = False) -> None:
        """The stream is no more."""
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
        """Something of ours has failed, here or in the exchange."""
        run(self._end, Code.CANCEL)
        self._last.on_fault()

    def _end(self, code: Code) -> None:
        self._exchange = None
        self.stop_clock()
        stream, self.stream = self.stream, None
        link, self.connection = self.link, None
        if link is None:
            return
        if stream is not None:
            link.wire.cancel(stream, code)
        link.on_close(self, stream)


def free_link(server: PooledEndpoint) -> H2Link | None:
    """One that takes one more stream; None: another one is to be opened. Streams whose bodies the endpoint
    does not take can keep its connection's window: then others get another one, while there are few."""
    taking = [one for one in server.links if isinstance(one, H2Link) and one.takes]
    for one in taking:
        if not one.stalled:
            return one
    return taking[0] if len(server.links) >= limits.LINKS_PER_ENDPOINT else None


def begin_link(
    poller: Poller, deadlines: Deadlines, server: PooledEndpoint, sock: socket.socket, exchange: Exchange
) -> None:
    """A connected socket of which it has turned out that HTTP/2 is spoken there."""
    poller.unwatch(sock)  # so that the link is told of what has come already
    link = H2Link(poller, deadlines, sock, server)
    if not server.leaving:
        server.links.append(link)
    upstream = H2Upstream(poller, deadlines, server, exchange)
    upstream.link = link
    exchange.goes_by(upstream)
    link.take_over(upstream)
