"""One relayed TCP connection: bytes both ways, half-close both ways, bounded memory. A fast path, by hand.

Raw non-blocking sockets, watched once each by the edge-triggered `Poller`; never uvloop's stream transports:
those corrupt the heap when a half-close is followed by a close. Each direction is a small machine:

    reading   what arrives is sent on at once, until the source has no more
    blocked   the destination took less than arrived: nothing is read until it has room (back-pressure)
    ended     the source said EOF and everything is delivered: the destination's write side is shut down

Short exchanges go through one shared buffer (recv, send); a direction that has moved BULK_BYTES switches to
a pipe and `os.splice`, and its bytes no longer enter the process. When both directions have ended the
connection is over; an error on either side ends both with a reset: a cut stream must not look complete.
"""

import errno
import os
import socket
import struct
from collections.abc import Callable

from mesh.net.isolation import run
from mesh.net.limits.descriptors import is_reserved
from mesh.net.poller import FAILED, PEER_DONE, READABLE, UNUSUAL, Poller
from mesh.net.timers import Deadlines

BUFFER_BYTES = 64 * 1024  # most that a direction holds back: one read (copying) or one pipe (splicing)
BULK_BYTES = 256 * 1024  # past this a pipe's two descriptors and set-up are worth it
ROUNDS = 8  # reads of a direction in a row before others get their turn
SPLICE_FLAGS = getattr(os, "SPLICE_F_NONBLOCK", 0) | getattr(os, "SPLICE_F_MOVE", 0)
CAN_SPLICE = hasattr(os, "splice")

INCOMING = READABLE | PEER_DONE | UNUSUAL

# One for the whole process: a direction uses it within a single call and copies out what it could not send.
_shared = memoryview(bytearray(BUFFER_BYTES))


class Direction:
    """Bytes from `source` to `destination`. Tells `ended` once, with the error if it was not an EOF."""

    __slots__ = (
        "_destination",
        "_ended",
        "_held",
        "_pipe",
        "_poller",
        "_source",
        "blocked",
        "done",
        "eof_follows",
        "in_pipe",
        "moved",
        "to_the_end",
    )

    def __init__(
        self,
        poller: Poller,
        source: socket.socket,
        destination: socket.socket,
        ended: Callable[["Direction", OSError | None], None],
        first: bytes = b"",
    ) -> None:
        self._poller = poller
        self._source = source
        self._destination = destination
        self._ended = ended
        self._held: memoryview | None = memoryview(first) if first else None
        self._pipe: tuple[int, int] | None = None
        self.blocked = bool(first)
        self.eof_follows = False  # nothing but what is in the socket already will come
        self.to_the_end = False  # read until the kernel says that there is nothing
        self.in_pipe = 0
        self.moved = -len(first)  # bytes delivered, without `first`
        self.done = False

    def stop(self) -> None:
        """Free the pipe; the sockets are the owner's to close."""
        self.done = True
        if self._pipe is not None:
            for end in self._pipe:
                os.close(end)
            self._pipe = None

    def pump(self) -> None:
        """The source has something: pass it on.

        A read that does not fill the buffer has emptied the socket, what comes later is told anew: so most
        messages cost one recv and one send.
        """
        try:
            for _ in range(ROUNDS):
                if self.blocked or self.done:
                    return
                if self._pipe is not None:
                    self._splice_in()
                    continue
                count = self._source.recv_into(_shared)
                if count == 0:
                    self._at_eof()
                    return
                if not self._send(_shared[:count]):
                    return
                if count < BUFFER_BYTES and not self.to_the_end:
                    if not self.eof_follows:
                        return
                    self._at_eof()
                    return
                if self.moved > BULK_BYTES:
                    self._open_pipe()
        except (BlockingIOError, InterruptedError):
            self.to_the_end = False
            return
        except OSError as error:
            self._finish(error)
            return
        self._poller.again(self.pump)

    def on_fault(self) -> None:
        """Something of ours has failed in it."""
        self._finish(OSError(errno.EIO, "internal"))

    def flush(self) -> None:
        """The destination has room."""
        try:
            if self._held is not None:
                held, self._held = self._held, None
                if not self._send(held):
                    return
            if self.in_pipe and not self._splice_out():
                return
        except OSError as error:
            self._finish(error)
            return
        self.blocked = False
        self.pump()

    def _send(self, data: memoryview) -> bool:
        """True when all of it is sent; the rest is held."""
        try:
            sent = self._destination.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        self.moved += sent
        if sent == len(data):
            return True
        # The shared buffer is the next direction's, so what is left of it has to be copied.
        self._held = data[sent:] if self.blocked else memoryview(bytes(data[sent:]))
        self.blocked = True
        return False

    def _splice_in(self) -> None:
        assert self._pipe is not None
        count = os.splice(self._source.fileno(), self._pipe[1], BUFFER_BYTES, flags=SPLICE_FLAGS)
        if count == 0:
            self._at_eof()
            return
        self.in_pipe += count
        self.blocked = not self._splice_out()

    def _splice_out(self) -> bool:
        """Empty the pipe into the destination; True when nothing is left."""
        assert self._pipe is not None
        try:
            while self.in_pipe:
                sent = os.splice(self._pipe[0], self._destination.fileno(), self.in_pipe, flags=SPLICE_FLAGS)
                self.in_pipe -= sent
                self.moved += sent
        except (BlockingIOError, InterruptedError):
            return False
        return True

    def _at_eof(self) -> None:
        """The source has said all; nothing is held, for reading goes on only when all is sent."""
        self.stop()
        self._tell(None)

    def _finish(self, error: OSError) -> None:
        if not self.done:
            self.stop()
            self._tell(error)

    def _tell(self, error: OSError | None) -> None:
        ended, self._ended = self._ended, _nothing  # no cycle left for the collector
        ended(self, error)

    def _open_pipe(self) -> None:
        if not CAN_SPLICE:
            return
        try:
            pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return  # out of descriptors: copying goes on
        if is_reserved(max(pipe)):
            for end in pipe:
                os.close(end)
            return
        self._pipe = pipe


