"""A poller and time limits that a test moves by hand: connections are driven without an event loop."""

import socket
from collections.abc import Callable
from typing import Any, cast

from mesh.net.poller import READABLE, WRITABLE, Poller
from mesh.net.timers import Deadlines, Limited


class FakePoller:
    """`readable` and `writable` pass an event on, and do what was to be done `again` before they return."""

    def __init__(self) -> None:
        self.handlers: dict[socket.socket, Callable[[int], None]] = {}
        self.closed: list[socket.socket] = []
        self._again: list[Callable[[], None]] = []

    def watch(self, sock: socket.socket, handler: Callable[[int], None]) -> None:
        self.handlers[sock] = handler

    def unwatch(self, sock: socket.socket) -> None:
        del self.handlers[sock]

    def again(self, callback: Callable[[], None]) -> None:
        self._again.append(callback)

    def close(self, sock: socket.socket) -> None:
        self.handlers.pop(sock, None)
        self.closed.append(sock)
        sock.close()

    def readable(self, sock: socket.socket, also: int = 0) -> None:
        self.handlers[sock](READABLE | also)
        self.run()

    def writable(self, sock: socket.socket) -> None:
        self.handlers[sock](WRITABLE)
        self.run()

    def run(self) -> None:
        while self._again:
            self._again.pop(0)()

    def as_poller(self) -> Poller:
        return cast(Poller, self)


class FakeDeadlines:
    """Limits that are never reached by themselves. A test calls `on_timeout`."""

    def __init__(self) -> None:
        self.waiting: set[Any] = set()

    def add(self, one: Limited, seconds: float) -> float:
        self.waiting.add(one)
        return 0.0

    def drop(self, one: Limited, end: float) -> None:
        self.waiting.discard(one)

    def as_deadlines(self) -> Deadlines:
        return cast(Deadlines, self)
