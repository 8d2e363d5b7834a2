"""The deliberate differences between Docker's resolver and ours: a table of named, narrow rules.

A rule claims aspects (`dns_comparison`) of the cases that it holds for, and sees to it that ours is then what
docs/dns.md promises under the rule's name. A differing aspect that no rule claims, or two do, is a fault.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import ip_address

from tests.support.dns_comparison import DOCKER_TTL, REVERSE, Aspects, Case, differing, service_labels
from tests.support.dns_message import (
    AAAA,
    ANY,
    IN,
    MX,
    OPT,
    PTR,
    RA,
    SOA,
    SRV,
    TC,
    A,
    Labels,
    Reply,
    Unreadable,
    folded,
    labels,
    parse,
)
from tests.support.dns_world import STACK_NAMES, UNSERVED, World

OUR_TTL = 5  # seconds
OUR_UDP_SIZE = 1232  # bytes
NOERROR, FORMERR, SERVFAIL, NOTIMP, REFUSED = 0, 1, 2, 4, 5
IXFR, AXFR = 251, 252
BADVERS = 16
OWN_ERRORS = (FORMERR, SERVFAIL, NOTIMP)  # that a resolver makes itself
OLD, NEW = "20.10", "26.1"
WHOLE = ("silence", "rcode", "flags", "truncation", "answers", "authority", "additional")


@dataclass(frozen=True)
class Difference:
    """`holds` looks at the whole case; `aspects` are what the rule excuses then.

    `setting`: the key under `dns:` of mesh.yml that can undo it.
    """

    name: str
    aspects: tuple[str, ...]
    holds: Callable[[Case], bool]
    reason: str
    engines: tuple[str, ...] = (OLD, NEW)
    setting: str = ""

    def claims(self, case: Case, aspect: str) -> bool:
        return aspect in self.aspects and self.of(case.world) and self.holds(case)

    def of(self, world: World) -> bool:
        return world.engine.startswith(self.engines) and not (self.setting and world.as_docker)


def judge(case: Case, aspects: Aspects) -> tuple[dict[str, str], set[str]]:
    """(aspect → why it is a fault, names of the rules that excused others)."""
    faults: dict[str, str] = {}
    used: set[str] = set()
    for aspect, (docker, ours) in aspects.items():
        claiming = [rule.name for rule in DIFFERENCES if rule.claims(case, aspect)]
        if len(claiming) == 1:
            used.add(claiming[0])
        else:
            why = " and ".join(claiming) + " all claim it" if claiming else "no documented difference"
            faults[aspect] = f"Docker {docker!r}, ours {ours!r}: {why}"
    return faults, used


# --- what a reply is ----------------------------------------------------------------------------------------


def _nodata(reply: Reply | None) -> bool:
    """As RFC 2308 2.2 wants it: NOERROR, no answer, one SOA."""
    return (
        reply is not None
        and (reply.rcode, reply.answers) == (NOERROR, ())
        and [record.rtype for record in reply.authority] == [SOA]
        and reply.authority[0].ttl
        in (OUR_TTL, DOCKER_TTL)  # the latter where we are set to do as Docker does
    )


def _data(reply: Reply | None) -> set[tuple[int, bytes]]:
    return set() if reply is None else {(record.rtype, record.data) for record in reply.answers}


def _says_the_reference(case: Case) -> bool:
    """Ours are the records that Docker gives for the plain question; some of them, if they are too many.

    (And AAAA records, where all types are asked for.)
    """
    ours = {one for one in _data(case.ours) if one[0] != AAAA}
    if case.ours is not None and case.ours.flags & TC:
        return bool(ours) and ours < _data(case.reference)
    return case.known and (ours == _data(case.reference) or _says_the_own(case))


def _says_the_own(case: Case) -> bool:
    """Of a name that the asker's stack has, and others have too, the stack's own.

    Those that Docker gives for the plain question, or, if it gives none of them, those of another network.
    """
    if not _owned(case):
        return False
    ours, docker = _data(case.ours), _data(case.reference)
    own = {(A, ip_address(address).packed) for address in case.world.stacks[case.asker.stack]}
    return bool(ours) and ours <= own and ours != docker and ours == (docker & own or ours)


def _owned(case: Case) -> bool:
    """Has the asker's stack a service of that name?"""
    names = STACK_NAMES | {f"{case.asker.stack}_web"} if case.asker.stack else set()
    return any(name in map(labels, names) for name, _ in _reads(case.proper, case.asker.networks))