class IdlePipe(TimeoutError):
    """Nothing moved for the idle time."""


class SpliceRelay:
    """Two directions and the idle clock. `over(error)` is called once, when both sockets are being closed.

    Bytes are counted by the owner from `received` (client → task) and `sent` (task → client) as they stand.
    `first` is sent to the task ahead of what the client says, and not counted.
    """

    __slots__ = (
        "_client",
        "_deadlines",
        "_down",
        "_end",
        "_idle",
        "_over",
        "_poller",
        "_seen",
        "_task",
        "_up",
    )

    def __init__(
        self,
        poller: Poller,
        deadlines: Deadlines,
        client: socket.socket,
        task: socket.socket,
        idle_timeout: float,
        over: Callable[[OSError | None], None],
        first: bytes = b"",
    ) -> None:
        self._poller = poller
        self._deadlines = deadlines
        self._client = client
        self._task = task
        self._idle = idle_timeout
        self._over = over
        self._up = Direction(poller, client, task, self._ended, first)
        self._down = Direction(poller, task, client, self._ended)
        self._seen = 0
        self._end = deadlines.add(self, idle_timeout)

    @property
    def received(self) -> int:
        return max(self._up.moved, 0)

    @property
    def sent(self) -> int:
        return self._down.moved

    def start(self, client: int, task: int) -> None:
        """Begin. What the sockets' last handlers were told and left unread: it is not told again."""
        try:
            self._poller.watch(self._client, self._of_client)
            self._poller.watch(self._task, self._of_task)
        except OSError as error:
            self._close(error)
            return
        if self._up.blocked:
            self._up.flush()
        if client:
            self._of_client(client)
        if task:
            self._of_task(task)

    def abort(self, error: OSError) -> None:
        """End both sides now, with a reset."""
        self._close(error)

    def on_fault(self) -> None:
        """Something of ours has failed in it."""
        self._close(OSError(errno.EIO, "internal"))

    def on_due(self) -> None:
        """One look at a connection per idle time: no work per chunk."""
        moved = self._up.moved + self._down.moved
        if moved == self._seen:
            self._close(IdlePipe(errno.ETIMEDOUT, "idle"))
        else:
            self._seen = moved
            self._end = self._deadlines.add(self, self._idle)

    def _of_client(self, mask: int) -> None:
        self._on_ready(self._client, self._up, self._down, mask)

    def _of_task(self, mask: int) -> None:
        self._on_ready(self._task, self._down, self._up, mask)

    def _on_ready(self, side: socket.socket, reading: Direction, writing: Direction, mask: int) -> None:
        if mask & INCOMING:
            if mask & UNUSUAL:
                reading.to_the_end = True
            elif mask & PEER_DONE:
                reading.eof_follows = True
            if not reading.done:
                reading.pump()
            elif mask & FAILED and not writing.done:
                # It had said all, and has now gone for good: a reset. Who talks to it need not go on.
                self._ended(writing, _failure(side))
                return
        if writing.blocked and not writing.done:
            writing.flush()

    def _ended(self, direction: Direction, error: OSError | None) -> None:
        other = self._down if direction is self._up else self._up
        if error is not None or other.done:
            self._close(error)
            return
        try:
            (self._task if direction is self._up else self._client).shutdown(socket.SHUT_WR)
        except OSError as failed:
            if failed.errno != errno.ENOTCONN:
                self._close(failed)

    def _close(self, error: OSError | None) -> None:
        over, self._over = self._over, _nothing_over
        if over is _nothing_over:
            return
        self._deadlines.drop(self, self._end)
        self._up.stop()
        self._down.stop()
        for side in (self._client, self._task):
            if error is not None:
                reset_on_close(side)
            self._poller.close(side)
        run(over, error)


def reset_on_close(sock: socket.socket) -> None:
    """Make the coming close() a reset (RST) instead of an orderly end."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    except OSError:
        return  # already dead: there is nobody to reset


def _failure(sock: socket.socket) -> OSError:
    code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) or errno.ECONNRESET
    return OSError(code, os.strerror(code))


def _nothing(_: Direction, __: OSError | None) -> None:
    """What a direction's callback becomes after its one call."""


def _nothing_over(_: OSError | None) -> None:
    """The same, of a relay."""
