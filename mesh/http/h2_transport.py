"""An HTTP/2 connection on a watched socket, for either side: bytes between the socket and `H2Protocol`.

Each stream has an `H2StreamWriter`. It holds what the stream has to send until the peer's windows and the
socket have room; writers that wait get their turn one after the other. A client that does not read its
responses is not read from, so the responses to its requests cannot pile up. An endpoint is always read from:
it may not read before it has sent all that it has.

A connection gets a bounded number of reads and frames, then it is the turn of others.
"""

import socket
import ssl

from mesh.http import limits
from mesh.http.byte_budget import FREE_BYTES, ByteAccount, Over
from mesh.http.codec.h2_headers import trailer_list
from mesh.http.codec.h2_protocol import WORK_AT_ONCE, Code, H2Broken, H2Protocol, Stream
from mesh.http.codec.hpack import Fields
from mesh.http.least_rate import ReaderPace
from mesh.net.idle_timer import NEVER, IdleTimer
from mesh.net.isolation import run
from mesh.net.poller import PEER_DONE, READABLE, UNUSUAL, WRITABLE, Poller
from mesh.net.timers import Deadlines
from mesh.net.would_block import WOULD_BLOCK, end_records, unsent

INCOMING = READABLE | PEER_DONE | UNUSUAL
OUT_MAX = 128 * 1024  # bytes on their way to the socket; beyond it streams wait and clients are not read


class H2StreamWriter(IdleTimer):
    """What one stream sends: `put` and `flush` any number of times, then `finish` once."""

    __slots__ = ("_ending", "_held", "_out", "_sent", "_trailers", "connection", "stream")

    def __init__(
        self, connection: "H2Connection | None", stream: Stream | None, deadlines: Deadlines
    ) -> None:
        super().__init__(deadlines)
        self.connection = connection
        self.stream = stream
        self._out: list[bytes] = []
        self._held = b""  # what the peer has not taken yet
        self._ending = False
        self._sent = 0  # bytes that went out since the last look
        self._trailers = b""

    def put(self, data: bytes) -> None:
        self._out.append(data)

    @property
    def blocked(self) -> bool:
        return bool(self._held)

    @property
    def waits_for_own_window(self) -> bool:
        """It waits for its own stream's window: a larger window of the connection does not help it."""
        return bool(self._held) and self.stream is not None and self.stream.send_window <= 0

    def flush(self) -> bool:
        """Sends what the windows allow. False: part of it is held; `on_room` is called when that has gone."""
        connection, stream = self.connection, self.stream
        if connection is None or stream is None or stream.ended_out:
            self._out.clear()
            return True
        out = self._out
        if not out and not self._held and not self._ending:
            return True
        data = self._held + b"".join(out) if self._held or len(out) != 1 else out[0]
        out.clear()
        protocol, full = connection.protocol, connection.is_full
        end_with_it = self._ending and not self._trailers
        sent = 0
        if not full and (data or end_with_it):
            sent = protocol.send_data(stream, data, end_with_it)
            connection.push_soon()
        was_blocked, self._held = bool(self._held), data[sent:] if sent < len(data) else b""
        if self._held or (self._ending and full):
            connection.add_waiting(self)
            self._sent = self._sent + sent if was_blocked else 0
            if not was_blocked or self.limit is NEVER:
                self.within(limits.BODY_SECONDS)
            return False
        if was_blocked:
            self.limit = NEVER
        if self._ending:
            if self._trailers:
                protocol.send_headers(stream, trailer_list(self._trailers), True)
                connection.push_soon()
            self.on_sent()
        return True

    def keeps_up(self, least: float) -> bool:
        """Have `least` bytes gone out since the last look? The count begins anew."""
        sent, self._sent = self._sent, 0
        return sent >= least

    def finish(self, trailers: bytes = b"") -> bool:
        """Sends the rest, trailers if there are any, and ends the stream."""
        self._ending = True
        self._trailers = trailers
        return self.flush()

    def on_fault(self) -> None:
        """A bug was met at this stream. Its connection and the other streams go on."""
        raise NotImplementedError

    def retry(self) -> None:
        """Called when there may be room again."""
        if self.flush():
            self.on_room()

    def on_room(self) -> None:
        """All that was held has gone out."""
        raise NotImplementedError

    def on_sent(self) -> None:
        """Everything has gone out, with the end of the stream."""
        raise NotImplementedError


