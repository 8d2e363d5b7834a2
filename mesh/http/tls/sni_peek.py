"""Waiting for the first message of a TLS connection, without taking it: the bytes stay in the socket."""

import socket
from collections.abc import Callable

from mesh.errors import WireError
from mesh.http.tls.client_hello import HELLO_MAX, server_name
from mesh.http.tls.handshake_base import TlsAccept
from mesh.net.poller import PEER_DONE, UNUSUAL, Poller
from mesh.net.timers import Deadlines


class SniPeek(TlsAccept[socket.socket]):
    """`done` gets the socket, no longer watched, and the name: "" when none is named, or it is no TLS."""

    __slots__ = ("_done", "_name")

    def __init__(
        self,
        poller: Poller,
        deadlines: Deadlines,
        sock: socket.socket,
        done: Callable[["SniPeek", socket.socket, str], None],
        failed: Callable[[TlsAccept[socket.socket]], None],
    ) -> None:
        super().__init__(poller, deadlines, sock, failed)
        self._done = done
        self._name = ""

    def _look(self, sock: socket.socket, mask: int) -> bool:
        data = sock.recv(HELLO_MAX, socket.MSG_PEEK)
        try:
            name = server_name(data)
        except WireError:
            return True  # the handshake says what is wrong
        if name is None:
            if mask & (PEER_DONE | UNUSUAL):
                raise ConnectionResetError
            return len(data) >= HELLO_MAX
        self._name = name
        return True

    def _go_on(self, sock: socket.socket) -> None:
        self._poller.unwatch(sock)
        self._done(self, sock, self._name)
