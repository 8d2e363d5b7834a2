"""The judge of the parity ring is strict: what no rule names is a fault. No lab is needed for that."""

from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from tests.support.dns_comparison import Case, differing
from tests.support.dns_differences import DIFFERENCES, judge
from tests.support.dns_message import (
    AA,
    ANY,
    HTTPS,
    IN,
    OPT,
    PTR,
    QR,
    RA,
    RD,
    SOA,
    TC,
    TXT,
    A,
    Edns,
    Labels,
    Question,
    Record,
    Reply,
    Unreadable,
    labels,
    parse,
)
from tests.support.dns_world import Asker, World
from tests.support.swarm import Box, Swarm

MANUAL = Path(__file__).parents[2] / "docs" / "dns.md"
NXDOMAIN, SERVFAIL = 3, 2
VIP, TASK, OTHER = "10.0.1.2", "10.0.1.3", "10.0.1.9"


def asker(*networks: str, stack: str = "", links: tuple[str, ...] = ()) -> Asker:
    box = Box(Swarm(), "swarm00", "id", "asker", "/netns", dict.fromkeys(networks, "10.0.1.8"))
    return Asker("asker", box, 1, 2, stack, links)


def world(engine: str = "26.1.5") -> World:
    stacks = {"red": frozenset({VIP})}
    return World({}, (), (), ("alpha",), (), {VIP: ("web", "alpha")}, stacks, (OTHER,), engine)


def address(name: str, text: str, ttl: int = 600) -> Record:
    return Record(labels(name), A, IN, ttl, ip_address(text).packed)


def pointer(name: str, target: str, ttl: int) -> Record:
    data = b"".join(bytes((len(label),)) + label for label in labels(target)) + b"\0"
    return Record(labels(name), PTR, IN, ttl, data)


def nothing(name: str) -> Record:
    return Record(labels(name), SOA, IN, 5, bytes(22))


def reply(question: Question, *answers: Record, flags: int = QR | RD | RA, soa: str = "") -> Reply:
    authority = (nothing(soa),) if soa else ()
    return Reply(7, flags, question.section, answers, authority, (), 100)


def case(
    question: Question,
    docker: Reply | None,
    ours: Reply | None,
    *,
    reference: Reply | None = None,
    who: Asker | None = None,
    engine: str = "26.1.5",
) -> Case:
    return Case(who or asker("alpha"), question, docker, ours, reference, world(engine))


def judged(one: Case) -> tuple[set[str], set[str]]:
    """(faulty aspects, rules used)."""
    faults, used = judge(one, differing(one))
    return set(faults), used


WEB = Question(labels("web"), A)
DOCKERS = reply(WEB, address("web", VIP), address("web", TASK))
OURS = reply(WEB, address("web", TASK, 5), address("web", VIP, 5))


def test_the_same_records_in_another_order_and_with_our_ttl_are_right() -> None:
    assert judged(case(WEB, DOCKERS, OURS, reference=DOCKERS)) == (set(), {"TTL of our own names"})


@pytest.mark.parametrize(
    ("aspect", "wrong"),
    [
        ("id", replace(OURS, id=8)),
        ("rcode", replace(OURS, flags=OURS.flags | SERVFAIL)),
        ("flags", replace(OURS, flags=OURS.flags | AA)),
        ("flags", replace(OURS, flags=OURS.flags & ~RD)),
        ("truncation", replace(OURS, flags=OURS.flags | TC)),
        ("question", replace(OURS, section=b"\3WEB\0\0\1\0\1")),
        ("answers", replace(OURS, answers=OURS.answers[:1])),
        ("answers", replace(OURS, answers=(*OURS.answers, address("web", OTHER, 5)))),
        ("answers", replace(OURS, answers=(address("Web", VIP, 5), address("web", TASK, 5)))),
        ("repetition", replace(OURS, answers=(*OURS.answers, OURS.answers[0]))),
        ("ttl", replace(OURS, answers=DOCKERS.answers[:1] + OURS.answers[:1])),
        ("authority", replace(OURS, authority=(nothing("web"),))),
        ("additional", replace(OURS, additional=(address("web", VIP, 5),))),
        ("edns", replace(OURS, additional=(Record((), OPT, 1232, 0, b""),))),
        ("too large", replace(OURS, size=513)),
        ("silence", None),
    ],
)
def test_every_other_difference_is_a_fault(aspect: str, wrong: Reply | None) -> None:
    faults, _ = judged(case(WEB, DOCKERS, wrong, reference=DOCKERS))
    assert aspect in faults


def test_of_truncated_replies_the_number_of_records_counts_and_none_may_be_a_strangers() -> None:
    cut = QR | RD | RA | TC
    docker = reply(WEB, address("web", VIP), flags=cut)
    assert (
        judged(case(WEB, docker, reply(WEB, address("web", TASK, 5), flags=cut), reference=DOCKERS))[0]
        == set()
    )
    stranger = reply(WEB, address("web", OTHER, 5), flags=cut)
    assert judged(case(WEB, docker, stranger, reference=DOCKERS))[0] == {"answers"}


def test_nodata_for_another_type_is_excused_with_a_soa_and_for_known_names_only() -> None:
    asked = Question(labels("web"), TXT)
    outside = reply(asked, flags=QR | RD | RA | NXDOMAIN)
    ours = reply(asked, soa="web")
    assert judged(case(asked, outside, ours, reference=DOCKERS)) == (set(), {"known name, another type"})
    assert judged(case(asked, outside, ours, reference=outside))[0] == {"rcode", "authority"}
    assert judged(case(asked, outside, reply(asked), reference=DOCKERS))[0] == {"rcode"}
    told = case(asked, outside, ours, reference=DOCKERS)
    as_docker = replace(told, world=replace(told.world, as_docker=True))
    assert judged(as_docker)[0] == {"rcode", "authority"}, "a setting that forbids it is kept"


