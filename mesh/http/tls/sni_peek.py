"""Waits for the first message of a TLS connection and reads its server name. The bytes stay in the socket."""

import socket
from collections.abc import Callable

from mesh.errors import WireError
from mesh.http.tls.client_hello import HELLO_MAX, server_name
from mesh.http.tls.handshake_base import TlsAccept
from mesh.net.poller import PEER_DONE, UNUSUAL, Poller
from mesh.net.timers import Deadlines


class SniPeek(TlsAccept[socket.socket]):
    """`on_done` gets the socket, no longer watched, and the server name: "" if there is none or it is no
    TLS."""

    __slots__ = ("_name", "_on_done")

    def __init__(
        self,
        poller: Poller,
        deadlines: Deadlines,
        sock: socket.socket,
        on_done: Callable[["SniPeek", socket.socket, str], None],
        on_failed: Callable[[TlsAccept[socket.socket]], None],
    ) -> None:
        super().__init__(poller, deadlines, sock, on_failed)
        self._on_done = on_done
        self._name = ""

    def _is_ready(self, sock: socket.socket, mask: int) -> bool:
        data = sock.recv(HELLO_MAX, socket.MSG_PEEK)
        try:
            name = server_name(data)
        except WireError:
            return True  # the handshake will fail, and the client learns why
        if name is None:
            if mask & (PEER_DONE | UNUSUAL):
                raise ConnectionResetError
            return len(data) >= HELLO_MAX
        self._name = name
        return True

    def _finish(self, sock: socket.socket) -> None:
        self._poller.unwatch(sock)
        self._on_done(self, sock, self._name)
