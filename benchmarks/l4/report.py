"""What was measured, as tables. Pure.

Ratios are medians of the rounds' own ratios: the samples of one round were taken one after the other.
"""

from collections.abc import Sequence
from statistics import median
from typing import Any

from benchmarks.l4.loads import Load
from benchmarks.l4.turns import Series
from benchmarks.measure import Role
from benchmarks.report import Table


def paths(title: str, load: Load, results: Sequence[Series]) -> Table:
    """Ways through the kernel and processes, beside the first one. CPU: of client, tasks and relay."""
    first = results[0]
    rows = [
        (
            one.name,
            load.shown(median(one.rate)),
            _time(median(one.whole)),
            _ratio(paired(one.rate, first.rate)),
            _ratio(paired(one.whole, first.whole)),
        )
        for one in results
    ]
    head = ("path", load.per_second, f"CPU/{load.unit}, all", f"rate/{first.name}", f"CPU/{first.name}")
    return Table(title, head, rows, _raw(load, results))


def relays(title: str, load: Load, results: Sequence[Series]) -> Table:
    """Relays, each alone on its core. `per core`: one over the CPU time of the relay's process per unit."""
    ours = next(one for one in results if one.role is Role.OURS)
    rows = []
    for one in results:
        own: Sequence[str] = ("–", "–", "–", "–")
        if one.has_process:
            per_core = paired([1 / x for x in ours.own], [1 / x for x in one.own])
            own = (f"{one.busy:.0%}", _time(median(one.own)), load.shown(one.per_core), _ratio(per_core))
        rate = _ratio(paired(ours.rate, one.rate))
        rows.append((one.name, load.shown(median(one.rate)), *own, rate, _time(median(one.whole))))
    head = (
        "relay",
        load.per_second,
        "its core",
        f"CPU/{load.unit}",
        f"{load.per_second} per core",
        "ours/it per core",
        "ours/it rate",
        f"CPU/{load.unit}, all",
    )
    return Table(title, head, rows, _raw(load, results))


def paired(these: Sequence[float], those: Sequence[float]) -> float:
    """How many times the other, round by round; the median."""
    return median(this / that for this, that in zip(these, those, strict=True))


def _ratio(value: float) -> str:
    return f"{value:.2f}"


def _time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 0.1 else f"{seconds * 1e6:,.1f} µs"


def _raw(load: Load, results: Sequence[Series]) -> list[dict[str, Any]]:

    return [
        {
            "name": one.name,
            "role": one.role.value,
            "unit": load.unit,
            "units_per_second": one.rate,
            "relay_cpu_seconds_per_unit": one.own,
            "all_cpu_seconds_per_unit": one.whole,
        }
        for one in results
    ]
