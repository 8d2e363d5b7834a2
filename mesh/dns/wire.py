"""DNS queries as bytes, and the replies to them (RFC 1035, EDNS0 of RFC 6891): read strictly, written simply.

Reading is bounds-checked step by step and raises `BadQuery` or `WireError`, nothing else. A query's name may
not be compressed: nothing before it could be pointed to. Replies are written without their id ("tail"), as
the cache keeps them; every record's owner is a pointer to the question, so a name echoes the case in which
it was asked.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import ip_address
from typing import NamedTuple, TypeAlias

from mesh.dns.config import PLAIN_UDP, TCP_REPLY_MAX, UDP_REPLY_MAX
from mesh.errors import WireError

HEADER = struct.Struct("!HHHHHH")  # id, flags, counts of questions, answers, authorities, additionals
_HEADER_TAIL = struct.Struct("!HHHHH")
TYPE_CLASS = struct.Struct("!HH")
RECORD = struct.Struct("!HHIH")  # type, class, TTL, length of the data
_OPTION = struct.Struct("!HH")  # of EDNS: code, length

LABEL_MAX = 63
NAME_MAX = 255  # RFC 1035 3.1, with the length octets and the root
POINTER = 0xC0  # the two upper bits of a length octet: what follows is an offset (RFC 1035 4.1.4)
POINTERS_MAX = 127  # of one name: it has no more labels than that

QR, TC, RD, RA, CD = 0x8000, 0x0200, 0x0100, 0x0080, 0x0010
OPCODE = 0x7800
DO = 0x8000  # in the OPT record's TTL field
_OWNER = b"\xc0\x0c"  # a pointer to offset 12: the question's name
_ROOT = b"\x00"
_TOO_LONG = "the name is longer than 255 octets"


class Rcode(IntEnum):
    NOERROR = 0
    FORMERR = 1
    SERVFAIL = 2
    NXDOMAIN = 3
    NOTIMP = 4
    REFUSED = 5
    BADVERS = 16


class QType(IntEnum):
    A = 1
    NS = 2
    CNAME = 5
    SOA = 6
    PTR = 12
    MX = 15
    TXT = 16
    AAAA = 28
    SRV = 33
    OPT = 41
    SVCB = 64
    HTTPS = 65
    ANY = 255


class QClass(IntEnum):
    IN = 1
    ANY = 255


CLASSES = frozenset(QClass)
TRANSFERS = frozenset({251, 252})  # IXFR, AXFR


@dataclass(frozen=True, slots=True)
class DnsQuestion:
    """`name` is text without the trailing dot; `wire` the whole section as it was sent."""

    name: str
    qtype: int
    qclass: int
    wire: bytes

    @property
    def folded(self) -> bytes:
        """The section with its name in lower case: length octets are below 'A', type and class are spared."""
        return self.wire[:-4].lower() + self.wire[-4:]


@dataclass(frozen=True, slots=True)
class Edns:
    size: int
    dnssec_ok: bool
    options: bool  # has options (a cookie, a client subnet): no two such queries are alike


@dataclass(frozen=True, slots=True)
class DnsQuery:
    flags: int
    question: DnsQuestion
    edns: Edns | None = None

    def limit(self, tcp: bool) -> int:
        """Bytes that a reply may have."""
        if tcp:
            return TCP_REPLY_MAX
        return PLAIN_UDP if self.edns is None else min(max(PLAIN_UDP, self.edns.size), UDP_REPLY_MAX)


class BadQuery(WireError):
    """A query that is not answered with data. `rcode`: what to reply, None for nothing at all; `query`: what
    to repeat in the reply, None where nothing could be read."""

    def __init__(self, message: str, rcode: Rcode | None, query: DnsQuery | None = None) -> None:
        super().__init__(message)
        self.rcode, self.query = rcode, query


# --- reading queries ----------------------------------------------------------------------------------------


def parse_query(data: bytes) -> DnsQuery:
    """Bytes of a query → its parts. Raises BadQuery.

    Accepts what miekg/dns does, which Docker uses, but for bytes behind the last record, broken EDNS options
    and NOTIFY. Zone transfers and classes other than IN and ANY are nothing that a resolver has.
    """
    if len(data) < HEADER.size:
        raise BadQuery("shorter than a header", None)
    _, flags, questions, answers, authorities, additionals = HEADER.unpack_from(data)
    if flags & QR:
        raise BadQuery("a response", None)  # answering one could start an endless exchange
    if flags & OPCODE:
        raise BadQuery("not a standard query", Rcode.NOTIMP)
    if questions != 1 or answers > 1 or authorities > 1 or additionals > 2:
        raise BadQuery("unexpected number of records", Rcode.FORMERR)
    try:
        name, end = _plain_name(data, HEADER.size)
        qtype, qclass = unpack(TYPE_CLASS, data, end)
        end += TYPE_CLASS.size
        opt = _only_opt(data, end, answers + authorities, additionals)
        if qtype == QType.OPT:
            raise WireError("a question for OPT, which is no record of any name")
    except WireError as error:
        raise BadQuery(str(error), Rcode.FORMERR) from error
    edns = None if opt is None else Edns(opt.size, bool(opt.ttl & DO), options=opt.options)
    query = DnsQuery(flags, DnsQuestion(name, qtype, qclass, data[HEADER.size : end]), edns)
    if opt is not None and opt.ttl >> 16 & 0xFF:
        raise BadQuery("EDNS version not known", Rcode.BADVERS, query)
    if qtype in TRANSFERS or qclass not in CLASSES:
        raise BadQuery("a zone transfer, or a class that is not of the Internet", Rcode.REFUSED, query)
    return query


def _plain_name(data: bytes, at: int) -> tuple[str, int]:
    labels: list[str] = []
    start = at
    while True:
        length = _byte(data, at)
        at += 1
        if length == 0:
            break
        if length > LABEL_MAX:
            raise WireError("a compressed or overlong label in the question")
        if at + length > len(data):
            raise WireError("the name ends outside the message")
        labels.append(_label_text(data[at : at + length]))
        at += length
        if at - start >= NAME_MAX:
            raise WireError(_TOO_LONG)
    return ".".join(labels), at


def _label_text(label: bytes) -> str:
    """A label as in zone files (RFC 1035 5.1): a dot *inside* a label must not look like one between two."""
    if label.isalnum():
        return label.decode("ascii")
    return "".join(
        f"\\{chr(b)}" if b in b".\\" else chr(b) if 0x21 <= b <= 0x7E else f"\\{b:03d}" for b in label
    )


class _Opt(NamedTuple):
    size: int
    ttl: int  # upper bits of the rcode, version, flags (RFC 6891 6.1.3)
    options: bool


def _only_opt(data: bytes, at: int, others: int, additionals: int) -> _Opt | None:
    """Walk through the records behind the question, up to the end; the OPT record, if there is one."""
    found: _Opt | None = None
    for index in range(others + additionals):
        owner_is_root = _byte(data, at) == 0
        at = skip_name(data, at)
        rtype, size, ttl, length = unpack(RECORD, data, at)
        start, at = at + RECORD.size, at + RECORD.size + length
        if at > len(data):
            raise WireError("a record ends outside the message")
        if rtype == QType.OPT:
            if found is not None or not owner_is_root or index < others:
                raise WireError("more than one OPT record, or one that is not where it belongs")
            _check_options(data, start, at)
            found = _Opt(size, ttl, options=length > 0)
    if at != len(data):
        raise WireError("bytes behind the last record")
    return found


def _check_options(data: bytes, at: int, end: int) -> None:
    while at < end:
        if at + _OPTION.size > end:
            raise WireError("an EDNS option ends outside its record")
        at += _OPTION.size + _OPTION.unpack_from(data, at)[1]
    if at != end:
        raise WireError("an EDNS option ends outside its record")


Names: TypeAlias = dict[int, tuple[int, int]]  # where one begins → its octets and pointers from there on


def skip_name(data: bytes, at: int, known: Names | None = None, first: int = 0) -> int:
    """Where what follows a name begins; it may be compressed. Raises WireError.

    The whole name is read: a pointer has to lead back to before the part that it ends, so none can loop
    (RFC 1035 4.1.4: to a prior occurrence), and the name has to end within 255 octets and 127 pointers.
    `known`: the names that were read in this message; added to. `first`: the least that pointers may lead to.
    """
    end, part, length, hops = 0, at, 0, 0
    begun = [(at, 0, 0)]  # the parts of the name: where each begins, length and pointers before it
    while True:
        octet = _byte(data, at)
        if octet > LABEL_MAX:
            if octet < POINTER:
                raise WireError("a label of unknown kind")
            target = (octet & 0x3F) << 8 | _byte(data, at + 1)
            if not first <= target < part:
                raise WireError("a compression pointer that does not lead back")
            end, hops = end or at + 2, hops + 1
            if known is not None and target in known:
                length, hops = length + known[target][0], hops + known[target][1]
                break
            if hops > POINTERS_MAX:
                break
            part = at = target
            begun.append((at, length, hops))
            continue
        length += 1 + octet
        at += 1 + octet
        if octet == 0:
            end = end or at
            break
        if length >= NAME_MAX:
            raise WireError(_TOO_LONG)
    if length > NAME_MAX:
        raise WireError(_TOO_LONG)
    if hops > POINTERS_MAX:
        raise WireError(f"more than {POINTERS_MAX} compression pointers in a name")
    if known is not None:
        known.update((place, (length - long, hops - many)) for place, long, many in begun)
    return end


def _byte(data: bytes, at: int) -> int:
    if at >= len(data):
        raise WireError("the message ends early")
    return data[at]


def unpack(form: struct.Struct, data: bytes, at: int) -> tuple[int, ...]:
    """Raises WireError where the message ends before the form does."""
    if at + form.size > len(data):
        raise WireError("the message ends early")
    return form.unpack_from(data, at)


# --- writing replies ----------------------------------------------------------------------------------------


def reply_tail(
    query: DnsQuery,
    rcode: Rcode,
    answers: Sequence[bytes] = (),
    authority: bytes = b"",
    limit: int = PLAIN_UDP,
    additional: Sequence[bytes] = (),
) -> bytes:
    """A reply without its id. What does not fit into `limit` is left out. Where that is one of `answers`, TC
    says so; `additional` is only help, and goes first and silently (RFC 2181 9)."""
    opt = b"" if query.edns is None else _opt(query.edns, rcode)
    room = limit - HEADER.size - len(query.question.wire) - len(opt)
    kept, truncated = _fitting(answers, room)
    if not answers and len(authority) > room:
        authority = b""
    helping, _ = _fitting(() if truncated else additional, room - sum(map(len, kept)))
    return b"".join(
        (
            _HEADER_TAIL.pack(
                _reply_flags(query.flags, rcode) | (TC if truncated else 0),
                1,
                len(kept),
                1 if authority else 0,
                len(helping) + (1 if opt else 0),
            ),
            query.question.wire,
            *kept,
            authority,
            *helping,
            opt,
        )
    )


def _fitting(answers: Sequence[bytes], room: int) -> tuple[Sequence[bytes], bool]:
    for count, record in enumerate(answers):
        room -= len(record)
        if room < 0:
            return answers[:count], True
    return answers, False


def _reply_flags(flags: int, rcode: Rcode) -> int:
    return QR | RA | (flags & (RD | CD)) | (rcode & 0xF)


def _opt(edns: Edns, rcode: Rcode) -> bytes:
    ttl = rcode >> 4 << 24 | (DO if edns.dnssec_ok else 0)
    return _ROOT + RECORD.pack(QType.OPT, UDP_REPLY_MAX, ttl, 0)


def refusal(data: bytes, rcode: Rcode, query: DnsQuery | None = None) -> bytes:
    """The whole reply to what gets no data: with question and OPT if there is a `query`, else a header."""
    if query is not None:
        return data[:2] + reply_tail(query, rcode)
    id_, flags = struct.unpack_from("!HH", data)
    return HEADER.pack(id_, _reply_flags(flags, rcode) | (flags & OPCODE), 0, 0, 0, 0)


_OCTETS = {str(number): number for number in range(256)}


def _packed(address: str) -> bytes:
    try:
        first, second, third, fourth = map(_OCTETS.__getitem__, address.split("."))
    except (KeyError, ValueError):
        return ip_address(address).packed  # which takes three times as long
    return bytes((first, second, third, fourth))


def address_record(address: str, ttl: int) -> bytes:
    """A or AAAA of the question's name. ValueError for what is no address."""
    data = _packed(address)
    return _record(QType.A if len(data) == 4 else QType.AAAA, ttl, data)


