"""A TLS handshake with a client on a watched socket, for a limited time."""

import socket
import ssl
from collections.abc import Callable

from mesh.http.tls.handshake_base import TlsAccept
from mesh.net.poller import Poller
from mesh.net.timers import Deadlines


class ServerHandshake(TlsAccept[ssl.SSLSocket]):
    """`on_done` gets the TLS socket. A client whose handshake fails gets no HTTP response. Raises OSError if
    the client has gone already."""

    __slots__ = ("_on_done",)

    def __init__(
        self,
        poller: Poller,
        deadlines: Deadlines,
        sock: socket.socket,
        context: ssl.SSLContext,
        on_done: Callable[["ServerHandshake", ssl.SSLSocket], None],
        on_failed: Callable[[TlsAccept[ssl.SSLSocket]], None],
    ) -> None:
        secured = context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        super().__init__(poller, deadlines, secured, on_failed)
        self._on_done = on_done

    def _is_ready(self, sock: ssl.SSLSocket, _mask: int) -> bool:
        try:
            sock.do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False
        return True

    def _finish(self, sock: ssl.SSLSocket) -> None:
        self._on_done(self, sock)
