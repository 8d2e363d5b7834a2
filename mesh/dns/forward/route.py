"""Servers of the world outside, as text and as values, and the ways to them.

Sockets come from a factory, so that a server may be one that only a container's namespace can reach.
"""

import socket
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Literal, TypeAlias

from mesh.dns.config import FORWARD_ROUNDS, FORWARD_TRY_TIMEOUT, UPSTREAMS_MAX
from mesh.errors import MeshError
from mesh.parsing import is_int, parse_int, parse_port

SocketFactory: TypeAlias = Callable[[int, int], socket.socket]  # (family, type) → a non-blocking socket
Target: TypeAlias = tuple[str, int] | tuple[str, int, int, int]

DNS_PORT = 53
INTERFACE_MAX = 2**31 - 1  # of an interface's number
TLS_PORT = 853
TLS_SCHEME = "tls://"
DOCKER_RESOLVER = "127.0.0.11"


class BadServer(MeshError):
    """Text that does not name a server."""


@dataclass(frozen=True, slots=True)
class DnsServer:
    """Where one resolver listens.

    `tcp_port` 0: the same. `label`: what it is called in metrics, "" for its address. `tls_name`: it is
    asked over TLS (RFC 7858), and its certificate must be for this name or address.
    """

    address: str
    port: int = DNS_PORT
    tcp_port: int = 0
    label: str = ""
    tls_name: str = ""

    def __str__(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        if self.tls_name:
            name = "" if self.tls_name == self.address else f"#{self.tls_name}"
            return f"{TLS_SCHEME}{host}{'' if self.port == TLS_PORT else f':{self.port}'}{name}"
        return host if self.port == DNS_PORT else f"{host}:{self.port}"

    @property
    def name(self) -> str:
        return self.label or str(self)

    @property
    def family(self) -> int:
        return socket.AF_INET6 if ":" in self.address else socket.AF_INET

    def target(self, tcp: bool) -> Target:
        """For `connect`. OSError when the interface of a link-local address does not exist."""
        port = (self.tcp_port or self.port) if tcp else self.port
        address, _, zone = self.address.partition("%")
        if not zone:
            return address, port
        known = is_int(zone, 0, INTERFACE_MAX)
        return address, port, 0, parse_int(zone, 0, INTERFACE_MAX) if known else socket.if_nametoindex(zone)


def parse_server(text: str, label: str = "") -> DnsServer:
    """`ADDR`, `ADDR:PORT`, `[ADDR6]:PORT`, `tls://ADDR:PORT#NAME` → server. Raises BadServer."""
    if not text.startswith(TLS_SCHEME):
        return DnsServer(*_address_and_port(text, DNS_PORT), label=label)
    place, _, name = text.removeprefix(TLS_SCHEME).partition("#")
    address, port = _address_and_port(place, TLS_PORT)
    return DnsServer(address, port, label=label, tls_name=name or address)


def _address_and_port(text: str, default: int) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if text.startswith("["):
        if text.endswith("]"):
            host, colon, port = text, "", ""
        host = host[1:-1] if host.endswith("]") else ""
    elif text.count(":") != 1:
        host, colon, port = text, "", ""
    try:
        ip_address(host)
        number = parse_port(port, 0) if colon else default
    except ValueError as error:
        raise BadServer(f"'{text}' is not ADDRESS or ADDRESS:PORT") from error
    if not 0 < number < 65536:
        raise BadServer(f"'{text}' names no port")
    return host, number


def parse_servers(texts: Iterable[str], label: str = "", most: int = UPSTREAMS_MAX) -> tuple[DnsServer, ...]:
    """The servers among the texts, each once, the first `most`; what is none is passed over."""
    found: dict[DnsServer, None] = {}
    for text in texts:
        try:
            server = parse_server(text, label)
        except BadServer:
            continue
        if server.address != DOCKER_RESOLVER or server.port != DNS_PORT:  # that one would lead back to us
            found[server] = None
    return tuple(found)[:most]


def host_socket(family: int, kind: int) -> socket.socket:
    """A socket of the namespace that the process lives in."""
    made = socket.socket(family, kind)
    made.setblocking(False)
    return made


@dataclass(frozen=True, slots=True)
class Manner:
    """How the servers of a route are asked. `alike`: any of them knows what the others know."""

    alike: bool = False
    rounds: int = FORWARD_ROUNDS
    try_timeout: float = FORWARD_TRY_TIMEOUT  # seconds
    tcp: bool = False  # never over UDP


USUAL = Manner()


@dataclass(frozen=True, slots=True)
class UpstreamRoute:
    """Where a question goes. Questions share a reply when `key` and the question are equal."""

    kind: Literal["host", "container", "docker"]
    servers: tuple[DnsServer, ...]
    container: str = ""  # whose servers, or whose Docker resolver
    sockets: SocketFactory = host_socket
    manner: Manner = USUAL

    @property
    def key(self) -> Hashable:
        return (self.kind, self.servers, self.container)
