"""Addresses that labels cannot make the sidecar connect to: services there trust every client on the machine.
Pure.

The address is checked at each connection, not the name: the owner of a name can change what it resolves to.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Network = IPv4Network | IPv6Network

REFUSALS_MAX = 256  # names whose refusal is remembered for people; the oldest are forgotten

_THIS_HOST = ip_network("0.0.0.0/8")  # Linux connects to itself there
_NAT64 = ip_network("64:ff9b::/96")  # RFC 6052
_COMPATIBLE = ip_network("::/96")  # RFC 4291, section 2.5.5.1
_TRANSLATED = ip_network("::ffff:0:0:0/96")  # RFC 2765, section 2.1
# Metadata services of clouds, besides 169.254.169.254.
_METADATA = frozenset(map(ip_address, ("fd00:ec2::254", "100.100.100.200", "168.63.129.16")))


class TargetRefused(OSError):
    """No connection is made: `reason` is one of those of `why_internal`, or `own`."""

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(f"{address} is {reason.replace('_', ' ')}: refused (http.allow_internal_targets)")
        self.reason = reason


def why_internal(address: str, allowed: Sequence[Network] = ()) -> str:
    """Why the address is not connected to; "": it may be."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return "no_address"
    embedded = _embedded_ipv4(found)
    if any(one in network for network in allowed for one in {found, embedded}):
        return ""
    return _class_of(embedded) or _class_of(found)


def is_allowed(address: str, allowed: Sequence[Network]) -> bool:
    found = ip_address(address.partition("%")[0])
    return any(one in network for network in allowed for one in {found, _embedded_ipv4(found)})


def forms(address: str) -> set[str]:
    """The address, and the IPv4 address embedded in it."""
    found = ip_address(address.partition("%")[0])
    return {str(found), str(_embedded_ipv4(found))}


def _embedded_ipv4(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """The IPv4 address embedded in an IPv6 address that leads to it; else the address itself."""
    if isinstance(address, IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    if address in _NAT64 or address in _TRANSLATED or (address in _COMPATIBLE and int(address) > 1):
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def _class_of(address: IPv4Address | IPv6Address) -> str:
    if address.is_loopback:
        return "loopback"
    if address.is_unspecified or address in _THIS_HOST or str(address) == "255.255.255.255":
        return "unspecified"
    if address.is_link_local:
        return "link_local"
    if address.is_multicast:
        return "multicast"
    return "metadata" if address in _METADATA else ""


class InternalTargets:
    """`check` an address before it is connected to. `is_own`: does it lead to this node itself?"""

    def __init__(
        self, allowed: Sequence[Network] = (), is_own: Callable[[str], bool] = lambda _address: False
    ) -> None:
        self.allowed = tuple(allowed)
        self._is_own = is_own
        self._refusals: OrderedDict[str, str] = OrderedDict()  # host as labels have it → why
        self.refused: Counter[str] = Counter()  # by reason

    def reason_for(self, address: str) -> str:
        """Why the address is not connected to; "": it may be. Nothing is counted."""
        reason = why_internal(address, self.allowed)
        if reason or is_allowed(address, self.allowed):
            return reason
        return "own" if any(map(self._is_own, forms(address))) else ""

    def check(self, address: str) -> None:
        """Raises TargetRefused, and counts it."""
        reason = self.reason_for(address)
        if reason:
            self.refused[reason] += 1
            raise TargetRefused(address, reason)

    def remember(self, host: str, reason: str) -> None:
        """What a host was refused for when it was last connected to; "": nothing."""
        self._refusals.pop(host, None)
        if reason:
            self._refusals[host] = reason
            if len(self._refusals) > REFUSALS_MAX:
                self._refusals.popitem(last=False)

    def refusal(self, host: str) -> str:
        """Why this host of a label is not connected to, as far as it is known; "" where nothing is."""
        if host in self._refusals:
            return self._refusals[host]
        try:
            ip_address(host)
        except ValueError:
            return ""
        reason = self.reason_for(host)
        return str(TargetRefused(host, reason)) if reason else ""
