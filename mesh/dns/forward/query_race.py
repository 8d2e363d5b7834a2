"""One question and its tries: a state machine around timers and tasks.

The turns are taken one after the other: the next when patience with the newest try is lost, or it has failed.
Tries go on beside each other, since a slow reply is better than none; the first answer wins and ends them.
When patience with the last is lost, or nothing is under way any more, or at the deadline, the question has
failed. A server that has failed it is not asked again: only silence is worth a second try.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from time import monotonic

from mesh.dns.forward.query_builder import Received
from mesh.dns.forward.route import DnsServer
from mesh.dns.forward.server_health import Turn


@dataclass(frozen=True, slots=True)
class RaceOutcome:
    """What came of a try. Silence has none."""

    received: Received | None = None


Try = asyncio.Task[RaceOutcome]


class Race:
    """`begin` starts a try, or returns None where there is no room; `finish` is called exactly once.

    `deadline`: seconds for all tries together. `overtaken` is told of each server that lost to another, with
    the seconds for which it had been silent.
    """

    def __init__(
        self,
        turns: Iterable[Turn],
        deadline: float,
        begin: Callable[[DnsServer], Try | None],
        overtaken: Callable[[DnsServer, float], None],
        finish: Callable[[Received | None], None],
    ) -> None:
        self._turns, self._seconds = deque(turns), deadline
        self._begin, self._overtaken, self._finish = begin, overtaken, finish
        self._loop = asyncio.get_running_loop()
        self._running: dict[Try, tuple[DnsServer, float]] = {}  # in the order in which they began
        self._failed: set[DnsServer] = set()
        self._patience: asyncio.TimerHandle | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._over = False

    def start(self) -> None:
        self._deadline = self._loop.call_later(self._seconds, self._end, None)
        self._next()

    def abandon(self) -> None:
        """Nobody waits for it any more; `finish` is not called."""
        self._finish = _nobody
        self._end(None)

    def _next(self) -> None:
        while self._turns:
            turn = self._turns.popleft()
            task = None if turn.server in self._failed else self._begin(turn.server)
            if task is None:
                continue
            self._running[task] = (turn.server, monotonic())
            task.add_done_callback(self._ended)
            self._cancel_patience()
            self._patience = self._loop.call_later(turn.patience, self._lose_patience)
            return
        if not self._running:
            self._end(None)

    def _lose_patience(self) -> None:
        self._patience = None
        self._next()
        if self._patience is None:  # nobody is left to be asked
            self._end(None)

    def _ended(self, task: Try) -> None:
        if self._over:
            return
        newest = next(reversed(self._running)) is task
        server, _ = self._running.pop(task)
        if task.cancelled():  # the owner of all tasks closes: nothing may begin any more
            self._end(None)
            return
        outcome = RaceOutcome() if task.exception() is not None else task.result()
        if outcome.received is not None:
            self._end(outcome.received, server)
            return
        self._failed.add(server)
        if newest or all(other in self._failed for other, _ in self._running.values()):
            self._next()

    def _end(self, received: Received | None, winner: DnsServer | None = None) -> None:
        if self._over:
            return
        self._over = True
        self._cancel_patience()
        if self._deadline is not None:
            self._deadline.cancel()
        now = monotonic()
        for task, (server, began) in self._running.items():
            task.cancel()
            if winner is not None and server != winner:
                self._overtaken(server, now - began)
        self._finish(received)

    def _cancel_patience(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None


def _nobody(_received: Received | None) -> None:
    """Is told of the end."""
