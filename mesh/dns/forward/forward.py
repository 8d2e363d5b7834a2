"""What is not ours: a question goes to the servers that its asker may reach, and the reply is kept.

Replies are shared by all who may reach the same servers, whatever the spelling of the name, the transport or
the EDNS (`Forwarded`); a copy made the asker's own goes to the asker's view of the reply cache, where the
socket's loop finds it next time without coming here.

When a kept reply has run out, upstreams are asked; if they fail, or take longer than an asker should wait,
the old reply is given as a stale one, and what they say later is kept all the same (RFC 8767). A reply that
is asked for in the last part of its life is asked for again ahead of time, so that popular names never wait.
"""

import asyncio
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from enum import Enum
from functools import partial
from typing import Any, TypeAlias

from mesh.dns.config import STALE_READY, DnsConfig
from mesh.dns.forward.dispatcher import REFRESH, Forwarder
from mesh.dns.forward.host_servers import HostServers
from mesh.dns.forward.query_builder import Received, UpstreamQuery
from mesh.dns.forward.reply_rewrite import passed_back, passed_on, room
from mesh.dns.forward.route import DnsServer, Manner, SocketFactory, UpstreamRoute, host_socket, parse_servers
from mesh.dns.forward.upstream_cache import Aging, CachedReply, UpstreamCache
from mesh.dns.lookup import LookupAnswer, LookupOutcome
from mesh.dns.query_log import QueryLog
from mesh.dns.reply_cache import ReplyCache
from mesh.dns.scope import Scope
from mesh.dns.stats import CACHE, FORWARD, STALE, DnsStats
from mesh.dns.wire import DnsQuery, Rcode, parse_query, reply_tail
from mesh.internal_errors import ERRORS
from mesh.net.tasks import Tasks

Respond: TypeAlias = Callable[[bytes], None]


class Later(Enum):
    """The reply will come through `respond`."""

    PENDING = "pending"


@dataclass(frozen=True, slots=True)
class ContainerPaths:
    """Ways that only an endpoint inside a container's namespace has.

    `sockets` makes sockets in there; `docker` is Docker's own resolver of that container, by its real ports
    (its 127.0.0.11:53 is redirected to us).
    """

    sockets: SocketFactory | None = None
    docker: DnsServer | None = None


NO_PATHS = ContainerPaths()


@dataclass(frozen=True, slots=True)
class ForwardedQuery:
    """A query on its way to an upstream, with all that its reply will need."""

    data: bytes
    query: DnsQuery
    found: LookupAnswer
    scope: Scope
    tcp: bool
    respond: Respond
    started: float

    @property
    def asker(self) -> Hashable:
        """Whose share of what may be under way this takes: a container's, else that of all in its scope."""
        return self.scope.container or self.scope.key


