"""A TLS handshake on a watched socket: until it is done, has failed, or took too long. Then the socket is
whoever's asked for it."""

import socket
import ssl
from collections.abc import Callable

from mesh.http.tls.handshake_base import TlsAccept
from mesh.net.poller import Poller
from mesh.net.timers import Deadlines


class ServerHandshake(TlsAccept[ssl.SSLSocket]):
    """`done` gets the socket, `failed` is told nothing: a client that cannot speak TLS gets no page.
    Raises OSError when the client has gone already."""

    __slots__ = ("_done",)

    def __init__(
        self,
        poller: Poller,
        deadlines: Deadlines,
        sock: socket.socket,
        context: ssl.SSLContext,
        done: Callable[["ServerHandshake", ssl.SSLSocket], None],
        failed: Callable[[TlsAccept[ssl.SSLSocket]], None],
    ) -> None:
        secured = context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        super().__init__(poller, deadlines, secured, failed)
        self._done = done

    def _look(self, sock: ssl.SSLSocket, _mask: int) -> bool:
        try:
            sock.do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False
        return True

    def _go_on(self, sock: ssl.SSLSocket) -> None:
        self._done(self, sock)
