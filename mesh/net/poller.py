"""Readiness of many sockets behind one descriptor of the loop: an edge-triggered epoll. A fast path, by hand.

The loop's own readers and writers cost a call of epoll_ctl for each that comes or goes, several times in the
life of a relayed connection. Here a socket is watched once, for everything, until it is closed. Who watches
has to know what that means:

    a handler is told once of what has come; it reads on until there is nothing more (or asks for `again`)
    a handler is told once that there is room; it waits for that only after a write that was not taken whole

A handler that raises ends what it belongs to (`mesh.net.isolation`), and the others of its round get their
turn.

A socket that a handler closes lives on to the end of the round, so that none of the round's events can reach
a new socket that has got its number.
"""

import asyncio
import select
import socket
from collections import deque
from collections.abc import Callable

from mesh.net.isolation import report_fault

Handler = Callable[[int], None]  # told what there is, as a mask of these

READABLE = select.EPOLLIN
WRITABLE = select.EPOLLOUT
PEER_DONE = select.EPOLLRDHUP  # an orderly end: all that will ever come is there
FAILED = select.EPOLLERR
# Urgent data, an error, both sides closed: a read may stop short of what there is.
UNUSUAL = select.EPOLLPRI | select.EPOLLERR | select.EPOLLHUP
EVERYTHING = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLPRI | select.EPOLLET

EVENTS_AT_ONCE = 64  # then the loop's other work (DNS) gets its turn


class Poller:
    """Use it on the loop's thread. `stop` at the end; the sockets are whoever's they were."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._epoll = select.epoll()
        self._handlers: dict[int, Handler] = {}
        self._again = deque[Callable[[], None]]()
        self._closing: list[socket.socket] = []
        self._in_round = False
        loop.add_reader(self._epoll.fileno(), self._round)

    def watch(self, sock: socket.socket, handler: Handler) -> None:
        """From now on, and what is there already. OSError when the kernel has no room for one more."""
        number = sock.fileno()
        if number in self._handlers:
            self._handlers[number] = handler  # another one takes over; what the last was told is not repeated
        else:
            self._epoll.register(number, EVERYTHING)
            self._handlers[number] = handler

    def unwatch(self, sock: socket.socket) -> None:
        """Whoever watches it next is told of all that is there."""
        if self._handlers.pop(sock.fileno(), None) is not None:
            self._epoll.unregister(sock.fileno())

    def again(self, go_on: Callable[[], None]) -> None:
        """Call it in the next round: it has left something behind."""
        self._again.append(go_on)
        if not self._in_round:
            self.loop.call_soon(self._round)

    def close(self, sock: socket.socket) -> None:
        """Close a socket, watched or not: nobody is told of it any more."""
        self._handlers.pop(sock.fileno(), None)
        if self._in_round:
            self._closing.append(sock)
        else:
            sock.close()

    def stop(self) -> None:
        if self._epoll.closed:
            return
        self.loop.remove_reader(self._epoll.fileno())
        self._epoll.close()
        self._handlers.clear()
        self._again.clear()

    def _round(self) -> None:
        if self._epoll.closed:
            return  # a call that was on its way
        events = self._epoll.poll(0, EVENTS_AT_ONCE)
        handlers = self._handlers
        self._in_round = True
        try:
            for _ in range(len(self._again)):
                go_on = self._again.popleft()
                try:
                    go_on()
                except Exception as error:  # noqa: BLE001 - the boundary of a connection
                    report_fault(go_on, error)
            for number, mask in events:
                if (handler := handlers.get(number)) is not None:
                    try:
                        handler(mask)
                    except Exception as error:  # noqa: BLE001 - the boundary of a connection
                        report_fault(handler, error)
        finally:
            self._in_round = False
            for sock in self._closing:
                sock.close()
            self._closing.clear()
            if self._again:
                self.loop.call_soon(self._round)