class Forwarding:
    """Not thread-safe: belongs to the event loop's thread.

    `unknown` is asked when a reply comes: is the name still none of the catalogue's for this asker?
    """

    def __init__(
        self,
        config: DnsConfig,
        tasks: Tasks,
        stats: DnsStats,
        cache: ReplyCache,
        unknown: Callable[[ForwardedQuery], bool],
        clock: Callable[[], float],
        log: QueryLog | None = None,
    ) -> None:
        self._log = log
        self._config, self._stats, self._cache, self._clock = config, stats, cache, clock
        self._unknown = unknown
        self._forwarded = UpstreamCache(config.cache)
        self._forwarder = Forwarder(config, tasks, stats)
        self._host = HostServers(config, stats.faults)
        self._manner = Manner(try_timeout=config.try_timeout)

    def __len__(self) -> int:
        """Replies kept."""
        return len(self._forwarded)

    def route(self, found: LookupAnswer, scope: Scope, paths: ContainerPaths) -> UpstreamRoute | None:
        """Where the question may go; None: nowhere."""
        if found.outcome is LookupOutcome.LEFT and paths.docker is not None and paths.sockets is not None:
            return UpstreamRoute("docker", (paths.docker,), scope.container, paths.sockets, self._manner)
        if scope.servers and (paths.sockets is not None or scope.external):
            # Dialled from inside the container, so an internal network's own server stays within reach.
            servers = parse_servers(scope.servers, label="container")
            sockets = paths.sockets or host_socket
            own = UpstreamRoute("container", servers, scope.container, sockets, self._manner)
            if self._forwarder.servers.usable(own):  # one that is ourselves has nothing else to say than we
                return own
        return self._host_route() if scope.external else None

    def _host_route(self) -> UpstreamRoute:
        return UpstreamRoute("host", self._host.get(self._clock()), manner=self._host.manner)

    # --- a question -----------------------------------------------------------------------------------------

    def forward(self, asking: ForwardedQuery, route: UpstreamRoute | None) -> bytes | Later | None:
        if self._forwarder.came_back(asking.query.question.wire):
            self._stats.refuse("loop")
            return self._fail(asking, Rcode.REFUSED)
        if route is None or not route.servers:
            return self._fail(asking, Rcode.SERVFAIL)
        wanted = UpstreamQuery.of(asking.query, asking.data)
        key = (route.key, wanted)
        now = self._clock()
        kept = self._forwarded.get(key, now) if self._sharing(asking, wanted) else None
        if kept is not None and kept.fresh(now):
            refresh = partial(self._refresh, key, wanted, route, kept)
            if kept.due(now):
                refresh()
            return self._answer(asking, kept.at(now), kept, CACHE, refresh)
        if self._forwarded.has_just_failed(key, now):
            return self._fail(asking, Rcode.SERVFAIL) if kept is None else self._answer_stale(asking, kept)
        return self._ask(asking, key, wanted, route, kept)

    def _ask(
        self,
        asking: ForwardedQuery,
        key: Hashable,
        wanted: UpstreamQuery,
        route: UpstreamRoute,
        kept: CachedReply | None,
    ) -> bytes | Later:
        waiting = _Waiting(asking.respond)
        done = partial(self._ended, asking, key, wanted, route, kept, waiting)
        under_way = (key, asking.tcp)
        refused = partial(self._displaced, asking, kept, waiting)
        if not self._forwarder.ask(under_way, wanted, route, asking.asker, done, refused, tcp=asking.tcp):
            return self._fail(asking, Rcode.REFUSED) if kept is None else self._answer_stale(asking, kept)
        if waiting.reply is not None:  # it could be told at once
            return waiting.reply
        waiting.later = True
        if kept is not None:
            hopeless = self._forwarder.servers.all_failing(route)
            patience = 0.0 if hopeless else self._config.stale_answer_after
            waiting.timer = asyncio.get_running_loop().call_later(
                patience, self._lose_patience, asking, kept, waiting
            )
        return Later.PENDING

    def _displaced(self, asking: ForwardedQuery, kept: CachedReply | None, waiting: "_Waiting") -> None:
        """There is no room for it any more: others have less than its asker."""
        if not waiting.told:
            waiting.tell(
                self._fail(asking, Rcode.REFUSED) if kept is None else self._answer_stale(asking, kept)
            )

    def _lose_patience(self, asking: ForwardedQuery, kept: CachedReply, waiting: "_Waiting") -> None:
        self._stats.refresh(STALE)
        waiting.tell(self._answer_stale(asking, kept))

    def _ended(self, asking: ForwardedQuery, *more: Any) -> None:
        """What has come, told to whoever waits; if that fails of ours, they are told so."""
        try:
            self._pass_on(asking, *more)
        except Exception as error:  # noqa: BLE001 - the boundary of a question
            ERRORS.report("passing a reply on", error)
            waiting: _Waiting = more[-2]
            if not waiting.told:
                waiting.tell(self._fail(asking, Rcode.SERVFAIL))

    def _pass_on(
        self,
        asking: ForwardedQuery,
        key: Hashable,
        wanted: UpstreamQuery,
        route: UpstreamRoute,
        kept: CachedReply | None,
        waiting: "_Waiting",
        received: Received | None,
    ) -> None:
        fresh = self._keep(key, received) if self._sharing(asking, wanted) else None
        if waiting.told:
            return
        if received is not None and not (asking.tcp and received.reply.truncated):
            refresh = None if fresh is None else partial(self._refresh, key, wanted, route, fresh)
            waiting.tell(self._answer(asking, received, fresh, FORWARD, refresh))
        elif kept is not None:
            waiting.tell(self._answer_stale(asking, kept))
        elif self._was_ourselves(asking, route):
            reply = self.forward(replace(asking, respond=waiting.tell), self._host_route())
            if isinstance(reply, bytes):
                waiting.tell(reply)
        else:
            waiting.tell(self._fail(asking, Rcode.SERVFAIL))

    def _was_ourselves(self, asking: ForwardedQuery, route: UpstreamRoute) -> bool:
        """Has it just turned out that all of a container's own servers lead back here?"""
        own = route.kind == "container" and asking.scope.external
        return own and not self._forwarder.servers.usable(route)

    async def docker_says(self, data: bytes, scope: Scope, paths: ContainerPaths) -> bytes | None:
        """What Docker's own resolver of the asking container replies to a query; None: there is none, or it
        does not answer."""
        if paths.docker is None or paths.sockets is None:
            return None
        said: asyncio.Future[Received | None] = asyncio.get_running_loop().create_future()
        query = parse_query(data)
        route = UpstreamRoute("docker", (paths.docker,), scope.container, paths.sockets, self._manner)
        wanted = UpstreamQuery.of(query, data)
        done = partial(_settle, said)
        refused = partial(_settle, said, None)
        if not self._forwarder.ask(
            (route.key, wanted), wanted, route, scope.container, done, refused, tcp=True
        ):
            return None
        received = await said
        return None if received is None else passed_on(received, query, data, room(query, tcp=True))[0]

    # --- what is kept ---------------------------------------------------------------------------------------

    def _sharing(self, asking: ForwardedQuery, wanted: UpstreamQuery) -> bool:
        """Docker's 600 seconds outlive its tasks: what its resolver says is never kept."""
        return wanted.shareable and asking.found.outcome is not LookupOutcome.LEFT

    def _keep(self, key: Hashable, received: Received | None) -> CachedReply | None:
        if received is None:
            self._forwarded.failed(key, self._clock())
            return None
        return self._forwarded.put(key, received, self._clock())

    def _refresh(self, key: Hashable, wanted: UpstreamQuery, route: UpstreamRoute, kept: CachedReply) -> None:
        """Ask again ahead of time, once; nobody waits for it."""
        if kept.refreshing or self._forwarded.has_just_failed(key, self._clock()):
            return
        done, displaced = partial(self._refreshed, key), partial(setattr, kept, "refreshing", False)
        kept.refreshing = self._forwarder.ask(
            (key, False), wanted, route, REFRESH, done, displaced, tcp=False
        )
        if kept.refreshing:
            self._stats.refresh("prefetch")

    def _refreshed(self, key: Hashable, received: Received | None) -> None:
        self._keep(key, received)

    # --- a reply --------------------------------------------------------------------------------------------

    def _answer(
        self,
        asking: ForwardedQuery,
        received: Received,
        kept: CachedReply | None,
        source: str,
        refresh: Callable[[], None] | None = None,
    ) -> bytes:
        limit = room(asking.query, asking.tcp)
        reply, whole = _made_own(asking, received, limit)
        if kept is not None and whole and cacheable(asking.query) and self._unknown(asking):
            own, _ = (reply, True) if received is kept.received else _made_own(asking, kept.received, limit)
            aging = Aging(own, kept.received.reply.ttl_offsets, kept.stored, kept.expires)
            self._leave(asking, aging, CACHE, refresh)
        return self._told(asking, reply, source)

    def _answer_stale(self, asking: ForwardedQuery, kept: CachedReply) -> bytes:
        """An old reply, for now."""
        now = self._clock()
        reply, whole = _made_own(asking, kept.stale(), room(asking.query, asking.tcp))
        if whole and cacheable(asking.query) and self._unknown(asking):
            aging = Aging(reply, kept.received.reply.ttl_offsets, now, now + STALE_READY)
            self._leave(asking, aging, STALE, None)
        return self._told(asking, reply, STALE)

    def _leave(
        self, asking: ForwardedQuery, aging: Aging, source: str, refresh: Callable[[], None] | None
    ) -> None:
        """Leave it where the socket's loop finds it next time."""
        rcode = aging.message[3] & 0xF
        cell = self._stats.cell("", asking.query.question.qtype, rcode, source)
        view = self._cache.view(asking.scope.key, asking.tcp)
        self._cache.put_forwarded(view, asking.data[2:], aging, asking.found.names, cell, refresh)

    def _fail(self, asking: ForwardedQuery, rcode: Rcode) -> bytes:
        return self._told(asking, asking.data[:2] + reply_tail(asking.query, rcode), FORWARD)

    def _told(self, asking: ForwardedQuery, reply: bytes, source: str) -> bytes:
        """The reply, counted and timed."""
        self._stats.cell("", asking.query.question.qtype, reply[3] & 0xF, source)[0] += 1
        seconds = self._clock() - asking.started
        self._stats.durations[source].observe(seconds)
        if self._log is not None and self._log.due(1):
            self._log.write(asking.scope, reply, source, seconds, asking.tcp)
        return reply


class _Waiting:
    """One asker who waits: told once, either as the result of the call or later."""

    __slots__ = ("_respond", "later", "reply", "timer")

    def __init__(self, respond: Respond) -> None:
        self._respond = respond
        self.later = False
        self.reply: bytes | None = None
        self.timer: asyncio.TimerHandle | None = None

    @property
    def told(self) -> bool:
        return self.reply is not None

    def tell(self, reply: bytes) -> None:
        if self.timer is not None:
            self.timer.cancel()
        self.reply = reply
        if self.later:
            self._respond(reply)


def _settle(said: "asyncio.Future[Received | None]", received: Received | None) -> None:
    if not said.done():  # whoever asked may have gone
        said.set_result(received)


def _made_own(asking: ForwardedQuery, received: Received, limit: int) -> tuple[bytes, bool]:
    if received.signed:
        return passed_back(received.message, asking.data, asking.query, limit), False
    return passed_on(received, asking.query, asking.data, limit)


def cacheable(query: DnsQuery) -> bool:
    """A query with EDNS options (a cookie, a client subnet) will not come again byte for byte."""
    return query.edns is None or not query.edns.options
