"""How fast is fast enough."""

import pytest

from mesh.http import byte_budget
from mesh.http.byte_budget import ByteAccount, ByteBudget
from mesh.http.least_rate import LEAST_BYTES, BodyPace, ReaderPace

ENOUGH = 10 * LEAST_BYTES


@pytest.fixture
def account() -> ByteAccount:
    return ByteBudget().account("192.0.2.1")


def test_a_body_of_a_length_that_was_announced_keeps_up_or_not(account: ByteAccount) -> None:
    pace = BodyPace(account, declared=True)
    pace.received = ENOUGH
    assert pace.keeps_up(10)
    pace.received = ENOUGH - 1
    assert not pace.keeps_up(10), "what came before the last look does not count"


def test_one_of_unknown_length_may_be_slow_but_not_silent(account: ByteAccount) -> None:
    pace = BodyPace(account, declared=False)
    pace.received = 1
    assert pace.keeps_up(10)
    assert not pace.keeps_up(10)


def test_an_address_has_so_many_slow_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(byte_budget, "SLOW_BODIES", 2)
    budget = ByteBudget()
    paces = [BodyPace(budget.account("192.0.2.1"), declared=False) for _ in range(3)]
    other = BodyPace(budget.account("192.0.2.2"), declared=False)
    for one in (*paces, other):
        one.received = 1
    assert [one.keeps_up(10) for one in (*paces, other)] == [True, True, False, True]
    paces[0].end()
    paces[2].received = 1
    assert paces[2].keeps_up(10)


def test_the_end_of_a_connection_gives_its_places_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(byte_budget, "SLOW_BODIES", 1)
    budget = ByteBudget()
    for _ in range(3):
        account = budget.account("192.0.2.1")
        pace = BodyPace(account, declared=False)
        pace.received = 1
        assert pace.keeps_up(10)
        account.close()
        pace.end()


def test_proxies_that_speak_for_others_have_any_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(byte_budget, "SLOW_BODIES", 1)
    budget = ByteBudget()
    for _ in range(3):
        pace = BodyPace(budget.account("192.0.2.1", limited=False), declared=False)
        pace.received = 1
        assert pace.keeps_up(10)


def test_what_the_kernel_holds_was_not_read() -> None:
    pace = ReaderPace(unsent=1000)
    pace.sent = 500
    assert not pace.keeps_up(unsent=1500, least=1)
    assert pace.keeps_up(unsent=1400, least=100)
    assert not pace.keeps_up(unsent=1400, least=1)
