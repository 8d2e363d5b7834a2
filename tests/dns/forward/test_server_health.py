"""Latency, failure, and who comes first."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.dns.config import (
    HABITS_KEPT,
    HEDGE_MAX,
    HEDGE_MIN,
    HEDGE_UNKNOWN,
    LOOP_REST,
    SERVER_REST_MAX,
    UNANSWERED_MAX,
)
from mesh.dns.forward.route import DnsServer, Manner
from mesh.dns.forward.server_health import ServerHealth, Turn, turns

TRY = 1.5  # seconds
A, B, C = (DnsServer(f"10.0.0.{n}") for n in (1, 2, 3))


def known(latency: float | None = None, failing: bool = False) -> ServerHealth:
    health = ServerHealth()
    for _ in range(50 if latency is not None else 0):
        health.replied(latency or 0.0)
    if failing:
        health.failed(0.0)
    return health


@pytest.mark.parametrize(("latency", "usual"), [(None, HEDGE_UNKNOWN), (0.001, HEDGE_MIN), (9.0, HEDGE_MAX)])
def test_what_is_usual_has_bounds(latency: float | None, usual: float) -> None:
    assert known(latency).usual == pytest.approx(usual)


def test_a_steady_server_is_expected_to_be_steady_and_an_unsteady_one_is_not() -> None:
    steady, unsteady = known(0.2), known(0.2)
    for n in range(40):
        unsteady.replied(0.1 if n % 2 else 0.3)
    assert steady.usual == pytest.approx(0.2, rel=0.01)
    assert unsteady.usual > 0.4


@given(st.lists(st.floats(0.0, 5.0), min_size=1))
def test_latency_stays_within_what_was_seen(seen: list[float]) -> None:
    health = ServerHealth()
    for seconds in seen:
        health.replied(seconds)
    assert health.latency is not None
    assert min(seen) - 1e-9 <= health.latency <= max(seen) + 1e-9
    assert HEDGE_MIN <= health.usual <= HEDGE_MAX


def test_rests_double_up_to_a_limit_and_any_reply_ends_them() -> None:
    health, rests = ServerHealth(), []
    for _ in range(40):
        health.failed(100.0)
        rests.append(health.rests_until - 100.0)
    assert rests[:4] == [1.0, 2.0, 4.0, 8.0]
    assert max(rests) == rests[-1] == SERVER_REST_MAX
    assert health.failing
    health.replied(0.01)
    assert not health.failing
    health.failed(200.0)
    assert health.rests_until == 201.0


def test_overtaken_time_and_again_is_failed() -> None:
    health = known(0.01)
    for _ in range(UNANSWERED_MAX - 1):
        health.overtaken(0.05, 1.0)
    assert not health.failing
    assert health.latency is not None
    assert health.latency > 0.015  # it is at least that slow
    health.overtaken(0.001, 1.0)
    assert health.failing


def test_habits_are_forgotten_after_a_while() -> None:
    health = ServerHealth()
    assert (health.changes_case(5.0), health.knows_edns(5.0), health.loops(5.0)) == (False, True, False)
    health.note_case_change(5.0)
    health.note_no_edns(5.0)
    health.note_loop(5.0, ourselves=False)
    assert (health.changes_case(6.0), health.knows_edns(6.0), health.loops(6.0)) == (True, False, True)
    later = 6.0 + max(HABITS_KEPT, LOOP_REST)
    assert (health.changes_case(later), health.knows_edns(later), health.loops(later)) == (False, True, False)


def test_only_ourselves_are_left_out() -> None:
    health = ServerHealth()
    health.note_loop(5.0, ourselves=False)
    assert (health.loops(6.0), health.left_out(6.0)) == (True, False)
    health.note_loop(5.0, ourselves=True)
    assert (health.left_out(6.0), health.left_out(6.0 + LOOP_REST)) == (True, False)


def order(
    states: dict[DnsServer, ServerHealth], *, alike: bool, explore: int | None = None, rounds: int = 1
) -> list[Turn]:
    manner = Manner(alike, rounds, TRY)
    return list(turns(list(states), states.__getitem__, manner=manner, explore=explore))


def asked(turns: list[Turn]) -> list[DnsServer]:
    return [turn.server for turn in turns]


def begins(turns: list[Turn]) -> list[float]:
    """When each begins, if all are silent."""
    return [round(sum(turn.patience for turn in turns[:n]), 3) for n in range(len(turns) + 1)]


def test_listed_servers_keep_their_order_and_each_is_asked_again_before_the_next() -> None:
    planned = order({A: known(0.2), B: known()}, alike=False, rounds=2)
    assert asked(planned) == [A, A, B, B] * 2
    assert begins(planned)[:5] == [0, 0.2, 1.5, 1.9, 3.0]


def test_a_server_that_usually_takes_as_long_as_a_try_is_asked_once() -> None:
    planned = turns([A], {A: known(0.9)}.__getitem__, manner=Manner(rounds=1, try_timeout=0.9))
    assert planned == (Turn(A, 0.9),)


def test_failing_servers_come_last_but_come() -> None:
    assert asked(order({A: known(failing=True), B: known()}, alike=False)) == [B, B, A, A]
    assert asked(order({A: known(0.01, failing=True), B: known(0.9)}, alike=True)) == [B, A]
    assert asked(order({A: known(failing=True)}, alike=False)) == [A, A]


def test_equals_are_asked_fastest_first_and_the_next_beside_the_slow() -> None:
    states = {A: known(0.3), B: known(0.2), C: known(0.1)}
    planned = order(states, alike=True, rounds=2)
    assert asked(planned) == [C, B, A, C, B, A]
    assert begins(planned) == [0, 0.1, 0.3, 1.8, 3.3, 4.8, 6.3]


def test_now_and_then_a_slower_equal_comes_first_but_never_a_failing_one() -> None:
    states = {A: known(0.1), B: known(0.2), C: known(0.3, failing=True)}
    assert {asked(order(states, alike=True, explore=n))[0] for n in range(9)} == {B}
    assert asked(order({A: known(0.1), C: known(failing=True)}, alike=True, explore=1)) == [A, C]


def test_equals_that_are_not_known_yet_come_first_in_their_order() -> None:
    assert asked(order({A: known(0.1), B: known(), C: known()}, alike=True)) == [B, C, A]


def test_over_tls_nothing_is_lost_so_nothing_is_sent_again() -> None:
    secure = DnsServer("10.0.0.1", 853, tls_name="dns.test")
    assert asked(order({secure: known()}, alike=False)) == [secure]
