"""Where two replies to one question differ. Pure: a `Case` in, what differs out.

TTLs (of what both say) are an aspect of their own, and so is EDNS: they differ everywhere, and would hide the
rest. Order does not count. Of two truncated replies only the number of records is compared: which ones were
kept is chance.
"""

from dataclasses import dataclass

from tests.support.dns_message import (
    FLAG_NAMES,
    OPT,
    PTR,
    TC,
    A,
    Labels,
    Question,
    Record,
    Reply,
    folded,
    labels,
)
from tests.support.dns_world import Asker, World

_HEADER_BITS = ~TC & ~0xF & 0xFFFF
DOCKER_TTL = 600


@dataclass(frozen=True)
class Case:
    """One question, what both resolvers said (None: nothing), and what is known besides.

    `reference`: Docker's reply to `reference_to(question, asker)`.
    """

    asker: Asker
    question: Question
    docker: Reply | None
    ours: Reply | None
    reference: Reply | None
    world: World

    @property
    def known(self) -> bool:
        """Does Docker know the name itself?"""
        return self.reference_known and not service_labels(self.question.name)

    @property
    def reference_known(self) -> bool:
        """Only Docker's own records have this TTL in the lab."""
        return self.reference is not None and any(r.ttl == DOCKER_TTL for r in self.reference.answers)

    @property
    def proper(self) -> Labels:
        """The name as Docker wants it spelled."""
        return properly_spelled(self.question.name, self.asker)

    def __str__(self) -> str:
        on = ", ".join(self.asker.networks)
        told = f"{self.asker.name} (on {on}) asks: {self.question}"
        return f"{told}\nDocker {self.world.engine}: {self.docker or 'silent'}\nours: {self.ours or 'silent'}"


REVERSE = (labels("in-addr.arpa"), labels("ip6.arpa"))


def reference_to(question: Question, asker: Asker) -> Question:
    """The plainest question about the name, spelled as Docker wants it: does it know the name at all?

    Of `_http._tcp.NAME`, which Docker does not know, it is `NAME` that is asked for.
    """
    name = properly_spelled(question.name, asker)
    name = name[len(service_labels(name)) :]
    return Question(name, PTR if name[-2:] in REVERSE else A, tcp=True)


def service_labels(name: Labels) -> Labels:
    """The `_port._proto` that a name begins with (RFC 2782), or nothing."""
    front = name[:2]
    return front if len(name) > 2 and all(label.startswith(b"_") for label in front) else ()


def properly_spelled(name: Labels, asker: Asker) -> Labels:
    """Docker compares names of networks, of links, `in-addr.arpa` and `ip6.arpa` with regard to case."""
    links = {folded(labels(link)): labels(link) for link in asker.links}
    for network in sorted((*asker.networks, "in-addr.arpa", "ip6.arpa"), key=len, reverse=True):
        suffix = labels(network)
        if len(name) > len(suffix) and folded(name[-len(suffix) :]) == folded(suffix):
            plain = name[: -len(suffix)]
            return links.get(folded(plain), plain) + suffix
    return links.get(folded(name), name)


Aspects = dict[str, tuple[object, object]]  # aspect → what Docker said, what we said


def differing(case: Case) -> Aspects:
    """The aspects in which the replies differ."""
    docker, ours = case.docker, case.ours
    if docker is None or ours is None:
        return {} if docker is ours else {"silence": (docker is None, ours is None)}
    truncated = bool(docker.flags & ours.flags & TC)
    seen = {
        "id": (docker.id, ours.id),
        "rcode": (docker.rcode, ours.rcode),
        "flags": (_flags(docker), _flags(ours)),
        "truncation": (bool(docker.flags & TC), bool(ours.flags & TC)),
        "question": (docker.section, ours.section),
        "answers": (_answers(docker, case, truncated), _answers(ours, case, truncated)),
        "repetition": (_repeated(docker), _repeated(ours)),
        "ttl": (_ttls(docker, ours), _ttls(ours, docker)),
        "authority": (_content(docker.authority), _content(ours.authority)),
        "additional": (_content(_plain(docker)), _content(_plain(ours))),
        "edns": (_edns(docker), _edns(ours)),
        "too large": (docker.size > case.question.limit, ours.size > case.question.limit),
    }
    return {aspect: values for aspect, values in seen.items() if values[0] != values[1]}


def _flags(reply: Reply) -> str:
    return " ".join(name for name, bit in FLAG_NAMES.items() if reply.flags & bit & _HEADER_BITS)


def _content(records: tuple[Record, ...]) -> frozenset[object]:
    return frozenset(record.key for record in records)


def _answers(reply: Reply, case: Case, truncated: bool) -> object:
    return _some(reply, case) if truncated else _content(reply.answers)


def _some(reply: Reply, case: Case) -> tuple[int, bool]:
    """How many records were kept, and are they all of the whole reply's (where Docker answers itself)?"""
    whole = {record.data for record in case.reference.answers} if case.reference and case.known else None
    return len(reply.answers), whole is None or whole.issuperset(record.data for record in reply.answers)


def _repeated(reply: Reply) -> int:
    return len(reply.answers) - len({record.key for record in reply.answers})


def _ttls(reply: Reply, other: Reply) -> frozenset[int]:
    """Of what both say."""
    common = {record.key for record in other.answers}
    return frozenset(record.ttl for record in reply.answers if record.key in common)


def _plain(reply: Reply) -> tuple[Record, ...]:
    return tuple(record for record in reply.additional if record.rtype != OPT)


def _edns(reply: Reply) -> tuple[int, int] | None:
    """Size and flags of the OPT record (its options are its server's business)."""
    return None if reply.opt is None else (reply.opt.rclass, reply.opt.ttl)
