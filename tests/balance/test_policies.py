"""Choosing an endpoint, and leaving bad ones alone."""

from collections import Counter

import pytest

from mesh.balance.health import EJECT_SECONDS, FAILURES_TO_EJECT, Health
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
    chosen = choose(Policy.P2C, endpoints, Draw(random=lambda: drawn, active=busy.__getitem__))
    assert chosen in endpoints
    if len(endpoints) == 2:
        assert chosen is B


def test_source_hash_keeps_clients_when_another_endpoint_goes() -> None:
    clients = [f"10.1.{n // 250}.{n % 250}" for n in range(3000)]
    before = {client: choose(Policy.SOURCE_HASH, ALL, Draw(source=client)) for client in clients}
    after = {client: choose(Policy.SOURCE_HASH, (A, C), Draw(source=client)) for client in clients}
    assert all(after[client] is before[client] for client in clients if before[client] is not B)
    assert min(Counter(before.values()).values()) > 800


def test_an_endpoint_that_keeps_failing_is_left_alone_for_a_while() -> None:
    health = Health()
    for _ in range(FAILURES_TO_EJECT - 1):
        health.failed(A, 100.0)
    assert health.usable(ALL, 100.0) == ALL
    health.failed(A, 100.0)
    assert health.usable(ALL, 100.0) == [B, C]
    assert health.ejected_for(A, 101.0) == EJECT_SECONDS - 1.0
    assert health.ejected_for(B, 101.0) == health.ejected_for(A, 101.0 + EJECT_SECONDS) == 0.0
    assert health.usable(ALL, 100.0 + EJECT_SECONDS) == [A, B, C]
    health.succeeded(A)
    assert health.usable(ALL, 100.0) == ALL


def test_never_are_all_of_them_left_alone() -> None:
    health = Health()
    for endpoint in ALL * FAILURES_TO_EJECT:
        health.failed(endpoint, 0.0)
    assert health.usable(ALL, 0.0) == ALL


def test_what_is_no_endpoint_any_more_is_forgotten() -> None:
    health = Health()
    for _ in range(FAILURES_TO_EJECT):
        health.failed(A, 0.0)
    health.keep_only([B])
    assert health.usable(ALL, 0.0) == ALL
