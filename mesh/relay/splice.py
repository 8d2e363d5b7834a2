"""One relayed TCP connection: bytes both ways, half-close both ways, bounded memory. A fast path, by hand.

Raw non-blocking sockets under `loop.add_reader/add_writer`, never uvloop's stream transports: those corrupt
the heap when a half-close is followed by a close. Each direction is a small machine:

    reading   the source is watched; what arrives is sent on at once
    blocked   the destination took less than arrived: it is watched, the source is not (back-pressure)
    ended     the source said EOF and everything is delivered: the destination's write side is shut down

Short exchanges go through one shared buffer (recv, send); a direction that has moved BULK_BYTES switches to
a pipe and `os.splice`, and its bytes no longer enter the process. When both directions have ended the
connection is over; an error on either side ends both with a reset: a cut stream must not look complete.
"""

import asyncio
import errno
import os
import socket
import struct
from collections.abc import Callable

BUFFER_BYTES = 64 * 1024  # most that a direction holds back: one read (copying) or one pipe (splicing)
BULK_BYTES = 256 * 1024  # past this a pipe's two descriptors and set-up are worth it
ROUNDS = 8  # reads of a direction in a row before others get their turn
SPLICE_FLAGS = getattr(os, "SPLICE_F_NONBLOCK", 0) | getattr(os, "SPLICE_F_MOVE", 0)
CAN_SPLICE = hasattr(os, "splice")

# One for the whole process: a direction uses it within a single call and copies out what it could not send.
_shared = memoryview(bytearray(BUFFER_BYTES))

Loop = asyncio.AbstractEventLoop


class Direction:
    """Bytes from `source` to `destination`. Tells `ended` once, with the error if it was not an EOF."""

    __slots__ = (
        "_blocked",
        "_destination",
        "_ended",
        "_held",
        "_loop",
        "_pipe",
        "_source",
        "done",
        "in_pipe",
        "moved",
    )

    def __init__(
        self,
        loop: Loop,
        source: socket.socket,
        destination: socket.socket,
        ended: Callable[[OSError | None], None],
        first: bytes = b"",
    ) -> None:
        self._loop = loop
        self._source = source
        self._destination = destination
        self._ended = ended
        self._held: memoryview | None = memoryview(first) if first else None
        self._pipe: tuple[int, int] | None = None
        self._blocked = False
        self.in_pipe = 0
        self.moved = 0  # bytes delivered, without `first`
        self.done = False

    def start(self) -> None:
        self.moved -= len(self._held) if self._held is not None else 0
        self._loop.add_reader(self._source, self._readable)
        if self._held is not None:
            self._flush()

    def stop(self) -> None:
        """Take the watches off and free the pipe; the sockets are the owner's to close."""
        if self.done:
            return
        self.done = True
        self._loop.remove_reader(self._source)
        if self._blocked:
            self._loop.remove_writer(self._destination)
        self._close_pipe()

    def _readable(self) -> None:
        """Read until there is nothing more, or for some rounds and then again from the loop's queue.

        Never leave data behind for the next event: after a socket error (data, then a reset) libuv stops
        watching, asks once, and does not ask again.
        """
        try:
            for _ in range(ROUNDS):
                if self._blocked or self.done:
                    return
                if self._pipe is not None:
                    self._splice_in()
                else:
                    self._copy()
            self._loop.call_soon(self._readable)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._finish(error)

    def _copy(self) -> None:
        count = self._source.recv_into(_shared)
        if count == 0:
            self._at_eof()
            return
        self._held = _shared[:count]
        if not self._send_held():
            self._held = memoryview(bytes(self._held))  # the shared buffer is the next direction's
            self._block()
        elif self.moved > BULK_BYTES:
            self._open_pipe()

    def _splice_in(self) -> None:
        assert self._pipe is not None
        count = os.splice(self._source.fileno(), self._pipe[1], BUFFER_BYTES, flags=SPLICE_FLAGS)
        if count == 0:
            self._at_eof()
            return
        self.in_pipe += count
        if not self._splice_out():
            self._block()

    def _send_held(self) -> bool:
        """Send what is held; True when nothing is left."""
        held = self._held
        assert held is not None
        try:
            sent = self._destination.send(held)
        except (BlockingIOError, InterruptedError):
            return False
        self.moved += sent
        self._held = held[sent:] if sent < len(held) else None
        return self._held is None

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

    def _flush(self) -> None:
        """The destination may take more."""
        try:
            if self._held is not None and not self._send_held():
                self._block()
                return
            if self.in_pipe and not self._splice_out():
                self._block()
                return
        except OSError as error:
            self._finish(error)
            return
        self._unblock()

    def _block(self) -> None:
        if not self._blocked:
            self._blocked = True
            self._loop.remove_reader(self._source)
            self._loop.add_writer(self._destination, self._flush)

    def _unblock(self) -> None:
        if self._blocked:
            self._blocked = False
            self._loop.remove_writer(self._destination)
            self._loop.add_reader(self._source, self._readable)

    def _at_eof(self) -> None:
        """The source has said all; nothing is held, for reading goes on only when all is sent."""
        try:
            self._destination.shutdown(socket.SHUT_WR)
        except OSError as error:
            if error.errno != errno.ENOTCONN:
                self._finish(error)
                return
        self._finish(None)

    def _finish(self, error: OSError | None) -> None:
        if not self.done:
            self.stop()
            ended, self._ended = self._ended, _nothing  # no cycle left for the collector
            ended(error)

    def _open_pipe(self) -> None:
        if not CAN_SPLICE:
            return
        try:
            self._pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return  # out of descriptors: copying goes on

    def _close_pipe(self) -> None:
        if self._pipe is not None:
            for end in self._pipe:
                os.close(end)
            self._pipe = None


