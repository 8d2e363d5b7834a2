"""A small cluster with one resolver, and the limits and replies that must be right whatever it is asked."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random

import dns.message

from mesh.dns.config import FAILURES_MAX, FORWARDED_BYTES_MAX, FORWARDS_MAX, REFRESHES_MAX, DnsConfig
from mesh.dns.forward.query_builder import Received, UpstreamQuery, received
from mesh.dns.forward.reply_parser import parse_reply
from mesh.dns.forward.reply_rewrite import room
from mesh.dns.resolver import Resolver
from mesh.dns.scope import Scope
from mesh.dns.stats import RCODES, TYPES, DnsStats
from mesh.dns.wire import HEADER, OPCODE, QR, BadQuery, DnsQuery, Rcode, parse_query
from mesh.errors import WireError
from mesh.net.tasks import Tasks
from tests.dns.serving import BIG
from tests.dns.world import BACK, BOTH, FRONT, NETWORKS, SERVICES, TOOL, snapshot
from tests.fuzz.stubs import HOLD, Hold, StubForwarder, StubLoop

SCOPES = (BOTH, FRONT, BACK, Scope(container=TOOL.id, servers=("192.0.2.7",)))
KEPT = 40  # replies in each of the two caches, so that both are full at once
NAMES_MAX = 400  # of the catalogue below, on all networks together
SOURCES = 4  # kinds of source of an answer: local, cache, forward, stale
DROPS = frozenset(
    {
        *("not a query", "stranger", "overlong", "incomplete", "not taken", "gave way", "not accepted"),
        *("too many connections", "send buffer full", "not sent"),
    }
)
REFUSALS, REFRESHED = frozenset({"share", "total", "loop"}), frozenset({"prefetch", "stale"})


class Place:
    """`upstream` is what the others answer next: "hold", "fail", or the bytes after a reply's id."""

    def __init__(self) -> None:
        self.loop = StubLoop()
        self.tasks = Tasks(self._failed)
        config = DnsConfig(cache=KEPT, upstreams=("192.0.2.53",))
        catalogue = snapshot((*SERVICES, BIG))
        self.resolver = Resolver(config, self.tasks, catalogue, Random(1), self.loop.time)
        self.forwarder = StubForwarder(config, self.tasks, self.resolver.stats)
        self.forwarder.answer, self.forwarder.held = self._answer, {}
        self.resolver._forwarding._forwarder = self.forwarder
        self.upstream = "good"
        self._of_types: dict[bytes, int] = {}

    @staticmethod
    def _failed(name: str, error: BaseException) -> None:
        raise AssertionError(f"task {name} failed") from error

    def _answer(self, query: UpstreamQuery) -> Received | Hold | None:
        if self.upstream == "hold":
            return HOLD
        if self.upstream == "fail":
            return None
        try:
            return received(query, reply_of(query, self.upstream))
        except WireError:  # the signed rest of a query may be anything
            return None

    # --- what must be true ----------------------------------------------------------------------------------

    def check_limits(self) -> None:
        """Nothing has grown beyond its named limit."""
        cache, forwarding = self.resolver.cache, self.resolver._forwarding
        assert cache.replies <= cache.capacity <= KEPT + NAMES_MAX
        assert cache.replies == sum(len(entry.tails) for entry in cache._order)
        assert len(cache._views) <= 2 * len(SCOPES)
        assert sum(len(view.entries) for view in cache._views.values()) == len(cache)
        assert all(view.keys() <= view.entries.keys() for view in cache._views.values())
        assert len(cache._by_name) <= sum(len(entry.names) for entry in cache._order)
        assert len(forwarding._forwarded) <= KEPT
        assert forwarding._forwarded.bytes <= FORWARDED_BYTES_MAX
        assert len(forwarding._forwarded._failed) <= FAILURES_MAX
        assert self.forwarder._waiters <= FORWARDS_MAX + REFRESHES_MAX
        assert self.forwarder._waiters == sum(self.forwarder._by_asker.values())
        assert len(self.forwarder._waiting) == len(self.forwarder.held) <= self.forwarder._waiters
        assert len(self.tasks) == 0
        check_labels(self.resolver.stats)

    def check_nothing_waits(self) -> None:
        """What was asked has been answered, and nobody is left behind."""
        assert self.forwarder._waiters == len(self.forwarder._by_asker) == len(self.forwarder.held) == 0


