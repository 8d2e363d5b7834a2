"""How a TLS connection begins: its socket is watched, for a limited time, until what is waited for is there.

Whoever derives looks at what has come (`_look`) and gets the socket when that is enough (`_go_on`).
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
    """`failed`: the client has gone, took too long or cannot speak TLS. The socket is closed then. `heard`:
    its first bytes have come."""

    __slots__ = ("_failed", "_poller", "_sock", "heard")

    def __init__(
        self, poller: Poller, deadlines: Deadlines, sock: S, failed: Callable[["TlsAccept[S]"], None]
    ) -> None:
        super().__init__(deadlines)
        self._poller = poller
        self._sock: S | None = sock
        self._failed = failed
        self.heard: Callable[[], None] | None = None

    def start(self) -> None:
        assert self._sock is not None
        self.within(limits.HANDSHAKE_SECONDS)
        try:
            self._poller.watch(self._sock, self._on_ready)
        except OSError:
            self.abort()

    def abort(self) -> None:
        sock = self._taken()
        if sock is not None:
            self._poller.close(sock)
            self._failed(self)

    def on_timeout(self) -> None:
        self.abort()

    def _on_ready(self, mask: int) -> None:
        sock = self._sock
        if sock is None:
            return
        if self.heard is not None and mask & READABLE:
            heard, self.heard = self.heard, None
            heard()
        try:
            if not self._look(sock, mask):
                return
        except (BlockingIOError, InterruptedError):
            return
        except OSError:  # ssl.SSLError as well
            self.abort()
            return
        self._taken()
        try:
            self._go_on(sock)
        except Exception as error:  # noqa: BLE001 - the boundary of a connection: nobody else has it yet
            ERRORS.report("begin of a connection", error)
            self._poller.close(sock)
            self._failed(self)

    def on_fault(self) -> None:
        """Something of ours has failed in it."""
        self.abort()

    def _taken(self) -> S | None:
        """The socket, still watched; it is no longer ours."""
        self.stop_clock()
        sock, self._sock = self._sock, None
        return sock

    def _look(self, sock: S, mask: int) -> bool:
        """Is it what was waited for? Raises OSError: it never will be; BlockingIOError: nothing has come."""
        raise NotImplementedError

    def _go_on(self, sock: S) -> None:
        """It is."""
        raise NotImplementedError
