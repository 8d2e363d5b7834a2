"""Policy routes by mark: a rule `fwmark M lookup M`, and a default route in table M. For the calling thread's
namespace, over route netlink (linux/fib_rules.h, linux/rtnetlink.h).
"""

import errno
import socket
import struct

from mesh.errors import KernelError, NamespaceGone
from mesh.net import netlink

NEW_ROUTE, DELETE_ROUTE = 24, 25
NEW_RULE, DELETE_RULE, GET_RULE = 32, 33, 34
F_REPLACE, F_EXCLUSIVE, F_CREATE = 0x100, 0x200, 0x400

LOOK_UP = 1  # FR_ACT_TO_TBL
FRA_PRIORITY, FRA_FWMARK, FRA_TABLE, FRA_FWMASK = 6, 10, 15, 16
RTA_OIF, RTA_GATEWAY, RTA_TABLE = 4, 5, 15
PROTOCOL = 109  # whose a route is, shown by `ip route`: ours
UNICAST = 1
ON_LINK = 4  # RTNH_F_ONLINK: the gateway is on that interface, whatever other routes say
WHOLE_MARK = 0xFFFFFFFF


def lead(mark: int, gateway: str, interface: str, priority: int) -> None:
    """Packets with the mark go to the gateway. Done again, it changes nothing."""
    try:
        index = socket.if_nametoindex(interface)
    except OSError as error:
        raise NamespaceGone(f"interface {interface} is gone") from error
    what = f"leading mark {mark:#x} via {gateway}"
    netlink.request(NEW_ROUTE, _route(mark, gateway, index), what, flags=F_CREATE | F_REPLACE)
    netlink.request(
        NEW_RULE, _rule(mark, priority), what, flags=F_CREATE | F_EXCLUSIVE, accepted=(errno.EEXIST,)
    )


def forget(mark: int, priority: int) -> None:
    """The opposite; fine when there is nothing."""
    what = f"forgetting mark {mark:#x}"
    netlink.request(DELETE_RULE, _rule(mark, priority), what, accepted=(errno.ENOENT,))
    netlink.request(DELETE_ROUTE, _route(mark), what, accepted=(errno.ESRCH,))


def led(prefix: int, mask: int) -> list[tuple[int, int]]:
    """(mark, priority) of all rules whose mark begins so."""
    found = []
    for data in netlink.dump(GET_RULE, struct.pack("=BBBBBBBBI", socket.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0)):
        values = netlink.attributes(data[12:])
        mark, priority = (_number(values.get(kind)) for kind in (FRA_FWMARK, FRA_PRIORITY))
        if mark & mask == prefix:
            found.append((mark, priority))
    return found


def forget_all(prefix: int, mask: int) -> int:
    """Forget all marks that begin so; returns how many there were."""
    found = led(prefix, mask)
    for mark, priority in found:
        forget(mark, priority)
    return len(found)


def has_default() -> bool:
    """Is there a default route in the main table?"""
    try:
        with open("/proc/thread-self/net/route", encoding="ascii") as file:
            return any(line.split()[1:2] == ["00000000"] and line.split()[7] == "00000000" for line in file)
    except OSError as error:
        raise KernelError(f"routes cannot be read: {error.strerror}") from error


def hardware_address(interface: str) -> str:
    """`02:42:0a:00:00:02`, in lower case. (RTM_GETLINK: /sys belongs to another namespace.)"""
    try:
        index = socket.if_nametoindex(interface)
    except OSError as error:
        raise NamespaceGone(f"interface {interface} is gone") from error
    for data in netlink.dump(18, struct.pack("=BBHiII", socket.AF_UNSPEC, 0, 0, 0, 0, 0)):
        if struct.unpack_from("=i", data, 4)[0] == index:
            raw = netlink.attributes(data[16:]).get(1)  # IFLA_ADDRESS
            if raw is not None:
                return raw.hex(":")
    raise KernelError(f"interface {interface} has no hardware address")


def _rule(mark: int, priority: int) -> bytes:
    header = struct.pack("=BBBBBBBBI", socket.AF_INET, 0, 0, 0, 0, 0, 0, LOOK_UP, 0)
    numbers = {FRA_PRIORITY: priority, FRA_FWMARK: mark, FRA_FWMASK: WHOLE_MARK, FRA_TABLE: mark}
    return header + b"".join(netlink.attribute(kind, struct.pack("=I", n)) for kind, n in numbers.items())


def _route(mark: int, gateway: str = "", index: int = 0) -> bytes:
    """The default route of the mark's table; without a gateway, any there is."""
    flags = ON_LINK if gateway else 0
    header = struct.pack("=BBBBBBBBI", socket.AF_INET, 0, 0, 0, 0, PROTOCOL, 0, UNICAST, flags)
    body = header + netlink.attribute(RTA_TABLE, struct.pack("=I", mark))
    if gateway:
        body += netlink.attribute(RTA_GATEWAY, socket.inet_aton(gateway))
        body += netlink.attribute(RTA_OIF, struct.pack("=I", index))
    return body


def _number(raw: bytes | None) -> int:
    return int(struct.unpack("=I", raw)[0]) if raw else 0
