"""PROXY protocol headers: the client's address in front of the stream, written and read. Pure.

Both versions, for TCP over IPv4 and IPv6 (haproxy.org/download/2.6/doc/proxy-protocol.txt). A reader calls
`parse` with all that has arrived so far until it is a header, more than is allowed, or nonsense.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from mesh.errors import WireError
from mesh.parsing import PORT_MAX, is_int, parse_port, shown

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
LOCAL_COMMAND = 0x20  # version 2, the proxy's own connection
PROXY_COMMAND = 0x21  # version 2, on behalf of a client
STREAM = {4: 0x11, 6: 0x21}
KNOWN_TRANSPORTS = {family | kind for family in (0x00, 0x10, 0x20, 0x30) for kind in (0, 1, 2)}
FIXED = struct.Struct("!12sBBH")
V1_START = b"PROXY "
V1_MAX = 107  # bytes with the line's end, says the specification
HEADER_MAX = 4096  # version 2 with its TLVs; proxies that pass certificates on send a few hundred bytes

Address = tuple[str, int]
Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """What a header said. `client` and `local` are None where it names nobody (LOCAL, UNKNOWN)."""

    length: int  # bytes of the header itself
    client: Address | None = None
    local: Address | None = None


def header(version: str, client: Address, local: Address) -> bytes:
    """The bytes to send before the client's own. `version` "": none; "v1" text, "v2" binary."""
    if not version:
        return b""
    source, target = ip_address(client[0]), ip_address(local[0])
    if version == "v1":
        return f"PROXY TCP{source.version} {source} {target} {client[1]} {local[1]}\r\n".encode()
    addresses = source.packed + target.packed + struct.pack("!HH", client[1], local[1])
    return SIGNATURE + struct.pack("!BBH", PROXY_COMMAND, STREAM[source.version], len(addresses)) + addresses


def trusts(networks: Sequence[Network], address: str) -> bool:
    """Does the peer at this address stand in one of them?"""
    return bool(networks) and any(ip_address(address) in network for network in networks)


def parse(data: bytes) -> ProxyHeader | None:
    """The header that `data` begins with; None while it is incomplete. WireError when it can be none."""
    if data.startswith(V1_START):
        return _parse_v1(data)
    if data.startswith(SIGNATURE):
        return _parse_v2(data)
    if V1_START.startswith(data) or SIGNATURE.startswith(data):
        return None
    raise WireError("no PROXY header")


def _parse_v1(data: bytes) -> ProxyHeader | None:
    end = data.find(b"\r\n", 0, V1_MAX)
    if end < 0:
        if len(data) >= V1_MAX:
            raise WireError(f"PROXY line of more than {V1_MAX} bytes")
        return None
    length = end + 2
    words = data[:end].decode("ascii", "replace").split(" ")
    if words[1] == "UNKNOWN":
        return ProxyHeader(length)
    if len(words) != 6 or words[1] not in ("TCP4", "TCP6"):
        raise WireError("PROXY line of another form")
    if "%" in words[2] + words[3]:
        raise WireError("PROXY line: an address with a scope means nothing here")
    try:
        kind = IPv4Address if words[1] == "TCP4" else IPv6Address
        source, target = kind(words[2]), kind(words[3])
    except ValueError as error:
        raise WireError(f"PROXY line: {error}") from error
    return ProxyHeader(length, (str(source), _port(words[4])), (str(target), _port(words[5])))


def _port(text: str) -> int:
    if len(text) > 5 or not is_int(text, 0, PORT_MAX):
        raise WireError(f"PROXY line: {shown(text)} is no port")
    return parse_port(text, 0)


def _parse_v2(data: bytes) -> ProxyHeader | None:
    if len(data) < FIXED.size:
        return None
    _, command, transport, size = FIXED.unpack_from(data)
    length = FIXED.size + size
    if command not in (LOCAL_COMMAND, PROXY_COMMAND):
        raise WireError(f"PROXY version and command {command:#04x}")
    if transport not in KNOWN_TRANSPORTS:
        raise WireError(f"PROXY address family and transport {transport:#04x}")
    if length > HEADER_MAX:
        raise WireError(f"PROXY header of {length} bytes, at most {HEADER_MAX} are read")
    if len(data) < length:
        return None
    if command == LOCAL_COMMAND or transport not in STREAM.values():
        return ProxyHeader(length)  # the sender's own connection, or no TCP client that could be named
    return _addresses(data, length, 4 if transport == STREAM[4] else 16)


def _addresses(data: bytes, length: int, width: int) -> ProxyHeader:
    ports = FIXED.size + 2 * width
    if length < ports + 4:
        raise WireError("PROXY header too short for its addresses")
    source = ip_address(data[FIXED.size : FIXED.size + width])
    target = ip_address(data[FIXED.size + width : ports])
    client_port, local_port = struct.unpack_from("!HH", data, ports)
    return ProxyHeader(length, (str(source), client_port), (str(target), local_port))  # TLVs are passed over