def pointer_record(target: str, ttl: int) -> bytes:
    """PTR of the question's name. WireError when the target cannot be a DNS name (a label over 63 octets)."""
    return _record(QType.PTR, ttl, encode_name(target))


def service_record(text: str, ttl: int) -> bytes:
    """SRV of the question's name. `text` as in zone files: priority, weight, port, target (RFC 2782).

    WireError when the target cannot be a DNS name.
    """
    priority, weight, port, target = text.split(" ", 3)
    numbers = struct.pack("!HHH", int(priority), int(weight), int(port))
    return _record(QType.SRV, ttl, numbers + encode_name(target))


SRV_TARGET = len(_OWNER) + RECORD.size + 6  # where it begins in a `service_record`


def glue_record(offset: int, name: bytes, address: str, ttl: int) -> bytes:
    """A or AAAA for a name that stands at the offset in the message, as is and uncompressed (RFC 1035 4.1.4).

    ValueError for what is no address.
    """
    owner = (0xC000 | offset).to_bytes(2) if offset < 0x4000 else name
    return owner + address_record(address, ttl)[len(_OWNER) :]


def soa_record(ttl: int) -> bytes:
    """For the authority section of NODATA: how long the absence may be remembered (RFC 2308 3).

    The zone is the name itself, so nothing is said about its neighbours.
    """
    return _record(QType.SOA, ttl, _ROOT + _ROOT + struct.pack("!IIIII", 1, 3600, 600, 86400, ttl))


def encode_name(text: str) -> bytes:
    """Text, with or without the trailing dot → wire form. Raises WireError."""
    encoded = bytearray()
    for label in text.removesuffix(".").encode().split(b"."):
        if not 0 < len(label) <= LABEL_MAX:
            raise WireError(f"'{text}' has an empty or overlong label")
        encoded += bytes((len(label),)) + label
    if len(encoded) >= NAME_MAX:
        raise WireError(f"'{text}' is longer than 255 octets")
    return bytes(encoded) + _ROOT


def _record(qtype: QType, ttl: int, data: bytes) -> bytes:
    return _OWNER + RECORD.pack(qtype, QClass.IN, ttl, len(data)) + data


def query_message(id_: int, name: str, qtype: int) -> bytes:
    """A recursive query of our own. Raises WireError for what is no name."""
    return HEADER.pack(id_, RD, 1, 0, 0, 0) + encode_name(name) + TYPE_CLASS.pack(qtype, QClass.IN)
