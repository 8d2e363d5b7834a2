"""What is sent to upstreams and what comes back, as bytes. Pure.

The message is one of our own, not the client's with another id, as Docker sends it:

- EDNS is between neighbours (by RFC 6891 6.1.1 OPT is never passed on), so ours says what *we* take: 1232
  bytes, which no path fragments. The client's DO, AD and CD are passed on, and so are its options that are
  for whoever resolves (client subnet, …); cookies, padding, keep-alive and NSID end here (RFC 7873 and
  others). So one reply serves clients with and without EDNS, and a cookie keeps nobody from a cached one.
- The letters of the name are in random case (0x20): a forger must guess them too, and a query that comes
  back to us is known again. Replies are kept in lower case.
- A query with anything else behind its question (a TSIG signature) is passed on byte for byte, since a change
  would break it; its reply is passed back likewise and shared with nobody.
"""

import struct
from dataclasses import dataclass

from mesh.dns.config import UDP_REPLY_MAX
from mesh.dns.forward.reply_parser import UpstreamReply, parse_reply
from mesh.dns.wire import CD, DO, HEADER, RD, DnsQuery, QType, Rcode

AD = 0x0020  # "I understand AD" in a query (RFC 6840 5.7)
_PASSED_FLAGS = RD | AD | CD
_OPT = struct.Struct("!BHHIH")  # the root, type, size, rcode and flags, length of the options
_OPTION = struct.Struct("!HH")  # code, length
NSID, COOKIE, KEEPALIVE, PADDING = 3, 10, 11, 12
BETWEEN_NEIGHBOURS = frozenset({NSID, COOKIE, KEEPALIVE, PADDING})
# For each byte of a name in lower case, the bit that makes it a capital; length octets are below all letters.
_CASE_BITS = bytes(0x20 if 0x61 <= byte <= 0x7A else 0 for byte in range(256))
_QUESTION_TAIL = 4  # bytes of type and class behind the name


@dataclass(frozen=True, slots=True)
class UpstreamQuery:
    """What somebody wants to know, equal for all who want to know the same."""

    flags: int
    question: bytes  # name in lower case, type, class
    dnssec_ok: bool = False
    options: bytes = b""  # of EDNS, as they are passed on
    signed: bytes = b""  # all after the id of a query that must stay as it is

    @classmethod
    def of(cls, query: DnsQuery, data: bytes) -> "UpstreamQuery":
        """`data`: the client's message, which `query` was read from."""
        behind = data[HEADER.size + len(query.question.wire) :]
        flags, question = query.flags & _PASSED_FLAGS, query.question.folded
        if not behind:
            return cls(flags, question)
        if query.edns is None or behind[0] or data[6 : HEADER.size] != b"\0\0\0\0\0\1":
            return cls(flags, question, signed=data[2:])
        *_, length = _OPT.unpack_from(behind)
        options = passed_options(behind[_OPT.size : _OPT.size + length])
        return cls(flags, question, query.edns.dnssec_ok, options)

    @property
    def shareable(self) -> bool:
        """May its reply be kept? (What was asked for one client's subnet will not be asked again.)"""
        return not self.signed and not self.options

    def message(self, id_: bytes, case: int = 0, edns: bool = True) -> bytes:
        """The message with this id, its name spelled as `case` says (see `spelled`)."""
        if self.signed:
            return id_ + self.signed
        header = id_ + HEADER.pack(0, self.flags, 1, 0, 0, int(edns))[2:]
        return header + spelled(self.question, case) + (opt(self.dnssec_ok, self.options) if edns else b"")


def spelled(question: bytes, case: int) -> bytes:
    """The question with some letters of its name as capitals: those at whose place in `case` 0x20 is set."""
    if not case:
        return question
    name = question[:-_QUESTION_TAIL]
    capitals = int.from_bytes(name.translate(_CASE_BITS)) & case
    return (int.from_bytes(name) ^ capitals).to_bytes(len(name)) + question[-_QUESTION_TAIL:]


def opt(dnssec_ok: bool, options: bytes = b"") -> bytes:
    """Our OPT record."""
    return _OPT.pack(0, QType.OPT, UDP_REPLY_MAX, DO if dnssec_ok else 0, len(options)) + options


def passed_options(options: bytes) -> bytes:
    """EDNS options without those that are between neighbours. What is broken ends there."""
    passed, at = b"", 0
    while at + _OPTION.size <= len(options):
        code, length = _OPTION.unpack_from(options, at)
        end = at + _OPTION.size + length
        if code not in BETWEEN_NEIGHBOURS and end <= len(options):
            passed += options[at:end]
        at = end
    return passed


@dataclass(frozen=True, slots=True)
class Received:
    """An upstream's reply as it is kept: `message` is without OPT, its question in lower case.

    Of a signed query: `message` exactly as it came. `options` are the reply's own of EDNS, to be passed on.
    """

    message: bytes
    reply: UpstreamReply
    options: bytes = b""
    signed: bool = False

    @property
    def has_question(self) -> bool:
        return self.message[4:6] == b"\0\1"

    @property
    def cost(self) -> int:
        """Bytes of memory, about: the message, its options and offsets."""
        return len(self.message) + len(self.options) + 8 * len(self.reply.ttl_offsets)


def received(query: UpstreamQuery, data: bytes) -> Received:
    """A reply that matches → as it is kept. Raises WireError when it breaks the protocol."""
    reply = parse_reply(data)
    if query.signed:
        return Received(data, reply, signed=True)
    message = bytearray(data[: reply.end if reply.opt is None else reply.opt[0]])
    if message[4:6] == b"\0\1":
        _fold(message, query.question, reply)
    options = b""
    if reply.opt is not None:
        begin, end = reply.opt
        # Records behind OPT are left out, names in them may point beyond it. Servers put OPT last.
        behind = sum(1 for at in reply.ttl_offsets if at > begin)
        message[10:12] = (int.from_bytes(message[10:12]) - 1 - behind).to_bytes(2)
        options = passed_options(data[begin + _OPT.size : end])
    return Received(bytes(message), _until(reply, len(message)), options)


def _fold(message: bytearray, question: bytes, reply: UpstreamReply) -> None:
    """Take back our spelling: in the question, and in owners that repeat its name in full."""
    name = question[:-_QUESTION_TAIL]
    message[HEADER.size : HEADER.size + len(question)] = question
    for at in reply.owners:
        if message[at : at + len(name)].lower() == name:
            message[at : at + len(name)] = name


def _until(reply: UpstreamReply, end: int) -> UpstreamReply:
    """What is to be known of the part up to `end`."""
    offsets = tuple(at for at in reply.ttl_offsets if at < end)
    return UpstreamReply(
        reply.rcode, reply.truncated, reply.negative, reply.ttl, offsets, reply.answer_ends, (), None, end
    )


def is_answer(reply: UpstreamReply) -> bool:
    """Does it end the search? (Docker since 24.0: anything but SERVFAIL and REFUSED does.)

    Nor do errors of EDNS (BADVERS, BADCOOKIE, …): those are between the server and us.
    """
    return reply.rcode not in (Rcode.SERVFAIL, Rcode.REFUSED) and reply.rcode <= 0xF
