"""New endpoints get their share little by little."""

import random

import pytest

from mesh.balance.policies import Draw, Endpoint, Policy, choose
from mesh.balance.slow_start import LEAST_WEIGHT, Young, weight

A, B = Endpoint("10.0.0.1", 80), Endpoint("10.0.0.2", 80)


@pytest.mark.parametrize(("age", "share"), [(0, LEAST_WEIGHT), (1, 0.1), (5, 0.5), (10, 1), (99, 1)])
def test_weight_by_age(age: float, share: float) -> None:
    assert weight(age, 10.0) == share


@pytest.mark.parametrize("policy", [Policy.ROUND_ROBIN, Policy.RANDOM, Policy.LEAST_CONN, Policy.P2C])
def test_the_share_of_a_new_one_grows_with_its_age(policy: Policy) -> None:
    rng, young, shares = random.Random(7), Young(), list[float]()
    young.joined([B], 100.0)
    for now in (100.0, 105.0, 110.0):
        chosen = list[Endpoint]()
        for turn in range(2000):
            among = young.taking_part((A, B), 10.0, now, rng.random)
            active = {one: chosen.count(one) for one in (A, B)} if policy is Policy.LEAST_CONN else {}
            draw = Draw(turn, rng.random, lambda one, active=active: active.get(one, 0))
            chosen.append(choose(policy, among, draw))
        shares.append(chosen.count(B) / len(chosen))
    assert 0.02 < shares[0] < 0.15 < shares[1] < 0.55
    assert shares[0] < shares[1]
    assert 0.45 < shares[2] < 0.55


def test_where_all_are_new_all_take_part() -> None:
    young = Young()
    young.joined([A, B], 0.0)
    assert young.taking_part((A, B), 10.0, 0.0, lambda: 0.99) == (A, B)


def test_grown_and_gone_ones_are_forgotten() -> None:
    young, among = Young(), (A, B)
    young.joined(among, 0.0)
    young.keep_only([A])
    assert young.taking_part(among, 10.0, 5.0, lambda: 0.99) == [B]
    assert young.taking_part(among, 10.0, 10.0, lambda: 0.99) is not None
    assert young.taking_part(among, 10.0, 5.0, lambda: 0.99) is among
