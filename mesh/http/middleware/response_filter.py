"""The base of response filters: the client's side of an exchange, with changes of the response.

The exchange talks to the filter as to the client; the filter passes on what it does not change. An exchange
without filters talks to its client directly.
"""

from mesh.http.codec.h1_head import RequestHead, ResponseHead
from mesh.http.codec.proxy_headers import ClientInfo
from mesh.http.interfaces import Downstream
from mesh.http.local_reply import LocalReply


class ResponseFilter:
    """Passes everything on. `client`: the side nearer to the client, perhaps another filter."""

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
