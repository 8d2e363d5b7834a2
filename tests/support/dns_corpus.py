"""Questions worth asking, as hypothesis strategies over the names of a world.

Each part of a question is a strategy of its own; simple values come first everywhere, so that a question that
fails shrinks to the plain name, type A, UDP, no EDNS.
"""

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from ipaddress import ip_address

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from tests.support.dns_message import (
    AAAA,
    AD,
    ANY,
    CD,
    CNAME,
    HTTPS,
    IN,
    MX,
    NS,
    OPT,
    PTR,
    RD,
    SOA,
    SRV,
    TXT,
    A,
    Edns,
    Labels,
    Question,
    labels,
)
from tests.support.dns_world import Asker, World

LABEL_MAX = 63  # octets
NAME_MAX = 253  # octets of a name as text
UPSTREAM_NAMES = (
    "external.test", "four.test", "alias.test", "big.test", "client.test", "nothing.test",
    "_http._tcp.external.test",
)  # fmt: skip
UPSTREAM_ADDRESSES = ("203.0.113.10", "203.0.113.11", "2001:db8::10")
STRAY_ADDRESSES = (
    "10.0.1.250",
    "10.0.1.0",
    "127.0.0.11",
    "0.0.0.0",
    "255.255.255.255",
    "::1",
    "fd00:77::250",
    "fd00:66::2",
)

Draw = st.DrawFn
Pair = tuple[str, Question]  # name of the asker, question


def plain_questions(world: World) -> Iterator[Pair]:
    """Every name and its `tasks.` form, of every asker: type A over UDP."""
    for asker in world.askers:
        for name in dict.fromkeys((*world.declared, *world.given)):
            for text in (name, f"tasks.{name}"):
                if len(text) <= LABEL_MAX or "." in text:
                    yield asker, Question(_clipped(text), A)


def questions(world: World, known: Mapping[str, Sequence[Labels]]) -> SearchStrategy[Pair]:
    """Most questions are about a name that Docker knows for the asker (`known`)."""
    ways = [
        st.tuples(st.just(asker.name), _question(_names(world, asker, known[asker.name])))
        for asker in world.askers.values()
    ]
    return st.one_of(ways)


@st.composite
def _question(draw: Draw, names: SearchStrategy[tuple[Labels, SearchStrategy[int]]]) -> Question:
    name, qtypes = draw(names)
    return Question(
        name=_cased(name, draw(_CASES)),
        qtype=draw(qtypes),
        tcp=draw(st.booleans()),
        flags=draw(_FLAGS),
        edns=draw(_EDNS),
        qclass=draw(_CLASSES),
    )


# --- names --------------------------------------------------------------------------------------------------


Named = tuple[Labels, SearchStrategy[int]]  # a name, and the types to ask it for


def _names(world: World, asker: Asker, known: Sequence[Labels]) -> SearchStrategy[Named]:
    forward = st.tuples(_forward(world, asker, [_text(name) for name in known]), st.just(_TYPES))
    return st.one_of(forward, forward, _reverse(world, asker))


def _text(name: Labels) -> str:
    return b".".join(name).decode()


def _forward(world: World, asker: Asker, known: Sequence[str]) -> SearchStrategy[Labels]:
    near = st.sampled_from(known or ("localhost",))
    name = st.one_of(near, near, st.sampled_from(world.declared), st.sampled_from(world.given))
    base = st.one_of(name, name, name.map(lambda text: f"tasks.{text}"))
    network = st.one_of(st.sampled_from(asker.networks), st.sampled_from(world.networks))
    qualified = st.tuples(base, network).map(".".join)
    texts = st.one_of(
        base,
        qualified,
        qualified,
        st.sampled_from(UPSTREAM_NAMES),
        st.tuples(qualified, network).map(".".join),
        st.tuples(base, st.sampled_from(("test", "local", "svc", "com.", "alpha.test", "tasks"))).map(
            ".".join
        ),
        st.tuples(st.sampled_from(("x", "tasks", "_http._tcp", "*", "www", "a.b.c")), base).map(".".join),
        st.text("abcdefgt._-*0159 ", max_size=24),
    ).map(_clipped)
    junk = st.lists(st.binary(min_size=1, max_size=LABEL_MAX), max_size=3).map(tuple)
    return st.integers(0, 11).flatmap(lambda die: junk if die == 11 else texts)


def _clipped(text: str) -> Labels:
    """Labels that fit a DNS message: the empty ones and what is beyond `LABEL_MAX` octets are left out."""
    found: list[bytes] = []
    for label in labels(text):
        if label and sum(map(len, found)) + len(found) + len(label[:LABEL_MAX]) < NAME_MAX:
            found.append(label[:LABEL_MAX])
    return tuple(found)


