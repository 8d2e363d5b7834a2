"""The brain, one per node: bytes of a query and who asks → bytes of a reply, now or later.

The order of a query's way is `handle`: read it strictly; ask the name table; what is not ours goes to the
servers that this asker may reach, through a memory shared by all who may reach the same. What was answered is
left in the asker's view of the cache, where `server` finds it next time without coming here.

`update` is the catalogue's subscriber: it moves the name table on and drops the cached replies that depend on
the names touched, in O(changed).
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from random import Random
from time import monotonic
from typing import TypeAlias

from mesh.catalog.snapshot import Change, Snapshot
from mesh.dns.answers import Answer, Outcome, Record, answer
from mesh.dns.cache import Aging, Entry, Forwarded, ReplyCache, View
from mesh.dns.config import ROTATIONS, DnsConfig
from mesh.dns.explain import Explanation, explanation, with_reply
from mesh.dns.names import NameTable
from mesh.dns.scope import Scope, SourceScopes
from mesh.dns.stats import CACHE, FORWARD, LOCAL, DnsStats
from mesh.dns.upstream import Forwarder, HostServers, Route, Server, SocketFactory, host_socket, parse_servers
from mesh.dns.wire import (
    HEADER,
    BadQuery,
    QClass,
    QType,
    Query,
    Question,
    Rcode,
    address_record,
    as_asked,
    cut,
    parse_query,
    parse_reply,
    pointer_record,
    query_message,
    refusal,
    reply_tail,
    soa_record,
)
from mesh.errors import WireError
from mesh.net.tasks import Tasks

Respond: TypeAlias = Callable[[bytes], None]


class Later(Enum):
    """The reply will come through `respond`."""

    PENDING = "pending"


@dataclass(frozen=True, slots=True)
class Paths:
    """Ways that only an endpoint inside a container's namespace has.

    `sockets` makes sockets in there; `docker` is Docker's own resolver of that container, by its real ports
    (its 127.0.0.11:53 is redirected to us).
    """

    sockets: SocketFactory | None = None
    docker: Server | None = None


NO_PATHS = Paths()


class Resolver:
    """One per node. Not thread-safe: belongs to the event loop's thread."""

    def __init__(
        self,
        config: DnsConfig,
        tasks: Tasks,
        snapshot: Snapshot | None = None,
        rng: Random | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.tasks = tasks
        self.clock = clock
        self.stats = DnsStats()
        self.cache = ReplyCache(config.cache)
        self.snapshot = snapshot or Snapshot()
        self.table = NameTable.of(self.snapshot)
        self._ttl = config.ttl
        self._rng = rng or Random()
        self._forwarded = Forwarded(config.cache)
        self._forwarder = Forwarder(tasks, self.stats)
        self._host = HostServers(config)
        self._sources = SourceScopes(self.snapshot)
        self.scopes_version = 0  # changes when what `scope_by_source` says may have

    @property
    def cache_entries(self) -> int:
        """Replies in the cache."""
        return self.cache.replies + len(self._forwarded)

    def update(self, old: Snapshot, new: Snapshot, change: Change) -> None:
        """The catalogue's subscriber. `old` is the snapshot of the call before."""
        self.table, touched = self.table.apply(old, new, change)
        self.snapshot = new
        self.cache.invalidate(touched)
        if change.containers or change.networks or change.askers is not None:
            self._sources = SourceScopes(new)
            self.scopes_version += 1

    def scope_by_source(self, source: str) -> Scope | None:
        """The scope source of an explicit endpoint: a container of this node, else the catalogue's askers."""
        return self._sources.find(source)

    def view(self, scope: Scope, tcp: bool) -> View:
        """Where a socket's loop finds the ready replies for this scope."""
        return self.cache.view((scope.key, tcp))

    # --- a query's way --------------------------------------------------------------------------------------

    def handle(
        self, data: bytes, scope: Scope, *, tcp: bool, respond: Respond, paths: Paths = NO_PATHS
    ) -> bytes | Later | None:
        """The reply to a query; PENDING when it will be given to `respond`; None for no reply at all."""
        started = self.clock()
        try:
            query = parse_query(data)
        except BadQuery as bad:
            return self._refuse(data, bad)
        found = answer(query.question, scope, self.table)
        if found.outcome in (Outcome.RECORDS, Outcome.NODATA):
            reply = data[:2] + self._answer_here(data, query, found, scope, tcp)
            self.stats.durations[LOCAL].observe(self.clock() - started)
            return reply
        asking = _Asking(data, query, found, scope, tcp, respond, started)
        return self._forward(asking, self._route(found, scope, paths))

    def hit(self, entry: Entry, now: float) -> bytes | None:
        """The next reply (without id) of a cached entry; None when it has just run out."""
        if now >= entry.valid_until and not self.cache.renew(entry, now):
            return None
        entry.cell[0] += 1
        return next(entry.replies)

    def _refuse(self, data: bytes, bad: BadQuery) -> bytes | None:
        if bad.rcode is None:
            self.stats.drop("not a query")
            return None
        self.stats.cell("", 0, bad.rcode, LOCAL)[0] += 1
        return refusal(data, bad.rcode)

    # --- answers of ours ------------------------------------------------------------------------------------

    def _answer_here(self, data: bytes, query: Query, found: Answer, scope: Scope, tcp: bool) -> bytes:
        qtype = query.question.qtype
        tails = self._tails(query, found, tcp)
        self.stats.cell(found.network, qtype, Rcode.NOERROR, LOCAL)[0] += 1
        if _cacheable(query) and len(found.records) <= ROTATIONS:
            cell = self.stats.cell(found.network, qtype, Rcode.NOERROR, CACHE)
            self.cache.put(self.view(scope, tcp), data[2:], tails, found.names, cell)
        return tails[-1]  # the cache hands out the others first

    def _tails(self, query: Query, found: Answer, tcp: bool) -> list[bytes]:
        """One reply for each record to come first, in a random order of their own.

        Few clients look beyond the first, so each record must be first equally often; and since they start
        anywhere in the circle, many scopes that each ask once do not all get the same.
        """
        records = _encoded(found.records, self._ttl)
        limit = query.limit(tcp)
        if not records:
            return [reply_tail(query, Rcode.NOERROR, authority=soa_record(self._ttl), limit=limit)]
        self._rng.shuffle(records)
        turns = len(records) if len(records) <= ROTATIONS else 1
        orders = (records[first:] + records[:first] for first in range(turns))
        return [reply_tail(query, Rcode.NOERROR, order, limit=limit) for order in orders]

    # --- what is not ours -----------------------------------------------------------------------------------

    def _route(self, found: Answer, scope: Scope, paths: Paths) -> Route | None:
        """Where the question may go; None: nowhere."""
        if found.outcome is Outcome.LEFT and paths.docker is not None and paths.sockets is not None:
            return Route("docker", (paths.docker,), scope.container, paths.sockets)
        if scope.servers and (paths.sockets is not None or scope.external):
            # Dialled from inside the container, so an internal network's own server stays within reach.
            servers = parse_servers(scope.servers, label="container")
            return Route("container", servers, scope.container, paths.sockets or host_socket)
        if not scope.external:
            return None
        return Route("host", self._host.get(self.clock()))

    def _forward(self, asking: "_Asking", route: Route | None) -> bytes | Later | None:
        if route is None or not route.servers:
            return self._fail(asking, Rcode.SERVFAIL)
        key = (route.key, asking.tcp, asking.data[2 : HEADER.size], asking.folded)
        aging = self._forwarded.get(key, self.clock())
        if aging is not None:
            return self._answer_forwarded(asking, aging.at(self.clock()), aging, CACHE)

        def done(reply: bytes | None) -> None:
            result = self._forward_ended(asking, key, reply)
            asking.respond(result)

        if not self._forwarder.ask(key, asking.data, route, asking.tcp, done):
            return self._fail(asking, Rcode.REFUSED)
        return Later.PENDING

    def _forward_ended(self, asking: "_Asking", key: object, reply: bytes | None) -> bytes:
        if reply is None:
            return self._fail(asking, Rcode.SERVFAIL)
        now = self.clock()
        aging = None
        if _cacheable(asking.query) and asking.found.outcome is not Outcome.LEFT:
            aging = Aging.of(reply, parse_reply(reply), now)
        if aging is not None:
            self._forwarded.put(key, aging)
        return self._answer_forwarded(asking, reply, aging, FORWARD)

    def _answer_forwarded(self, asking: "_Asking", message: bytes, aging: Aging | None, source: str) -> bytes:
        query, question, now = asking.query, asking.query.question, self.clock()
        reply = as_asked(message, asking.data, question)
        rcode = reply[3] & 0xF
        self.stats.cell("", question.qtype, rcode, source)[0] += 1
        self.stats.durations[source].observe(now - asking.started)
        if len(reply) > max(query.limit(asking.tcp), query.edns.size if query.edns else 0):
            return cut(reply, question)
        if aging is not None and _still_unknown(asking, self.table):
            cell = self.stats.cell("", question.qtype, rcode, CACHE)
            view = self.view(asking.scope, asking.tcp)
            own = aging.spelled(as_asked(aging.message, asking.data, question))
            self.cache.put_forwarded(view, asking.data[2:], own, asking.found.names, cell, now)
        return reply

    def _fail(self, asking: "_Asking", rcode: Rcode) -> bytes:
        self.stats.cell("", asking.query.question.qtype, rcode, FORWARD)[0] += 1
        self.stats.durations[FORWARD].observe(self.clock() - asking.started)
        return asking.data[:2] + reply_tail(asking.query, rcode)

    # --- for people -----------------------------------------------------------------------------------------

    def explain(self, scope: Scope, name: str, qtype: int = QType.A, paths: Paths = NO_PATHS) -> Explanation:
        """What this asker gets for the name, and why, as far as it can be said without asking anybody."""
        question = Question(name.removesuffix("."), qtype, QClass.IN, b"")
        found = answer(question, scope, self.table)
        here = found.outcome in (Outcome.RECORDS, Outcome.NODATA)
        return explanation(question, scope, found, None if here else self._route(found, scope, paths))

    async def resolve(
        self, scope: Scope, name: str, qtype: int = QType.A, paths: Paths = NO_PATHS
    ) -> Explanation:
        """`explain`, and the upstreams are really asked. Raises WireError for what is no name."""
        told = self.explain(scope, name, qtype, paths)
        if told.source == LOCAL:
            return told
        replied: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        def respond(reply: bytes) -> None:
            if not replied.done():
                replied.set_result(reply)

        # Over TCP: whoever asks wants to see all records.
        query = query_message(0, told.name, qtype)
        reply = self.handle(query, scope, tcp=True, respond=respond, paths=paths)
        if reply is Later.PENDING:
            reply = await replied
        return told if reply is None else with_reply(told, reply)


@dataclass(frozen=True, slots=True)
class _Asking:
    """A query on its way to an upstream, with all that its reply will need."""

    data: bytes
    query: Query
    found: Answer
    scope: Scope
    tcp: bool
    respond: Respond
    started: float

    @property
    def folded(self) -> bytes:
        """The question in lower case, and all that follows it (EDNS)."""
        question = self.query.question
        return question.folded + self.data[HEADER.size + len(question.wire) :]


def _cacheable(query: Query) -> bool:
    """A query with EDNS options (a cookie, a client subnet) will not come again byte for byte."""
    return query.edns is None or not query.edns.options


def _still_unknown(asking: _Asking, table: NameTable) -> bool:
    """The catalogue may have learned the name while the question was out; then this reply is the last."""
    return answer(asking.query.question, asking.scope, table).outcome is Outcome.UNKNOWN


def _encoded(records: tuple[Record, ...], ttl: int) -> list[bytes]:
    """Records → bytes. What cannot be said in DNS (a label over 63 octets in a PTR) is left out."""
    encoded: list[bytes] = []
    for record in records:
        try:
            if record.qtype == QType.PTR:
                encoded.append(pointer_record(record.data, ttl))
            else:
                encoded.append(address_record(record.data, ttl))
        except (WireError, ValueError):
            continue
    return encoded
