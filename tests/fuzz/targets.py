"""The fuzz targets. Each is called with any bytes and raises for a bug, and for nothing else.

`queries`    one message through `Resolver.reply`: as it came, from the cache, and when time has passed
`datagrams`  many messages from several sources through the UDP side's batches (real sockets on loopback)
`streams`    a play of several connections: pieces, ends, resets, slow readers, no descriptors, time
`replies`    one upstream's message, for what was asked or something else, all the way into the caches
`parsers`    one query, read by us and by another
`headers`    what a connection from a trusted proxy begins with
`rules`      one router's rule, in a table and tried by itself
`labels`     services' labels, all the way to what becomes of a request
`heads`      a head of HTTP/1, a request's or a response's, and what goes on of it
`chunks`     a chunked body, whole and in pieces
`conversations`  a connection of HTTP/1, whole and in pieces, as either side
`hellos`     the first message of TLS
`frames`     a connection of HTTP/2, in pieces, down to heads
"""

import errno
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress

from mesh.dns.config import QUERY_MAX, SOURCES_MAX, TCP_PIPELINE_MAX, UDP_BATCH_SLOW, UDP_SLOT
from mesh.dns.connection_limiter import ConnectionLimits
from mesh.dns.forward.forward import NO_PATHS, Later
from mesh.dns.forward.query_builder import Received, UpstreamQuery, received
from mesh.dns.forward.reply_parser import ReplyMatch, match, parse_reply
from mesh.dns.forward.reply_rewrite import passed_back, passed_on, room
from mesh.dns.forward.upstream_cache import CachedReply
from mesh.dns.scope import Scope
from mesh.dns.tcp_server import READ_SIZE, UNSENT_MAX, DnsTcpListener
from mesh.dns.udp_server import DnsEndpoint
from mesh.dns.wire import DO, HEADER, parse_query
from mesh.errors import WireError
from mesh.internal_errors import ERRORS
from tests.fuzz.engine import Target
from tests.fuzz.headers import Headers
from tests.fuzz.http_messages import Chunks, Conversations, Frames, Heads, Hellos
from tests.fuzz.labels import Labels, Rules
from tests.fuzz.parsers import compare
from tests.fuzz.place import SCOPES, UPSTREAMS, Place, check_no_reply, check_reply
from tests.fuzz.stubs import Door, Pipe

PAUSES = (0.0, 0.3, 2.0, 70.0)  # seconds: nothing, within a second, a stale reply's patience, most TTLs


class Queries:
    """Input: one byte that says who asks, how, of which mood the upstream is; then the query."""

    def __init__(self) -> None:
        self.place = Place()

    def __call__(self, data: bytes) -> None:
        place, how, data = self.place, data[0] if data else 0, data[1:]
        place.upstream = UPSTREAMS[how >> 3 & 7]
        scope, tcp = SCOPES[how & 3], bool(how & 4)
        with place.loop.running():
            first = self._ask(data, scope, tcp)
            place.loop.pass_time(PAUSES[how >> 6])
            second = self._ask(data, scope, tcp)
            assert (first is None) == (second is None)
        place.check_limits()
        place.check_nothing_waits()

    def _ask(self, data: bytes, scope: Scope, tcp: bool) -> bytes | None:
        resolver, later = self.place.resolver, list[bytes]()
        view = resolver.view(scope, tcp)
        reply = resolver.reply(data, scope, view, later.append, NO_PATHS, tcp=tcp)
        if reply is Later.PENDING:
            reply = self._wait(later)
        else:
            assert not later
        if reply is None:
            check_no_reply(data)
        else:
            check_reply(data, reply, tcp)
        return reply

    def _wait(self, later: list[bytes]) -> bytes:
        """Patience may end before the upstream answers; then its answer must not be a second one."""
        self.place.check_limits()
        self.place.loop.pass_time(0.0 if len(self.place.forwarder.held) % 2 else 2.0)
        self.place.upstream = "good"
        self.place.forwarder.release()
        assert len(later) == 1
        return later[0]


