"""The decision: question + scope + table → records, NODATA, or not ours.

Strategy, as Docker's `sandbox.go` ResolveName: `a.b.c` is tried as a name on every network of the scope in
turn, then as the name `a.b` on a network called `c`, then as `a` on a network called `b.c`. The first network
that knows the name answers for all types: what it has no record of is NODATA and never asked elsewhere.
(Docker forwards every type but A, AAAA, PTR and MX; the outside world's NXDOMAIN for `TXT web` then makes
resolvers such as musl's doubt the name itself.)
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from mesh.dns.names import Contribution, NameTable
from mesh.dns.scope import Scope
from mesh.dns.wire import QClass, QType, Question


class Outcome(Enum):
    RECORDS = "records"
    NODATA = "nodata"  # the name exists, the type does not
    UNKNOWN = "unknown"  # not a name of ours: forward
    LEFT = "left"  # the name of a service that is left to Docker's own resolver


@dataclass(frozen=True, slots=True)
class Record:
    qtype: int
    data: str  # an address, or the name that a PTR points to


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to read the question: this name on these networks (id, name)."""

    name: str
    networks: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """`network` is the name of the one that answered. `names`: what the answer depends on, lower-case."""

    outcome: Outcome
    names: frozenset[str]
    network: str = ""
    matched: str = ""
    records: tuple[Record, ...] = ()


def answer(question: Question, scope: Scope, table: NameTable) -> Answer:
    """What the catalogue says. Records are in no particular order and never repeat."""
    if question.qclass not in (QClass.IN, QClass.ANY):
        return Answer(Outcome.UNKNOWN, frozenset())
    names: set[str] = set()
    for candidate in candidates(question.name, scope):
        name = candidate.name.lower()
        names.add(name)
        for network, network_name in candidate.networks:
            if found := table.get(network, name):
                return _answer(found, question.qtype, frozenset(names), network_name, name)
    return Answer(Outcome.UNKNOWN, frozenset(names))


def candidates(name: str, scope: Scope) -> Iterator[Candidate]:
    """The readings of a name, in Docker's order: unqualified first, then by ever longer network names.

    Names of networks may contain dots. Upper and lower case is ignored in them too, where Docker wants it
    exact: resolvers that play with case as a defence would fail otherwise.
    """
    yield Candidate(name, scope.networks)
    folded = name.lower()
    by_suffix: dict[str, list[tuple[str, str]]] = {}
    for network in scope.networks:
        suffix = "." + network[1].lower()
        if folded.endswith(suffix) and len(folded) > len(suffix):
            by_suffix.setdefault(suffix, []).append(network)
    for suffix in sorted(by_suffix, key=len):
        yield Candidate(name[: -len(suffix)], tuple(by_suffix[suffix]))


def _answer(
    found: tuple[Contribution, ...], qtype: int, names: frozenset[str], network: str, matched: str
) -> Answer:
    if all(contribution.left for contribution in found):
        return Answer(Outcome.LEFT, names, network, matched)
    records = tuple(_records(found, qtype))
    return Answer(Outcome.RECORDS if records else Outcome.NODATA, names, network, matched, records)


def _records(found: tuple[Contribution, ...], qtype: int) -> Iterator[Record]:
    """The union over all contributors within the network (several services may share an alias)."""
    addresses = dict.fromkeys(a for c in found for a in c.addresses)
    for address in addresses:
        family = QType.AAAA if ":" in address else QType.A
        if qtype in (family, QType.ANY):
            yield Record(family, address)
    if qtype in (QType.PTR, QType.ANY):
        target = next((c.target for c in found if c.target), "")
        if target:  # exactly one: the task, its container and its VIP may all name the address
            yield Record(QType.PTR, target)
