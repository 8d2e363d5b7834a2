"""The asking: each question once at a time, of one server after the other or beside it, within a deadline.

Strategy: what is under way is kept by key; whoever asks the same meanwhile is told of the same reply. No
asker may have more than its share of what may wait, so that one container's flood is REFUSED while the others
are served (Docker has one such limit per container, and no other end to what they take together).
"""

import asyncio
import errno
import logging
from collections import Counter
from collections.abc import Callable, Hashable
from functools import partial
from resource import RLIM_INFINITY, RLIMIT_NOFILE, getrlimit
from time import monotonic
from typing import TypeAlias

from mesh.dns.config import (
    DESCRIPTORS_SHARE,
    EXPLORE_EVERY,
    FORWARDS_MAX,
    FORWARDS_PER_ASKER,
    REFRESHES_MAX,
    SHORTAGE_TOLD,
    UPSTREAMS_MAX,
    DnsConfig,
)
from mesh.dns.stats import OTHER, RCODES, DnsStats
from mesh.dns.upstream.attempt import Attempt, Means
from mesh.dns.upstream.health import Health, turns
from mesh.dns.upstream.known import KnownServers
from mesh.dns.upstream.loops import Spellings
from mesh.dns.upstream.messages import Received, UpstreamQuery, is_answer
from mesh.dns.upstream.race import Outcome, Race, Try
from mesh.dns.upstream.secure import SecureConnections
from mesh.dns.upstream.servers import Route, Server
from mesh.dns.wire import RD
from mesh.errors import KernelError, WireError
from mesh.net.tasks import Tasks

logger = logging.getLogger(__name__)

Done: TypeAlias = Callable[[Received | None], None]

REFRESH = "refresh"  # the asker of questions that nobody waits for
TIMEOUT, ERROR, OVERTAKEN = "TIMEOUT", "ERROR", "OVERTAKEN"  # where metrics show an rcode
PROBE = UpstreamQuery(RD, b"\0\0\2\0\1")  # the root's name servers: any resolver has them at hand
OURS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL})


