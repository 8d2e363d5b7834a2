"""What an exchange, its client, its endpoint and the pool need of each other. Pure."""

import socket
from collections.abc import Callable
from typing import Protocol

from mesh.http.codec.h1_head import RequestHead, ResponseHead
from mesh.http.codec.proxy_headers import ClientInfo
from mesh.http.faults import HttpFault
from mesh.http.local_reply import LocalReply


class Link(Protocol):
    """A connection to an endpoint that many requests share."""

    def retire(self) -> None:
        """Take no more of them."""
        ...


class UpstreamHandler(Protocol):
    """The exchange, as its upstream connection needs it."""

    method: bytes
    response_timeout: float

    @property
    def upgrades(self) -> bool:
        """Does the request ask for another protocol?"""
        ...

    def connected(self) -> None: ...
    def not_connected(self, fault: HttpFault) -> None: ...
    def interim(self, head: ResponseHead) -> None: ...
    def responded(self, head: ResponseHead, length: int) -> None: ...
    def whole(self, head: ResponseHead, body: bytes) -> None: ...
    def switched(self, head: ResponseHead) -> None: ...
    def payload(self, data: bytes) -> None: ...
    def ended(self, trailers: bytes) -> None: ...
    def broken(self, fault: HttpFault, *, unprocessed: bool = False) -> None: ...
    def pushed(self) -> bool: ...
    def upstream_room(self) -> None: ...
    def on_fault(self) -> None: ...


class Downstream(Protocol):
    """The client's side."""

    edge: ClientInfo
    request_id: bytes

    def respond(self, head: ResponseHead, length: int) -> None:
        """Begin the response; `length` of its body, or CHUNKED, UNTIL_CLOSE where it is not known."""
        ...

    def whole(self, head: ResponseHead, body: bytes) -> None:
        """A response that is all there."""
        ...

    def interim(self, head: ResponseHead) -> None: ...
    def switch(self, head: ResponseHead) -> None: ...
    def write(self, data: bytes) -> None: ...
    def flush(self) -> bool:
        """Send what was written. False: the client takes no more; `client_room` tells when it does."""
        ...

    def end(self, trailers: bytes) -> None: ...
    def answer(self, answer: LocalReply) -> None:
        """There is no response from an endpoint: this is ours."""
        ...

    def cut(self) -> None:
        """The response cannot be completed: the client must see that."""
        ...

    def hold_body(self, hold: bool) -> None: ...
    def forwarded(self, head: RequestHead) -> bytes:
        """The request's field lines as an endpoint gets them."""
        ...


class Upstream(Protocol):
    """The endpoint's side: a connection (HTTP/1), or a stream of one (HTTP/2)."""

    reused: bool  # the connection had served before: that it ends says nothing of the endpoint

    def connect(self, make: Callable[[], socket.socket], seconds: float) -> None:
        """The exchange is told, now or later, once."""
        ...

    def begin(
        self, head: RequestHead, target: bytes, lines: bytes, body: list[bytes], last: bool, trailers: bytes
    ) -> bool:
        """The request, with what there is of its body. `lines`: its field lines. Otherwise as `send`."""
        ...

    def send(self, data: bytes, last: bool, trailers: bytes = b"") -> bool:
        """More of the body; `last`: the end of it. True when all is taken, or else `upstream_room` tells."""
        ...

    def resume(self) -> None:
        """There is room for more of the response again."""
        ...

    def shut_request(self) -> None:
        """After an upgrade: the client has said all."""
        ...

    def discard(self) -> None:
        """Nobody wants more of it."""
        ...


class IdleConnection(Upstream, Protocol):
    """A connection to an endpoint between two requests."""

    idle_since: float  # monotonic time

    def take(self, exchange: UpstreamHandler) -> None:
        """Serve another request."""
        ...
