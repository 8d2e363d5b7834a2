"""Leaving bad endpoints alone: for how long, and never most of them."""

from mesh.balance.candidates import candidates
from mesh.balance.health import EJECT_MAX_SECONDS, EJECT_SECONDS, FAILURES_TO_EJECT, Health
from mesh.balance.policies import Endpoint

A, B, C = (Endpoint(f"10.0.0.{n}", 80) for n in (1, 2, 3))
ALL = (A, B, C)


def failing(*endpoints: Endpoint, now: float = 100.0) -> Health:
    health = Health()
    for endpoint in endpoints:
        for _ in range(FAILURES_TO_EJECT):
            health.failed(endpoint, now)
    return health


def test_an_endpoint_that_keeps_failing_is_left_alone_for_a_while() -> None:
    health = Health()
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


def test_what_is_no_endpoint_any_more_is_forgotten() -> None:
    health = failing(A)
    health.keep_only([B])
    assert health.usable(ALL, 100.0) == ALL


def test_candidates_are_usable_near_and_untried_as_far_as_there_are_such() -> None:
    health = failing(A)
    assert candidates(ALL, (), (), Health(), 100.0) is ALL
    assert candidates(ALL, {C}, (), health, 100.0) == [C]
    assert candidates(ALL, {A}, (), health, 100.0) == [B, C]  # the near one is ejected
    assert candidates(ALL, {C}, [C], health, 100.0) == [B]
    assert candidates(ALL, (), [B, C], health, 100.0) == [A]  # better a doubtful one than none
    assert candidates(ALL, (), ALL, health, 100.0) == []
