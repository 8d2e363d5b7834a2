"""An upstream's reply as it is passed on to one asker: its id, its spelling, its EDNS, its room. Pure."""

from mesh.dns.config import PLAIN_UDP, TCP_REPLY_MAX
from mesh.dns.forward.query_builder import Received, opt
from mesh.dns.wire import HEADER, TC, DnsQuery, Rcode, reply_tail


def room(query: DnsQuery, tcp: bool) -> int:
    """Bytes that a forwarded reply may have: what the asker announced, be it more than ours ever have."""
    if tcp:
        return TCP_REPLY_MAX
    return PLAIN_UDP if query.edns is None else max(PLAIN_UDP, query.edns.size)


def passed_on(received: Received, query: DnsQuery, data: bytes, limit: int) -> tuple[bytes, bool]:
    """(the message for whoever sent `data`, whether it is the whole reply).

    What does not fit loses first the sections behind the answer, which stub resolvers do not need, unless
    DNSSEC was asked for; then whole records of the answer, and TC says so (RFC 2181 9). Records are left in
    it for those who do not come back over TCP (musl before 1.2.4).
    """
    message, question = received.message, query.question
    if not received.has_question:
        rcode = Rcode(received.reply.rcode) if received.reply.rcode in _KNOWN else Rcode.SERVFAIL
        return data[:2] + reply_tail(query, rcode), True
    own = b"" if query.edns is None else opt(query.edns.dnssec_ok, received.options)
    end = HEADER.size + len(question.wire)
    if len(message) + len(own) <= limit:
        additional = int.from_bytes(message[10:12]) + bool(own)
        header = data[:2] + message[2:10] + additional.to_bytes(2)
        return header + question.wire + message[end:] + own, True
    ends = [at for at in received.reply.answer_ends if at + len(own) <= limit]
    complete = len(ends) == len(received.reply.answer_ends) and not (query.edns and query.edns.dnssec_ok)
    flags = int.from_bytes(message[2:4]) | (0 if complete else TC)
    header = data[:2] + HEADER.pack(0, flags, 1, len(ends), 0, bool(own))[2:]
    return header + question.wire + message[end : max(ends, default=end)] + own, False


def passed_back(message: bytes, data: bytes, query: DnsQuery, limit: int) -> bytes:
    """The same for a signed reply, which must stay as it is or be asked for over TCP."""
    if len(message) <= limit:
        return data[:2] + message[2:]
    flags = int.from_bytes(message[2:4]) | TC
    return data[:2] + HEADER.pack(0, flags, 1, 0, 0, 0)[2:] + query.question.wire


_KNOWN = frozenset(Rcode)
