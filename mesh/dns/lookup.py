"""The decision: question + scope + table → records, NODATA, or not ours.

Strategy, as Docker's `sandbox.go` ResolveName: `a.b.c` is tried as a name on every network of the scope in
turn, then as the name `a.b` on a network called `c`, then as `a` on a network called `b.c`. Under each
reading the asker's own links come first. The first network that knows the name answers for all types.

Where `NamePolicy` says so we differ:
- of a name that several stacks have, an asker of one of them gets its own stack's, on whichever of its
  networks that is (moby#41532: a network shared with strangers may come before one's own by its name alone).
  While its own has no serving task it gets nobody else's instead: that would be a stranger's database;
- what a known name has no record of is NODATA and never asked elsewhere. Docker forwards every type but A,
  AAAA, PTR and MX; the outside world's NXDOMAIN for `TXT web` then makes resolvers such as musl's doubt the
  name itself.
"""

from collections.abc import Iterator
from enum import Enum
from typing import NamedTuple

from mesh.dns.name_policy import OURS, Elsewhere, NamePolicy, SharedAlias
from mesh.dns.name_table import NameTable
from mesh.dns.names import TASKS, Contribution, address_of
from mesh.dns.scope import Scope
from mesh.dns.srv import PortName, has_ports, ports_named
from mesh.dns.wire import DnsQuestion, QClass, QType
from mesh.labels.dns import ttl_of


class LookupOutcome(Enum):
    RECORDS = "records"
    NODATA = "nodata"  # the name exists, the type does not
    UNKNOWN = "unknown"  # not a name of ours: forward
    ELSEWHERE = "elsewhere"  # a name of ours, a type that is forwarded
    LEFT = "left"  # the name of a service that is left to Docker's own resolver
    SHORT = "short"  # no name of ours, and too short to be asked outside for somebody who searches


HERE = frozenset({LookupOutcome.RECORDS, LookupOutcome.NODATA, LookupOutcome.SHORT})  # answered by ourselves


class Record(NamedTuple):
    """`data`: an address, or as in zone files. `glue`: the addresses of an SRV's target."""

    qtype: int
    data: str
    glue: tuple[str, ...] = ()


class Candidate(NamedTuple):
    """One way to read the question: this name on these networks (id, name)."""

    name: str
    networks: tuple[tuple[str, str], ...]


class LookupAnswer(NamedTuple):
    """`network` is the name of the one that answered; `rule` says in a few words what else decided. `names`:
    what the answer depends on: lower-case names, and addresses for which a reversed name stands."""

    outcome: LookupOutcome
    names: frozenset[str]
    network: str = ""
    matched: str = ""
    rule: str = ""
    records: tuple[Record, ...] = ()
    ttl: int = 0


class NameMatch(NamedTuple):
    """A name found: on which network (by name), under which reading, and whose it is."""

    network: str
    name: str
    owners: tuple[Contribution, ...]
    rule: str = ""


def answer(question: DnsQuestion, scope: Scope, table: NameTable, policy: NamePolicy = OURS) -> LookupAnswer:
    """What the catalogue says. Records are in no particular order and never repeat."""
    if question.qclass not in (QClass.IN, QClass.ANY):
        return LookupAnswer(LookupOutcome.UNKNOWN, frozenset())
    look = Lookup(scope, table, policy)
    records: tuple[Record, ...] = ()
    match, services = look.find(question.name), False
    if match is not None:
        records = tuple(_records(match, question.qtype))
    elif policy.srv and (wanted := PortName.of(question.name)) and (match := look.with_ports(wanted.base)):
        records = tuple(_services(match, wanted, look))
        services = bool(records)
        records = records if question.qtype in (QType.SRV, QType.ANY) else ()
    if match is None:
        return LookupAnswer(_unknown(question, scope), frozenset(look.names))
    outcome = _outcome(match.owners, question.qtype, services, bool(records), policy)
    kept = records if outcome is LookupOutcome.RECORDS else ()
    ttl = _ttl(match.owners, policy)
    return LookupAnswer(outcome, frozenset(look.names), match.network, match.name, match.rule, kept, ttl)


