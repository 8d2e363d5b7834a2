"""What is not ours: a question goes to the servers that its asker may reach, and the reply is kept.

Replies are shared by all who may reach the same servers, whatever the spelling of the name (`Forwarded`); a
copy in the asker's own spelling goes to the asker's view of the reply cache, where the socket's loop finds it
next time without coming here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from mesh.dns.answers import Answer, Outcome
from mesh.dns.cache import ReplyCache
from mesh.dns.config import DnsConfig
from mesh.dns.forwarded import Aging, Forwarded
from mesh.dns.scope import Scope
from mesh.dns.stats import CACHE, FORWARD, DnsStats
from mesh.dns.upstream import Forwarder, HostServers, Route, Server, SocketFactory, host_socket, parse_servers
from mesh.dns.wire import HEADER, Query, Rcode, as_asked, cut, parse_reply, reply_tail
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


@dataclass(frozen=True, slots=True)
class Asking:
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
        unknown: Callable[[Asking], bool],
        clock: Callable[[], float],
    ) -> None:
        self._stats, self._cache, self._clock = stats, cache, clock
        self._unknown = unknown
        self._forwarded = Forwarded(config.cache)
        self._forwarder = Forwarder(tasks, stats)
        self._host = HostServers(config)

    def __len__(self) -> int:
        """Replies kept."""
        return len(self._forwarded)

    def route(self, found: Answer, scope: Scope, paths: Paths) -> Route | None:
        """Where the question may go; None: nowhere."""
        if found.outcome is Outcome.LEFT and paths.docker is not None and paths.sockets is not None:
            return Route("docker", (paths.docker,), scope.container, paths.sockets)
        if scope.servers and (paths.sockets is not None or scope.external):
            # Dialled from inside the container, so an internal network's own server stays within reach.
            servers = parse_servers(scope.servers, label="container")
            return Route("container", servers, scope.container, paths.sockets or host_socket)
        if not scope.external:
            return None
        return Route("host", self._host.get(self._clock()))

    def forward(self, asking: Asking, route: Route | None) -> bytes | Later | None:
        if route is None or not route.servers:
            return self._fail(asking, Rcode.SERVFAIL)
        key = (route.key, asking.tcp, asking.data[2 : HEADER.size], asking.folded)
        aging = self._forwarded.get(key, self._clock())
        if aging is not None:
            return self._answer_forwarded(asking, aging.at(self._clock()), aging, CACHE)

        def done(reply: bytes | None) -> None:
            result = self._forward_ended(asking, key, reply)
            asking.respond(result)

        if not self._forwarder.ask(key, asking.data, route, asking.tcp, done):
            return self._fail(asking, Rcode.REFUSED)
        return Later.PENDING

    def _forward_ended(self, asking: Asking, key: object, reply: bytes | None) -> bytes:
        if reply is None:
            return self._fail(asking, Rcode.SERVFAIL)
        now = self._clock()
        aging = None
        if cacheable(asking.query) and asking.found.outcome is not Outcome.LEFT:
            aging = Aging.of(reply, parse_reply(reply), now)
        if aging is not None:
            self._forwarded.put(key, aging)
        return self._answer_forwarded(asking, reply, aging, FORWARD)

    def _answer_forwarded(self, asking: Asking, message: bytes, aging: Aging | None, source: str) -> bytes:
        query, question, now = asking.query, asking.query.question, self._clock()
        reply = as_asked(message, asking.data, question)
        rcode = reply[3] & 0xF
        self._stats.cell("", question.qtype, rcode, source)[0] += 1
        self._stats.durations[source].observe(now - asking.started)
        if len(reply) > max(query.limit(asking.tcp), query.edns.size if query.edns else 0):
            return cut(reply, question)
        if aging is not None and self._unknown(asking):
            cell = self._stats.cell("", question.qtype, rcode, CACHE)
            view = self._cache.view(asking.scope.key, asking.tcp)
            own = aging.spelled(as_asked(aging.message, asking.data, question))
            self._cache.put_forwarded(view, asking.data[2:], own, asking.found.names, cell)
        return reply

    def _fail(self, asking: Asking, rcode: Rcode) -> bytes:
        self._stats.cell("", asking.query.question.qtype, rcode, FORWARD)[0] += 1
        self._stats.durations[FORWARD].observe(self._clock() - asking.started)
        return asking.data[:2] + reply_tail(asking.query, rcode)


def cacheable(query: Query) -> bool:
    """A query with EDNS options (a cookie, a client subnet) will not come again byte for byte."""
    return query.edns is None or not query.edns.options
