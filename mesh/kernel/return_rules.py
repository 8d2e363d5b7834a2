"""How a task answers an outside client through the node that the client chose: text and numbers. Pure.

A task that is sent the client's own address would answer by its default route, and the client would not know
the sender. So the connection is marked, when it arrives, by the entry it came through, which its MAC address
on the ingress network tells; answers take on the mark, and a routing table for each entry leads them there:

    arrive   from the ingress interface: ether saddr ─▶ mark of the connection
    depart   an answer: mark of the connection ─▶ mark of the packet, which is then routed anew
    rule     fwmark M ─▶ table M: default via the entry

A UDP application that is bound to no address answers from that of the interface its default route leaves by,
which conntrack would take for something new. So datagrams' clients are remembered for a while, and answers to
them get the task's ingress address back before conntrack sees them.

The mark is a fixed prefix and the entry's place in the ingress network's subnet: nothing has to be agreed on
or kept. The table is one of its own, for it outlives our other rules: it is taken out last, so that no
answer is on its way then, and it stays when the sidecar is replaced.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv4Network

from mesh.kernel.netfilter.transaction import Elements, OperationKind, Put, Take, Transaction, as_text

RETURN_TABLE = "mesh_return"
MARK_PREFIX, MARK_MASK = 0x6D650000, 0xFFFF0000  # "me"; Docker's own marks are small
MASQUERADED = MARK_PREFIX | 0xFFFF  # no entry's: in the ingress namespace, of a connection to be masqueraded
RULE_PRIORITY = 2000  # before the main table's 32766
CLIENTS_MAX = 65_536  # UDP clients (address and port) remembered in a task's namespace; about 6 MB when full
CLIENT_SECONDS = 180  # after a client's last datagram: conntrack's own limit for UDP streams, and a minute
_ENTRIES = Elements(RETURN_TABLE, "entries", OperationKind.MAC, OperationKind.MARK)

DELETE_RETURN = f"add table ip {RETURN_TABLE}\ndelete table ip {RETURN_TABLE}\n"


@dataclass(frozen=True, slots=True)
class ReturnEntry:
    """Where a node's published ports enter the ingress network."""

    address: str
    mac: str


NO_ENTRY = ReturnEntry("", "")
Marks = Mapping[str, int]  # MAC address of an entry → its mark


def mark_of(entry: str, subnets: Iterable[str]) -> int | None:
    """The mark of the entry with this address on the ingress network; None where there is none: not an
    address of the network, or beyond its first 65,534."""
    try:
        address = IPv4Address(entry)
    except AddressValueError:
        return None
    for subnet in _v4(subnets):
        if address in subnet:
            place = int(address) - int(subnet.network_address)
            return MARK_PREFIX | place if 0 < place < MASQUERADED & 0xFFFF else None
    return None


def return_rules(interface: str, address: str, marks: Marks) -> str:
    """The whole table, for what was there. `interface`, `address`: the task's on that network."""
    is_marked = f"ct mark & {MARK_MASK:#x} == {MARK_PREFIX:#x}"
    return (
        f"{DELETE_RETURN}table ip {RETURN_TABLE} {{\n"
        f"  map entries {{ typeof ether saddr : meta mark; }}\n"
        f"  set clients {{ typeof ip saddr . udp sport; size {CLIENTS_MAX};\n"
        f"    flags dynamic,timeout; timeout {CLIENT_SECONDS}s; }}\n"
        f"  chain arrive {{\n"
        f"    type filter hook prerouting priority -150; policy accept;\n"
        f'    iifname "{interface}" ct direction original ct mark set ether saddr map @entries\n'
        f'    iifname "{interface}" {is_marked} update @clients {{ ip saddr . udp sport }}\n'
        f"  }}\n"
        f"  chain answer {{\n"
        f"    type filter hook output priority -300; policy accept;\n"
        f"    ip daddr . udp dport @clients ip saddr != {address} ip saddr set {address}\n"
        f"  }}\n"
        f"  chain depart {{\n"
        f"    type route hook output priority -150; policy accept;\n"
        f"    ct direction reply {is_marked} meta mark set ct mark\n"
        f"  }}\n"
        f"}}\n"
    ) + as_text(return_update({}, marks))


def return_update(before: Marks, after: Marks) -> Transaction:
    """The transaction between two states; () when they are the same."""
    gone = sorted(mac for mac in before if before[mac] != after.get(mac))
    new = sorted(mac for mac in after if after[mac] != before.get(mac))
    taken = (Take(_ENTRIES, (mac,)) for mac in gone)
    return *taken, *(Put(_ENTRIES, ((mac, f"{after[mac]:#x}"),)) for mac in new)


def _v4(subnets: Iterable[str]) -> Iterable[IPv4Network]:
    for text in subnets:
        try:
            yield IPv4Network(text, strict=False)
        except ValueError:
            continue  # IPv6