# --- what a name is -----------------------------------------------------------------------------------------


def _reads(name: Labels, networks: Iterable[str]) -> Iterable[tuple[Labels, str]]:
    """(name without `tasks.`, network) for a name that means one of these networks, "" for any."""
    plain = folded(name)
    plain = plain[1:] if plain[:1] == (b"tasks",) else plain
    yield plain, ""
    for network in networks:
        suffix = folded(labels(network))
        if plain[-len(suffix) :] == suffix:
            yield plain[: -len(suffix)], network


_NEVER_SERVED = frozenset(
    (labels(label), network.split(",")[0].removeprefix("name="))
    for service in UNSERVED
    for network in service.networks
    for label in (service.name, *(word[6:] for word in network.split(",") if word.startswith("alias=")))
)


def _unserved(case: Case) -> bool:
    """The name of a service without a running task, on a network of the asker."""
    reads = list(_reads(case.proper, case.asker.networks))
    return any(
        (name, network) in _NEVER_SERVED and on in ("", network)
        for name, on in reads
        for network in case.asker.networks
    )


def _vip(case: Case) -> tuple[str, str] | None:
    """(service, network) if the name is the reverse of a VIP on a network of the asker."""
    name = folded(case.question.name)
    if name[-2:] != REVERSE[0]:
        return None
    found = case.world.vips.get(b".".join(reversed(name[:-2])).decode("ascii", "replace"))
    return found if found is not None and found[1] in case.asker.networks else None


def _misspelled(case: Case) -> bool:
    return case.proper != case.question.name


def _reverse(case: Case) -> bool:
    return case.proper[-2:] in REVERSE


# --- the rules' conditions ----------------------------------------------------------------------------------


def _ttl(case: Case) -> bool:
    return differing(case)["ttl"] == ({DOCKER_TTL}, {OUR_TTL})


def _edns(case: Case) -> bool:
    docker, ours, asked = case.docker, case.ours, case.question.edns
    if docker is None or ours is None or ours.opt is None or asked is None:
        return False
    return docker.opt is None and ours.opt.rclass == OUR_UDP_SIZE


def _soa(case: Case) -> bool:
    """Docker says NODATA too, for the types that it answers itself, but without a SOA."""
    docker = case.docker
    if docker is None or case.question.qtype not in (AAAA, MX) or not case.known:
        return False
    return _nodata(case.ours) and (docker.rcode, docker.answers, docker.authority) == (NOERROR, (), ())


def _opt_room(case: Case) -> bool:
    """Our OPT takes the place of the last record."""
    docker, ours = case.docker, case.ours
    if docker is None or ours is None or not _edns(case) or case.question.tcp:
        return False
    return bool(docker.flags & ours.flags & TC) and len(ours.answers) == len(docker.answers) - 1


def _other_type(case: Case) -> bool:
    reverse = (_vip(case) is not None or _unspeakable(case)) and case.question.qtype != PTR
    return _nodata(case.ours) and (case.known or reverse) and not _soa(case)


def _no_task(case: Case) -> bool:
    return _nodata(case.ours) and _unserved(case) and not case.known


def _vip_pointer(case: Case) -> bool:
    vip = _vip(case)
    if vip is None or case.ours is None or case.question.qtype not in (PTR, ANY) or case.known:
        return False
    target = b"".join(bytes((len(label),)) + label for label in labels(".".join(vip))) + b"\0"
    return _data(case.ours) == {(PTR, target)}


def _service(case: Case) -> bool:
    """`_port._proto.NAME` of a NAME that Docker knows: where that is served, or NODATA."""
    if not service_labels(case.question.name) or not case.reference_known or case.ours is None:
        return False
    return _nodata(case.ours) or (
        {record.rtype for record in case.ours.answers} == {SRV}
        and {str(ip_address(r.data)) for r in case.ours.additional if r.rtype == A} <= {*case.world.addresses}
    )


