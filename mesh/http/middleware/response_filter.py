"""A client's side with something around it: what a middleware makes of responses.

The exchange speaks to this as to the client; what it does not change it passes on. An exchange with nothing
around its client pays nothing for it.
"""

from mesh.http.codec.h1_head import RequestHead, ResponseHead
from mesh.http.codec.proxy_headers import ClientInfo
from mesh.http.interfaces import Downstream
from mesh.http.local_reply import LocalReply


class ResponseFilter:
    """Derive from it; `client` is the side nearer to the client."""

    __slots__ = ("client", "edge", "request_id")

    def __init__(self, client: Downstream) -> None:
        self.client = client
        self.edge: ClientInfo = client.edge
        self.request_id = client.request_id

    def respond(self, head: ResponseHead, length: int) -> None:
        self.client.respond(head, length)

    def whole(self, head: ResponseHead, body: bytes) -> None:
        self.client.whole(head, body)

    def interim(self, head: ResponseHead) -> None:
        self.client.interim(head)

    def switch(self, head: ResponseHead) -> None:
        self.client.switch(head)

    def write(self, data: bytes) -> None:
        self.client.write(data)

    def flush(self) -> bool:
        return self.client.flush()

    def end(self, trailers: bytes) -> None:
        self.client.end(trailers)

    def answer(self, answer: LocalReply) -> None:
        self.client.answer(answer)

    def cut(self) -> None:
        self.client.cut()

    def hold_body(self, hold: bool) -> None:
        self.client.hold_body(hold)

    def forwarded(self, head: RequestHead) -> bytes:
        return self.client.forwarded(head)
