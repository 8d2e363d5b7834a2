"""PROXY protocol headers toward tasks: the client's address in front of the stream. Pure.

Both versions, for TCP over IPv4 and IPv6 (haproxy.org/download/2.6/doc/proxy-protocol.txt).
"""

import struct
from ipaddress import ip_address

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
PROXY_COMMAND = 0x21  # version 2, PROXY
STREAM = {4: 0x11, 6: 0x21}

Address = tuple[str, int]


def header(version: str, client: Address, local: Address) -> bytes:
    """The bytes to send before the client's own. `version` "": none; "v1" text, "v2" binary."""
    if not version:
        return b""
    source, target = ip_address(client[0]), ip_address(local[0])
    if version == "v1":
        return f"PROXY TCP{source.version} {source} {target} {client[1]} {local[1]}\r\n".encode()
    addresses = source.packed + target.packed + struct.pack("!HH", client[1], local[1])
    return SIGNATURE + struct.pack("!BBH", PROXY_COMMAND, STREAM[source.version], len(addresses)) + addresses
