"""An HTTP/1.1 connection to an endpoint with TLS: as without, after a handshake, and read by records.

In the handshake the endpoint may choose HTTP/2 (ALPN). Then the socket becomes a link that many exchanges
share, and this one goes by that.
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
    __slots__ = ("_asking", "_either", "_securing", "_tls")

    def __init__(
        self, poller: Poller, deadlines: Deadlines, server: PooledEndpoint, exchange: Exchange, tls: TaskTls
    ) -> None:
        super().__init__(poller, deadlines, server, exchange)
        self._tls = tls
        self._asking: Exchange | None = exchange  # until it is known what is spoken here
        self._either = not exchange.upgrades  # there is no Upgrade in HTTP/2
        self._securing = False
        self._in_records = True

    def _start_request(self) -> None:
        """The time for connecting goes on until the handshake is done."""
        sock, self._sock = self._sock, None
        assert sock is not None
        try:
            session = self.server.session if self._either else None
            self._sock = self._tls.wrap(sock, session, h2=self._either)
        except OSError as error:
            self._poller.close(sock)
            self._not_secured(error)
            return
        except Exception:  # a fault of ours: nobody else has the socket now
            self._poller.close(sock)
            raise
        self._securing = True
        self._handshake()

    def _handshake(self) -> None:
        sock = self._sock
        assert isinstance(sock, ssl.SSLSocket)
        try:
            sock.do_handshake()
        except WOULD_BLOCK:
            return
        except OSError as error:  # and ssl.SSLError
            self._not_secured(error)
            return
        self._securing = False
        asking, self._asking = self._asking, None
        if sock.selected_alpn_protocol() == "h2":
            assert asking is not None
            self._sock = self._exchange = None
            self.stop_clock()
            self._protocol.close()
            try:
                adopt_connection(self._poller, self._deadlines, self.server, sock, asking)
            except Exception:  # a fault of ours: nobody else has the socket now
                self._poller.close(sock)
                raise
        else:
            super()._start_request()

    def _not_secured(self, error: OSError) -> None:
        exchange = self._exchange
        assert exchange is not None
        self._tls.failed(str(self.server.endpoint), error)
        self._close()
        bad = isinstance(error, ssl.SSLCertVerificationError)
        exchange.not_connected(HttpFault.CERTIFICATE if bad else HttpFault.TLS_FAILED)

    def _on_ready(self, mask: int) -> None:
        if self._securing and self._protocol.state is CONNECTING:
            self._handshake()
        else:
            super()._on_ready(mask)

    def _end_response(self, exchange: UpstreamHandler) -> None:
        protocol = self._protocol
        protocol.keep_alive = protocol.keep_alive and self._is_quiet()
        super()._end_response(exchange)

    def _is_quiet(self) -> bool:
        """Has it said no more than its response? The handshake's rest (tickets) is read on the way."""
        sock = self._sock
        assert isinstance(sock, ssl.SSLSocket)
        try:
            sock.recv(1)
        except WOULD_BLOCK:
            if self._either:
                self.server.session = sock.session
            return True
        except OSError:
            return False
        return False
