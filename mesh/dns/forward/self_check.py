"""Is a server one of the addresses on which we listen ourselves?

Only asked when a question has come back, so an address that we were told to listen on and could not have,
because another resolver has it, is not mistaken for ours.
"""

import errno
import socket
from collections.abc import Iterable
from ipaddress import ip_address

from mesh.dns.config import BRIDGE, GATEWAY
from mesh.dns.forward.route import DnsServer
from mesh.errors import KernelError
from mesh.net import netlink


def is_ourselves(server: DnsServer, listen: Iterable[tuple[str, int]]) -> bool:
    """`listen`: host (or GATEWAY) and port, as configured."""
    return any(port == server.port and _covers(host, server) for host, port in listen)


def _covers(host: str, server: DnsServer) -> bool:
    if host == GATEWAY:
        return server.address in _gateway_addresses()
    if ip_address(host).is_unspecified:
        return _is_local(server)
    return ip_address(host) == ip_address(server.address)


def _gateway_addresses() -> list[str]:
    try:
        return [one.address for one in netlink.addresses() if one.interface == BRIDGE]
    except (KernelError, OSError, AttributeError):  # no netlink outside Linux, and no such bridge
        return []


def _is_local(server: DnsServer) -> bool:
    """The kernel lets nobody bind to an address that is not its own."""
    with socket.socket(server.family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((server.address, 0))
        except OSError as error:
            return error.errno != errno.EADDRNOTAVAIL
    return True