def check_labels(stats: DnsStats) -> None:
    """Labels are those of the catalogue, whatever is in a query."""
    assert len(stats._requests) <= (len(NETWORKS) + 1) * (len(TYPES) + 1) * (len(RCODES) + 1) * SOURCES
    assert {key[0] for key in stats._requests} <= {"", *(network.name for network in NETWORKS)}
    assert stats.dropped.keys() <= DROPS, stats.dropped
    assert stats.refused.keys() <= REFUSALS
    assert stats.refreshes.keys() <= REFRESHED
    assert not stats.rejected
    assert not stats.upstream_requests
    assert not stats.faults


def check_reply(data: bytes, reply: bytes, tcp: bool, *, honest: bool = True) -> None:
    """A reply that its asker can read, and knows for the answer to its own question.

    What upstreams that are not `honest` say inside their records is passed on as it is.
    """
    assert reply[:2] == data[:2]
    flags = int.from_bytes(reply[2:4])
    assert flags & QR
    assert flags & OPCODE == int.from_bytes(data[2:4]) & OPCODE
    assert parse_reply(reply).end == len(reply)
    if honest:
        dns.message.from_wire(reply)
    query, rcode = read(data)
    assert rcode is not None or query is not None, "what is no query gets no reply"
    if rcode is not None:
        assert flags & 0xF == rcode & 0xF
        assert reply[6:10] == bytes(4)
    if query is None:
        assert len(reply) == HEADER.size
        return
    wire = query.question.wire
    assert reply[4:6] == b"\0\1"
    assert reply[HEADER.size : HEADER.size + len(wire)] == wire
    assert len(reply) <= room(query, tcp)


def read(data: bytes) -> tuple[DnsQuery | None, Rcode | None]:
    """What could be read of a query, and why it gets no data."""
    try:
        return parse_query(data), None
    except BadQuery as bad:
        return bad.query, bad.rcode


def check_no_reply(data: bytes) -> None:
    """Only what is no query at all may go unanswered."""
    assert len(data) < HEADER.size or data[2] & 0x80


# --- upstreams ----------------------------------------------------------------------------------------------

UPSTREAMS = ("good", "hold", "fail", "nxdomain", "servfail", "many", "truncated", "good")
_A = b"\xc0\x0c\0\1\0\1\0\0\0\x05\0\4\xc0\0\2\1"
_SOA = b"\0\0\6\0\1\0\0\0\x3c\0\x16\0\0" + bytes(16) + b"\0\0\0\x1e"
_OPT = b"\0\0\x29\4\xd0\0\0\0\0\0\0"


def reply_of(query: UpstreamQuery, manner: str) -> bytes:
    """What an honest server says."""
    asked = query.message(b"ID")
    end = _end_of_question(asked)
    counts, flags, rest = {
        "nxdomain": (b"\0\0\0\1\0\1", 0x8183, _SOA + _OPT),
        "servfail": (b"\0\0\0\0\0\0", 0x8182, b""),
        "many": (b"\0\x64\0\0\0\1", 0x8180, _A * 100 + _OPT),
        "truncated": (b"\0\1\0\0\0\0", 0x8380, _A),
    }.get(manner, (b"\0\1\0\0\0\1", 0x8180, _A + _OPT))
    return asked[:2] + flags.to_bytes(2) + b"\0\1" + counts + asked[HEADER.size : end] + rest


def _end_of_question(message: bytes) -> int:
    at = HEADER.size
    while message[at]:
        at += 1 + message[at]
    return at + 5


@contextmanager
def quiet() -> Iterator[None]:
    """Without log lines: a line per input would be all that one sees."""
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
