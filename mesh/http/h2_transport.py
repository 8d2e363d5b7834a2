"""An HTTP/2 connection on a watched socket, whichever side of it we are: bytes between socket and `Wire`.

What streams have to say waits in `Outgoing`, one for each, until the peer's windows and the socket have room:
each sends what it may in its turn, and tells whoever fills it to wait meanwhile. A client that does not read
what we say is not read from either, so nothing that it asks for can pile up here. An endpoint is read from
all the same: it may not read before it has said all that it has to.

One connection gets a bounded number of reads and frames, then it is the turn of others.
"""

import socket
import ssl

from mesh.http import limits
from mesh.http.byte_budget import FREE_BYTES, ByteAccount, Over
from mesh.http.codec.h2_headers import trailer_list
from mesh.http.codec.h2_protocol import WORK_AT_ONCE, Code, H2Broken, Stream, Wire
from mesh.http.codec.hpack import Fields
from mesh.http.least_rate import ReaderPace
from mesh.net.idle_timer import NEVER, IdleTimer
from mesh.net.isolation import run
from mesh.net.poller import PEER_DONE, READABLE, UNUSUAL, WRITABLE, Poller
from mesh.net.timers import Deadlines
from mesh.net.would_block import WOULD_BLOCK, end_records, unsent

INCOMING = READABLE | PEER_DONE | UNUSUAL
OUT_MAX = 128 * 1024  # bytes on their way to the socket; then streams wait, and at last the peer


class Outgoing(IdleTimer):
    """What one stream sends: `put`, `flush`, and once `finish`."""

    __slots__ = ("_ending", "_held", "_out", "_taken", "_trailers", "connection", "stream")

    def __init__(
        self, connection: "H2Connection | None", stream: Stream | None, deadlines: Deadlines
    ) -> None:
        super().__init__(deadlines)
        self.connection = connection
        self.stream = stream
        self._out: list[bytes] = []
        self._held = b""  # what the peer has not taken yet
        self._ending = False
        self._taken = 0  # bytes that the peer took since it was last looked at
        self._trailers = b""

    def put(self, data: bytes) -> None:
        self._out.append(data)

    @property
    def blocked(self) -> bool:
        return bool(self._held)

    @property
    def shut_out(self) -> bool:
        """Does it wait for its own stream's window, so that room for others is nothing to it?"""
        return bool(self._held) and self.stream is not None and self.stream.room <= 0

    def flush(self) -> bool:
        """False: not all of it can be sent now; `has_room` tells when."""
        connection, stream = self.connection, self.stream
        if connection is None or stream is None or stream.ended_out:
            self._out.clear()
            return True
        out = self._out
        if not out and not self._held and not self._ending:
            return True
        data = self._held + b"".join(out) if self._held or len(out) != 1 else out[0]
        out.clear()
        wire, full = connection.wire, connection.full
        end_with_it = self._ending and not self._trailers
        sent = 0
        if not full and (data or end_with_it):
            sent = wire.send_data(stream, data, end_with_it)
            connection.dirty()
        was_blocked, self._held = bool(self._held), data[sent:] if sent < len(data) else b""
        if self._held or (self._ending and full):
            connection.wait(self)
            self._taken = self._taken + sent if was_blocked else 0
            if not was_blocked or self.limit is NEVER:
                self.within(limits.BODY_SECONDS)
            return False
        if was_blocked:
            self.limit = NEVER
        if self._ending:
            if self._trailers:
                wire.send_headers(stream, trailer_list(self._trailers), True)
                connection.dirty()
            self.all_sent()
        return True

    def keeps_up(self, least: float) -> bool:
        """Has the peer taken so many bytes since the last look? A new one begins."""
        taken, self._taken = self._taken, 0
        return taken >= least

    def finish(self, trailers: bytes = b"") -> bool:
        """Nothing comes after that."""
        self._ending = True
        self._trailers = trailers
        return self.flush()

    def on_fault(self) -> None:
        """Something of ours has failed at this stream: its connection and the other streams go on."""
        raise NotImplementedError

    def go_on(self) -> None:
        """There may be room again."""
        if self.flush():
            self.has_room()

    def has_room(self) -> None:
        raise NotImplementedError

    def all_sent(self) -> None:
        """With its end."""
        raise NotImplementedError