class Datagrams:
    """Input: pieces of (source, length, bytes). Sources are two askers and strangers."""

    KNOWN = 2
    AT_ONCE = 144  # before the socket's buffer is full

    def __init__(self) -> None:
        self.place = Place()
        self._open = ExitStack()
        udp = self._socket("127.0.0.1")
        self.address = udp.getsockname()
        self.endpoint = DnsEndpoint(self.place.resolver, udp, None, self._scope_of)
        self.clients = [self._socket(f"127.0.0.{n}") for n in (1, 2, 3, 4)]
        for client in self.clients:
            client.connect(self.address)

    def _socket(self, source: str) -> socket.socket:
        made = self._open.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        made.bind((source, 0))
        made.setblocking(False)
        return made

    def close(self) -> None:
        self._open.close()

    @staticmethod
    def _scope_of(source: str) -> Scope | None:
        return {"127.0.0.1": SCOPES[0], "127.0.0.2": SCOPES[1]}.get(source)

    def __call__(self, data: bytes) -> None:
        place = self.place
        place.upstream = UPSTREAMS[data[0] & 7] if data else "good"
        with place.loop.running():
            sent: dict[int, list[bytes]] = {n: [] for n in range(len(self.clients))}
            for n, (source, piece) in enumerate(pieces(data[1:])):
                which = source % len(self.clients)
                self.clients[which].send(piece)
                sent[which].append(piece)
                if n % self.AT_ONCE == self.AT_ONCE - 1:
                    self._drain()
            self._drain()
            place.forwarder.release()
        for which, messages in sent.items():
            known = [message[:UDP_SLOT] for message in messages] if which < self.KNOWN else []
            match_up(self._received(self.clients[which]), known, tcp=False)
        place.check_limits()
        assert len(self.endpoint._askers) <= SOURCES_MAX

    def _drain(self) -> None:
        drain = self.endpoint._drain_singly if self.endpoint._batch is None else self.endpoint._drain_batch
        for _ in range(self.AT_ONCE // UDP_BATCH_SLOW + 1):
            drain()

    @staticmethod
    def _received(client: socket.socket) -> list[bytes]:
        got: list[bytes] = []
        with suppress(BlockingIOError):
            while True:
                got.append(client.recv(65535))
        return got


def match_up(replies: list[bytes], messages: list[bytes], tcp: bool) -> None:
    """Each reply is to something that was sent, and to what needs one there is one."""
    unanswered = Counter(message for message in messages if answered(message))
    for reply in replies:
        fitting = (message for message in unanswered if fits(reply, message, tcp))
        message = next(fitting, None)
        assert message is not None, f"a reply to nothing: {reply.hex()}"
        unanswered -= Counter([message])
    assert not unanswered, [message.hex() for message in unanswered]


def fits(reply: bytes, message: bytes, tcp: bool) -> bool:
    if reply[:2] != message[:2]:
        return False
    try:
        check_reply(message, reply, tcp)
    except AssertionError:
        return False
    return True


def answered(message: bytes) -> bool:
    """Is it a query by its header?"""
    return len(message) >= HEADER.size and not message[2] & 0x80


def pieces(data: bytes, most: int = 400) -> Iterator[tuple[int, bytes]]:
    """(a byte, some bytes), again and again; lengths up to 191 in one byte, longer ones in two."""
    at = 0
    for _ in range(most):
        if at + 2 > len(data):
            return
        what, length, at = data[at], data[at + 1], at + 2
        if length >= 0xC0:
            length = (length & 0x3F) << 8 | (data[at] if at < len(data) else 0)
            at += 1
        yield what, data[at : at + length]
        at += length


class Peer:
    """A client of `Streams`, and what it should get."""

    def __init__(self, source: str) -> None:
        self.pipe, self.source = Pipe(), source
        self.sent = bytearray()

    def queries(self) -> Iterator[bytes]:
        """The whole messages that it has sent up to what cannot be one."""
        at = 0
        while at + 2 <= len(self.sent):
            end = at + 2 + int.from_bytes(self.sent[at : at + 2])
            if not HEADER.size <= end - at - 2 <= QUERY_MAX or end > len(self.sent):
                return
            yield bytes(self.sent[at + 2 : end])
            at = end

    def replies(self) -> Iterator[bytes]:
        at, got = 0, self.pipe.outbox
        while at + 2 <= len(got):
            end = at + 2 + int.from_bytes(got[at : at + 2])
            if end > len(got):
                return
            yield bytes(got[at + 2 : end])
            at = end


class Streams:
    """Input: pieces of (what happens to which connection, bytes). See `_act`."""

    LIMITS = ConnectionLimits(connections=5, per_asker=3, idle=10.0, idle_crowded=2.0)
    SOURCES = ("10.0.0.1", "10.0.0.2", "10.0.0.3")  # the last is a stranger

    def __init__(self) -> None:
        self.place = Place()
        self.faults_before = ERRORS.counts.copy()

    def __call__(self, data: bytes) -> None:
        self.place.upstream = UPSTREAMS[data[0] & 7] if data else "good"
        self.door, self.peers = Door(), list[Peer]()
        loop = self.place.loop
        with loop.running():
            self.listener = DnsTcpListener(
                self.place.resolver,
                self.door,  # type: ignore[arg-type]
                self._scope_of,
                NO_PATHS,
                self.LIMITS,
            )
            self.listener.start()
            for what, piece in pieces(data[1:]):
                self._act(what, piece)
                loop.settle()
                self._check_limits()
            self._finish()
            self.listener.close()
            self.place.forwarder.release()
            loop.settle()
        assert all(peer.pipe.closed for peer in self.peers if peer.pipe.accepted)
        assert not loop.readers
        assert not loop.writers
        assert not [timer for timer in loop.timers if not timer.cancelled]
        self.place.check_limits()

    def _scope_of(self, source: str) -> Scope | None:
        return dict(zip(self.SOURCES, (SCOPES[0], SCOPES[1], None), strict=True))[source]

    def _act(self, what: int, piece: bytes) -> None:
        kind, which = what >> 4, what & 0xF
        if kind == 0 or not self.peers:
            self._knock(self.SOURCES[which % len(self.SOURCES)])
        peer = self.peers[which % len(self.peers)]
        pipe = peer.pipe
        if kind in (1, 2, 3, 4, 5):  # it sends: as it is, or a whole message
            sent = piece if kind < 3 else len(piece).to_bytes(2) + piece
            if not pipe.ended and not pipe.reset:
                pipe.inbox += sent
                peer.sent += sent
        elif kind == 6:
            pipe.ended = True
        elif kind == 7:
            pipe.reset = True
        elif kind in (8, 9):
            pipe.room += len(piece) * 50 + which
        elif kind == 10:
            self.place.forwarder.release()
        elif kind == 11:
            self.place.loop.pass_time(PAUSES[which & 3])
        elif kind == 12:
            self.door.error = (0, errno.EMFILE, errno.EPERM, 0)[which & 3]
        elif kind == 13:
            self.place.upstream = UPSTREAMS[which & 7]
        elif kind == 14:
            for _ in range(which):
                self._knock(self.SOURCES[which % 2])

    def _knock(self, source: str) -> None:
        self.peers.append(peer := Peer(source))
        self.door.knocking.append((peer.pipe, source))

    def _check_limits(self) -> None:
        assert ERRORS.counts == self.faults_before, "a boundary has caught a fault of ours"
        assert len(self.listener) <= self.LIMITS.connections
        for connection in self.listener._crowd:
            assert len(connection._received) <= QUERY_MAX + 2 + READ_SIZE
            assert len(connection._unsent) <= UNSENT_MAX
            assert 0 <= connection._pending <= TCP_PIPELINE_MAX
        held = [peer for peer in self.peers if peer.pipe.accepted and not peer.pipe.closed]
        assert len(held) == len(self.listener)

    def _finish(self) -> None:
        """Those still here end in order: they read all, ask no more, upstreams answer; so nothing is lost."""
        loop, self.door.error, self.place.upstream = self.place.loop, 0, "good"
        here = [connection._socket for connection in self.listener._crowd]
        staying = [peer for peer in self.peers if peer.pipe in here and not peer.pipe.reset]
        self.door.knocking.clear()
        for peer in staying:
            peer.pipe.room, peer.pipe.ended = 1 << 30, True
        for _ in range(len(staying) * 40 + 2):  # as often as a pipeline may be refilled
            loop.settle()
            self.place.forwarder.release()
        loop.settle()
        for peer in staying:
            assert peer.pipe.closed, "the peer has ended, and we have not"
            self._check_replies(peer)

    def _check_replies(self, peer: Peer) -> None:
        assert sum(len(reply) + 2 for reply in peer.replies()) == len(peer.pipe.outbox), "half a reply"
        match_up(list(peer.replies()), list(peer.queries()), tcp=True)


class Replies:
    """Input: one byte that says what was asked and how the message is made to fit, then the message."""

    NAME = b"\3www\7Example\0"
    BEHIND = (b"", b"\0\0\x29\2\x58\0\0\0\0\0\0", b"\0\0\x29\xff\xff\0\0" + DO.to_bytes(2) + b"\0\0")
    AGES = (0.0, 1.0, 29.5, 3600.0)

    def __init__(self) -> None:
        self.place = Place()

    def __call__(self, data: bytes) -> None:
        how, message = data[0] if data else 0, data[1:]
        asked = self._query(how & 3, how >> 2 & 1)
        wanted = UpstreamQuery.of(parse_query(asked), asked)
        sent = wanted.message(b"ID", case=0b10110)
        if how & 0x80:
            message = self._fitted(message, sent)
        self._parse(message)
        if match(sent, message) is not ReplyMatch.YES:
            return
        try:
            got = received(wanted, message)
        except WireError:
            return
        self._check_received(got)
        for other in range(len(self.BEHIND)):
            self._check_passed(got, self._query(other, how >> 2 & 1))
        self._through_the_caches(got, asked, tcp=bool(how & 8))

    def _query(self, edns: int, qtype: int) -> bytes:
        behind = self.BEHIND[edns % len(self.BEHIND)]
        tail = (b"\0\1", b"\0\x10")[qtype] + b"\0\1" + behind
        return HEADER.pack(0x4142, 0x0100, 1, 0, 0, bool(behind)) + self.NAME + tail

    def _fitted(self, message: bytes, sent: bytes) -> bytes:
        """With the id and the question of what was sent, so that it gets any further."""
        question = sent[HEADER.size : HEADER.size + len(self.NAME) + 4]
        flags = bytes((message[2] & 0x07 | 0x80,)) if len(message) > 2 else b"\x80"
        return sent[:2] + flags + message[3:4] + b"\0\1" + message[6:12] + question + message[12:]

    @staticmethod
    def _parse(message: bytes) -> None:
        try:
            reply = parse_reply(message)
        except WireError:
            return
        assert 0 <= reply.ttl < 1 << 31
        assert HEADER.size <= reply.end <= len(message)
        assert all(at + 4 <= reply.end for at in reply.ttl_offsets)
        assert list(reply.answer_ends) == sorted(reply.answer_ends)
        assert all(end <= reply.end for end in reply.answer_ends)
        if reply.opt is not None:
            assert HEADER.size <= reply.opt[0] < reply.opt[1] <= reply.end

    @staticmethod
    def _check_received(got: Received) -> None:
        again = parse_reply(got.message)
        assert again.opt is None
        assert again.end == len(got.message) == got.reply.end
        assert again.ttl_offsets == got.reply.ttl_offsets

    def _check_passed(self, got: Received, asked: bytes) -> None:
        query = parse_query(asked)
        for tcp in (False, True):
            limit = room(query, tcp)
            passed, _ = passed_on(got, query, asked, limit)
            check_reply(asked, passed, tcp, honest=False)
            assert len(passed_back(got.message, asked, query, limit)) <= limit
        kept = CachedReply(got, 0.0, got.reply.ttl)
        lengths = {len(one.message) for one in (*map(kept.at, self.AGES), kept.stale())}
        assert lengths == {len(got.message)}
        for younger, older in zip(self.AGES, self.AGES[1:], strict=False):
            ttls = zip(self._ttls(kept, younger), self._ttls(kept, older), strict=True)
            assert all(before >= after for before, after in ttls)

    @staticmethod
    def _ttls(kept: CachedReply, age: float) -> list[int]:
        message = kept.at(age).message
        return [int.from_bytes(message[at : at + 4]) for at in kept.received.reply.ttl_offsets]

    def _through_the_caches(self, got: Received, asked: bytes, tcp: bool) -> None:
        """Other names, so that none is in a cache: what is kept is bounded, whatever it is."""
        place, later = self.place, list[bytes]()
        place.forwarder.answer = lambda _: got
        place.resolver._forwarding._forwarded._kept.clear()
        place.resolver._forwarding._forwarded.bytes = 0
        place.resolver.cache.invalidate({"www.example"})
        scope = SCOPES[0]
        with place.loop.running():
            for pause in PAUSES:
                view = place.resolver.view(scope, tcp)
                reply = place.resolver.reply(asked, scope, view, later.append, NO_PATHS, tcp=tcp)
                assert isinstance(reply, bytes)
                check_reply(asked, reply, tcp, honest=False)
                place.loop.pass_time(pause)
        assert not later
        place.check_limits()
        place.check_nothing_waits()


class Parsers:
    """Input: a query, for two parsers."""

    def __call__(self, data: bytes) -> None:
        compare(data)


TARGETS: dict[str, Callable[[], Target]] = {
    "queries": Queries,
    "datagrams": Datagrams,
    "streams": Streams,
    "replies": Replies,
    "parsers": Parsers,
    "headers": Headers,
    "rules": Rules,
    "labels": Labels,
    "heads": Heads,
    "chunks": Chunks,
    "conversations": Conversations,
    "frames": Frames,
    "hellos": Hellos,
}
