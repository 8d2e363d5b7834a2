"""Counting what the kernel carries, by published port: the rules for it, and their reading. Pure.

A packet is counted by its port's element in a set, one look-up, before any address is rewritten (toward the
task) or after all have been rewritten back (toward the client), so both see the published port. Connections
are counted where a flow's first packet meets the NAT chain; those for which there is no task, after that.
(Elements that count, not chains and counters of each port: the kernel looks at all chains of a table whenever
one of them gets a new rule.)

Counters begin at 0 with each table, so totals are kept here (`Totals`).
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mesh.kernel.netfilter.transaction import Elements, OperationKind, Put, Take, Transaction

# Set → the end of a connection whose port is the published one.
SETS = {"begun": "dport", "refused": "dport", "arrived": "dport", "answered": "sport"}
DECLARED = "".join(
    f"  set {name} {{ typeof ip protocol . th {end}; counter; }}\n" for name, end in SETS.items()
)


@dataclass(frozen=True, slots=True)
class CountedPort:
    """One port's totals. Bytes with their IP headers."""

    connections: int = 0
    refused: int = 0  # there was no task
    received: int = 0  # bytes, client → task
    sent: int = 0  # bytes, task → client

    def __add__(self, other: "CountedPort") -> "CountedPort":
        return CountedPort(
            self.connections + other.connections,
            self.refused + other.refused,
            self.received + other.received,
            self.sent + other.sent,
        )

    def __sub__(self, other: "CountedPort") -> "CountedPort":
        return self + CountedPort(-other.connections, -other.refused, -other.received, -other.sent)


NOTHING = CountedPort()


def counting_chains(sandbox: str) -> str:
    """The chains that every packet passes. `sandbox`: the address that published ports have in there."""
    return (
        f"  chain arriving {{\n"
        f"    type filter hook prerouting priority -300; policy accept;\n"
        f"    ip daddr {sandbox} ip protocol . th dport @arrived\n"
        f"  }}\n"
        f"  chain answering {{\n"
        f"    type filter hook postrouting priority 300; policy accept;\n"
        f"    ip saddr {sandbox} ip protocol . th sport @answered\n"
        f"  }}\n"
    )


def counting_update(table: str, before: Iterable[str], after: Iterable[str]) -> Transaction:
    """The transaction between two sets of ports ("80/tcp"); () when they are the same."""
    old, new = set(before), set(after)
    gone, come = (tuple(map(_element, sorted(ports))) for ports in (old - new, new - old))
    sets = [Elements(table, name, OperationKind.PROTOCOL_PORT) for name in SETS]
    taken = (Take(one, gone) for one in sets if gone)
    return *taken, *(Put(one, tuple((port, "") for port in come)) for one in sets if come)


def listing(table: str) -> tuple[str, ...]:
    """What nft is to be asked for `read_counters`: one set at a time, for of two in a text nft 1.0.6 finds
    only the last one."""
    return tuple(f"list set ip {table} {name}\n" for name in SETS)


def read_counters(listed: str) -> dict[str, CountedPort]:
    """All answers to `listing` → port → what it has counted since the table was loaded."""
    found: dict[str, dict[str, tuple[int, int]]] = {}
    name = ""
    for token in _TOKEN.finditer(listed):
        if token["set"]:
            name = token["set"]
        else:
            protocol = PROTOCOL_NAMES.get(token["protocol"], token["protocol"])
            of_port = found.setdefault(f"{token['port']}/{protocol}", {})
            of_port[name] = int(token["packets"]), int(token["bytes"])
    return {key: _counted(sets) for key, sets in found.items()}


class Totals:
    """Sums over tables that come and go. A port that is not published any more is forgotten."""

    def __init__(self) -> None:
        self._last: dict[str, CountedPort] = {}
        self.ports: dict[str, CountedPort] = {}

    def begin_anew(self) -> None:
        """The table is replaced: the next reading counts from 0, however high it is."""
        self._last = {}

    def take(self, read: Mapping[str, CountedPort]) -> None:
        """A reading; numbers that have fallen began anew."""
        totals = {}
        for key, now in read.items():
            last = self._last.get(key, NOTHING)
            anew = now.connections < last.connections or now.received < last.received or now.sent < last.sent
            totals[key] = self.ports.get(key, NOTHING) + (now if anew else now - last)
        self._last, self.ports = dict(read), totals


# A set's name, or one of its elements.
_TOKEN = re.compile(
    r"\bset (?P<set>\w+) \{"
    r"|(?P<protocol>\w+) \. (?P<port>\d+) counter packets (?P<packets>\d+) bytes (?P<bytes>\d+)"
)
# Where there is no /etc/protocols nft writes numbers.
PROTOCOL_NAMES = {"6": "tcp", "17": "udp", "132": "sctp"}


def _counted(sets: Mapping[str, tuple[int, int]]) -> CountedPort:
    none = (0, 0)
    return CountedPort(
        sets.get("begun", none)[0],
        sets.get("refused", none)[0],
        sets.get("arrived", none)[1],
        sets.get("answered", none)[1],
    )


def _element(port: str) -> str:
    published, _, protocol = port.partition("/")
    return f"{protocol} . {published}"
