"""Who accepts clients' connections, as those see it."""

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
    """A connection, whatever it speaks."""

    edge: ClientInfo

    @property
    def spare_order(self) -> tuple[bool, float] | None:
        """Of those that wait for a request, the smallest goes first when there is no place for newcomers:
        (there has been a request, when its time is over). None: it is at work."""
        ...

    def finish(self) -> None:
        """No more requests after those under way."""
        ...

    def abort(self) -> None:
        """Now."""
        ...


class ConnectionOwner(Protocol):
    closing: bool

    @property
    def poller(self) -> Poller: ...
    @property
    def deadlines(self) -> Deadlines: ...
    def exchange(self, client: Downstream, head: RequestHead) -> Exchange: ...
    def request_id(self) -> bytes: ...
    def refused(self, fault: HttpFault, message: str) -> None:
        """Something came that is no request."""
        ...

    def on_close(self, client: HttpClient) -> None:
        """It is closed."""
        ...


class H1Host(ConnectionOwner, Protocol):
    """And another protocol may follow."""

    def speaks_h2(self, client: HttpClient, sock: socket.socket, data: bytes) -> None:
        """What it takes for a client of HTTP/1 has begun with HTTP/2's preface; `data` was read of it."""
        ...
