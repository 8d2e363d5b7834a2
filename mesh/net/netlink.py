"""The few netlink messages that we need, packed and read with `struct`.

Two users: route netlink (addresses, per-interface settings) and nfnetlink (`mesh.kernel`: changes of loaded
tables, flows). Each is a constant or a handful of attributes; a netlink library costs more memory and
start-up time than the forty lines here. Formats: linux/netlink.h, rtnetlink(7).
"""

import errno
import os
import socket
import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from mesh.errors import KernelError

NETLINK_ROUTE = 0
NETLINK_SOCK_DIAG = 4
NETLINK_NETFILTER = 12

F_REQUEST, F_ACK, F_DUMP = 0x1, 0x4, 0x300
NESTED = 0x8000
ERROR, DONE = 2, 3
RTM_GETLINK, RTM_GETADDR = 18, 22
SOCK_DIAG_BY_FAMILY = 20

HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
DIAG_REQUEST = struct.Struct("=BBBxI48x")  # inet_diag_req_v2: family, protocol, extensions, states
DIAG_SOCKET = struct.Struct("!BBxxHH4s")  # the begin of inet_diag_msg: family, state, ports, local address
DIAG_INODE = 68  # where it has the socket's inode
LISTEN = 10  # TCP_LISTEN
ATTRIBUTE = struct.Struct("=HH")  # length, type
RECEIVE_BYTES = 65536  # one dump message is at most 32 KiB
REPLY_SECONDS = 2.0  # the kernel answers at once; a longer wait means a broken kernel, not a slow one


@dataclass(frozen=True, slots=True)
class InterfaceAddress:
    interface: str
    address: str
    prefix: int


def attribute(kind: int, data: bytes) -> bytes:
    """One attribute, padded to four bytes."""
    return ATTRIBUTE.pack(ATTRIBUTE.size + len(data), kind) + data + bytes(-len(data) % 4)


def message(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    return HEADER.pack(HEADER.size + len(body), kind, flags, sequence, 0) + body


def messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(type, body) of each message in a received buffer."""
    at = 0
    while at + HEADER.size <= len(data):
        length, kind, _, _, _ = HEADER.unpack_from(data, at)
        if length < HEADER.size:
            raise KernelError("netlink answered with a malformed message")
        yield kind, data[at + HEADER.size : at + length]
        at += (length + 3) & ~3


def attributes(data: bytes) -> dict[int, bytes]:
    """Attribute type (without flags) → its bytes."""
    found, at = {}, 0
    while at + ATTRIBUTE.size <= len(data):
        length, kind = ATTRIBUTE.unpack_from(data, at)
        if length < ATTRIBUTE.size:
            break
        found[kind & 0x3FFF] = data[at + ATTRIBUTE.size : at + length]
        at += (length + 3) & ~3
    return found


def error_of(body: bytes) -> int:
    """The errno in an ERROR message; 0 is an acknowledgement."""
    (code,) = struct.unpack_from("=i", body)
    return -int(code)


def open_socket(family: int) -> socket.socket:
    """A netlink socket of the namespace that the calling thread is in."""
    try:
        return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, family)
    except OSError as error:
        raise KernelError(f"cannot open a netlink socket: {error.strerror}") from error


def request(kind: int, body: bytes, what: str, *, flags: int = 0, accepted: Collection[int] = ()) -> None:
    """Send one route message and wait for its acknowledgement; `what` names it in the error. An errno that is
    `accepted` is none."""
    with open_socket(NETLINK_ROUTE) as sock:
        sock.settimeout(REPLY_SECONDS)
        try:
            sock.send(message(kind, F_REQUEST | F_ACK | flags, 1, body))
            reply = sock.recv(RECEIVE_BYTES)
        except OSError as error:
            raise KernelError(f"{what}: {error}") from error
    for answer, data in messages(reply):
        if answer == ERROR and (number := error_of(data)) and number not in accepted:
            raise KernelError(f"{what}: {os.strerror(number)}")


def addresses() -> list[InterfaceAddress]:
    """IPv4 addresses of the calling thread's namespace."""
    names = dict(socket.if_nameindex())
    found = []
    for data in dump(RTM_GETADDR, struct.pack("=BBBBI", socket.AF_INET, 0, 0, 0, 0)):
        _, prefix, _, _, index = struct.unpack_from("=BBBBI", data)
        values = attributes(data[8:])
        # IFA_LOCAL (2) is the interface's own; IFA_ADDRESS (1) is the peer's on point-to-point links.
        raw = values.get(2) or values.get(1)
        if raw is not None and index in names:
            found.append(InterfaceAddress(names[index], socket.inet_ntoa(raw), prefix))
    return found


def mtus() -> dict[str, int]:
    """Interface → MTU, of the calling thread's namespace."""
    found = {}
    for data in dump(RTM_GETLINK, struct.pack("=BBHiII", socket.AF_UNSPEC, 0, 0, 0, 0, 0)):
        values = attributes(data[16:])
        name, mtu = values.get(3), values.get(4)  # IFLA_IFNAME, IFLA_MTU
        if name is not None and mtu is not None:
            found[name.rstrip(b"\0").decode(errors="replace")] = int(struct.unpack_from("=I", mtu)[0])
    return found


def tcp_listeners() -> list[tuple[str, int, int]]:
    """(address, port, inode) of the calling thread's namespace, IPv4. KernelError where the kernel does not
    tell. /proc/net/tcp has them too, but takes 5 to 10 ms: it walks all connections of all namespaces."""
    request = DIAG_REQUEST.pack(socket.AF_INET, socket.IPPROTO_TCP, 0, 1 << LISTEN)
    found = []
    for data in dump(SOCK_DIAG_BY_FAMILY, request, NETLINK_SOCK_DIAG):
        _, _, port, _, address = DIAG_SOCKET.unpack_from(data)
        (inode,) = struct.unpack_from("=I", data, DIAG_INODE)
        found.append((socket.inet_ntoa(address), port, inode))
    return found


def dump(kind: int, body: bytes, family: int = NETLINK_ROUTE) -> Iterator[bytes]:
    """The body of each message in the kernel's answer to a request for all there is."""
    with open_socket(family) as sock:
        sock.settimeout(REPLY_SECONDS)
        try:
            sock.send(message(kind, F_REQUEST | F_DUMP, 1, body))
            while True:
                for answer, data in messages(sock.recv(RECEIVE_BYTES)):
                    if answer == DONE:
                        return
                    if answer == ERROR:
                        raise KernelError(f"netlink dump {kind}: {errno.errorcode.get(error_of(data), '?')}")
                    yield data
        except OSError as error:
            raise KernelError(f"netlink dump {kind}: {error}") from error