def test_any_is_excused_with_exactly_dockers_addresses() -> None:
    asked = Question(labels("web"), ANY)
    outside = reply(asked, flags=QR | RD | RA | NXDOMAIN)
    right = reply(asked, *OURS.answers)
    assert judged(case(asked, outside, right, reference=DOCKERS)) == (set(), {"known name, type ANY"})
    assert "answers" in judged(case(asked, outside, reply(asked, OURS.answers[0]), reference=DOCKERS))[0]


def test_a_vips_pointer_must_name_its_service_on_a_network_of_the_asker() -> None:
    name = ip_address(VIP).reverse_pointer
    asked = Question(labels(name), PTR)
    outside = reply(asked, flags=QR | RD | RA | NXDOMAIN)
    right = reply(asked, pointer(name, "web.alpha", 5))
    assert judged(case(asked, outside, right)) == (set(), {"PTR of a VIP"})
    assert judged(case(asked, outside, right, who=asker("beta")))[0] == {"rcode", "answers"}
    assert judged(case(asked, outside, reply(asked, pointer(name, "db.alpha", 5))))[0] == {"rcode", "answers"}


def test_the_own_stacks_address_is_excused_for_its_askers_only() -> None:
    own = reply(WEB, address("web", VIP, 5))
    red = asker("alpha", stack="red")
    assert judged(case(WEB, DOCKERS, own, reference=DOCKERS, who=red)) == (
        set(),
        {"own stack first", "TTL of our own names"},
    )
    assert judged(case(WEB, DOCKERS, own, reference=DOCKERS))[0] == {"answers"}
    strangers = reply(WEB, address("web", TASK, 5))
    assert judged(case(WEB, DOCKERS, strangers, reference=DOCKERS, who=red))[0] == {"answers"}


def test_an_engines_rule_is_not_anothers() -> None:
    asked = Question(labels("nothing.test"), PTR)
    outside = reply(asked, flags=QR | RD | RA | NXDOMAIN)
    excused = judged(case(asked, None, outside, reference=outside, engine="20.10.24"))
    assert excused == (set(), {"PTR of what is no address"})
    assert judged(case(asked, None, outside, reference=outside))[0] == {"silence"}


def test_silence_about_the_address_of_a_name_that_dns_cannot_hold() -> None:
    """From another network it is an address like any other; from its own it has a pointer."""
    spelled = ip_address(OTHER).reverse_pointer.replace("in-addr", "IN-ADDR")
    asked = Question(labels(spelled), PTR)
    outside = reply(asked, flags=QR | RD | RA | NXDOMAIN)
    assert judged(case(asked, None, outside, reference=outside, engine="20.10.24"))[0] == set()
    named = reply(asked, pointer(spelled, "id.alpha", 5))
    assert (
        "PTR of what is no address"
        not in judged(case(asked, None, named, reference=outside, engine="20.10.24"))[1]
    )


def test_the_address_of_such_a_name_under_ip6_arpa() -> None:
    """Docker turns the four octets round, finds the container, and cannot say its name."""
    spelled = ip_address(OTHER).reverse_pointer.replace("in-addr", "ip6")
    asked = Question(labels(spelled), PTR)
    outside = reply(asked, flags=QR | RD | RA | NXDOMAIN)
    assert judged(case(asked, None, outside, engine="20.10.24"))[0] == set()
    stranger = Question(labels("9.9.9.9.ip6.arpa"), PTR)
    outside = reply(stranger, flags=QR | RD | RA | NXDOMAIN)
    assert judged(case(stranger, None, outside, engine="20.10.24"))[0] == {"silence"}


def test_each_rule_is_a_row_of_the_manual() -> None:
    section = (
        MANUAL.read_text().partition("\n## Where we differ from Docker on purpose\n")[2].partition("\n## ")[0]
    )
    rows = {line.split("|")[1].strip() for line in section.splitlines() if line.startswith("| ")}
    missing = [rule.name for rule in DIFFERENCES if rule.name not in rows]
    assert not missing, f"rows missing in docs/dns.md: {missing}"


@pytest.mark.parametrize(
    "question",
    [
        Question(labels("Web.alpha"), HTTPS, tcp=True, edns=Edns(1232, True, b"\0\x0c\0\0")),
        Question((b"a.b", b"\xff" * 63), 0xFFFF, qclass=3, flags=0),
        Question((), A),
    ],
)
def test_a_question_is_read_as_it_was_written(question: Question) -> None:
    read = parse(question.wire)
    assert (read.section, read.flags, read.size) == (question.section, question.flags, len(question.wire))
    assert (read.opt is None) == (question.edns is None)
    for length in range(len(question.wire)):
        with pytest.raises(Unreadable):
            parse(question.wire[:length])


def test_compressed_names_are_read_in_full_and_circles_end() -> None:
    question = Question(labels("a.test"), PTR).section
    head = bytes.fromhex("000081800001000100000000")
    record = b"\xc0\x0c" + bytes.fromhex("000c00010000000500 04".replace(" ", "")) + b"\1b\xc0\x0e"
    target: Labels = labels("b.test")
    assert parse(head + question + record).answers == (
        pointer("a.test", ".".join(map(bytes.decode, target)), 5),
    )
    with pytest.raises(Unreadable):
        parse(head + question + b"\xc0\x18" + record[2:])