class H2Connection(IdleTimer):
    """Derive, and answer what `Wire` tells its side."""

    idle_seconds = limits.KEEP_ALIVE_SECONDS
    account: ByteAccount | None = None  # of what is held for the peer
    unheard_max = OUT_MAX  # bytes that the peer does not read, until it is not read from either

    def __init__(self, poller: Poller, deadlines: Deadlines, sock: socket.socket, *, client: bool) -> None:
        super().__init__(deadlines)
        self.poller = poller
        self.deadlines = deadlines
        self.sock = sock
        self.wire = Wire(self, client=client)
        self.closed = False
        self._in_records = isinstance(sock, ssl.SSLSocket)
        self._held = b""  # what the socket has not taken yet
        self._waiting: dict[Outgoing, None] = {}  # for room, in their turn
        self._dirty = False
        self._reading = False
        self._unread = False
        self._frames_left = False  # of what was read: they get their turn
        self._more_room = False  # for all streams
        self._eof_follows = False
        self._lingering = 0  # bytes that are still read over; we have said our last word
        self._ending = False  # it follows
        self._reading_pace: ReaderPace | None = None  # of a peer that does not take all
        self._counted = 0  # bytes that the account knows of
        self._wait = 0.0  # the limit that holds now

    # --- reading ---

    def on_ready(self, mask: int) -> None:
        """By the poller."""
        if mask & INCOMING:
            if mask & (PEER_DONE | UNUSUAL):
                self._eof_follows = True
            self.readable()
        if mask & WRITABLE and self._held:
            self.push()

    def readable(self) -> None:
        for _ in range(limits.READS_AT_ONCE):
            if self.closed:
                return
            if self._frames_left or len(self._held) > self.unheard_max:
                self._unread = True
                return
            try:
                data = self.sock.recv(limits.READ_BYTES)
            except WOULD_BLOCK:
                return
            except OSError:
                self.lost()
                return
            if not data:
                self.lost()
                return
            whole = len(data) == limits.READ_BYTES or self._eof_follows or self._in_records
            self.take(data)
            if not whole:
                return
        self.poller.again(self.readable)

    def take(self, data: bytes) -> None:
        """What was read."""
        if self._lingering or self._ending:
            self._lingering -= len(data)
            if self._lingering < 0 and not self._ending:
                self.close()
            return
        self._reading = True
        try:
            self._frames_left = self.wire.receive(data, WORK_AT_ONCE)
        except H2Broken as broken:
            self.broke(broken)
            return
        finally:
            self._reading = False
        if self._more_room:
            self._more_room = False
            self._let_wait_go_on()
        self.push()
        if self._counted or self.wire.unfinished > FREE_BYTES:
            self._count()
        if self._frames_left:
            self.poller.again(self._next_frames)

    def _next_frames(self) -> None:
        if self.closed or not self._frames_left:
            return
        self._frames_left = False
        self.take(b"")
        if self._unread and not self._frames_left:
            self._unread = False
            self.readable()

    # --- sending ---

    @property
    def full(self) -> bool:
        """Streams wait."""
        return len(self._held) + len(self.wire.out) >= OUT_MAX

    def dirty(self) -> None:
        """There is something to send: with all else that comes in this round."""
        if not self._dirty and not self._reading:
            self._dirty = True
            self.poller.again(self.push)

    def wait(self, outgoing: Outgoing) -> None:
        self._waiting[outgoing] = None

    def push(self) -> None:
        self._dirty = False
        while not self.closed:
            if self.wire.out:
                self._held += self.wire.out
                self.wire.out.clear()
            if not self._held:
                break
            try:
                sent = self.sock.send(self._held)
            except WOULD_BLOCK:
                sent = 0
            except OSError:
                self.lost()
                return
            all_sent = sent == len(self._held)
            self._wait_for_reader(sent, all_sent)
            self._held = b"" if all_sent else self._held[sent:]
            if not all_sent:
                break
            self._let_wait_go_on()
        if self.closed:
            return
        if self._held or self._counted:
            self._count()
        if self._ending and not self._held:
            self._last_word()
            return
        if self._unread and not self._frames_left and len(self._held) <= self.unheard_max:
            self._unread = False
            self.poller.again(self.readable)
        self._set_clock()

    def _let_wait_go_on(self) -> None:
        """Each of those who wait, once; those who still cannot send wait on, behind the others."""
        waiting, self._waiting = self._waiting, {}
        for one in waiting:
            if one.shut_out:
                self._waiting[one] = None
            else:
                run(one.go_on)

    def _count(self) -> None:
        """What came and is not whole, and what the socket does not take."""
        account = self.account
        if account is None or self.closed:
            return
        held = len(self._held) + self.wire.unfinished
        more, self._counted = held - self._counted, held
        if more <= 0:
            account.give_back(-more)
        elif (over := account.take(more)) is not None:
            self._counted -= more
            self.over_share(over)

    def over_share(self, over: Over) -> None:
        """More is held for the connection than may be."""
        self.lost()

    def _wait_for_reader(self, sent: int, all_sent: bool) -> None:
        if all_sent:
            self._reading_pace = None
        elif self._reading_pace is None:
            self._reading_pace = ReaderPace(unsent(self.sock))
        else:
            self._reading_pace.sent += sent

    def reads(self, least: float) -> bool:
        """Does the peer take what the socket holds fast enough? Then it gets as much time again."""
        pace = self._reading_pace
        if not self._held or pace is None or not pace.keeps_up(unsent(self.sock), least):
            return False
        self.within(limits.BODY_SECONDS)
        return True

    def _set_clock(self) -> None:
        wire = self.wire
        if self._held:
            wait = limits.BODY_SECONDS
        elif wire.in_block:
            wait = limits.HEAD_SECONDS
        else:
            wait = 0.0 if wire.streams else self.idle_seconds
        if wait != self._wait:
            self._wait = wait
            if wait:
                self.within(wait)
            else:
                self.limit = NEVER

    # --- what the wire tells ---

    def opened(self, stream: Stream, fields: Fields, ended: bool) -> None:
        raise NotImplementedError

    def headers(self, stream: Stream, fields: Fields, ended: bool) -> None:
        raise NotImplementedError

    def data(self, stream: Stream, data: bytes, ended: bool) -> None:
        raise NotImplementedError

    def was_reset(self, stream: Stream, code: int) -> None:
        raise NotImplementedError

    def going_away(self, last: int) -> None:
        raise NotImplementedError

    def room(self, stream: Stream | None) -> None:
        if stream is None:
            self._more_room = True  # once for all that is in a read
        elif (one := self.outgoing(stream)) is not None and one in self._waiting:
            del self._waiting[one]
            run(one.go_on)

    def outgoing(self, stream: Stream) -> "Outgoing | None":
        """Who sends on this stream."""
        raise NotImplementedError

    def ponged(self) -> None:
        pass

    # --- the end ---

    def broke(self, broken: H2Broken) -> None:
        """The peer is no HTTP/2 that can be understood."""
        self.leave(broken.code)

    def lost(self) -> None:
        """The peer is gone."""
        self.close()

    def on_fault(self) -> None:
        """Something of ours has failed at it."""
        self.lost()

    def leave(self, code: Code = Code.NO_ERROR) -> None:
        """Say so, and end when that is sent. No stream is open that matters."""
        if not self.closed and not self._ending:
            self._ending = True
            self._lingering = limits.LINGER_BYTES
            self.wire.go_away(code)
            self.push()

    def _last_word(self) -> None:
        """To close with bytes unread would reset the connection, and the peer lose what we said."""
        self._ending = False
        self._wait = limits.LINGER_SECONDS
        self.within(limits.LINGER_SECONDS)
        self.wire.out.clear()
        try:
            end_records(self.sock)
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.close()
            return
        self.poller.again(self.readable)

    def close(self) -> None:
        """Now, and for good."""
        if not self.closed:
            self.closed = True
            self.stop_clock()
            self._waiting.clear()
            if self.account is not None:
                self.account.close()
            self.poller.close(self.sock)
