"""What a peer may spend, and what makes up for it."""

import pytest

from mesh.http.codec.frame_budget import (
    BUDGET,
    BYTES_PER_FRAME,
    EARNED_MAX,
    PER_SECOND,
    UPDATES_PER_FRAME,
    FrameBudget,
    cost_of_data,
)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def spent(clock: Clock) -> FrameBudget:
    """Nothing is left."""
    budget = FrameBudget(clock)
    assert budget.spend(BUDGET)
    return budget


def left(budget: FrameBudget) -> int:
    """How many frames more."""
    count = 0
    while budget.spend(1):
        count += 1
    return count


def test_a_budget_is_used_up(spent: FrameBudget) -> None:
    assert not spent.spend(1)


def test_time_refills_the_budget(spent: FrameBudget, clock: Clock) -> None:
    clock.now = 3.0
    assert left(spent) == 3 * PER_SECOND


def test_time_does_not_fill_it_above_its_limit(spent: FrameBudget, clock: Clock) -> None:
    clock.now = 1e6
    assert left(spent) == BUDGET


def test_finished_requests_refill_the_budget(spent: FrameBudget) -> None:
    spent.gain(2)
    assert left(spent) == 2


def test_received_bodies_refill_the_budget(spent: FrameBudget) -> None:
    spent.useful_bytes = 5 * BYTES_PER_FRAME
    assert left(spent) == 5


def test_sent_data_frames_refill_the_budget(spent: FrameBudget) -> None:
    spent.frames_sent = 7
    assert left(spent) == 7 * UPDATES_PER_FRAME


def test_the_refill_by_work_is_limited(spent: FrameBudget) -> None:
    spent.frames_sent = 10**9
    assert left(spent) == EARNED_MAX


def test_only_small_data_frames_cost_budget() -> None:
    assert [cost_of_data(size) for size in (0, 1, 4)] == [1.0, 0.25, 0.25]
    assert 0 < cost_of_data(5) == cost_of_data(31) < cost_of_data(4)
    assert cost_of_data(32) == cost_of_data(16_384) == 0
