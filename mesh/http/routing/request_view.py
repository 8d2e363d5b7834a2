"""A request's head, as rules see it. Made at entry points only: a port of one service has no rules."""

from copy import copy
from dataclasses import dataclass

from mesh.http.codec.h1_head import RequestHead
from mesh.http.codec.path_check import DEFAULT, EncodedCharacters, check_path, is_plain
from mesh.http.codec.proxy_headers import ClientInfo, source_of
from mesh.http.config.matchers import routing_path

_SCHEMES = {"http": "http", "ws": "http", "https": "https", "wss": "https"}


class RequestView:
    """A `matchers.Request` over a head. `sent_path` is the path that a task gets; `readings` are the other
    paths that a server could take it for."""

    __slots__ = ("_edge", "_head", "client", "host", "path", "query", "readings", "sent_path")

    def __init__(self, head: RequestHead, edge: ClientInfo, allowed: EncodedCharacters = DEFAULT) -> None:
        """Raises RequestRefused when servers could read the path in different ways that are not allowed."""
        self._head = head
        self._edge = edge
        self.host = head.host
        path, _, self.query = head.target.decode("latin-1").partition("?")
        self.path = self.sent_path = path
        self.readings: tuple[str, ...] = ()
        if not is_plain(path):
            self.sent_path, self.readings = check_path(path, allowed)
            self.path = routing_path(self.sent_path)
        self.client = source_of(head.fields, edge)

    def read_as(self, path: str) -> "RequestView":
        """The same request with one of the `readings` as its path."""
        other = copy(self)
        other.path = routing_path(path)
        return other

    @property
    def scheme(self) -> str:
        """The client's scheme: a trusted proxy in front may have terminated its TLS, and says so."""
        if self._edge.trusted:
            said = self.header("x-forwarded-proto")
            if said and (scheme := _SCHEMES.get(said[-1].strip().lower())):
                return scheme
        return self._edge.scheme

    @property
    def forwarded_for(self) -> tuple[str, ...]:
        """The addresses that trusted proxies name in X-Forwarded-For, the nearest last. Others' fields do not
        count."""
        if not self._edge.trusted:
            return ()
        said = ",".join(self.header("x-forwarded-for"))
        return tuple(one for part in said.split(",") if (one := part.strip()))

    @property
    def method(self) -> str:
        return self._head.method.decode("latin-1")

    def header(self, name: str) -> list[str]:
        return [value.decode("latin-1") for value in self._head.fields.all(name.encode("latin-1"))]


@dataclass(frozen=True, slots=True)
class SyntheticRequest:
    """A request that no client has sent, for `mesh explain http`."""

    host: str
    path: str
    method: str = "GET"
    query: str = ""
    client: str = "127.0.0.1"

    def header(self, name: str) -> list[str]:
        return [self.host] if name == "host" else []
