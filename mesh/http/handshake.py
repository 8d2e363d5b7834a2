"""A TLS handshake on a watched socket: until it is done, has failed, or took too long. Then the socket is
whoever's asked for it."""

import socket
import ssl
from collections.abc import Callable

from mesh.http import limits
from mesh.http.timing import Timed
from mesh.relay.deadlines import Deadlines
from mesh.relay.poller import Poller


class Handshake(Timed):
    """`done` gets the socket, `failed` is told nothing: a client that cannot speak TLS gets no page."""

    __slots__ = ("_done", "_failed", "_poller", "_sock")

    def __init__(
        self,
        poller: Poller,
        deadlines: Deadlines,
        sock: socket.socket,
        context: ssl.SSLContext,
        done: Callable[["Handshake", ssl.SSLSocket], None],
        failed: Callable[["Handshake"], None],
    ) -> None:
        super().__init__(deadlines)
        self._poller = poller
        self._sock: ssl.SSLSocket | None = context.wrap_socket(
            sock, server_side=True, do_handshake_on_connect=False
        )
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

    def _told(self, _: int) -> None:
        if self._sock is None:
            return
        try:
            self._sock.do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        except OSError:  # ssl.SSLError, and a client that has gone
            self.abort()
            return
        self.stop_clock()
        sock, self._sock = self._sock, None
        self._done(self, sock)
