"""Who may hold how much."""

import random

import pytest

from mesh.http import byte_budget
from mesh.http.byte_budget import (
    CONNECTION_BYTES,
    FREE_BYTES,
    LITTLE_BYTES,
    LUMP_BYTES,
    ByteAccount,
    ByteBudget,
    Over,
)

MIB = 1024 * 1024


def filled(budget: ByteBudget, address: str, size: int, step: int = MIB) -> list[ByteAccount]:
    """By as many connections as it takes."""
    accounts = []
    while size > 0:
        account = budget.account(address)
        assert account.take(min(size, step)) is None
        accounts.append(account)
        size -= step
    return accounts


def test_little_is_not_counted_but_by_its_connection() -> None:
    budget = ByteBudget()
    account = budget.account("192.0.2.1")
    assert account.take(FREE_BYTES) is None
    assert (budget.held, len(budget)) == (0, 0)
    assert account.take(1) is None
    assert (budget.held, len(budget)) == (LUMP_BYTES, 1)


def test_a_connection_has_its_limit() -> None:
    account = ByteBudget().account("192.0.2.1")
    assert account.take(CONNECTION_BYTES) is None
    assert account.take(1) is Over.CONNECTION
    account.give_back(100)
    assert account.take(100) is None


def test_an_address_has_its_limit_whatever_connections_it_has() -> None:
    budget = ByteBudget(most=100 * MIB, per_address=4 * MIB)
    full = filled(budget, "192.0.2.1", 3 * MIB)
    last = budget.account("192.0.2.1")
    assert last.take(2 * MIB) is Over.ADDRESS
    assert last.held == 0
    assert budget.account("192.0.2.2").take(2 * MIB) is None
    full[0].close()
    assert last.take(2 * MIB - LUMP_BYTES) is None


def test_a_64_of_ipv6_is_one_client() -> None:
    budget = ByteBudget(per_address=2 * MIB)
    assert budget.account("2001:db8::1").take(3 * MIB // 2) is None
    assert budget.account("2001:db8::ffff:1").take(MIB) is Over.ADDRESS
    assert budget.account("2001:db8:0:1::1").take(MIB) is None


def test_proxies_that_speak_for_others_have_no_share_but_the_processs_limit() -> None:
    budget = ByteBudget(most=20 * MIB, per_address=4 * MIB)
    proxy = budget.account("192.0.2.1", limited=False)
    assert proxy.take(10 * MIB) is None
    assert budget.account("192.0.2.1", limited=False).take(10 * MIB) is Over.PROCESS


def test_the_last_quarter_is_for_those_who_hold_little() -> None:
    budget = ByteBudget(most=40 * MIB, per_address=15 * MIB)
    filled(budget, "192.0.2.1", 15 * MIB)
    filled(budget, "192.0.2.2", 15 * MIB)
    assert budget.account("192.0.2.3").take(2 * LITTLE_BYTES) is Over.PROCESS
    for number in range(10):
        assert budget.account(f"192.0.2.{10 + number}").take(LITTLE_BYTES) is None
    while budget.held + LITTLE_BYTES <= 40 * MIB:
        filled(budget, f"198.51.100.{budget.held // MIB}", LITTLE_BYTES)
    assert budget.account("192.0.2.99").take(LITTLE_BYTES) is Over.PROCESS
    assert budget.held <= 40 * MIB


def test_what_ends_gives_all_back_and_nothing_counts_afterwards() -> None:
    budget = ByteBudget()
    account = budget.account("192.0.2.1")
    account.take(5 * MIB)
    account.close()
    account.close()
    assert (budget.held, len(budget)) == (0, 0)
    assert account.take(MIB) is None
    account.give_back(6 * MIB)
    assert budget.held == 0


@pytest.mark.parametrize("seed", range(20))
def test_whatever_is_taken_and_given_back_the_sums_are_right(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(byte_budget, "CONNECTION_BYTES", 400_000)
    rng = random.Random(seed)
    budget = ByteBudget(most=2 * MIB, per_address=MIB)
    accounts = [budget.account(f"192.0.2.{number % 4}") for number in range(12)]
    for _ in range(2000):
        account = rng.choice(accounts)
        if rng.random() < 0.5:
            account.take(rng.randrange(50_000))
        elif account.held:
            account.give_back(rng.randrange(account.held + 1))
        assert sum(one.held for one in accounts) <= budget.held + len(accounts) * FREE_BYTES
        assert budget.held <= 2 * MIB
        slack = len(accounts) * 3 * LUMP_BYTES
        assert budget.held <= sum(one.held for one in accounts) + slack
    for account in accounts:
        account.close()
    assert (budget.held, len(budget)) == (0, 0)
