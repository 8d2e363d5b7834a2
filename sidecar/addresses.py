"""Where a surface listens, or is asked: an address and a port, or the path of a unix socket. Pure."""

import ipaddress
import os
from dataclasses import dataclass
from typing import TypeAlias

from mesh.dns.config import GATEWAY
from mesh.parsing import PORT_MAX, is_int, parse_port

UNIX = "unix:"  # before the path of a unix socket, where an address may stand as well
MAX_SOCKET_PATH = 107  # bytes: sun_path of unix(7) with its closing zero


@dataclass(frozen=True, slots=True)
class Address:
    """An IP address (or `gateway`) and a port; port 0 lets the kernel choose."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_gateway(self) -> bool:
        return self.host == GATEWAY

    @property
    def is_loopback(self) -> bool:
        return not self.is_gateway and ipaddress.ip_address(self.host).is_loopback

    @property
    def is_any(self) -> bool:
        return not self.is_gateway and ipaddress.ip_address(self.host).is_unspecified


@dataclass(frozen=True, slots=True)
class UnixSocket:
    """The path of a unix socket."""

    path: str

    def __str__(self) -> str:
        return f"{UNIX}{self.path}"


# Where a surface listens, or is asked.
ListenAddress: TypeAlias = Address | UnixSocket


def parse_listen_address(text: str) -> ListenAddress:
    """ADDR:PORT, or the path of a unix socket with or without `unix:`. Raises ValueError."""
    path = text.removeprefix(UNIX)
    if path.startswith("/"):
        return UnixSocket(socket_path(path))
    try:
        return parse_address(text)
    except ValueError as error:
        raise ValueError(f"{error}, or the path of a unix socket") from None


def parse_address(text: object, default_port: int | None = None) -> Address:
    """ADDR:PORT, [ADDR6]:PORT, and ADDR alone where there is a default port. Raises ValueError."""
    if isinstance(text, Address):
        return text
    wanted = "must be ADDR:PORT with an IP address"
    if not isinstance(text, str):
        raise ValueError(f"{wanted}, not {text!r}")
    host, port = _split(text, default_port)
    if not is_port(port):
        raise ValueError(f"{wanted} and a port up to 65535, not '{text}'")
    try:
        ipaddress.ip_address(host)
    except ValueError:
        raise ValueError(f"{wanted}, not '{text}'") from None
    return Address(host, parse_port(port, 0))


def is_port(text: str) -> bool:
    return len(text) <= 5 and is_int(text, 0, PORT_MAX)


def _split(text: str, default_port: int | None) -> tuple[str, str]:
    bare = text.removeprefix("[").removesuffix("]")
    if default_port is not None and (bare.count(":") != 1 and "]:" not in text):
        return bare, str(default_port)
    host, _, port = text.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), port


def socket_path(value: object) -> str:
    """The path of a unix socket; "" when it is `off`. Raises ValueError."""
    path = str(value).removeprefix(UNIX)
    if path in ("", "off"):
        return ""
    if not path.startswith("/") or len(os.fsencode(path)) > MAX_SOCKET_PATH:
        raise ValueError(
            f"must be a path that begins with / and has at most {MAX_SOCKET_PATH} bytes, or off, not '{path}'"
        )
    return path
