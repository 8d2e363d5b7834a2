"""What a listener and its clients' connections need of each other."""

import socket
from typing import Protocol

from mesh.http.codec.h1_head import RequestHead
from mesh.http.codec.proxy_headers import ClientInfo
from mesh.http.exchange import Exchange
from mesh.http.faults import HttpFault
from mesh.http.interfaces import Downstream
from mesh.net.poller import Poller
from mesh.net.timers import Deadlines


class HttpClient(Protocol):
    """A client's connection, of HTTP/1 or HTTP/2."""

    edge: ClientInfo

    @property
    def eviction_order(self) -> tuple[bool, float] | None:
        """(there has been a request, when its idle time ends), for a connection that waits for a request.
        When there is no place for a new connection, the ones with the smallest order are closed. None: it has
        requests under way."""
        ...

    def finish(self) -> None:
        """Accepts no more requests after those under way, and closes then."""
        ...

    def abort(self) -> None:
        """Closes the connection at once."""
        ...


class ConnectionOwner(Protocol):
    """The listener, as its connections need it."""

    closing: bool  # no further requests are accepted

    @property
    def poller(self) -> Poller: ...
    @property
    def deadlines(self) -> Deadlines: ...
    def exchange(self, client: Downstream, head: RequestHead) -> Exchange: ...
    def request_id(self) -> bytes: ...
    def on_refused(self, fault: HttpFault, message: str) -> None:
        """The client has sent something that is not a request."""
        ...

    def on_close(self, client: HttpClient) -> None:
        """The connection is closed."""
        ...


class H1ConnectionOwner(ConnectionOwner, Protocol):
    """As needed by HTTP/1, after which HTTP/2 may follow."""

    def on_http2(self, client: HttpClient, sock: socket.socket, data: bytes) -> None:
        """The client has begun with HTTP/2's preface: it gets a connection of HTTP/2. `data` was read
        already."""
        ...