def _any(case: Case) -> bool:
    return case.question.qtype == ANY and _says_the_reference(case)


def _other_case(case: Case) -> bool:
    """Of an A question about what Docker knows in another spelling."""
    plain = case.question.qtype == A and _misspelled(case) and not _reverse(case)
    return plain and _says_the_reference(case)


def _network_case(case: Case) -> bool:
    return _other_case(case) and not _link(case)


def _link_case(case: Case) -> bool:
    return _other_case(case) and _link(case)


def _link(case: Case) -> bool:
    links = [folded(labels(link)) for link in case.asker.links]
    return any(name in links for name, _ in _reads(case.proper, case.asker.networks))


def _arpa_case(case: Case) -> bool:
    return case.question.qtype == PTR and _misspelled(case) and _reverse(case) and _says_the_reference(case)


def _four_under_six(case: Case) -> bool:
    """`4.3.2.1.ip6.arpa`: Docker turns it round and finds an IPv4 address."""
    plain = case.question.qtype == PTR and not _misspelled(case) and not _refused(case)
    # A container whose name DNS cannot hold is found as well, and then its name cannot be said.
    return plain and _four_octets(case) and (case.known or _octets_of_unspeakable(case))


def _four_octets(case: Case) -> bool:
    return case.proper[-2:] == REVERSE[1] and len(case.proper) == 6


def _octets_of_unspeakable(case: Case) -> bool:
    address = b".".join(reversed(case.proper[:-2])).decode("ascii", "replace")
    nothing = case.docker is None or not case.docker.answers
    return address in case.world.unspeakable and nothing


def _compressed(case: Case) -> bool:
    docker, ours = case.docker, case.ours
    if docker is None or ours is None or case.question.tcp or not case.known:
        return False
    more = len(ours.answers) > len(docker.answers) and _data(ours) <= _data(case.reference)
    return bool(docker.flags & TC) and more and ours.size <= case.question.limit


def _unspeakable(case: Case) -> bool:
    """The name of the container at this address has a label that is too long."""
    long = case.world.unspeakable
    return any(folded(case.question.name) == labels(ip_address(a).reverse_pointer) for a in long)


def _no_pointer(case: Case) -> bool:
    nothing = case.docker is None or not case.docker.answers
    if case.question.qtype not in (PTR, ANY) or not _unspeakable(case) or not nothing or case.ours is None:
        return False
    return [record.rtype for record in case.ours.answers] == [PTR]


def _unknown_pointer(case: Case) -> bool:
    """A PTR question about anything but `….in-addr.arpa` and `….ip6.arpa`, in lower case."""
    if case.question.qtype != PTR or case.question.name[-2:] in REVERSE or _refused(case):
        return False
    # Of a name that DNS cannot hold only those on its network could be told.
    named = _unspeakable(case) and case.ours is not None and bool(case.ours.answers)
    nobody = not case.known and _vip(case) is None and not named
    return (nobody or _four_octets(case)) and not case.asker.shut_in and not _nodata(case.ours)


def _shut_in(case: Case) -> bool:
    ours = case.ours
    return case.asker.shut_in and ours is not None and (ours.rcode, ours.answers) == (SERVFAIL, ())


def _available(case: Case) -> bool:
    docker, ours = case.docker, case.ours
    if docker is None or ours is None or docker.rcode != ours.rcode or docker.rcode not in OWN_ERRORS:
        return False
    return docker.flags ^ ours.flags == RA and bool(ours.flags & RA)


def _refused(case: Case) -> bool:
    return case.ours is not None and (case.ours.rcode, case.ours.answers) == (REFUSED, ())


def _other_class(case: Case) -> bool:
    return case.question.qclass not in (IN, ANY) and case.question.qtype != OPT and _refused(case)


def _transfer(case: Case) -> bool:
    return case.question.qtype in (IXFR, AXFR) and case.question.qclass in (IN, ANY) and _refused(case)


def _opt_question(case: Case) -> bool:
    return case.question.qtype == OPT and case.ours is not None and case.ours.rcode == FORMERR


