"""Which packets for the node's listeners DOCKER-USER is to be asked about, as nftables text. Pure.

A port that the sidecar listens on itself (relayed, HTTP, an entry point, everything over IPv6) is reached
through INPUT, which Docker's chain is no part of. A set of any number of ports is one look-up in nftables
and a rule for every fifteen ports in iptables; so the table here marks the packets, and one rule in INPUT
has the marked ones asked (`mesh.kernel.firewall.filter_table`). That rule takes the mark off; where it is
missing, because somebody has just loaded rules without it, the packet still has its mark after INPUT and is
dropped: a client's next SYN is answered, once the rule is back. What comes by `lo` is not asked, as the
node's own connections don't pass FORWARD either.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from mesh.kernel.firewall.filter_table import Family

LISTENER_TABLE = "mesh_listeners"
LISTENER_SET = "listeners"
DELETE_LISTENERS = f"add table inet {LISTENER_TABLE}\ndelete table inet {LISTENER_TABLE}\n"
LIST_LISTENERS = f"list chain inet {LISTENER_TABLE} listener\n"

# Of the packet's mark, between the priorities of the two chains below, which stand around filter's 0.
MARK_NFT, MARK_LEGACY = 0x1000_0000, 0x2000_0000
BEFORE_INPUT, AFTER_INPUT = -5, 5
BEFORE_EVERYTHING = -450  # ahead of conntrack's defragmentation and of raw

Listener = tuple[str, int]  # "tcp", 80


@dataclass(frozen=True, slots=True)
class PacketVerdict:
    """What becomes of a family's packets: asked of every back end in `mark`, or dropped. Neither: let in."""

    mark: int = 0
    dropped: bool = False


LET_IN, DROPPED = PacketVerdict(), PacketVerdict(dropped=True)


def listener_rules(
    listeners: Collection[Listener],
    verdicts: Mapping[Family, PacketVerdict],
    private: Collection[int] = (),
) -> str:
    """The whole table, in place of what was there. `private`: TCP ports on 127.0.0.0/8, for
    this node alone even where somebody has route_localnet on."""
    marked = [one for one in verdicts.values() if one.mark]
    every = 0
    for one in marked:
        every |= one.mark
    unasked = f"    meta mark & {every:#x} != 0 {_OURS} drop\n" if every else ""
    return (
        f"{DELETE_LISTENERS}table inet {LISTENER_TABLE} {{\n"
        f"  set {LISTENER_SET} {{ typeof meta l4proto . th dport; }}\n"
        f"  chain before {{\n"
        f"    type filter hook input priority {BEFORE_INPUT}; policy accept;\n"
        f"    {_OURS} jump listener\n"
        f"  }}\n"
        f"{_private(private)}"
        f"  chain listener {{\n"
        f"{''.join(_decided(family, verdicts[family]) for family in sorted(verdicts))}"
        f"  }}\n"
        f"  chain after {{\n"
        f"    type filter hook input priority {AFTER_INPUT}; policy accept;\n"
        f"{unasked}"
        f"  }}\n"
        f"}}\n"
    ) + listener_update((), listeners)


def listener_update(before: Collection[Listener], after: Collection[Listener]) -> str:
    """The change of a loaded table; "" for none."""
    gone, new = set(before) - set(after), set(after) - set(before)
    return _elements("delete", gone) + _elements("add", new)


_OURS = f'iifname != "lo" meta l4proto . th dport @{LISTENER_SET}'


def _decided(family: Family, verdict: PacketVerdict) -> str:
    match = f"    meta nfproto ipv{int(family)}"
    if verdict.dropped:
        return f"{match} drop\n"
    return f"{match} meta mark set meta mark | {verdict.mark:#x}\n" if verdict.mark else ""


def _private(ports: Collection[int]) -> str:
    if not ports:
        return ""
    listed = ", ".join(map(str, sorted(ports)))
    return (
        f"  chain private {{\n"
        f"    type filter hook prerouting priority {BEFORE_EVERYTHING}; policy accept;\n"
        f'    ip daddr 127.0.0.0/8 iifname != "lo" tcp dport {{ {listed} }} drop\n'
        f"  }}\n"
    )


def _elements(verb: str, listeners: Collection[Listener]) -> str:
    if not listeners:
        return ""
    listed = ", ".join(f"{protocol} . {port}" for protocol, port in sorted(listeners))
    return f"{verb} element inet {LISTENER_TABLE} {LISTENER_SET} {{ {listed} }}\n"
