"""Per-interface IPv4 settings (`forwarding`, `rp_filter`, `route_localnet`) over netlink.

/proc/sys is read-only in the sidecar's container; the kernel takes the same values in an RTM_SETLINK message:
IFLA_AF_SPEC → AF_INET → IFLA_INET_CONF → one u32 per setting (net/ipv4/devinet.c, inet_set_link_af).
They last as long as the interface.
"""

import socket
import struct
from collections.abc import Mapping
from enum import IntEnum

from mesh.errors import KernelError, NamespaceGone
from mesh.net import netlink

RTM_SETLINK = 19
IFLA_AF_SPEC = 26
IFLA_INET_CONF = 1


class InterfaceSetting(IntEnum):
    """The kernel's numbers (linux/ip.h, IPV4_DEVCONF_*); names as under /proc/sys/net/ipv4/conf."""

    forwarding = 1
    rp_filter = 8
    route_localnet = 26


def read(interface: str, setting: InterfaceSetting) -> int:
    """The value in force, from the calling thread's namespace."""
    path = f"/proc/sys/net/ipv4/conf/{interface}/{setting.name}"
    try:
        with open(path, encoding="ascii") as file:
            return int(file.read())
    except OSError as error:
        raise NamespaceGone(f"interface {interface} is gone: {error.strerror}") from error


def write(interface: str, settings: Mapping[InterfaceSetting, int]) -> None:
    """Set them, in the calling thread's namespace, and check that they hold. What is right is left alone."""
    wrong = {setting: value for setting, value in settings.items() if read(interface, setting) != value}
    if not wrong:
        return
    what = f"setting {', '.join(f'{s.name}={v}' for s, v in wrong.items())} on {interface}"
    netlink.request(RTM_SETLINK, _set_link(_index(interface), wrong), what)
    for setting, value in wrong.items():
        if (now := read(interface, setting)) != value:
            raise KernelError(f"{what}: still {now}")


def _set_link(index: int, settings: Mapping[InterfaceSetting, int]) -> bytes:
    values = b"".join(
        netlink.attribute(setting, struct.pack("=I", value)) for setting, value in settings.items()
    )
    configuration = netlink.attribute(IFLA_INET_CONF | netlink.NESTED, values)
    family = netlink.attribute(socket.AF_INET | netlink.NESTED, configuration)
    header = struct.pack("=BBHiII", socket.AF_UNSPEC, 0, 0, index, 0, 0)
    return header + netlink.attribute(IFLA_AF_SPEC | netlink.NESTED, family)


def _index(interface: str) -> int:
    try:
        return socket.if_nametoindex(interface)
    except OSError as error:
        raise NamespaceGone(f"interface {interface} is gone") from error
