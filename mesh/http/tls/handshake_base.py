"""The beginning of a TLS connection: its socket is watched, for a limited time, until it is ready.

A derived class decides whether it is (`_is_ready`) and takes the socket then (`_finish`).
"""

import socket
from collections.abc import Callable
from typing import Generic, TypeVar

from mesh.http import limits
from mesh.internal_errors import ERRORS
from mesh.net.idle_timer import IdleTimer
from mesh.net.poller import READABLE, Poller
from mesh.net.timers import Deadlines

S = TypeVar("S", bound=socket.socket)


class TlsAccept(IdleTimer, Generic[S]):
    """`on_failed` is called when the client has gone, took too long or does not speak TLS; the socket is
    closed then. `on_first_bytes`, if set, is called when the client has sent something."""

    __slots__ = ("_on_failed", "_poller", "_sock", "on_first_bytes")

    def __init__(
        self, poller: Poller, deadlines: Deadlines, sock: S, on_failed: Callable[["TlsAccept[S]"], None]
    ) -> None:
        super().__init__(deadlines)
        self._poller = poller
        self._sock: S | None = sock
        self._on_failed = on_failed
        self.on_first_bytes: Callable[[], None] | None = None

    def start(self) -> None:
        assert self._sock is not None
        self.within(limits.HANDSHAKE_SECONDS)
        try:
            self._poller.watch(self._sock, self._on_ready)
        except OSError:
            self.abort()

    def abort(self) -> None:
        """Closes the socket and calls `on_failed`, unless it is over."""
        sock = self._release_socket()
        if sock is not None:
            self._poller.close(sock)
            self._on_failed(self)

    def on_timeout(self) -> None:
        self.abort()

    def _on_ready(self, mask: int) -> None:
        sock = self._sock
        if sock is None:
            return
        if self.on_first_bytes is not None and mask & READABLE:
            callback, self.on_first_bytes = self.on_first_bytes, None
            callback()
        try:
            if not self._is_ready(sock, mask):
                return
        except (BlockingIOError, InterruptedError):
            return
        except OSError:  # ssl.SSLError as well
            self.abort()
            return
        self._release_socket()
        try:
            self._finish(sock)
        except Exception as error:  # noqa: BLE001 - the boundary of a connection: it has no other owner yet
            ERRORS.report("begin of a connection", error)
            self._poller.close(sock)
            self._on_failed(self)

    def on_fault(self) -> None:
        """A bug was met at this connection."""
        self.abort()

    def _release_socket(self) -> S | None:
        """Gives the socket away, still watched."""
        self.stop_clock()
        sock, self._sock = self._sock, None
        return sock

    def _is_ready(self, sock: S, mask: int) -> bool:
        """The connection can be passed on. Raises OSError if that will never be the case, BlockingIOError if
        nothing has come."""
        raise NotImplementedError

    def _finish(self, sock: S) -> None:
        """Takes the socket of a connection that is ready."""
        raise NotImplementedError