class H2Connection(IdleTimer):
    """What both sides share. Derived classes implement the callbacks of `H2Side` that are theirs."""

    idle_seconds = limits.KEEP_ALIVE_SECONDS
    account: ByteAccount | None = None  # of the bytes that are held for the peer
    unsent_max = OUT_MAX  # bytes that the peer has not taken; beyond it the peer is not read from

    def __init__(self, poller: Poller, deadlines: Deadlines, sock: socket.socket, *, client: bool) -> None:
        super().__init__(deadlines)
        self.poller = poller
        self.deadlines = deadlines
        self.sock = sock
        self.protocol = H2Protocol(self, client=client)
        self.closed = False
        self._in_records = isinstance(sock, ssl.SSLSocket)
        self._held = b""  # what the socket has not taken yet
        self._waiting: dict[H2StreamWriter, None] = {}  # for room, in their turn
        self._push_due = False
        self._receiving = False
        self._unread = False
        self._frames_left = False  # of what was read; they are processed in the next turn
        self._window_grew = False  # the connection's
        self._eof_follows = False
        self._linger_left = 0  # bytes that may still come and are discarded; nothing more is sent
        self._ending = False  # GOAWAY is on its way; then the connection lingers and is closed
        self._reader_pace: ReaderPace | None = None  # of a peer that does not take all
        self._counted = 0  # bytes that the account has counted
        self._limit_seconds = 0.0  # the time limit that holds now; 0: none

    # --- reading ---

    def on_ready(self, mask: int) -> None:
        """Callback of the poller."""
        if mask & INCOMING:
            if mask & (PEER_DONE | UNUSUAL):
                self._eof_follows = True
            self.on_readable()
        if mask & WRITABLE and self._held:
            self.push()

    def on_readable(self) -> None:
        for _ in range(limits.READS_AT_ONCE):
            if self.closed:
                return
            if self._frames_left or len(self._held) > self.unsent_max:
                self._unread = True
                return
            try:
                data = self.sock.recv(limits.READ_BYTES)
            except WOULD_BLOCK:
                return
            except OSError:
                self.on_lost()
                return
            if not data:
                self.on_lost()
                return
            whole = len(data) == limits.READ_BYTES or self._eof_follows or self._in_records
            self.receive(data)
            if not whole:
                return
        self.poller.again(self.on_readable)

    def receive(self, data: bytes) -> None:
        """Bytes that were read; b"" processes what is left of earlier ones."""
        if self._linger_left or self._ending:
            self._linger_left -= len(data)
            if self._linger_left < 0 and not self._ending:
                self.close()
            return
        self._receiving = True
        try:
            self._frames_left = self.protocol.receive(data, WORK_AT_ONCE)
        except H2Broken as broken:
            self.on_protocol_error(broken)
            return
        finally:
            self._receiving = False
        if self._window_grew:
            self._window_grew = False
            self._retry_waiting()
        self.push()
        if self._counted or self.protocol.unfinished > FREE_BYTES:
            self._count()
        if self._frames_left:
            self.poller.again(self._next_frames)

    def _next_frames(self) -> None:
        if self.closed or not self._frames_left:
            return
        self._frames_left = False
        self.receive(b"")
        if self._unread and not self._frames_left:
            self._unread = False
            self.on_readable()

    # --- sending ---

    @property
    def is_full(self) -> bool:
        """So much is on its way to the socket that streams have to wait."""
        return len(self._held) + len(self.protocol.out) >= OUT_MAX

    def push_soon(self) -> None:
        """There is something to send. It goes out at the end of this round, together with other streams'."""
        if not self._push_due and not self._receiving:
            self._push_due = True
            self.poller.again(self.push)

    def add_waiting(self, writer: H2StreamWriter) -> None:
        self._waiting[writer] = None

    def push(self) -> None:
        self._push_due = False
        while not self.closed:
            if self.protocol.out:
                self._held += self.protocol.out
                self.protocol.out.clear()
            if not self._held:
                break
            try:
                sent = self.sock.send(self._held)
            except WOULD_BLOCK:
                sent = 0
            except OSError:
                self.on_lost()
                return
            all_sent = sent == len(self._held)
            self._measure_reader(sent, all_sent)
            self._held = b"" if all_sent else self._held[sent:]
            if not all_sent:
                break
            self._retry_waiting()
        if self.closed:
            return
        if self._held or self._counted:
            self._count()
        if self._ending and not self._held:
            self._linger()
            return
        if self._unread and not self._frames_left and len(self._held) <= self.unsent_max:
            self._unread = False
            self.poller.again(self.on_readable)
        self._set_clock()

    def _retry_waiting(self) -> None:
        """Gives each writer that waits one turn. Those that still cannot send wait on, behind the others."""
        waiting, self._waiting = self._waiting, {}
        for one in waiting:
            if one.waits_for_own_window:
                self._waiting[one] = None
            else:
                run(one.retry)

    def _count(self) -> None:
        """Counts the bytes of incomplete frames and heads, and those that the socket has not taken."""
        account = self.account
        if account is None or self.closed:
            return
        held = len(self._held) + self.protocol.unfinished
        more, self._counted = held - self._counted, held
        if more <= 0:
            account.give_back(-more)
        elif (over := account.take(more)) is not None:
            self._counted -= more
            self.on_over_share(over)

    def on_over_share(self, over: Over) -> None:
        """More bytes would be held for the peer than a limit allows."""
        self.on_lost()

    def _measure_reader(self, sent: int, all_sent: bool) -> None:
        if all_sent:
            self._reader_pace = None
        elif self._reader_pace is None:
            self._reader_pace = ReaderPace(unsent(self.sock))
        else:
            self._reader_pace.sent += sent

    def peer_keeps_up(self, least: float) -> bool:
        """Has the peer taken `least` bytes since the last look? Then its time limit begins anew."""
        pace = self._reader_pace
        if not self._held or pace is None or not pace.keeps_up(unsent(self.sock), least):
            return False
        self.within(limits.BODY_SECONDS)
        return True

    def _set_clock(self) -> None:
        protocol = self.protocol
        if self._held:
            wait = limits.BODY_SECONDS
        elif protocol.in_block:
            wait = limits.HEAD_SECONDS
        else:
            wait = 0.0 if protocol.streams else self.idle_seconds
        if wait != self._limit_seconds:
            self._limit_seconds = wait
            if wait:
                self.within(wait)
            else:
                self.limit = NEVER

    # --- callbacks of the protocol ---

    def on_request(self, stream: Stream, fields: Fields, ended: bool) -> None:
        raise NotImplementedError

    def on_headers(self, stream: Stream, fields: Fields, ended: bool) -> None:
        raise NotImplementedError

    def on_data(self, stream: Stream, data: bytes, ended: bool) -> None:
        raise NotImplementedError

    def on_reset(self, stream: Stream, code: int) -> None:
        raise NotImplementedError

    def on_goaway(self, last: int) -> None:
        raise NotImplementedError

    def on_window(self, stream: Stream | None) -> None:
        if stream is None:
            self._window_grew = True  # waiting writers are tried once for each read, not for each frame
        elif (one := self.writer_of(stream)) is not None and one in self._waiting:
            del self._waiting[one]
            run(one.retry)

    def writer_of(self, stream: Stream) -> "H2StreamWriter | None":
        """The writer of this stream, if it is still open."""
        raise NotImplementedError

    def on_pong(self) -> None:
        pass

    # --- the end ---

    def on_protocol_error(self, broken: H2Broken) -> None:
        """The peer has broken the protocol: the connection cannot go on."""
        self.go_away(broken.code)

    def on_lost(self) -> None:
        """The peer has closed the connection, or it broke."""
        self.close()

    def on_fault(self) -> None:
        """A bug was met at this connection."""
        self.on_lost()

    def go_away(self, code: Code = Code.NO_ERROR) -> None:
        """Sends GOAWAY and closes the connection afterwards. Streams that are still open are abandoned."""
        if not self.closed and not self._ending:
            self._ending = True
            self._linger_left = limits.LINGER_BYTES
            self.protocol.go_away(code)
            self.push()

    def _linger(self) -> None:
        """To close with bytes unread would reset the connection, and the peer would lose what was sent."""
        self._ending = False
        self._limit_seconds = limits.LINGER_SECONDS
        self.within(limits.LINGER_SECONDS)
        self.protocol.out.clear()
        try:
            end_records(self.sock)
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.close()
            return
        self.poller.again(self.on_readable)

    def close(self) -> None:
        """Closes the socket at once."""
        if not self.closed:
            self.closed = True
            self.stop_clock()
            self._waiting.clear()
            if self.account is not None:
                self.account.close()
            self.poller.close(self.sock)
