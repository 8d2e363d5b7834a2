"""The asking: each question once at a time, of one server after the other or beside it, within a deadline.

Strategy: what is under way is kept by key; whoever asks the same meanwhile is told of the same reply. No
asker may have more than its share of what may wait. When all places are taken, or no more can be sent, the
asker that has the most gives way: its oldest query is REFUSED, and its question ended when nobody else waits
for it. So floods of a few containers are theirs alone (Docker has one limit per container, and no other end
to what they take together).
"""

import asyncio
import errno
import logging
from collections import deque
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
    REPETITIONS_MAX,
    SHORTAGE_TOLD,
    UPSTREAMS_MAX,
    DnsConfig,
)
from mesh.dns.forward.dot import SecureConnections
from mesh.dns.forward.loop_detection import InFlightSpellings
from mesh.dns.forward.query_attempt import Attempt, QueryTools
from mesh.dns.forward.query_builder import Received, UpstreamQuery, is_answer
from mesh.dns.forward.query_race import Race, RaceOutcome, Try
from mesh.dns.forward.route import DnsServer, UpstreamRoute
from mesh.dns.forward.server_health import ServerHealth, turns
from mesh.dns.forward.server_pool import ServerPool
from mesh.dns.stats import OTHER, RCODES, DnsStats
from mesh.dns.wire import RD
from mesh.errors import KernelError, WireError
from mesh.net.isolation import run
from mesh.net.limits.fair_shares import FairShares
from mesh.net.tasks import Tasks

logger = logging.getLogger(__name__)

Done: TypeAlias = Callable[[Received | None], None]
Refused: TypeAlias = Callable[[], None]

REFRESH = "refresh"  # the asker of questions that nobody waits for
TIMEOUT, ERROR, OVERTAKEN = "TIMEOUT", "ERROR", "OVERTAKEN"  # where metrics show an rcode
PROBE = UpstreamQuery(RD, b"\0\0\2\0\1")  # the root's name servers: any resolver has them at hand
OURS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL})


class _Waiter:
    """One query that waits for the reply to a question."""

    __slots__ = ("asker", "done", "question", "refused")

    def __init__(self, asker: Hashable, done: Done, refused: Refused) -> None:
        self.asker, self.done, self.refused = asker, done, refused
        self.question: _PendingQuestion | None = None


class _PendingQuestion:
    """One question under way, and who waits for its reply: by asker, the longest first."""

    __slots__ = ("by_asker", "key", "race", "tries")

    def __init__(self, key: Hashable) -> None:
        self.key = key
        self.by_asker: dict[Hashable, deque[_Waiter]] = {}
        self.race: Race | None = None
        self.tries: dict[Try, ServerHealth] = {}

    def waiters(self) -> list[_Waiter]:
        return [one for among in self.by_asker.values() for one in among]


def _nobody() -> None:
    """Is told that there is no room."""


