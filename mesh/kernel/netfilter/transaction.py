"""A change of a loaded table as a list of operations, in neither of the languages it is told in. Pure.

One value with two renderings. `as_text` is what nft reads: for whole tables, for people, and for what is too
much for one message. `mesh.kernel.netfilter.nfnetlink` packs the same operations as the kernel reads them,
because nft first asks the kernel for all its chains, sets and counters, each time, which grows with their
number.

There are only the forms that our tables have. Keys and values stand as nft writes them; their `Kind` belongs
to the set or map, as in its declaration.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, StrEnum

from mesh.balance.hash_slots import SlotDraw


class OperationKind(Enum):
    """What a set's keys, or a map's values, are; with an example of how one is written."""

    ADDRESS = "10.0.0.7"
    SLOT = "3"  # in a row, as numgen and jhash draw it
    PROTOCOL = "tcp"
    PORT = "80"
    PROTOCOL_PORT = "tcp . 80"
    MAC = "02:42:0a:00:00:07"
    MARK = "0x6d650007"
    VERDICT = "goto tcp_80"


@dataclass(frozen=True, slots=True)
class Elements:
    """A set, or a map where there is a kind of values."""

    table: str
    name: str
    key: OperationKind
    value: OperationKind | None = None


class What(StrEnum):
    """Things of a table that have a name."""

    CHAIN = "chain"
    SLOTS = "map"  # slot → address


SLOTS_TYPE = "{ typeof numgen inc mod 2 : ip daddr; }"


@dataclass(frozen=True, slots=True)
class Add:
    """An empty one."""

    what: What
    table: str
    name: str


@dataclass(frozen=True, slots=True)
class Delete:
    """Nothing may lead to it any more, and a chain has to be empty."""

    what: What
    table: str
    name: str


@dataclass(frozen=True, slots=True)
class Empty:
    """A chain loses its rules."""

    table: str
    chain: str


HASH_SEED = 0x6D657368  # a fixed one: alike on all nodes
_DRAWS = {
    SlotDraw.TURN: "numgen inc mod {}",
    SlotDraw.RANDOM: "numgen random mod {}",
    SlotDraw.HASH: f"jhash ip saddr mod {{}} seed {HASH_SEED:#x}",
}


@dataclass(frozen=True, slots=True)
class Drawn:
    """One of the addresses in a map of slots."""

    draw: SlotDraw
    slots: int
    among: str  # the map's name


@dataclass(frozen=True, slots=True)
class SetOperation:
    """How a flow is led on, beside the address."""

    protocol: str = ""  # of the flow; "": whichever
    mark: int | None = None  # for its connection
    port: int | None = None  # instead of its own. Asks for a protocol.


NO_WAY = SetOperation()


@dataclass(frozen=True, slots=True)
class Lead:
    """The rule of a chain that rewrites a flow's destination."""

    table: str
    chain: str
    to: str | Drawn  # an address, or one of many
    way: SetOperation = NO_WAY


@dataclass(frozen=True, slots=True)
class Put:
    """Elements for a set or map: (key, value); the value of a set's is ""."""

    into: Elements
    elements: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Take:
    """Elements out of a set or map, which have to be there."""

    out_of: Elements
    keys: tuple[str, ...]


Operation = Add | Delete | Empty | Lead | Put | Take
Transaction = tuple[Operation, ...]  # takes effect as a whole or not at all; () changes nothing


def as_text(transaction: Iterable[Operation]) -> str:
    """The lines that nft reads; "" for no change."""
    return "".join(f"{line(operation)}\n" for operation in transaction)


def line(operation: Operation) -> str:
    """One of them. Also what an error calls the operation."""
    match operation:
        case Add(What.SLOTS, table, name):
            return f"add map ip {table} {name} {SLOTS_TYPE}"
        case Add(what, table, name):
            return f"add {what} ip {table} {name}"
        case Delete(what, table, name):
            return f"delete {what} ip {table} {name}"
        case Empty(table, chain):
            return f"flush chain ip {table} {chain}"
        case Lead(table, chain, to, way):
            return f"add rule ip {table} {chain} {_led(to, way)}"
        case Put(into, elements):
            written = ", ".join(f"{key} : {value}" if value else key for key, value in elements)
            return f"add element ip {into.table} {into.name} {{ {written} }}"
        case Take(out_of, keys):
            return f"delete element ip {out_of.table} {out_of.name} {{ {', '.join(keys)} }}"


def _led(to: str | Drawn, way: SetOperation) -> str:
    # nft accepts a port in `dnat to` only after a match on the transport.
    match_ = f"ip protocol {way.protocol} " if way.protocol else ""
    mark = f"ct mark set {way.mark:#x} " if way.mark is not None else ""
    port = f":{way.port}" if way.port is not None else ""
    if isinstance(to, Drawn):
        return f"{match_}{mark}dnat to {_DRAWS[to.draw].format(to.slots)} map @{to.among}{port}"
    return f"{match_}{mark}dnat to {to}{port}"