def _unknown(question: DnsQuestion, scope: Scope) -> LookupOutcome:
    """A container that was given `ndots` searches for short names, so they mean nothing outside as they are
    (libnetwork `resolver.go` handleIPQuery)."""
    short = scope.ndots and "." not in question.name and question.qtype in (QType.A, QType.AAAA)
    return LookupOutcome.SHORT if short else LookupOutcome.UNKNOWN


def candidates(name: str, scope: Scope) -> Iterator[Candidate]:
    """The readings of a name, in Docker's order: unqualified first, then by ever longer network names.

    Names of networks may contain dots. Upper and lower case is ignored in them too, where Docker wants it
    exact: resolvers that play with case as a defence would fail otherwise. (A reversed address is no name:
    nobody means `2.1.0.10.in-addr.arpa.backend`.)
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


class Lookup:
    """Finds names for one asker and remembers, in `names`, on which the result depends."""

    def __init__(self, scope: Scope, table: NameTable, policy: NamePolicy) -> None:
        self.scope, self.table, self.policy = scope, table, policy
        self.names: set[str] = set()
        self._may_prefer = bool(scope.stack) and policy.shared_alias is SharedAlias.OWN_STACK
        self._all_count = policy.vip_ptr and policy.empty_services is Elsewhere.NODATA

    def find(self, name: str) -> NameMatch | None:
        """Whoever answers to the name, under the first reading that anybody does."""
        folded = name.lower()
        if (address := address_of(folded)) and (match := self._reversed(folded, address)):
            return match
        for candidate in candidates(name, self.scope):
            if match := self._linked(candidate) or self._registered(candidate):
                return match
        return None

    def with_ports(self, name: str) -> NameMatch | None:
        """The same, if any of them is known to have ports; where none is, names of ports are not ours."""
        match = self.find(name)
        known = match is not None and any(
            owner.service and has_ports(owner.service) for owner in match.owners
        )
        return match if known else None

    def _reversed(self, name: str, address: str) -> NameMatch | None:
        """Whose address it is: for everybody the first network's that knows it."""
        self.names.add(address)
        for id_, network in self.scope.networks:
            if found := self._counting(self.table.pointers(id_, address)):
                return NameMatch(network, name, found)
        return None

    def _linked(self, candidate: Candidate) -> NameMatch | None:
        for id_, network in candidate.networks if self.scope.links else ():
            target = self.scope.linked(id_, candidate.name)
            if target and (found := self._known(id_, target.lower())):
                rule = f"it is the asker's link to '{target}'"
                return NameMatch(network, candidate.name.lower(), self._own(found) or found, rule)
        return None

    def _registered(self, candidate: Candidate) -> NameMatch | None:
        name = candidate.name.lower()
        first: NameMatch | None = None
        for id_, network in candidate.networks:
            if self.scope.links and self.scope.linked(id_, candidate.name) is not None:
                continue
            if not (found := self._known(id_, name)):
                continue
            if own := self._own(found):
                return NameMatch(network, name, own, self._why_own(first, len(own) == len(found)))
            first = first or NameMatch(network, name, found)
            if not self._may_prefer:
                break
        return first

    def _own(self, found: tuple[Contribution, ...]) -> tuple[Contribution, ...]:
        if not self._may_prefer:
            return ()
        return tuple(owner for owner in found if owner.stack == self.scope.stack)

    def _why_own(self, first: NameMatch | None, all_own: bool) -> str:
        if first is not None:
            return f"stack '{self.scope.stack}' owns it there, and not on {first.network}"
        return "" if all_own else f"stack '{self.scope.stack}' owns it, others share it"

    def _known(self, network: str, name: str) -> tuple[Contribution, ...]:
        self.names.update((name, name.removeprefix(TASKS)))
        return self._counting(self.table.get(network, name))

    def _counting(self, found: tuple[Contribution, ...]) -> tuple[Contribution, ...]:
        return found if self._all_count else tuple(owner for owner in found if self._counts(owner))

    def _counts(self, owner: Contribution) -> bool:
        """Does the policy let the owner have the name? An empty service of the asker's own stack keeps it."""
        if owner.vip and not self.policy.vip_ptr:
            return False
        if owner.left or not owner.empty or self.policy.empty_services is Elsewhere.NODATA:
            return True
        return self._may_prefer and owner.stack == self.scope.stack


