"""The brain, one per node: bytes of a query and who asks → bytes of a reply, now or later.

The order of a query's way is `handle`: read it strictly; ask the name table; what is not ours goes to the
servers that this asker may reach, through a memory shared by all who may reach the same. What was answered is
left in the asker's view of the cache, where `server` finds it next time without coming here.

`update` is the catalogue's subscriber: it moves the name table on and drops the cached replies that depend on
the names touched, in O(changed).
"""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from random import Random
from time import monotonic

from mesh.catalog.snapshot import Change, Snapshot
from mesh.dns.config import DnsConfig
from mesh.dns.explain import Explanation, explanation, shown
from mesh.dns.forward.forward import (
    NO_PATHS,
    ContainerPaths,
    ForwardedQuery,
    Forwarding,
    Later,
    Respond,
    cacheable,
)
from mesh.dns.lookup import HERE, LookupAnswer, LookupOutcome, answer
from mesh.dns.name_table import NameTable
from mesh.dns.query_log import QueryLog
from mesh.dns.reply_builder import replies
from mesh.dns.reply_cache import ReplyCache, View
from mesh.dns.scope import Scope, SourceScopes
from mesh.dns.stats import CACHE, LOCAL, DnsStats
from mesh.dns.wire import (
    HEADER,
    BadQuery,
    DnsQuery,
    DnsQuestion,
    QClass,
    QType,
    Rcode,
    parse_query,
    query_message,
    refusal,
    reply_tail,
)
from mesh.internal_errors import ERRORS
from mesh.net.tasks import Tasks


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
        self.log = QueryLog(config.query_log, clock) if config.query_log else None
        self.snapshot = snapshot or Snapshot()
        self.table = NameTable(self.snapshot)
        self._cached = config.cache
        self.cache = ReplyCache(self._capacity())
        self._policy = config.names
        self._rng = rng or Random()
        self._forwarding = Forwarding(config, tasks, self.stats, self.cache, self._unknown, clock, self.log)
        self._sources = SourceScopes(self.snapshot)
        self.scopes_version = 0  # changes when what `scope_by_source` says may have

    @property
    def cache_entries(self) -> int:
        """Replies in the cache."""
        return self.cache.replies + len(self._forwarding)

    @property
    def requests(self) -> dict[tuple[str, str, str, str], int]:
        """(network, type, rcode, source) → requests answered up to now."""
        self.cache.settle()
        return self.stats.requests

    def update(self, old: Snapshot, new: Snapshot, change: Change) -> None:
        """The catalogue's subscriber. `old` is the snapshot of the call before."""
        touched = self.table.apply(new, change)
        self.snapshot = new
        self.cache.capacity = self._capacity()
        self.cache.invalidate(touched)
        if any(network is None for network in change.networks.values()):
            self.stats.keep_networks({network.name for network in new.networks.values()})
        if change.containers or change.networks or change.askers is not None:
            self._sources = SourceScopes(new)
            self.scopes_version += 1

    def restart(self, snapshot: Snapshot) -> None:
        """Forget all names and cached replies, and go on from these."""
        self.table, self.snapshot = NameTable(snapshot), snapshot
        self.cache.capacity = self._capacity()
        self.cache.clear()
        self._sources = SourceScopes(snapshot)
        self.scopes_version += 1

    def _capacity(self) -> int:
        """Every name of ours that can be asked may be there once, however many are forwarded beside them."""
        return self._cached + len(self.table) if self._cached else 0

    def scope_by_source(self, source: str) -> Scope | None:
        """The scope source of an explicit endpoint: a container of this node, else the catalogue's askers."""
        return self._sources.find(source)

    def view(self, scope: Scope, tcp: bool) -> View:
        """Where a socket's loop finds the ready replies for this scope, which is about to ask."""
        for network, _ in scope.networks:
            self.table.index(network)
        self.cache.capacity = self._capacity()
        return self.cache.view(scope.key, tcp)

    # --- a query's way --------------------------------------------------------------------------------------

    def reply(
        self,
        data: bytes,
        scope: Scope,
        view: View,
        respond: Respond,
        paths: ContainerPaths,
        *,
        tcp: bool = False,
    ) -> bytes | Later | None:
        """`handle`, unless the reply is still in the scope's view of the cache."""
        started = self.clock()
        tail = self.cache.next_reply(view, data[2:], started)
        if tail is None:
            return self.handle(data, scope, tcp=tcp, respond=respond, paths=paths)
        return self._told(scope, data[:2] + tail, CACHE, started, tcp)

    def handle(
        self, data: bytes, scope: Scope, *, tcp: bool, respond: Respond, paths: ContainerPaths = NO_PATHS
    ) -> bytes | Later | None:
        """The reply to a query; PENDING when it will be given to `respond`; None for no reply at all.

        Never raises: what fails of ours is SERVFAIL, and the other queries of its batch are answered."""
        try:
            started = self.clock()
            query = parse_query(data)
            found = self._answer(query.question, scope)
            if found.outcome in HERE:
                reply = data[:2] + self._answer_here(data, query, found, scope, tcp)
                return self._told(scope, reply, LOCAL, started, tcp)
            asking = ForwardedQuery(data, query, found, scope, tcp, respond, started)
            return self._forwarding.forward(asking, self._forwarding.route(found, scope, paths))
        except BadQuery as bad:
            return self._refuse(data, bad)
        except Exception as error:  # noqa: BLE001 - the boundary of a query
            ERRORS.report("answering a query", error)
            rcode = Rcode.SERVFAIL if len(data) >= HEADER.size else None
            return self._refuse(data, BadQuery("a fault of ours", rcode))

    def _told(self, scope: Scope, reply: bytes, source: str, started: float, tcp: bool) -> bytes:
        """The reply, timed and perhaps logged."""
        seconds = self.clock() - started
        self.stats.durations[source].observe(seconds)
        if self.log is not None and self.log.due(1):
            self.log.write(scope, reply, source, seconds, tcp)
        return reply

    def _refuse(self, data: bytes, bad: BadQuery) -> bytes | None:
        if bad.rcode is None:
            self.stats.drop("not a query")
            return None
        self.stats.cell("", 0, bad.rcode, LOCAL)[0] += 1
        return refusal(data, bad.rcode, bad.query)

    # --- answers of ours ------------------------------------------------------------------------------------

    def _answer(self, question: DnsQuestion, scope: Scope) -> LookupAnswer:
        return answer(question, scope, self.table, self._policy)

    def _answer_here(
        self, data: bytes, query: DnsQuery, found: LookupAnswer, scope: Scope, tcp: bool
    ) -> bytes:
        qtype, view, kept = query.question.qtype, self.cache.view(scope.key, tcp), cacheable(query)
        tails = self._tails(query, found, query.limit(tcp), view.room - 2 if kept else 0)
        self.stats.cell(found.network, qtype, Rcode.NOERROR, LOCAL)[0] += 1
        if kept:
            cell = self.stats.cell(found.network, qtype, Rcode.NOERROR, CACHE)
            self.cache.put(view, data[2:], tails, found.names, cell)
        return tails[-1]  # the cache hands out the others first

    def _tails(self, query: DnsQuery, found: LookupAnswer, limit: int, keep: int) -> list[bytes]:
        if found.outcome is LookupOutcome.SHORT:
            return [reply_tail(query, Rcode.NOERROR)]  # without SOA: what is found by searching says more
        return replies(
            query,
            found.records,
            found.ttl,
            limit=limit,
            keep=keep,
            order=self._policy.order,
            shuffle=self._rng.shuffle,
        )

    def _unknown(self, asking: ForwardedQuery) -> bool:
        """The catalogue may have learned the name while the question was out; then its reply is the last."""
        outcome = self._answer(asking.query.question, asking.scope).outcome
        return outcome in (LookupOutcome.UNKNOWN, LookupOutcome.ELSEWHERE)

    # --- for people -----------------------------------------------------------------------------------------

    def explain(
        self, scope: Scope, name: str, qtype: int = QType.A, paths: ContainerPaths = NO_PATHS
    ) -> Explanation:
        """What this asker gets for the name, and why, as far as it can be said without asking anybody."""
        question = DnsQuestion(name.removesuffix("."), qtype, QClass.IN, b"")
        found = self._answer(question, scope)
        here = found.outcome in HERE
        return explanation(
            question, scope, found, None if here else self._forwarding.route(found, scope, paths)
        )

    async def resolve(
        self, scope: Scope, name: str, qtype: int = QType.A, paths: ContainerPaths = NO_PATHS
    ) -> Explanation:
        """`explain`, and the question is really asked: of us and, in a container, of Docker's resolver too.

        Over TCP: whoever looks wants to see all records. Raises WireError for what is no name.
        """
        told = self.explain(scope, name, qtype, paths)
        query = query_message(0, told.name, qtype)
        reply = await self._reply(query, scope, paths)
        docker = await self._forwarding.docker_says(query, scope, paths)
        return replace(told, reply=shown(reply), docker=shown(docker))

    async def _reply(self, query: bytes, scope: Scope, paths: ContainerPaths) -> bytes | None:
        replied: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        def respond(reply: bytes) -> None:
            if not replied.done():
                replied.set_result(reply)

        reply = self.handle(query, scope, tcp=True, respond=respond, paths=paths)
        return await replied if reply is Later.PENDING else reply
