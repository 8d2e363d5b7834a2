"""TLS to an HTTP service's tasks: whom to believe, and what is remembered of them.

A certificate is checked for the name that the label gives, or the service's own: what a task's address is
nobody can know when a certificate is made.
"""

import logging
import socket
import ssl
from collections import Counter

from mesh.http.config.model import HttpService

logger = logging.getLogger(__name__)


class TaskTls:
    """Of one service. Raises OSError (ssl.SSLError too) when its authority's file cannot be used."""

    def __init__(self, http: HttpService) -> None:
        self.name = http.tls_name
        self._http = http.name
        self._either = _context(http, ["h2", "http/1.1"])
        self._http1 = _context(http, ["http/1.1"])
        self._failed: Counter[str] = Counter()

    def wrap(self, sock: socket.socket, session: ssl.SSLSession | None, *, h2: bool) -> ssl.SSLSocket:
        """`h2`: HTTP/2 will do as well. `session`: of an earlier connection to the same task, also with `h2`.
        OSError when it is gone already."""
        return (self._either if h2 else self._http1).wrap_socket(
            sock,
            server_hostname=self.name,
            do_handshake_on_connect=False,
            suppress_ragged_eofs=False,  # an end that nobody has said is none: RFC 9112 section 9.8
            session=session,
        )

    def failed(self, endpoint: str, error: OSError) -> None:
        """Logged by powers of ten: a service without a good certificate fails at every request."""
        why = getattr(error, "verify_message", "") or str(error)
        self._failed[why] += 1
        count = self._failed[why]
        if count == 10 ** (len(str(count)) - 1):
            logger.warning("%s: TLS with %s failed, the %d. time: %s", self._http, endpoint, count, why)


def _context(http: HttpService, protocols: list[str]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION
    context.set_alpn_protocols(protocols)
    if not http.tls_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif http.tls_ca:
        context.load_verify_locations(http.tls_ca)
    else:
        context.load_default_certs()
    return context
