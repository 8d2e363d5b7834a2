"""Choosing an endpoint."""

from collections import Counter

import pytest

from mesh.balance.policies import Draw, Endpoint, Policy, choose

A, B, C = (Endpoint(f"10.0.0.{n}", 80) for n in (1, 2, 3))
ALL = (A, B, C)


def test_round_robin_takes_turns() -> None:
    assert [choose(Policy.ROUND_ROBIN, ALL, Draw(turn)) for turn in range(4)] == [A, B, C, A]


@pytest.mark.parametrize(("drawn", "expected"), [(0.0, A), (0.34, B), (0.999, C)])
def test_random_follows_the_draw(drawn: float, expected: Endpoint) -> None:
    assert choose(Policy.RANDOM, ALL, Draw(random=lambda: drawn)) is expected


def test_least_conn_takes_the_idlest_and_shares_among_equals() -> None:
    busy = Counter({A: 3, B: 1, C: 1})
    chosen = [choose(Policy.LEAST_CONN, ALL, Draw(turn, active=busy.__getitem__)) for turn in range(3)]
    assert chosen == [B, B, C]


@pytest.mark.parametrize("endpoints", [(A,), (A, B), ALL])
@pytest.mark.parametrize("drawn", [0.0, 0.5, 0.9999])
def test_p2c_compares_two_different_ones(endpoints: tuple[Endpoint, ...], drawn: float) -> None:
    busy = Counter({A: 9})
    chosen = choose(Policy.P2C, endpoints, Draw(random=lambda: drawn, cost=busy.__getitem__))
    assert chosen in endpoints
    if len(endpoints) == 2:
        assert chosen is B