@st.composite
def _reverse(draw: Draw, world: World, asker: Asker) -> Named:
    subnets = {address.rpartition(".")[0] for address in asker.box.addresses.values()}
    near = [address for address in world.addresses if address.rpartition(".")[0] in subnets]
    others = (*world.addresses, *UPSTREAM_ADDRESSES, *STRAY_ADDRESSES)
    address = draw(st.one_of(st.sampled_from(near), st.sampled_from(others)))
    proper, *odd = _reversals(address)
    parts = list(labels(draw(st.one_of(st.just(proper), st.sampled_from(odd)))))
    where = draw(st.integers(0, len(parts)))
    match draw(
        st.sampled_from(("whole", "whole", "whole", "whole", "whole", "without", "twice", "odd", "more"))
    ):
        case "without" if where < len(parts):
            del parts[where]
        case "twice" if where < len(parts):
            parts.insert(where, parts[where])
        case "odd" if where < len(parts):
            parts[where] = draw(
                st.sampled_from((b"256", b"007", b"-1", b"a", b"xyz", b"1 ", b"\xff", b"+1", b"0x1"))
            )
        case "more":
            parts[0:0] = draw(st.sampled_from(((b"b", b"_dns-sd", b"_udp"), (b"1",), (b"web",))))
    return tuple(parts), _REVERSE_TYPES


def _reversals(address: str) -> tuple[str, ...]:
    """The name that RFC 1035 or 3596 gives, and others that somebody might take for it."""
    proper = ip_address(address).reverse_pointer
    octets = proper.removesuffix(".in-addr.arpa")
    if ":" in address:
        return (proper, proper.replace("ip6.arpa", "in-addr.arpa"), proper.replace("ip6.arpa", "ip6.int"))
    mapped = ip_address(f"::ffff:{address}").reverse_pointer
    return (
        proper,
        f"{octets}.ip6.arpa",
        mapped,
        f"{address}.in-addr.arpa",
        f"{octets}.in-addr.arpa.alpha",
        address,
    )


_CASES = st.one_of(st.sampled_from(("as it is", "upper", "lower")), st.integers(0, (1 << 64) - 1))


def _cased(name: Labels, how: str | int) -> Labels:
    if how == "as it is":
        return name
    if how in ("upper", "lower"):
        return tuple(getattr(label, str(how))() for label in name)
    assert isinstance(how, int)
    octets = [bytes((octet,)) for label in name for octet in label]
    swapped = iter([o.swapcase() if how >> (at % 64) & 1 else o for at, o in enumerate(octets)])
    return tuple(b"".join(next(swapped) for _ in label) for label in name)


# --- the rest -----------------------------------------------------------------------------------------------

_COMMON = (A, AAAA, PTR, MX, SRV, TXT, ANY, HTTPS, SOA, NS, CNAME)
_TYPES = st.one_of(st.just(A), st.sampled_from(_COMMON), st.integers(0, 0xFFFF))
_REVERSE_TYPES = st.one_of(st.just(PTR), st.just(PTR), st.just(PTR), _TYPES)
_FLAGS = st.one_of(st.just(RD), st.sets(st.sampled_from((RD, AD, CD))).map(sum))
_CLASSES = st.sampled_from((IN,) * 14 + (255, 3))
CLIENT_SUBNET = b"\x00\x08\x00\x07\x00\x01\x18\x00\xc0\x00\x02"  # RFC 7871
_OPTIONS = st.sampled_from((
    b"",
    b"",
    b"\x00\x0a\x00\x08\x01\x02\x03\x04\x05\x06\x07\x08",  # a cookie (RFC 7873)
    CLIENT_SUBNET,
    b"\x00\x0c\x00\x04\x00\x00\x00\x00",  # padding (RFC 7830)
))  # fmt: skip
_SIZES = st.sampled_from((1232, 512, 4096, 0, 600, 800, 65535))
_EDNS = st.one_of(st.none(), st.none(), st.builds(Edns, _SIZES, st.booleans(), _OPTIONS))


# --- chosen by hand -----------------------------------------------------------------------------------------


