"""Time limits of many connections on one timer of the loop.

Nearly all of them are called off, so that is what must cost nothing: a limit is a place in a set, shared with
those that end at about the same time. It comes late by a 64th at most (and by GRAIN), never early.
"""

import asyncio
import heapq
from functools import lru_cache
from typing import Protocol

from mesh.net.isolation import report_fault

GRAIN = 0.05  # seconds, the finest
FINENESS = 64  # of a limit: how many steps it has


class Limited(Protocol):
    def on_due(self) -> None:
        """The time is over."""


class Deadlines:
    """Limits are in seconds of the loop's clock."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._slots: dict[float, set[Limited]] = {}
        self._order: list[float] = []  # heap of the slots' times
        self._timer: asyncio.TimerHandle | None = None

    def add(self, one: Limited, seconds: float) -> float:
        """Returns what to give to `drop`."""
        step = _step(seconds)
        end = ((self._loop.time() + seconds) // step + 1) * step
        slot = self._slots.get(end)
        if slot is None:
            slot = self._slots[end] = set()
            heapq.heappush(self._order, end)
            if self._order[0] == end:
                self._arm()
        slot.add(one)
        return end

    def drop(self, one: Limited, end: float) -> None:
        """It has ended by itself; nothing if it was due."""
        if (slot := self._slots.get(end)) is not None:
            slot.discard(one)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._slots.clear()
        self._order.clear()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(self._order[0], self._fire) if self._order else None

    def _fire(self) -> None:
        now = self._loop.time()
        while self._order and self._order[0] <= now:
            slot = self._slots[self._order[0]]
            while slot:  # one that is due may end others
                one = slot.pop()
                try:
                    one.on_due()
                except Exception as error:  # noqa: BLE001 - the boundary of a time limit: others are due too
                    report_fault(one.on_due, error)
            del self._slots[heapq.heappop(self._order)]
        self._arm()


@lru_cache(256)  # nearly all limits are one of a few that the configuration and the labels name
def _step(seconds: float) -> float:
    """Seconds between two slots for limits of this length."""
    step = GRAIN
    while step * FINENESS < seconds:
        step *= 2
    return step
