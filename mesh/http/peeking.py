"""Waiting for the first message of a TLS connection, without taking it: the bytes stay in the socket."""

import socket
from collections.abc import Callable

from mesh.errors import WireError
from mesh.http import limits
from mesh.http.client_hello import HELLO_MAX, server_name
from mesh.http.timing import Timed
from mesh.relay.deadlines import Deadlines
from mesh.relay.poller import PEER_DONE, UNUSUAL, Poller


class Peeking(Timed):
    """`done` gets the socket, no longer watched, and the name: "" when none is named, or it is no TLS.
    `failed`: the client has gone, or said nothing."""

    __slots__ = ("_done", "_failed", "_poller", "_sock")

    def __init__(
        self,
        poller: Poller,
        deadlines: Deadlines,
        sock: socket.socket,
        done: Callable[["Peeking", socket.socket, str], None],
        failed: Callable[["Peeking"], None],
    ) -> None:
        super().__init__(deadlines)
        self._poller = poller
        self._sock: socket.socket | None = sock
        self._done = done
        self._failed = failed

    def start(self) -> None:
        assert self._sock is not None
        self.within(limits.HANDSHAKE_SECONDS)
        try:
            self._poller.watch(self._sock, self._told)
        except OSError:
            self.abort()

    def abort(self) -> None:
        self.stop_clock()
        sock, self._sock = self._sock, None
        if sock is not None:
            self._poller.close(sock)
            self._failed(self)

    def too_late(self) -> None:
        self.abort()

    def _told(self, mask: int) -> None:
        sock = self._sock
        if sock is None:
            return
        try:
            data = sock.recv(HELLO_MAX, socket.MSG_PEEK)
            name = server_name(data)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.abort()
            return
        except WireError:
            name = ""  # the handshake says what is wrong
        if name is None:
            if mask & (PEER_DONE | UNUSUAL):
                self.abort()
                return
            if len(data) < HELLO_MAX:
                return
            name = ""
        self.stop_clock()
        self._sock = None
        self._poller.unwatch(sock)
        self._done(self, sock, name)