class Forwarder:
    """Asks upstreams. Not thread-safe: belongs to the event loop's thread."""

    def __init__(
        self, config: DnsConfig, tasks: Tasks, stats: DnsStats, secure: SecureConnections | None = None
    ) -> None:
        self._config, self._tasks, self._stats = config, tasks, stats
        self._waiting: dict[Hashable, list[tuple[Hashable, Done]]] = {}
        self._by_asker: Counter[Hashable] = Counter()
        self._waiters = 0
        self._questions = 0
        self._tries, self._tries_max = 0, _descriptors()
        self._tell_again = 0.0  # when to speak of a shortage again
        self._spellings = Spellings()
        self._means = Means(
            secure or SecureConnections(tasks), self._spellings, stats.reject, config.mixed_case
        )
        self.servers = KnownServers(tasks, self._probe, stats.faults, config.listen)

    def ask(
        self, key: Hashable, query: UpstreamQuery, route: Route, asker: Hashable, done: Done, *, tcp: bool
    ) -> bool:
        """Forward the query unless the same `key` is under way. `done` gets the reply, None when all failed.

        False: the asker, or all together, have too much under way, and `done` will not be called.
        """
        waiting = self._waiting.get(key)
        limit = self._limit(asker) or ("" if waiting else self._no_room(route))
        if limit:
            if asker != REFRESH:
                self._stats.refuse(limit)
            return False
        self._waiters += 1
        self._by_asker[asker] += 1
        if waiting is not None:
            waiting.append((asker, done))
            return True
        self._waiting[key] = [(asker, done)]
        self._race(key, query, route, tcp).start()
        return True

    def came_back(self, question: bytes) -> bool:
        """Is the question one of ours that has come back to us? Then that is noted."""
        sent_to = self._spellings.sent_to(question)
        if sent_to is not None:
            self.servers.led_back(*sent_to)
        return sent_to is not None

    # --- who waits ------------------------------------------------------------------------------------------

    def _limit(self, asker: Hashable) -> str:
        """What keeps one more from waiting, "" for nothing."""
        if self._by_asker[asker] >= (REFRESHES_MAX if asker == REFRESH else FORWARDS_PER_ASKER):
            return "share"
        return "total" if self._waiters >= FORWARDS_MAX else ""

    def _no_room(self, route: Route) -> str:
        """What keeps one more question from being sent, "" for nothing."""
        if self._tries >= self._tries_max:
            return "descriptors"
        usable = self.servers.usable(route).values()
        return "upstream" if usable and all(health.full for health in usable) else ""

    def _finish(self, key: Hashable, received: Received | None) -> None:
        waiting = self._waiting.pop(key)
        for asker, _ in waiting:
            self._waiters -= 1
            self._by_asker[asker] -= 1
            if not self._by_asker[asker]:
                del self._by_asker[asker]
        for _, done in waiting:
            done(received)

    # --- one question ---------------------------------------------------------------------------------------

    def _race(self, key: Hashable, query: UpstreamQuery, route: Route, tcp: bool) -> Race:
        self._questions += 1
        whole, rest = divmod(self._questions, EXPLORE_EVERY)
        usable = self.servers.usable(route)
        planned = turns(
            tuple(usable),
            usable.__getitem__,
            manner=route.manner,
            explore=None if rest else whole,
        )
        return Race(
            planned,
            self._config.deadline,
            begin=lambda server: self._begin(query, route, server, usable[server], tcp),
            overtaken=partial(self.servers.overtaken, route),
            finish=partial(self._finish, key),
        )

    def _begin(
        self, query: UpstreamQuery, route: Route, server: Server, health: Health, tcp: bool
    ) -> Try | None:
        if health.full or self._tries >= self._tries_max:
            return None
        self._tries += 1
        health.used_at = monotonic()
        health.outstanding += 1
        attempt = Attempt(self._means, query, route, server, health)
        task = self._tasks.start(self._try(attempt, tcp), "dns-forward")
        task.add_done_callback(lambda _: self._one_less(health))
        return task

    def _one_less(self, health: Health) -> None:
        self._tries -= 1
        health.outstanding -= 1

    async def _try(self, attempt: Attempt, tcp: bool) -> Outcome:
        """Until there is a reply or the race ends, also when others have begun to be asked meanwhile."""
        route, server, began = attempt.route, attempt.server, monotonic()
        patience = route.manner.try_timeout
        late = asyncio.get_running_loop().call_later(patience, self.servers.failed, route, server)
        try:
            received = await attempt.run(tcp)
        except (OSError, KernelError, WireError) as error:
            self._stats.upstream(server.name, ERROR)
            self._reached_not(route, server, error)
            return Outcome()
        except asyncio.CancelledError:
            self._stats.upstream(server.name, TIMEOUT if monotonic() - began >= patience else OVERTAKEN)
            raise
        finally:
            late.cancel()
        self.servers.replied(route, server, attempt.health, monotonic() - began)
        self._stats.upstream(server.name, RCODES.get(received.reply.rcode, OTHER))
        return Outcome(received if is_answer(received.reply) else None)

    def _reached_not(self, route: Route, server: Server, error: Exception) -> None:
        """What this machine is short of is not the server's fault."""
        if not (isinstance(error, OSError) and error.errno in OURS):
            self.servers.failed(route, server)
        elif monotonic() >= self._tell_again:
            self._tell_again = monotonic() + SHORTAGE_TOLD
            logger.warning("cannot ask %s: %s", server, error.strerror)

    async def _probe(self, route: Route, server: Server) -> None:
        attempt = Attempt(self._means, PROBE, route, server, self.servers.health(route, server))
        async with asyncio.timeout(route.manner.try_timeout):
            await attempt.run(tcp=False)


def _descriptors() -> int:
    """How many sockets may be open at a time: a flood of questions leaves some for everything else."""
    soft, _ = getrlimit(RLIMIT_NOFILE)
    return FORWARDS_MAX * UPSTREAMS_MAX if soft == RLIM_INFINITY else int(soft * DESCRIPTORS_SHARE)
