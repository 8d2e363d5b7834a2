"""Upstreams' replies as bytes: is one the reply to our query, what does it say, and how does it read later?

Read strictly: every record has to be inside the message, the OPT record where it belongs, and every name,
also those in the data of a record, must come to an end: whoever gets the reply follows its pointers.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from mesh.dns.wire import (
    HEADER,
    LABEL_MAX,
    OPCODE,
    QR,
    RECORD,
    TC,
    TYPE_CLASS,
    Names,
    QType,
    Rcode,
    skip_name,
    unpack,
)
from mesh.errors import WireError


class ReplyMatch(Enum):
    """Is a message the reply to our query? Values other than YES are reasons in metrics."""

    YES = "yes"
    ID = "id"  # of another query, or no reply at all
    QUESTION = "question"
    CASE = "case"  # the question, but not as we spelled it


def match(query: bytes, reply: bytes) -> ReplyMatch:
    """Same id, same question, spelled the same? (Its source is checked by the socket.)

    Servers that cannot read a query reply with an error and no question; that is taken too.
    """
    if len(reply) < HEADER.size or reply[:2] != query[:2]:
        return ReplyMatch.ID
    _, flags, questions, *_ = HEADER.unpack_from(reply)
    if not flags & QR or flags & OPCODE:
        return ReplyMatch.ID
    if questions == 0:
        failed = flags & 0xF not in (Rcode.NOERROR, Rcode.NXDOMAIN)
        return ReplyMatch.YES if failed else ReplyMatch.QUESTION
    end = skip_name(query, HEADER.size) + TYPE_CLASS.size
    asked, got = query[HEADER.size : end], reply[HEADER.size : end]
    if questions == 1 and got == asked:
        return ReplyMatch.YES
    same = got[:-4].lower() == asked[:-4].lower() and got[-4:] == asked[-4:]
    return ReplyMatch.CASE if questions == 1 and same else ReplyMatch.QUESTION


@dataclass(frozen=True, slots=True)
class UpstreamReply:
    """What is to be known of an upstream's reply. Offsets count from the message's beginning."""

    rcode: int  # with the upper bits that EDNS adds
    truncated: bool
    negative: bool  # there is no such name, or no such record (RFC 2308 2)
    ttl: int  # seconds it may be kept, 0 for not at all
    ttl_offsets: tuple[int, ...]
    answer_ends: tuple[int, ...]  # of each record of the answer section
    owners: tuple[int, ...]  # owner names that are written out in full
    opt: tuple[int, int] | None  # begin and end of the OPT record
    end: int  # of the last record


# Types whose data holds names that may be compressed (RFC 1035 3.3, RFC 3597 4): bytes before the first name,
# names, and bytes behind the last one.
_NAMES_IN: Mapping[int, tuple[int, int, int]] = {
    **dict.fromkeys((QType.NS, 3, 4, QType.CNAME, 7, 8, 9, QType.PTR, 39), (0, 1, 0)),  # MD to MR; DNAME
    QType.SOA: (0, 2, 20),
    **dict.fromkeys((14, 17), (0, 2, 0)),  # MINFO, RP
    **dict.fromkeys((QType.MX, 18, 21, 36), (2, 1, 0)),  # AFSDB, RT, KX
    26: (2, 2, 0),  # PX
    QType.SRV: (6, 1, 0),
}


class _FoundRecords(NamedTuple):
    """One record of a reply: where its name, its TTL, its data begin and where it ends."""

    owner: int
    rtype: int
    ttl: int
    ttl_at: int
    data: int
    end: int


def parse_reply(data: bytes) -> UpstreamReply:
    """Walk through a whole reply. Raises WireError for any record that is not inside the message."""
    if len(data) < HEADER.size:
        raise WireError("shorter than a header")
    _, flags, questions, answers, authorities, additionals = HEADER.unpack_from(data)
    at, qtype = HEADER.size, 0
    known: Names = {}
    for _ in range(questions):
        at = skip_name(data, at, known, HEADER.size)
        qtype, _ = unpack(TYPE_CLASS, data, at)
        at += TYPE_CLASS.size
    found = list(_records(data, at, answers + authorities + additionals, known))
    opts = [record for record in found if record.rtype == QType.OPT]
    if len(opts) > 1 or (opts and opts[0] in found[: answers + authorities]):
        raise WireError("more than one OPT record, or one that is not where it belongs")
    opt = opts[0] if opts else None
    plain = [record for record in found if record.rtype != QType.OPT]
    rcode = flags & 0xF | (0 if opt is None else opt.ttl >> 24 << 4)
    said = any(qtype in (record.rtype, QType.ANY) for record in found[:answers])
    negative = rcode == Rcode.NXDOMAIN or not said
    ttls = [record.ttl for record in plain]
    if negative:
        ttls.append(_absence_ttl(data, found[answers : answers + authorities]))
    return UpstreamReply(
        rcode=rcode,
        truncated=bool(flags & TC),
        negative=negative,
        ttl=0 if flags & TC or rcode not in (Rcode.NOERROR, Rcode.NXDOMAIN) else min(ttls),
        ttl_offsets=tuple(record.ttl_at for record in plain),
        answer_ends=tuple(record.end for record in found[:answers]),
        owners=tuple(record.owner for record in plain if 0 < data[record.owner] <= LABEL_MAX),
        opt=None if opt is None else (opt.owner, opt.end),
        end=found[-1].end if found else at,
    )


def _records(data: bytes, at: int, count: int, known: Names) -> Iterator[_FoundRecords]:
    """`known`: as for `skip_name`."""
    for _ in range(count):
        owner, at = at, skip_name(data, at, known, HEADER.size)
        rtype, _, ttl, length = unpack(RECORD, data, at)
        start = at + RECORD.size
        if start + length > len(data):
            raise WireError("a record ends outside the message")
        if rtype in _NAMES_IN:
            _check_names(data, start, start + length, _NAMES_IN[rtype], known)
        if ttl >> 31 and rtype != QType.OPT:
            ttl = 0  # RFC 2181 8
        yield _FoundRecords(owner, rtype, ttl, at + 4, start, start + length)
        at = start + length


def _check_names(data: bytes, at: int, end: int, names: tuple[int, int, int], known: Names) -> None:
    before, count, behind = names
    at += before
    for _ in range(count):
        at = skip_name(data, at, known, HEADER.size)
    if at + behind != end:
        raise WireError("a name in a record's data does not end with it")


def _absence_ttl(data: bytes, authority: Sequence[_FoundRecords]) -> int:
    """RFC 2308 5: the SOA's last number, or its own TTL; without a SOA absence is not kept."""
    soa = next((r for r in authority if r.rtype == QType.SOA and r.end - r.data >= 22), None)
    return 0 if soa is None else min(soa.ttl, int.from_bytes(data[soa.end - 4 : soa.end]))


def aged(message: bytes, ttl_offsets: Sequence[int], seconds: int) -> bytes:
    """The message as it must read that many seconds after it came: every TTL less by them."""
    if seconds <= 0:
        return message
    copy = bytearray(message)
    for at in ttl_offsets:
        left = max(0, int.from_bytes(copy[at : at + 4]) - seconds)
        copy[at : at + 4] = left.to_bytes(4)
    return bytes(copy)