class Idle(TimeoutError):
    """Nothing moved for the idle time."""


class Relay:
    """Two directions and the idle clock. `over(error)` is called once, after both sockets are closed.

    Bytes are counted by the owner from `received` (client → task) and `sent` (task → client) as they stand.
    """

    __slots__ = ("_client", "_down", "_idle", "_last", "_loop", "_over", "_seen", "_task", "_timer", "_up")

    def __init__(
        self,
        loop: Loop,
        client: socket.socket,
        task: socket.socket,
        idle_timeout: float,
        over: Callable[[OSError | None], None],
        first: bytes = b"",
    ) -> None:
        self._loop = loop
        self._client = client
        self._task = task
        self._idle = idle_timeout
        self._over = over
        self._up = Direction(loop, client, task, self._ended, first)
        self._down = Direction(loop, task, client, self._ended)
        self._seen = 0
        self._last = loop.time()
        self._timer = loop.call_later(idle_timeout, self._check_idle)

    @property
    def received(self) -> int:
        return max(self._up.moved, 0)

    @property
    def sent(self) -> int:
        return self._down.moved

    def start(self) -> None:
        self._up.start()
        if not self._up.done or not self._down.done:
            self._down.start()

    def abort(self, error: OSError) -> None:
        """End both sides now, with a reset."""
        self._close(error)

    def _ended(self, error: OSError | None) -> None:
        if error is not None or (self._up.done and self._down.done):
            self._close(error)

    def _check_idle(self) -> None:
        """One timer per connection, looked at once per idle period: no work per chunk."""
        moved = self._up.moved + self._down.moved
        now = self._loop.time()
        if moved != self._seen:
            self._seen, self._last = moved, now
        if now - self._last >= self._idle:
            self._close(Idle(errno.ETIMEDOUT, "idle"))
        else:
            self._timer = self._loop.call_at(self._last + self._idle, self._check_idle)

    def _close(self, error: OSError | None) -> None:
        self._timer.cancel()
        self._up.stop()
        self._down.stop()
        for side in (self._client, self._task):
            if error is not None:
                reset_on_close(side)
            side.close()
        over, self._over = self._over, _nothing
        over(error)


def reset_on_close(sock: socket.socket) -> None:
    """Make the coming close() a reset (RST) instead of an orderly end."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    except OSError:
        return  # already dead: there is nobody to reset


def _nothing(_: OSError | None) -> None:
    """What a callback becomes after its one call."""
