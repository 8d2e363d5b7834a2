"""Messages and sockets between two processes, in order: one end of a pair of stream sockets.

Each end says which messages it sends and which it takes (`Messages`); anything else, or anything over a
limit, is a `WireError` for whoever receives. Nothing that arrives is trusted to be what it says it is.
"""

import array
import asyncio
import os
import socket
from collections import deque
from collections.abc import Sequence
from contextlib import suppress

from mesh.errors import WireError
from sidecar.workers.frames import DESCRIPTORS_MAX, FrameReader, pack_head
from sidecar.workers.messages import Messages

READ_BYTES = 262_144  # at a time
BODY_MAX = 256 * 1024 * 1024  # bytes of one message of the sidecar: a catalogue of 10,000 services has 10 MB
_CLOSE_ON_EXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
ANCILLARY_BYTES = socket.CMSG_SPACE(DESCRIPTORS_MAX * array.array("i").itemsize)


class Channel:
    """One end of the pair, which it owns. Use it on the loop's thread.

    `body_max`, `descriptors_max`: of what is received, for each message.
    """

    def __init__(
        self,
        pair: socket.socket,
        sends: Messages,
        takes: Messages,
        *,
        body_max: int = BODY_MAX,
        descriptors_max: int = DESCRIPTORS_MAX,
    ) -> None:
        pair.setblocking(False)
        self._loop = asyncio.get_running_loop()
        self._pair = pair
        self._sends, self._takes = sends, takes
        self._unsent = deque[tuple[memoryview, list[int]]]()  # with descriptors of our own
        self._behind = 0
        self._taken = asyncio.Event()
        self._taken.set()
        self._frames = FrameReader(body_max, descriptors_max)
        self._readable = asyncio.Event()
        self.last_size = 0  # bytes of the message that `receive` returned last

    @property
    def behind(self) -> int:
        """Bytes that the other end has not taken yet."""
        return self._behind

    def send(self, message: object, sockets: Sequence[socket.socket] = ()) -> None:
        self.send_encoded(self._sends.encode(message), sockets)

    def send_encoded(self, body: bytes, sockets: Sequence[socket.socket] = ()) -> None:
        """At once, or as soon as there is room; the caller keeps its sockets. That the other end is gone is
        found out by `receive`."""
        if self._pair.fileno() < 0:
            return
        try:
            held = _duplicated(sockets)  # the caller may close them meanwhile
        except OSError:  # no descriptor left: without it the other end would not know what is true
            self.abort()
            return
        whole = memoryview(pack_head(body, len(sockets)) + body)
        self._behind += len(whole)
        self._unsent.append((whole, held))
        if len(self._unsent) == 1:
            self._taken.clear()
            self._flush()

    async def taken(self) -> None:
        """Wait until all that was sent is on its way."""
        await self._taken.wait()

    async def receive(self) -> tuple[object, tuple[socket.socket, ...]]:
        """The next message, and its sockets, which are the caller's. EOFError when the other end is gone,
        WireError when it says what it may not."""
        while (frame := self._frames.next()) is None:
            await self._more()
        body, descriptors = frame
        self.last_size = len(body)
        sockets = as_sockets(descriptors)
        try:
            return self._takes.decode(body), sockets
        except WireError:
            for one in sockets:
                one.close()
            raise

    def abort(self) -> None:
        """Nothing more passes; each end sees it as the other's end."""
        self._forget_unsent()
        with suppress(OSError):  # it is not connected any more
            self._pair.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Safe to call twice; whoever waits in `receive` is told of the end."""
        if self._pair.fileno() < 0:
            return
        self._forget_unsent()
        self._loop.remove_reader(self._pair)
        self._readable.set()
        self._pair.close()
        _close(self._frames.left())

    # --- sending ---

    def _flush(self) -> None:
        while self._unsent:
            rest, held = self._unsent[0]
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", held))] if held else []
            try:
                sent = self._pair.sendmsg([rest], rights)
            except (BlockingIOError, InterruptedError):
                self._loop.add_writer(self._pair, self._flush)
                return
            except OSError:
                self.abort()
                return
            self._behind -= sent
            _close(held)  # they went with the first bytes
            if sent < len(rest):
                self._unsent[0] = (rest[sent:], [])
            else:
                self._unsent.popleft()
        self._forget_unsent()

    def _forget_unsent(self) -> None:
        self._loop.remove_writer(self._pair)
        for _, held in self._unsent:
            _close(held)
        self._unsent.clear()
        self._behind = 0
        self._taken.set()

    # --- receiving ---

    async def _more(self) -> None:
        while True:
            try:
                data, descriptors = receive_some(self._pair)
                break
            except (BlockingIOError, InterruptedError):
                await self._until_readable()
            except OSError as error:
                raise EOFError(str(error)) from error
        self._frames.feed(data, descriptors)

    async def _until_readable(self) -> None:
        self._readable.clear()
        self._loop.add_reader(self._pair, self._readable.set)
        try:
            await self._readable.wait()
        finally:
            if self._pair.fileno() >= 0:
                self._loop.remove_reader(self._pair)


def receive_some(pair: socket.socket) -> tuple[bytes, list[int]]:
    """Bytes, and the descriptors that came with them. EOFError at the end; OSError as `recvmsg`."""
    data, ancillary, flags, _ = pair.recvmsg(READ_BYTES, ANCILLARY_BYTES, _CLOSE_ON_EXEC)
    found = array.array("i")
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            found.frombytes(content[: len(content) - len(content) % found.itemsize])
    descriptors = found.tolist()
    if not data or flags & socket.MSG_CTRUNC:
        _close(descriptors)
        raise EOFError("no descriptor is left for a socket that came" if data else "the other end is gone")
    return data, descriptors


def as_sockets(descriptors: Sequence[int]) -> tuple[socket.socket, ...]:
    """Raises WireError, and closes all, if one of them is no socket."""
    made: list[socket.socket] = []
    for index, one in enumerate(descriptors):
        try:
            made.append(socket.socket(fileno=one))
        except OSError as error:
            for sock in made:
                sock.close()
            _close(descriptors[index:])
            raise WireError("a descriptor that is no socket") from error
    return tuple(made)


def _duplicated(sockets: Sequence[socket.socket]) -> list[int]:
    """Raises OSError."""
    held: list[int] = []
    try:
        for sock in sockets:
            held.append(os.dup(sock.fileno()))  # noqa: PERF401 - what was duplicated is closed if one fails
    except OSError:
        _close(held)
        raise
    return held


def _close(descriptors: Sequence[int]) -> None:
    for one in descriptors:
        os.close(one)
