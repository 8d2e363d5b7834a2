"""Messages between the sidecar and one of its workers, in order; a message may take a socket along.

Both ends are this program in this version, and the pair of sockets between them is theirs alone, so pickle
does. The socket goes beside the bytes (SCM_RIGHTS), with a message's first one: whoever has the whole message
has its socket too.
"""

import array
import asyncio
import os
import pickle
import socket
import struct
from collections import deque
from contextlib import suppress

HEAD = struct.Struct("!I?")  # before every message: its length, and whether a socket comes with it
READ_BYTES = 262_144  # at a time
_CLOSE_ON_EXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
_ROOM = socket.CMSG_SPACE(array.array("i").itemsize)


def packed(message: object) -> bytes:
    """A message for `Channel.send`; for several channels it is packed once."""
    return pickle.dumps(message, pickle.HIGHEST_PROTOCOL)


class Channel:
    """One end of the pair, which it owns. Use it on the loop's thread."""

    def __init__(self, pair: socket.socket) -> None:
        pair.setblocking(False)
        self._loop = asyncio.get_running_loop()
        self._pair = pair
        self._unsent = deque[tuple[memoryview, int | None]]()  # with descriptors of our own
        self._behind = 0
        self._taken = asyncio.Event()
        self._taken.set()
        self._received = bytearray()
        self._came = deque[int]()  # descriptors of messages that are not yet whole
        self._readable = asyncio.Event()

    @property
    def behind(self) -> int:
        """Bytes that the other end has not taken yet."""
        return self._behind

    def send(self, message: bytes, sock: socket.socket | None = None) -> None:
        """At once, or as soon as there is room; the caller keeps its socket. That the other end is gone is
        found out by `receive`."""
        if self._pair.fileno() < 0:
            return
        try:
            held = None if sock is None else os.dup(sock.fileno())  # the caller may close it meanwhile
        except OSError:  # no descriptor left: without it the other end would not know what is true
            self.abort()
            return
        whole = memoryview(HEAD.pack(len(message), sock is not None) + message)
        self._behind += len(whole)
        self._unsent.append((whole, held))
        if len(self._unsent) == 1:
            self._taken.clear()
            self._flush()

    async def taken(self) -> None:
        """Wait until all that was sent is on its way."""
        await self._taken.wait()

    async def receive(self) -> tuple[object, socket.socket | None]:
        """The next message, and its socket, which is the caller's. EOFError when the other end is gone."""
        while len(self._received) < HEAD.size:
            await self._more()
        length, has_socket = HEAD.unpack_from(self._received)
        end = HEAD.size + length
        while len(self._received) < end:
            await self._more()
        message = pickle.loads(self._received[HEAD.size : end])
        del self._received[:end]
        return message, socket.socket(fileno=self._came.popleft()) if has_socket else None

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
        while self._came:
            os.close(self._came.popleft())

    # --- sending ---

    def _flush(self) -> None:
        while self._unsent:
            rest, held = self._unsent[0]
            rights = (
                [] if held is None else [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [held]))]
            )
            try:
                sent = self._pair.sendmsg([rest], rights)
            except (BlockingIOError, InterruptedError):
                self._loop.add_writer(self._pair, self._flush)
                return
            except OSError:
                self.abort()
                return
            self._behind -= sent
            _close(held)  # it went with the first bytes
            if sent < len(rest):
                self._unsent[0] = (rest[sent:], None)
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
                data, rights, flags, _ = self._pair.recvmsg(READ_BYTES, _ROOM, _CLOSE_ON_EXEC)
                break
            except (BlockingIOError, InterruptedError):
                await self._until_readable()
            except OSError as error:
                raise EOFError(str(error)) from error
        for _, _, descriptor in rights:
            self._came.extend(array.array("i", descriptor))
        if not data:
            raise EOFError("the other end is gone")
        if flags & socket.MSG_CTRUNC:
            raise EOFError("no descriptor is left for a socket that came")
        self._received += data

    async def _until_readable(self) -> None:
        self._readable.clear()
        self._loop.add_reader(self._pair, self._readable.set)
        try:
            await self._readable.wait()
        finally:
            if self._pair.fileno() >= 0:
                self._loop.remove_reader(self._pair)


def _close(descriptor: int | None) -> None:
    if descriptor is not None:
        os.close(descriptor)
