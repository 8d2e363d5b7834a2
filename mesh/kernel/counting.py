"""Counting what the kernel carries, by published port: the rules for it, and their reading. Pure.

A packet finds its port's counter by one look-up in a verdict map, before any address is rewritten (toward the
task) or after all have been rewritten back (toward the client), so both see the published port. Connections
are counted where a flow's first packet meets the NAT chain; those for which there is no task, after that.

Counters begin at 0 with each table, so totals are kept here (`Totals`).
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from mesh.kernel.transaction import (
    Add,
    Count,
    Delete,
    Elements,
    Empty,
    Kind,
    Operation,
    Put,
    Take,
    Transaction,
    What,
)

KINDS = {
    "new": ("begun", "jump"),
    "none": ("refused", "jump"),
    "in": ("arrived", "goto"),
    "out": ("answered", "goto"),
}

MAPS = "".join(
    f"  map {name} {{ typeof ip protocol . th {end} : verdict; }}\n"
    for name, end in (("begun", "dport"), ("refused", "dport"), ("arrived", "dport"), ("answered", "sport"))
)


@dataclass(frozen=True, slots=True)
class Counted:
    """One port's totals. Bytes with their IP headers."""

    connections: int = 0
    refused: int = 0  # there was no task
    received: int = 0  # bytes, client → task
    sent: int = 0  # bytes, task → client

    def __add__(self, other: "Counted") -> "Counted":
        return Counted(
            self.connections + other.connections,
            self.refused + other.refused,
            self.received + other.received,
            self.sent + other.sent,
        )

    def __sub__(self, other: "Counted") -> "Counted":
        return self + Counted(-other.connections, -other.refused, -other.received, -other.sent)


NOTHING = Counted()


def counting_chains(sandbox: str) -> str:
    """The chains that every packet passes. `sandbox`: the address that published ports have in there."""
    return (
        f"  chain arriving {{\n"
        f"    type filter hook prerouting priority -300; policy accept;\n"
        f"    ip daddr {sandbox} ip protocol . th dport vmap @arrived\n"
        f"  }}\n"
        f"  chain answering {{\n"
        f"    type filter hook postrouting priority 300; policy accept;\n"
        f"    ip saddr {sandbox} ip protocol . th sport vmap @answered\n"
        f"  }}\n"
    )


def counting_update(table: str, before: Iterable[str], after: Iterable[str]) -> Transaction:
    """The transaction between two sets of ports ("80/tcp"); () when they are the same."""
    old, new = set(before), set(after)
    changes: list[Operation] = []
    for key in sorted(old - new):
        changes += _without(table, *_parts(key))
    for key in sorted(new - old):
        changes += _with(table, *_parts(key))
    return tuple(changes)


def read_counters(listing: str) -> dict[str, Counted]:
    """The output of `list counters table ip …` → port → what it has counted since the table was loaded."""
    found: dict[str, dict[str, tuple[int, int]]] = {}
    for protocol, number, kind, packets, bytes_ in _COUNTER.findall(listing):
        found.setdefault(f"{number}/{protocol}", {})[kind] = int(packets), int(bytes_)
    return {key: _counted(kinds) for key, kinds in found.items()}


class Totals:
    """Sums over tables that come and go. A port that is not published any more is forgotten."""

    def __init__(self) -> None:
        self._last: dict[str, Counted] = {}
        self.ports: dict[str, Counted] = {}

    def begin_anew(self) -> None:
        """The table is replaced: the next reading counts from 0, however high it is."""
        self._last = {}

    def take(self, read: Mapping[str, Counted]) -> None:
        """A reading; numbers that have fallen began anew."""
        totals = {}
        for key, now in read.items():
            last = self._last.get(key, NOTHING)
            anew = now.connections < last.connections or now.received < last.received or now.sent < last.sent
            totals[key] = self.ports.get(key, NOTHING) + (now if anew else now - last)
        self._last, self.ports = dict(read), totals


_COUNTER = re.compile(r"counter (\w+?)_(\d+)_(\w+) \{\s*packets (\d+) bytes (\d+)")


def _counted(kinds: Mapping[str, tuple[int, int]]) -> Counted:
    none = (0, 0)
    return Counted(
        kinds.get("new", none)[0],
        kinds.get("none", none)[0],
        kinds.get("in", none)[1],
        kinds.get("out", none)[1],
    )


def _parts(key: str) -> tuple[str, str]:
    published, _, protocol = key.partition("/")
    return protocol, published


def _with(table: str, protocol: str, published: str) -> Iterator[Operation]:
    for kind, (where, verdict) in KINDS.items():
        name = f"{protocol}_{published}_{kind}"
        yield Add(What.COUNTER, table, name)
        yield Add(What.CHAIN, table, name)
        yield Count(table, name)
        yield Put(_counted_by(table, where), ((f"{protocol} . {published}", f"{verdict} {name}"),))


def _without(table: str, protocol: str, published: str) -> Iterator[Operation]:
    for kind, (where, _) in KINDS.items():
        name = f"{protocol}_{published}_{kind}"
        yield Take(_counted_by(table, where), (f"{protocol} . {published}",))
        yield Empty(table, name)
        yield Delete(What.CHAIN, table, name)
        yield Delete(What.COUNTER, table, name)


def _counted_by(table: str, name: str) -> Elements:
    return Elements(table, name, Kind.PROTOCOL_PORT, Kind.VERDICT)
