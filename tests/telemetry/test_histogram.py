"""The plain histogram counts as Prometheus does: a bucket holds what is up to and including its bound."""

from hypothesis import given
from hypothesis import strategies as st

from mesh.telemetry.histogram import Histogram


def test_a_value_on_a_bound_is_inside_it() -> None:
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 2.0, 2.5):
        histogram.observe(value)
    assert histogram.counts == [2, 2, 1]
    assert histogram.total == 7.5


def test_a_copy_does_not_count_on() -> None:
    histogram = Histogram((1.0,))
    copy = histogram.copy()
    histogram.observe(0.5)
    assert (copy.counts, copy.total) == ([0, 0], 0.0)


@given(st.lists(st.floats(0, 10), max_size=20))
def test_nothing_is_lost(values: list[float]) -> None:
    histogram = Histogram()
    for value in values:
        histogram.observe(value)
    assert sum(histogram.counts) == len(values)
