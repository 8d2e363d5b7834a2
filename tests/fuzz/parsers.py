"""The strict reading of queries beside dnspython's: where the two differ there must be a reason.

What only we accept matters most: bytes that others call broken, and that we would answer, cache or forward.
"""

import re

import dns.edns
import dns.exception
import dns.message
import dns.name

from mesh.dns.wire import (
    CLASSES,
    DO,
    HEADER,
    OPCODE,
    QR,
    TRANSFERS,
    BadQuery,
    DnsQuery,
    QType,
    Rcode,
    parse_query,
)

UNKNOWN_OPTION = 65001  # for local use (RFC 6891 9): nobody looks inside
POINTER = 0xC0
OPT_AT_POINTER = re.compile(rb"[\xc0-\xff].\0\x29", re.DOTALL)


def compare(data: bytes) -> None:
    """Raises AssertionError for a difference that nobody has explained."""
    ours, theirs = _ours(data), _theirs(data)
    if isinstance(ours, DnsQuery):
        if isinstance(theirs, dns.message.Message):
            _same(ours, theirs)
        else:
            assert only_we_accept(data, ours), f"only we accept {data.hex()}: {theirs!r}"
    elif isinstance(theirs, dns.message.Message):
        assert only_we_refuse(data, ours, theirs), f"only we refuse {data.hex()}: {ours}"


def _ours(data: bytes) -> DnsQuery | BadQuery:
    try:
        return parse_query(data)
    except BadQuery as bad:
        return bad


def _theirs(data: bytes) -> dns.message.Message | dns.exception.DNSException:
    try:
        return dns.message.from_wire(data)
    except dns.exception.DNSException as error:
        return error


def _same(ours: DnsQuery, theirs: dns.message.Message) -> None:
    asked = theirs.question[0]
    name = dns.name.from_text(ours.question.name or ".")
    assert name.to_wire() == ours.question.wire[:-4]
    assert (asked.name, asked.rdtype, asked.rdclass) == (name, ours.question.qtype, ours.question.qclass)
    assert (theirs.edns >= 0) == (ours.edns is not None)
    if ours.edns is not None:
        assert theirs.edns == 0
        assert theirs.payload == ours.edns.size
        assert bool(theirs.ednsflags & DO) == ours.edns.dnssec_ok
        assert bool(theirs.options) == ours.edns.options


def only_we_accept(data: bytes, ours: DnsQuery) -> str:
    """Why we read what dnspython does not, or ""."""
    end = HEADER.size + len(ours.question.wire)
    if data[6:10] != bytes(4) or data[11] > (ours.edns is not None):
        return "records that are no OPT are stepped over: their data and owners mean nothing to us"
    if ours.edns is not None and isinstance(_theirs(_plain_options(data, end)), dns.message.Message):
        return "what is inside an EDNS option is for whoever it is for"
    return ""


def _plain_options(data: bytes, at: int) -> bytes:
    """The query with options that nobody knows; `at` is where its OPT begins."""
    changed = bytearray(data)
    at += 11
    while at < len(changed):
        changed[at : at + 2] = UNKNOWN_OPTION.to_bytes(2)
        at += 4 + int.from_bytes(changed[at + 2 : at + 4])
    return bytes(changed)


def only_we_refuse(data: bytes, bad: BadQuery, theirs: dns.message.Message) -> str:
    """Why we do not read what dnspython does, or ""."""
    _, flags, *counts = HEADER.unpack_from(data)
    if bad.rcode is None:
        return "a response" if flags & QR else ""
    if bad.rcode is Rcode.NOTIMP:
        return "another opcode" if flags & OPCODE else ""
    if odd_number(*counts):
        return "more or fewer records than a query has"
    asked = theirs.question[0]
    reasons = {
        Rcode.BADVERS: (theirs.edns > 0, "an EDNS version to come"),
        Rcode.REFUSED: (asked.rdtype in TRANSFERS or asked.rdclass not in CLASSES, "nothing a resolver has"),
        Rcode.FORMERR: (asked.rdtype == QType.OPT or _points(data), "OPT asked for, or a compressed name"),
    }
    applies, reason = reasons[bad.rcode]
    return reason if applies else ""


def odd_number(questions: int, answers: int, authorities: int, additionals: int) -> bool:
    return questions != 1 or answers > 1 or authorities > 1 or additionals > 2


def _points(data: bytes) -> bool:
    """Is the name of the question compressed, if only into the header, or the root as the owner of OPT?"""
    if OPT_AT_POINTER.search(data, HEADER.size):
        return True
    at = HEADER.size
    while data[at] and data[at] < POINTER:
        at += 1 + data[at]
    return data[at] >= POINTER
