"""Figures of many measurements: what a table shows of them."""

from collections.abc import Sequence


def percentile(values: Sequence[float], share: float) -> float:
    """The value that this share of the others does not exceed (nearest rank). Raises IndexError for none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def ratio(of: float, to: float) -> str:
    """`of` as so many times `to`; "–" where there is nothing to compare with."""
    return f"{of / to:.2f}" if to else "–"
