"""What is sent to an HTTP/1.1 client: a queue, and the bytes that the kernel does not take yet.

The writer knows the socket and nothing of HTTP. Its owner looks at `held` to know that the client is behind,
calls `drain` when the socket is writable, and asks `keeps_up` when a time limit is reached.
"""

import socket

from mesh.http.least_rate import ReaderPace
from mesh.net.would_block import WOULD_BLOCK, unsent


class ResponseWriter:
    __slots__ = ("_pace", "_sock", "held", "queue")

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.queue: list[bytes] = []  # goes out with the next flush
        self.held = b""  # sent after the kernel has taken what it has
        self._pace: ReaderPace | None = None  # of a client that does not take all

    @property
    def is_behind(self) -> bool:
        """The client has not taken all of the response for a while: its pace is being measured."""
        return self._pace is not None

    def flush(self) -> bool:
        """Sends the queue. False: the kernel does not take all of it now. Raises OSError for a connection
        that is lost."""
        queue = self.queue
        data = queue[0] if len(queue) == 1 else b"".join(queue)
        queue.clear()
        if self.held:
            self.held += data
            return False
        try:
            sent = self._sock.send(data)
        except WOULD_BLOCK:
            sent = 0
        if sent == len(data):
            return True
        self.hold(data, sent)
        return False

    def hold(self, data: bytes, sent: int) -> None:
        """Of `data` the kernel has taken so many bytes. The rest waits for `drain`."""
        self.held = data[sent:]
        if self._pace is None:
            self._pace = ReaderPace(unsent(self._sock))
        else:
            self._pace.sent += sent

    def drain(self) -> bool:
        """As `flush`, when the socket is writable again."""
        self.queue.insert(0, self.held)
        self.held = b""
        if not self.flush():
            return False
        self._pace = None
        return True

    def keeps_up(self, least: float) -> bool:
        """Has the client taken `least` bytes since the last look?"""
        return self._pace is not None and self._pace.keeps_up(unsent(self._sock), least)
