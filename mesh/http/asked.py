"""A request's head as rules see it. Made where there are rules; a port of one service has none to ask."""

from mesh.http.forwarding import Edge
from mesh.http.head import RequestHead
from mesh.http.matching import normal_path


class AskedHead:
    """`matching.Request` over a head."""

    __slots__ = ("_head", "client", "host", "path", "query")

    def __init__(self, head: RequestHead, edge: Edge) -> None:
        self._head = head
        self.host = head.host
        path, _, self.query = head.target.decode("latin-1").partition("?")
        self.path = normal_path(path)
        self.client = edge.client

    @property
    def method(self) -> str:
        return self._head.method.decode("latin-1")

    def header(self, name: str) -> list[str]:
        return [value.decode("latin-1") for value in self._head.fields.all(name.encode("latin-1"))]
