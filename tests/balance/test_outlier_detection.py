"""Leaving bad endpoints alone: for how long, and never most of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as some

from mesh.balance.candidates import candidates
from mesh.balance.outlier_detection import (
    EJECT_MAX_SECONDS,
    EJECT_SECONDS,
    FAILURES_TO_EJECT,
    Ejection,
    OutlierDetection,
)
from mesh.balance.policies import Endpoint

A, B, C = (Endpoint(f"10.0.0.{n}", 80) for n in (1, 2, 3))
ALL = (A, B, C)


def failing(*endpoints: Endpoint, now: float = 100.0) -> OutlierDetection:
    health = OutlierDetection()
    for endpoint in endpoints:
        for _ in range(FAILURES_TO_EJECT):
            health.failed(endpoint, now)
    return health


def test_an_endpoint_that_keeps_failing_is_left_alone_for_a_while() -> None:
    health = OutlierDetection()
    for _ in range(FAILURES_TO_EJECT - 1):
        health.failed(A, 100.0)
    assert health.usable(ALL, 100.0) == ALL
    health.failed(A, 100.0)
    assert health.usable(ALL, 100.0) == [B, C]
    assert health.ejected_for(A, 101.0) == EJECT_SECONDS - 1.0
    assert health.ejected_for(B, 101.0) == health.ejected_for(A, 101.0 + EJECT_SECONDS) == 0.0
    assert health.usable(ALL, 100.0 + EJECT_SECONDS) == ALL
    health.succeeded(A)
    assert health.usable(ALL, 100.0) == ALL


def test_who_fails_again_is_left_alone_twice_as_long_up_to_a_limit() -> None:
    health, now, times = failing(A, now=0.0), 0.0, list[float]()
    for _ in range(8):
        times.append(health.ejected_for(A, now))
        now += times[-1]
        health.failed(A, now)
    assert times == [10, 20, 40, 80, 160, 300, 300, 300]
    assert times[-1] == EJECT_MAX_SECONDS
    health.succeeded(A)
    health.failed(A, now)
    assert health.ejected_for(A, now) == 0.0


def test_connects_that_were_under_way_do_not_lengthen_it() -> None:
    health = failing(A)
    for _ in range(50):
        health.failed(A, 100.5)
    assert health.ejected_for(A, 100.0) == EJECT_SECONDS
    health.failed(A, 111.0)
    assert health.ejected_for(A, 111.0) == 2 * EJECT_SECONDS


def test_at_least_half_of_them_stay_and_those_first_whose_time_is_over_soonest() -> None:
    health = failing(B, now=90.0)
    for endpoint in (A, C):
        for _ in range(FAILURES_TO_EJECT):
            health.failed(endpoint, 95.0)
    assert health.usable(ALL, 96.0) == [A, B]
    assert failing(A).usable([A], 100.0) == [A]
    assert failing(A).usable([A, B], 100.0) == [B]
    assert failing(A, B).usable([A, B], 100.0) == [A]


@pytest.mark.parametrize(
    ("share", "count", "left_out"),
    [(50, 2, 1), (50, 3, 1), (50, 5, 2), (0, 5, 0), (10, 9, 0), (10, 10, 1), (100, 5, 4), (100, 1, 0)],
)
def test_the_share_that_may_be_left_alone(share: int, count: int, left_out: int) -> None:
    health = OutlierDetection(Ejection(failures=1, share=share))
    endpoints = [Endpoint("10.0.0.1", port) for port in range(count)]
    for one in endpoints:
        assert health.failed(one, 1.0)
    assert len(health.usable(endpoints, 2.0)) == count - left_out


def test_how_many_failures_and_for_how_long_can_be_chosen() -> None:
    health = OutlierDetection(Ejection(failures=2, seconds=600.0))
    assert [health.failed(A, now, "503") for now in (1.0, 2.0, 3.0)] == [False, True, False]
    assert (health.ejected_for(A, 2.0), health.why(A), health.why(B)) == (600.0, "503", "")
    assert health.failed(A, 602.0)
    assert health.ejected_for(A, 602.0) == 600.0
    never = OutlierDetection(Ejection(failures=0))
    assert not any(never.failed(A, 1.0) for _ in range(50))
    assert not never.known_bad


def test_answers_of_one_among_many_requests() -> None:
    """Good ones end a row of failures, but neither bring an endpoint back nor make what was before undone."""
    health = OutlierDetection()
    health.failed(A, 1.0)
    health.failed(A, 1.0)
    health.answered(A, 1.0, 1.5)
    assert not health.known_bad
    health = failing(A, now=10.0)
    health.answered(A, 9.0, 11.0)  # it was asked before the failures
    health.answered(A, 11.0, 12.0)  # as one that had to do, because the others were tried already
    assert health.ejected_for(A, 12.0) == EJECT_SECONDS - 2.0
    back = 10.0 + EJECT_SECONDS
    health.answered(A, back, back + 1.0)
    assert [health.failed(A, back + 2.0) for _ in range(FAILURES_TO_EJECT)] == [False, False, True]
    assert health.ejected_for(A, back + 2.0) == 2 * EJECT_SECONDS
    well = back + 2.0 + 2 * EJECT_SECONDS + 4 * EJECT_SECONDS
    health.answered(A, well - 1.0, well - 1.0)
    assert health.known_bad
    health.answered(A, well, well)
    assert not health.known_bad


@given(
    some.integers(0, 100),
    some.integers(0, 4),
    some.integers(1, 8),
    some.lists(some.tuples(some.integers(0, 7), some.booleans(), some.floats(0, 40)), max_size=60),
)
def test_never_more_than_the_share_and_never_all(
    share: int, failures: int, count: int, story: list[tuple[int, bool, float]]
) -> None:
    """Whatever happens, in whatever order; and who has been told of last is what usable goes by."""
    health = OutlierDetection(Ejection(failures, share=share))
    endpoints = [Endpoint("10.0.0.1", port) for port in range(count)]
    now = 0.0
    for which, well, later in story:
        now += later
        one = endpoints[which % count]
        if well:
            health.answered(one, now, now)
        else:
            health.failed(one, now, "503")
        usable = health.usable(endpoints, now)
        assert len(usable) >= max(1, count - count * share // 100)
        assert all(health.ejected_for(one, now) > 0 for one in endpoints if one not in usable)
        assert [one for one in endpoints if one in usable] == list(usable)
        assert all(health.ejected_for(one, now) <= EJECT_MAX_SECONDS for one in endpoints)


def test_what_is_no_endpoint_any_more_is_forgotten() -> None:
    health = failing(A)
    health.keep_only([B])
    assert health.usable(ALL, 100.0) == ALL


def test_candidates_are_usable_near_and_untried_as_far_as_there_are_such() -> None:
    health = failing(A)
    assert candidates(ALL, (), (), OutlierDetection(), 100.0) is ALL
    assert candidates(ALL, {C}, (), health, 100.0) == [C]
    assert candidates(ALL, {A}, (), health, 100.0) == [B, C]  # the near one is ejected
    assert candidates(ALL, {C}, [C], health, 100.0) == [B]
    assert candidates(ALL, (), [B, C], health, 100.0) == [A]  # better a doubtful one than none
    assert candidates(ALL, (), ALL, health, 100.0) == []
