"""Many time limits on one timer: none early, none forgotten, none that was called off."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from mesh.net.timers import FINENESS, GRAIN, Deadlines


@dataclass
class Clock:
    """A loop's clock and its timers, moved on by hand."""

    now: float = 1000.0
    timers: list[tuple[float, Callable[[], None]]] = field(default_factory=list)

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[], None]) -> "Timer":
        self.timers.append((when, callback))
        return Timer(self, self.timers[-1])

    def run_until(self, end: float) -> None:
        while self.timers and min(self.timers, key=lambda one: one[0])[0] <= end:
            first = min(self.timers, key=lambda one: one[0])
            self.timers.remove(first)
            self.now = first[0]
            first[1]()
        self.now = end


@dataclass
class Timer:
    clock: Clock
    entry: tuple[float, Callable[[], None]]

    def cancel(self) -> None:
        if self.entry in self.clock.timers:
            self.clock.timers.remove(self.entry)


class One:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.came: float | None = None

    def on_due(self) -> None:
        assert self.came is None
        self.came = self._clock.now


def deadlines(clock: Clock) -> Deadlines:
    return Deadlines(cast(asyncio.AbstractEventLoop, clock))


LIMITS = st.lists(
    st.tuples(st.floats(0, 100), st.floats(0.001, 5000), st.booleans()), min_size=1, max_size=30
)


@given(LIMITS)
def test_each_comes_in_time_and_only_those_that_were_not_called_off(
    limits: list[tuple[float, float, bool]],
) -> None:
    clock = Clock()
    tried = deadlines(clock)
    started = list[tuple[One, float, float, bool]]()
    for after, seconds, dropped in sorted(limits):
        clock.run_until(max(clock.now, 1000.0 + after))
        one = One(clock)
        end = tried.add(one, seconds)
        if dropped:
            tried.drop(one, end)
        started.append((one, clock.now, seconds, dropped))
    clock.run_until(20_000)
    for one, began, seconds, dropped in started:
        if dropped:
            assert one.came is None
        else:
            assert one.came is not None
            late = one.came - (began + seconds)
            assert -1e-6 <= late <= max(GRAIN, 2 * seconds / FINENESS) + 1e-6
    assert not clock.timers


def test_one_that_is_due_may_end_others_and_begin_anew() -> None:
    clock = Clock()
    tried = deadlines(clock)
    ends = dict[One, float]()

    class Ending(One):
        def on_due(self) -> None:
            super().on_due()
            for other, end in ends.items():
                tried.drop(other, end)
            tried.add(One(clock), 1)

    for _ in range(3):
        one = Ending(clock)
        ends[one] = tried.add(one, 1)
    clock.run_until(1010)
    assert sum(one.came is not None for one in ends) == 1


def test_connections_that_come_and_go_leave_few_slots() -> None:
    """An hour's limit, called off at once, ten thousand times in an hour."""
    clock = Clock()
    tried = deadlines(clock)
    for number in range(10_000):
        clock.run_until(1000 + number * 0.36)
        one = One(clock)
        tried.drop(one, tried.add(one, 3600))
    assert len(cast(Any, tried)._slots) <= 2 * FINENESS
    assert len(clock.timers) == 1


def test_stopped_nothing_comes() -> None:
    clock = Clock()
    tried = deadlines(clock)
    one = One(clock)
    tried.add(one, 1)
    tried.stop()
    clock.run_until(2000)
    assert one.came is None
