"""An HTTP/1.1 connection to an endpoint over TLS: the same after the handshake, but read by records.

In the handshake the endpoint may choose HTTP/2 (ALPN). Then the socket becomes an HTTP/2 connection that many
exchanges share, and this exchange continues on it.
"""

import ssl

from mesh.http.endpoint_pool import PooledEndpoint
from mesh.http.exchange import Exchange
from mesh.http.faults import HttpFault
from mesh.http.interfaces import UpstreamHandler
from mesh.http.upstream.h1_connection import CONNECTING, H1Upstream
from mesh.http.upstream.h2_connection import adopt_connection
from mesh.http.upstream.tls import TaskTls
from mesh.net.poller import Poller
from mesh.net.timers import Deadlines
from mesh.net.would_block import WOULD_BLOCK


class SecuredUpstream(H1Upstream):
    __slots__ = ("_in_handshake", "_may_be_h2", "_pending_exchange", "_tls")

    def __init__(
        self, poller: Poller, deadlines: Deadlines, server: PooledEndpoint, exchange: Exchange, tls: TaskTls
    ) -> None:
        super().__init__(poller, deadlines, server, exchange)
        self._tls = tls
        self._pending_exchange: Exchange | None = exchange  # until the protocol is known
        self._may_be_h2 = not exchange.upgrades  # there is no Upgrade in HTTP/2
        self._in_handshake = False
        self._in_records = True

    def _start_request(self) -> None:
        """Begins the handshake. The time limit for connecting includes it."""
        sock, self._sock = self._sock, None
        assert sock is not None
        try:
            session = self.server.session if self._may_be_h2 else None
            self._sock = self._tls.wrap(sock, session, h2=self._may_be_h2)
        except OSError as error:
            self._poller.close(sock)
            self._on_handshake_failed(error)
            return
        except Exception:  # a bug: the socket has no other owner now
            self._poller.close(sock)
            raise
        self._in_handshake = True
        self._handshake()

    def _handshake(self) -> None:
        sock = self._sock
        assert isinstance(sock, ssl.SSLSocket)
        try:
            sock.do_handshake()
        except WOULD_BLOCK:
            return
        except OSError as error:  # and ssl.SSLError
            self._on_handshake_failed(error)
            return
        self._in_handshake = False
        exchange, self._pending_exchange = self._pending_exchange, None
        if sock.selected_alpn_protocol() == "h2":
            assert exchange is not None
            self._sock = self._exchange = None
            self.stop_clock()
            self._protocol.close()
            try:
                adopt_connection(self._poller, self._deadlines, self.server, sock, exchange)
            except Exception:  # a bug: the socket has no other owner now
                self._poller.close(sock)
                raise
        else:
            super()._start_request()

    def _on_handshake_failed(self, error: OSError) -> None:
        exchange = self._exchange
        assert exchange is not None
        self._tls.failed(str(self.server.endpoint), error)
        self._close()
        untrusted = isinstance(error, ssl.SSLCertVerificationError)
        exchange.not_connected(HttpFault.CERTIFICATE if untrusted else HttpFault.TLS_FAILED)

    def _on_ready(self, mask: int) -> None:
        if self._in_handshake and self._protocol.state is CONNECTING:
            self._handshake()
        else:
            super()._on_ready(mask)

    def _end_response(self, exchange: UpstreamHandler) -> None:
        protocol = self._protocol
        protocol.keep_alive = protocol.keep_alive and self._is_quiet()
        super()._end_response(exchange)

    def _is_quiet(self) -> bool:
        """The endpoint has sent nothing after its response. Session tickets are read on the way."""
        sock = self._sock
        assert isinstance(sock, ssl.SSLSocket)
        try:
            sock.recv(1)
        except WOULD_BLOCK:
            if self._may_be_h2:
                self.server.session = sock.session
            return True
        except OSError:
            return False
        return False
