"""Does an address lead to this node itself? The kernel's routing table knows, for all interfaces at once."""

import socket
import struct

from mesh.errors import KernelError
from mesh.net.netlink import (
    F_REQUEST,
    NETLINK_ROUTE,
    RECEIVE_BYTES,
    REPLY_SECONDS,
    attribute,
    message,
    messages,
    open_socket,
)

RTM_NEWROUTE, RTM_GETROUTE = 24, 26
RTA_DST = 1
RTMSG = struct.Struct("=BBBBBBBBI")  # family, lengths of destination and source, …, type, flags
LOCAL_TYPES = frozenset((2, 3, 4))  # RTN_LOCAL, RTN_BROADCAST, RTN_ANYCAST


def leads_here(address: str) -> bool:
    """Of the calling thread's namespace. True also where the kernel cannot be asked: rather too careful."""
    try:
        return _route_type(address.partition("%")[0]) in LOCAL_TYPES
    except (KernelError, OSError):
        return True


def _route_type(address: str) -> int:
    """0 where no route leads there."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    packed = socket.inet_pton(family, address)
    body = RTMSG.pack(family, len(packed) * 8, 0, 0, 0, 0, 0, 0, 0) + attribute(RTA_DST, packed)
    with open_socket(NETLINK_ROUTE) as sock:
        sock.settimeout(REPLY_SECONDS)
        sock.send(message(RTM_GETROUTE, F_REQUEST, 1, body))
        for kind, data in messages(sock.recv(RECEIVE_BYTES)):
            if kind == RTM_NEWROUTE:
                return int(RTMSG.unpack_from(data)[7])
    return 0
