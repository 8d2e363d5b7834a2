"""Repeated requests are a share of those under way, or a few."""

from hypothesis import given
from hypothesis import strategies as some

from mesh.balance.retry_budget import RetryBudget


def test_a_few_always_may_and_a_share_of_many() -> None:
    budget = RetryBudget(share=20, least=2)
    assert [budget.take(3) for _ in range(3)] == [True, True, False]
    assert [budget.take(20) for _ in range(3)] == [True, True, False]
    budget.give_back()
    assert budget.take(20)
    assert not RetryBudget(share=0, least=0).take(1000)


@given(
    some.integers(0, 100),
    some.integers(0, 20),
    some.lists(some.tuples(some.booleans(), some.integers(0, 500)), max_size=200),
)
def test_never_more_at_once_than_the_most_that_it_was_ever_for(
    share: int, least: int, story: list[tuple[bool, int]]
) -> None:
    budget = RetryBudget(share, least)
    most = under_way = 0
    for begins, requests in story:
        if begins:
            most = max(most, least, requests * share // 100)
            under_way += budget.take(requests)
        elif under_way:
            budget.give_back()
            under_way -= 1
        assert budget.taken == under_way <= most