def _outcome(
    owners: tuple[Contribution, ...], qtype: int, services: bool, any_records: bool, policy: NamePolicy
) -> LookupOutcome:
    """`services`: it is the name of a port that the owners have."""
    if all(owner.left for owner in owners):
        return LookupOutcome.LEFT
    if policy.empty_services is Elsewhere.FORWARD and all(owner.empty for owner in owners):
        return LookupOutcome.ELSEWHERE
    if policy.other_types is Elsewhere.FORWARD and not (services or _dockers_type(owners, qtype)):
        return LookupOutcome.ELSEWHERE
    return LookupOutcome.RECORDS if any_records else LookupOutcome.NODATA


def _ttl(owners: tuple[Contribution, ...], policy: NamePolicy) -> int:
    """The shortest that any of them wants."""
    wanted = [ttl_of(owner.service) if owner.service else None for owner in owners]
    return min([policy.ttl if seconds is None else seconds for seconds in wanted])


def _dockers_type(owners: tuple[Contribution, ...], qtype: int) -> bool:
    """Does Docker answer the type itself? MX too: without one mail goes to the address (RFC 5321 5.1)."""
    if any(owner.pointer for owner in owners):
        return qtype == QType.PTR
    return qtype in (QType.A, QType.AAAA, QType.MX)


def _records(match: NameMatch, qtype: int) -> Iterator[Record]:
    """The union over all contributors within the network (several services may share an alias)."""
    for address in dict.fromkeys([host.address for owner in match.owners for host in owner.hosts]):
        family = QType.AAAA if ":" in address else QType.A
        if qtype == family or qtype == QType.ANY:
            yield Record(family, address)
    if qtype == QType.PTR or qtype == QType.ANY:
        pointer = next((owner.pointer for owner in match.owners if owner.pointer), "")
        if pointer:  # exactly one: the task, its container and its VIP may all name the address
            yield Record(QType.PTR, f"{pointer}.{match.network}.")


def _services(match: NameMatch, wanted: PortName, look: Lookup) -> Iterator[Record]:
    """An SRV record for each port of that name of each host, all alike (RFC 2782)."""
    found: dict[tuple[int, str], tuple[str, ...]] = {}
    for owner in match.owners:
        ports = ports_named(owner.service, wanted) if owner.service else ()
        for name in dict.fromkeys(host.name for host in owner.hosts) if ports else ():
            addresses = tuple(host.address for host in owner.hosts if host.name == name)
            if target := _target(match, name, addresses, look):
                found |= {(port, target): addresses for port in ports}
    weight = 1 if len(found) > 1 else 0  # 0: there is nothing to choose
    for (port, target), addresses in found.items():
        yield Record(QType.SRV, f"0 {weight} {port} {target}", addresses)


def _target(match: NameMatch, name: str, addresses: tuple[str, ...], look: Lookup) -> str:
    """A name that leads this asker to these addresses; "" if there is none.

    The host's own, unless another of that name comes before it for this asker; then the one asked for.
    """
    for known in (name, match.name):
        found = look.find(f"{known}.{match.network}")
        if found and {host.address for owner in found.owners for host in owner.hosts} == set(addresses):
            return f"{known}.{match.network}."
    return ""
