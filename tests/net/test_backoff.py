"""The growing pause between two tries."""

import pytest

from mesh.net.backoff import Backoff


def test_each_pause_is_twice_the_one_before_up_to_the_last() -> None:
    backoff = Backoff(0.5, 3.0)
    assert [backoff.next() for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]


def test_after_a_reset_the_next_pause_is_the_first() -> None:
    backoff = Backoff(1.0, 8.0)
    backoff.next()
    backoff.next()
    backoff.reset()
    assert backoff.next() == 1.0


def test_first_and_last_may_be_the_same() -> None:
    backoff = Backoff(2.0, 2.0)
    assert [backoff.next() for _ in range(3)] == [2.0, 2.0, 2.0]


@pytest.mark.parametrize(("first", "last"), [(0.0, 1.0), (-1.0, 1.0), (2.0, 1.0)])
def test_a_first_pause_that_is_not_between_zero_and_the_last_is_refused(first: float, last: float) -> None:
    with pytest.raises(ValueError, match="first pause"):
        Backoff(first, last)