class Forwarder:
    """Asks upstreams. Not thread-safe: belongs to the event loop's thread."""

    def __init__(
        self, config: DnsConfig, tasks: Tasks, stats: DnsStats, secure: SecureConnections | None = None
    ) -> None:
        self._config, self._tasks, self._stats = config, tasks, stats
        self._waiting: dict[Hashable, _PendingQuestion] = {}
        self._shares: FairShares[Hashable, _Waiter] = FairShares(FORWARDS_MAX, FORWARDS_PER_ASKER)
        self._questions = 0
        self._tries, self._tries_max = 0, _descriptors()
        self._tell_again = 0.0  # when to speak of a shortage again
        self._spellings = InFlightSpellings()
        self._means = QueryTools(
            secure or SecureConnections(tasks), self._spellings, stats.reject, config.mixed_case
        )
        self.servers = ServerPool(tasks, self._probe, stats.faults, config.listen)

    def ask(
        self,
        key: Hashable,
        query: UpstreamQuery,
        route: UpstreamRoute,
        asker: Hashable,
        done: Done,
        refused: Refused = _nobody,
        *,
        tcp: bool,
    ) -> bool:
        """Forward the query unless the same `key` is under way. `done` gets the reply, None when all failed;
        or `refused` is called, when it has to give way to others.

        False: the asker, or all together, have too much under way, and nothing will be called.
        """
        limit = self._make_place(asker, key) or (
            "" if key in self._waiting else self._make_room(route, asker)
        )
        if limit:
            if asker != REFRESH:
                self._stats.refuse(limit)
            return False
        waiter = _Waiter(asker, done, refused)
        question = self._waiting.get(key)
        if question is not None:
            self._wait(waiter, question)
            return True
        question = self._waiting[key] = _PendingQuestion(key)
        self._wait(waiter, question)
        question.race = self._race(key, query, route, tcp)
        question.race.start()
        return True

    def came_back(self, question: bytes) -> bool:
        """Is the question one of ours that has come back to us? Then that is noted."""
        sent_to = self._spellings.sent_to(question)
        if sent_to is not None:
            self.servers.led_back(*sent_to)
        return sent_to is not None

    @property
    def _waiters(self) -> int:
        """Queries that wait."""
        return len(self._shares)

    @property
    def _by_asker(self) -> dict[Hashable, int]:
        """Those of each asker."""
        return self._shares.counts()

    # --- who waits ------------------------------------------------------------------------------------------

    def _make_place(self, asker: Hashable, key: Hashable) -> str:
        """For one more to wait; what keeps it from that, "" for nothing."""
        shares = self._shares
        question = self._waiting.get(key)
        same = question.by_asker.get(asker) if question is not None else None
        if same is not None and len(same) >= REPETITIONS_MAX:
            self._give_way(same[0])
        if shares.count(asker) >= (REFRESHES_MAX if asker == REFRESH else FORWARDS_PER_ASKER):
            return "share"
        if shares.full:
            oldest = shares.to_give_way(asker)
            if oldest is None:
                return "total"
            self._give_way(oldest)
        return ""

    def _make_room(self, route: UpstreamRoute, asker: Hashable) -> str:
        """For one more question to be sent; what keeps it from that, "" for nothing."""
        while limit := self._no_room(route):
            oldest = self._shares.to_give_way(asker)
            if oldest is None:
                return limit
            self._give_way(oldest)
        return ""

    def _no_room(self, route: UpstreamRoute) -> str:
        if self._tries >= self._tries_max:
            return "descriptors"
        usable = self.servers.usable(route).values()
        return "upstream" if usable and all(health.full for health in usable) else ""

    def _wait(self, waiter: _Waiter, question: _PendingQuestion) -> None:
        waiter.question = question
        question.by_asker.setdefault(waiter.asker, deque()).append(waiter)
        self._shares.add(waiter.asker, waiter)

    def _give_way(self, waiter: _Waiter) -> None:
        """It is told that there is no room. The last one takes its question with it."""
        question = waiter.question
        assert question is not None  # it waits for one
        self._shares.remove(waiter)
        among = question.by_asker[waiter.asker]
        among.remove(waiter)
        if not among:
            del question.by_asker[waiter.asker]
        if not question.by_asker and self._waiting.get(question.key) is question:
            del self._waiting[question.key]
            if question.race is not None:
                question.race.abandon()
            for task, health in tuple(question.tries.items()):  # their sockets are closed in this turn
                self._one_less(question, task, health)
        self._stats.refuse("displaced")
        waiter.refused()

    def _finish(self, key: Hashable, received: Received | None) -> None:
        waiters = self._waiting.pop(key).waiters()
        for waiter in waiters:
            self._shares.remove(waiter)
        for waiter in waiters:
            run(waiter.done, received)  # whatever becomes of one, the others are told

    # --- one question ---------------------------------------------------------------------------------------

    def _race(self, key: Hashable, query: UpstreamQuery, route: UpstreamRoute, tcp: bool) -> Race:
        question = self._waiting[key]
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
            begin=lambda server: self._begin(question, query, route, server, usable[server], tcp),
            overtaken=partial(self.servers.overtaken, route),
            finish=partial(self._finish, key),
        )

    def _begin(
        self,
        question: _PendingQuestion,
        query: UpstreamQuery,
        route: UpstreamRoute,
        server: DnsServer,
        health: ServerHealth,
        tcp: bool,
    ) -> Try | None:
        if health.full or self._tries >= self._tries_max:
            return None
        self._tries += 1
        health.used_at = monotonic()
        health.outstanding += 1
        attempt = Attempt(self._means, query, route, server, health)
        task = self._tasks.start(self._try(attempt, tcp), "dns-forward")
        question.tries[task] = health
        task.add_done_callback(lambda task: self._one_less(question, task, health))
        return task

    def _one_less(self, question: _PendingQuestion, task: Try, health: ServerHealth) -> None:
        if question.tries.pop(task, None) is not None:
            self._tries -= 1
            health.outstanding -= 1

    async def _try(self, attempt: Attempt, tcp: bool) -> RaceOutcome:
        """Until there is a reply or the race ends, also when others have begun to be asked meanwhile."""
        route, server, began = attempt.route, attempt.server, monotonic()
        patience = route.manner.try_timeout
        late = asyncio.get_running_loop().call_later(patience, self.servers.failed, route, server)
        try:
            received = await attempt.run(tcp)
        except (OSError, KernelError, WireError) as error:
            self._stats.upstream(server.name, ERROR)
            self._reached_not(route, server, error)
            return RaceOutcome()
        except asyncio.CancelledError:
            self._stats.upstream(server.name, TIMEOUT if monotonic() - began >= patience else OVERTAKEN)
            raise
        finally:
            late.cancel()
        self.servers.replied(route, server, attempt.health, monotonic() - began)
        self._stats.upstream(server.name, RCODES.get(received.reply.rcode, OTHER))
        return RaceOutcome(received if is_answer(received.reply) else None)

    def _reached_not(self, route: UpstreamRoute, server: DnsServer, error: Exception) -> None:
        """What this machine is short of is not the server's fault."""
        if not (isinstance(error, OSError) and error.errno in OURS):
            self.servers.failed(route, server)
        elif monotonic() >= self._tell_again:
            self._tell_again = monotonic() + SHORTAGE_TOLD
            logger.warning("cannot ask %s: %s", server, error.strerror)

    async def _probe(self, route: UpstreamRoute, server: DnsServer) -> None:
        attempt = Attempt(self._means, PROBE, route, server, self.servers.health(route, server))
        async with asyncio.timeout(route.manner.try_timeout):
            await attempt.run(tcp=False)


def _descriptors() -> int:
    """How many sockets may be open at a time: a flood of questions leaves some for everything else."""
    soft, _ = getrlimit(RLIMIT_NOFILE)
    return FORWARDS_MAX * UPSTREAMS_MAX if soft == RLIM_INFINITY else int(soft * DESCRIPTORS_SHARE)