def witnesses(world: World) -> dict[str, list[Pair]]:
    """Questions that show each deliberate difference, by its name."""
    service = next(address for address, owner in world.vips.items() if owner == ("web", "alpha"))
    query = Question(labels("web"), A)
    task = world.askers["web"].box.addresses["alpha"]
    spoken = ip_address(task).reverse_pointer
    return {
        "TTL of our own names": _from(("p-alpha", "p-link"), "web", "dotted.name.box"),
        "EDNS": _from(("p-alpha",), "web", "rr", edns=Edns(4096)),
        "SOA with NODATA": _from(("p-alpha",), "all", qtype=MX)
        + _from(("p-alpha",), "tasks.all", qtype=AAAA),
        "known name, another type": [
            pair for qtype in (TXT, HTTPS, SOA) for pair in _from(("p-alpha", "p-vault"), "all", qtype=qtype)
        ],
        "SRV of a known name": _from(("p-alpha",), "_http._tcp.web", "_http._tcp.tasks.web", qtype=SRV),
        "known name, type ANY": _from(("p-alpha",), "web", "tasks.web", qtype=ANY),
        "service without a running task": _from(("p-alpha", "web"), "none", "tasks.norr", "nobody.alpha"),
        "PTR of a VIP": _from(("p-alpha",), ip_address(service).reverse_pointer, qtype=PTR),
        "case of a network's name": _from(("p-alpha", "web"), "web.ALPHA", "tasks.www.Alpha"),
        "case of a link's alias": _from(("p-overlink",), "WEB", "Overlinked") + _from(("p-link",), "linked2"),
        "case of in-addr.arpa": _from(("p-alpha",), spoken.replace("addr", "ADDR"), qtype=PTR),
        "IPv4 address under ip6.arpa": _from(("p-alpha",), spoken.replace("in-addr", "ip6"), qtype=PTR),
        "PTR to a name that DNS cannot hold": _from(
            ("p-alpha",), *(ip_address(address).reverse_pointer for address in world.unspeakable), qtype=PTR
        ),
        "more records in a truncated reply": _from(("crowd",), "crowd", "tasks.many"),
        "PTR of what is no address": _from(("p-alpha",), "nothing.test", qtype=PTR),
        "unknown name on internal networks": _from(("p-vault", "p-cell"), "external.test", "nothing.test"),
        "RA in errors": _raw(_broken(query)),
        "own stack first": _from(("red_web", "blue_web"), "web", "tasks.shared", "both", "web.alpha"),
        "class other than IN": _from(("p-alpha",), "web", qclass=3),
        "zone transfer": _from(("p-alpha",), "external.test", qtype=252),
        "question for OPT": _from(("p-alpha",), "web", qtype=OPT),
        "query that is not whole": _raw((query.wire[:-1], query.wire[:12])),
        "EDNS in a truncated reply": _from(("p-alpha",), "big.test", edns=Edns(512, False, CLIENT_SUBNET)),
        "EDNS of an unknown version": _raw((_message(RD, query.section + _opt_record(1), (1, 0, 0, 1)),)),
        "opcode NOTIFY": _raw((_message(0x2100, query.section),)),
    }


def _from(
    askers: Sequence[str], *names: str, qtype: int = A, edns: Edns | None = None, qclass: int = IN
) -> list[Pair]:
    return [
        (asker, Question(labels(name), qtype, edns=edns, qclass=qclass)) for asker in askers for name in names
    ]


def malformed() -> list[Pair]:
    """Messages that a resolver must survive."""
    return _raw(_broken(Question(labels("web"), A)))


def some_questions(world: World) -> list[Pair]:
    """A few for each kind of difference."""
    return [pair for pairs in witnesses(world).values() for pair in pairs]


def _raw(wires: Iterable[bytes]) -> list[Pair]:
    return [("p-alpha", Question((), A, tcp=tcp, raw=wire)) for wire in wires for tcp in (False, True)]


def _broken(query: Question) -> Iterator[bytes]:
    section = query.section
    opt = _opt_record(0)
    for flags in (0x8100, 0x0900, 0x1100, 0x2100, 0x2900, 0x7900, 0x0340, 0x0583):
        yield _message(
            flags, section
        )  # a response; other opcodes; bits and rcodes that a query should not have
    for counts in (
        (0, 0, 0, 0),
        (2, 0, 0, 0),
        (1, 1, 0, 0),
        (1, 0, 1, 0),
        (1, 2, 0, 0),
        (1, 0, 0, 3),
        (1, 0, 0, 1),
    ):
        yield _message(RD, section, counts)  # and nothing behind
    yield _message(RD, section + section, (2, 0, 0, 0))
    yield _message(RD, section + opt + opt, (1, 0, 0, 2))
    yield _message(RD, section + _opt_record(1), (1, 0, 0, 1))  # EDNS of a version that nobody knows
    yield _message(RD, section + b"trailing")
    yield _message(RD, b"\xc0\x0c\x00\x01\x00\x01")  # a name that points to itself
    yield _message(RD, b"\x40web\x00\x00\x01\x00\x01")  # a label of a kind that does not exist
    yield _message(RD, b"\x3f" + b"a" * 20)  # a label that ends outside
    yield _message(RD, (b"\x3f" + b"a" * 63) * 4 + b"\x00\x00\x01\x00\x01")  # 257 octets
    yield from (query.wire[:length] for length in (1, 2, 11, 12, 15, len(query.wire) - 1))


def _message(flags: int, rest: bytes, counts: tuple[int, int, int, int] = (1, 0, 0, 0)) -> bytes:
    return struct.pack("!HHHHHH", 0x4D44, flags, *counts) + rest


def _opt_record(version: int) -> bytes:
    return b"\0" + struct.pack("!HHIH", OPT, 1232, version << 16, 0)