def _notify(case: Case) -> bool:
    """Docker takes a NOTIFY (opcode 4) for a query."""
    ours = case.ours
    return case.question.raw[2:3] == b"\x21" and ours is not None and (ours.rcode, ours.size) == (NOTIMP, 12)


def _own_stack(case: Case) -> bool:
    return case.question.qtype == A and not _misspelled(case) and _says_the_own(case)


def _broken(case: Case) -> bool:
    """It ends early, or has two OPT records: Docker answers what it can read of it, or nothing."""
    raw, docker, ours = case.question.raw, case.docker, case.ours
    if not raw or _whole(raw) or (docker is not None and docker.rcode == FORMERR):
        return False
    return ours is not None and (ours.rcode, ours.size) == (FORMERR, 12)


def _whole(raw: bytes) -> bool:
    try:
        message = parse(raw)
    except Unreadable:
        return False
    return [record.rtype for record in message.additional].count(OPT) <= 1


def _bad_version(case: Case) -> bool:
    """BADVERS, whose upper bits stand in the OPT record."""
    if not case.question.raw or not _whole(case.question.raw) or case.ours is None or case.ours.opt is None:
        return False
    asked = parse(case.question.raw).opt
    return asked is not None and bool(asked.ttl >> 16 & 0xFF) and case.ours.opt.ttl >> 24 == BADVERS >> 4


_SILENCE = "silence costs a client seconds"
_ANY_CASE = "names are case-insensitive (RFC 4343)"

DIFFERENCES = (
    # what a record says
    Difference("TTL of our own names", ("ttl",), _ttl, "moby#30029", setting="ttl"),
    Difference("own stack first", ("answers",), _own_stack, "moby#41532", setting="shared_alias"),
    Difference("PTR of a VIP", WHOLE, _vip_pointer, "moby#46701", setting="vip_ptr"),
    # what is not there
    Difference("SOA with NODATA", ("authority",), _soa, "RFC 2308 2.2"),
    Difference("known name, another type", WHOLE, _other_type, "moby#45553", setting="other_types"),
    Difference("SRV of a known name", WHOLE, _service, "moby#24605", setting="srv"),
    Difference("known name, type ANY", WHOLE, _any, "the same", setting="other_types"),
    Difference("service without a running task", WHOLE, _no_task, "moby#35118", setting="empty_services"),
    Difference("PTR to a name that DNS cannot hold", WHOLE, _no_pointer, "SERVFAIL makes clients ask again"),
    Difference("PTR of what is no address", ("silence",), _unknown_pointer, _SILENCE, engines=(OLD,)),
    Difference("unknown name on internal networks", ("silence",), _shut_in, _SILENCE, engines=(OLD,)),
    # which names are the same
    Difference("case of a network's name", WHOLE, _network_case, _ANY_CASE),
    Difference("case of a link's alias", WHOLE, _link_case, _ANY_CASE),
    Difference("case of in-addr.arpa", WHOLE, _arpa_case, _ANY_CASE),
    Difference(
        "IPv4 address under ip6.arpa", WHOLE, _four_under_six, "no address has that name (RFC 3596 2.5)"
    ),
    # the message
    Difference("EDNS", ("edns",), _edns, "RFC 6891 6.1.1"),
    Difference("EDNS in a truncated reply", ("answers",), _opt_room, "OPT takes the room of a record"),
    Difference("EDNS of an unknown version", (*WHOLE, "question", "edns"), _bad_version, "RFC 6891 6.1.3"),
    Difference("RA in errors", ("flags",), _available, "recursion is available"),
    Difference("class other than IN", WHOLE, _other_class, "no names of ours are there"),
    Difference("zone transfer", WHOLE, _transfer, "no upstream of a container is for that"),
    Difference("question for OPT", (*WHOLE, "question"), _opt_question, "it is no record (RFC 6891 6.1.1)"),
    Difference("query that is not whole", (*WHOLE, "question"), _broken, "what was asked is a guess"),
    Difference("opcode NOTIFY", (*WHOLE, "question"), _notify, "it is no query (RFC 1996)"),
    Difference(
        "more records in a truncated reply", ("answers", "truncation"), _compressed, "compressed", (OLD,)
    ),
)
