"""Who is bound where: /proc/net/{tcp,udp} of a namespace, and the process behind a socket.

Used to name the process that holds a port we wanted, and to find Docker's own resolver in a container
(the other socket on 127.0.0.11). Format: Documentation/networking/proc_net_tcp.rst of the kernel.
"""

import os
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass

from mesh.errors import KernelError
from mesh.net import netlink

TCP_LISTEN = "0A"
MAX_PROCESSES = 10_000  # how many /proc entries a search for a socket's owner looks at


@dataclass(frozen=True, slots=True)
class BoundSocket:
    address: str
    port: int
    inode: int


def parse(text: str, listening: bool) -> list[BoundSocket]:
    """Sockets in the text of /proc/net/tcp or udp; only listening ones if asked. Odd lines are skipped."""
    found = []
    for line in text.splitlines()[1:]:
        fields = line.split()
        if len(fields) < 10 or (listening and fields[3] != TCP_LISTEN):
            continue
        address, _, port = fields[1].partition(":")
        # The address is printed as a host-order integer: little-endian bytes on every machine Docker runs on.
        raw = struct.pack("=I", int(address, 16))
        found.append(BoundSocket(socket.inet_ntoa(raw), int(port, 16), int(fields[9])))
    return found


def bound(protocol: str) -> list[BoundSocket]:
    """Bound sockets ("udp") or listeners ("tcp") of the calling thread's namespace."""
    if protocol == "tcp":
        with suppress(KernelError):
            return [BoundSocket(*one) for one in netlink.tcp_listeners()]
    # thread-self: /proc/net is the main thread's namespace, which may not be this thread's.
    try:
        with open(f"/proc/thread-self/net/{protocol}", encoding="ascii") as file:
            return parse(file.read(), listening=protocol == "tcp")
    except OSError:
        return []


def owner(inode: int) -> str | None:
    """`name (pid)` of the process that holds a socket, None where we may not or cannot see it."""
    wanted = f"socket:[{inode}]"
    for entry in [name for name in os.listdir("/proc") if name.isdigit()][:MAX_PROCESSES]:
        try:
            held = os.scandir(f"/proc/{entry}/fd")
            if any(os.readlink(descriptor.path) == wanted for descriptor in held):
                with open(f"/proc/{entry}/comm", encoding="utf-8") as file:
                    return f"{file.read().strip()} ({entry})"
        except OSError:
            continue  # ended meanwhile, or not ours to look into
    return None


def listener_owner(port: int) -> str | None:
    """The process that listens on a TCP port of this namespace, if it can be seen."""
    sockets = [sock for sock in bound("tcp") + bound6() if sock.port == port]
    return next((name for sock in sockets if (name := owner(sock.inode))), None)


def has_ipv6() -> bool:
    """Is IPv6 on in the calling thread's namespace? Off by its sysctl, or not in the kernel: no."""
    try:
        with open("/proc/sys/net/ipv6/conf/all/disable_ipv6", encoding="ascii") as file:
            return file.read().strip() == "0"
    except OSError:
        return False


def bound6() -> list[BoundSocket]:
    """Dual-stack listeners hold IPv4 ports too; their address does not matter here."""
    try:
        with open("/proc/thread-self/net/tcp6", encoding="ascii") as file:
            lines = [line.split() for line in file.read().splitlines()[1:]]
    except OSError:
        return []
    return [
        BoundSocket("::", int(fields[1].rpartition(":")[2], 16), int(fields[9]))
        for fields in lines
        if len(fields) >= 10 and fields[3] == TCP_LISTEN
    ]
