"""Peak-EWMA: bad news at once, good news slowly."""

import math

import pytest

from mesh.balance.peak_ewma import DECAY_SECONDS, Latency
from mesh.balance.policies import Draw, Endpoint, Policy, choose

A, B = Endpoint("10.0.0.1", 80), Endpoint("10.0.0.2", 80)


def test_a_peak_counts_at_once_and_fades_with_time() -> None:
    latency = Latency()
    latency.observe(A, 0.010, 0.0)
    latency.observe(A, 1.010, 1.0)
    assert latency.cost(A, 0) == 1.010
    latency.observe(A, 0.010, 1.0)
    assert latency.cost(A, 0) == pytest.approx(1.010)
    latency.observe(A, 0.010, 1.0 + DECAY_SECONDS)
    assert latency.cost(A, 0) == pytest.approx(0.010 + 1 / math.e)


def test_what_has_not_been_seen_yet_is_tried_by_one_connection() -> None:
    latency = Latency()
    latency.observe(A, 0.5, 0.0)
    assert latency.cost(B, 0) < latency.cost(A, 0) < latency.cost(A, 3) < latency.cost(B, 1)


def test_the_slow_one_gets_the_smaller_share_of_two_random_ones() -> None:
    latency = Latency()
    latency.observe(A, 0.100, 0.0)
    latency.observe(B, 0.010, 0.0)
    active = {A: 0, B: 5}
    draw = Draw(random=lambda: 0.0, cost=lambda one: latency.cost(one, active[one]))
    assert choose(Policy.P2C, [A, B], draw) is B
    active[B] = 12
    assert choose(Policy.P2C, [A, B], draw) is A


def test_what_is_no_endpoint_any_more_is_forgotten() -> None:
    latency = Latency()
    latency.observe(A, 0.5, 0.0)
    latency.keep_only([B])
    assert latency.cost(A, 0) == 0.0
