"""What was measured, as tables for people and as JSON."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tabulate import tabulate

from benchmarks.figures import percentile, ratio
from benchmarks.measure import Role, Series

FLAT = 0.10  # how much more a query may cost with many names than with few


@dataclass(frozen=True)
class Table:
    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[object]]
    raw: Any = None  # everything that was measured
    notes: Sequence[str] = field(default=())

    def __str__(self) -> str:
        align = ("left", *("right" for _ in self.head[1:]))
        table = tabulate(self.rows, self.head, tablefmt="simple", disable_numparse=True, colalign=align)
        return "\n".join((self.title, table, *self.notes))

    def document(self) -> dict[str, Any]:
        rows = [dict(zip(self.head, row, strict=True)) for row in self.rows]
        return {"title": self.title, "rows": rows, "notes": list(self.notes), "raw": self.raw}


def rates(title: str, results: Sequence[Series]) -> Table:
    """Medians of the rounds. `core`: how busy the server was; below 100 % the load was the limit."""
    own = _ours(results)
    rows = [
        (
            one.name,
            f"{one.median_qps:,.0f}",
            f"{one.busy:.0%}",
            f"{one.median_cpu_us:.2f}",
            one.lost,
            ratio(own.median_qps, one.median_qps),
            ratio(own.median_cpu_us, one.median_cpu_us),
        )
        for one in results
    ]
    head = ("server", "queries/s", "core", "CPU µs/query", "lost", "ours/peer rate", "ours/peer CPU")
    notes = [
        *_best(results, "rate", lambda one: one.median_qps, highest=True),
        *_best(results, "CPU", lambda one: one.median_cpu_us, highest=False),
    ]
    return Table(title, head, rows, [_raw(one) for one in results], notes)


def latencies(title: str, results: Sequence[Series]) -> Table:
    """Of all rounds together."""
    shares = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}
    found = {one.name: [percentile(one.latencies, share) for share in shares.values()] for one in results}
    own = found[_ours(results).name]
    rows = [
        (
            one.name,
            *(f"{seconds * 1e6:,.0f}" for seconds in found[one.name]),
            f"{one.median_cpu_us:.1f}",
            one.lost,
            *(ratio(mine, its) for mine, its in zip(own, found[one.name], strict=True)),
        )
        for one in results
    ]
    figures = (*(f"{name} µs" for name in shares), "CPU µs/query", "lost")
    head = ("server", *figures, *(f"ours/peer {name}" for name in shares))
    notes = [
        line
        for rank, name in enumerate(shares)
        for line in _best(results, name, lambda one, rank=rank: found[one.name][rank], highest=False)  # type: ignore[misc]
    ]
    raw = [{**_raw(one), "seconds": dict(zip(shares, found[one.name], strict=True))} for one in results]
    return Table(title, head, rows, raw, notes)


def flatness(title: str, results: Sequence[Series]) -> Table:
    """Series of one server that has more to do in each: what a query costs beside the first."""
    first = results[0].median_cpu_us
    rows = [
        (
            one.name,
            f"{one.median_qps:,.0f}",
            f"{one.median_cpu_us:.2f}",
            one.lost,
            ratio(one.median_cpu_us, first),
        )
        for one in results
    ]
    most = max(one.median_cpu_us for one in results) / first - 1
    verdict = "yes" if most <= FLAT else "no"
    head = ("", "queries/s", "CPU µs/query", "lost", "CPU beside the first")
    notes = [f"flat within {FLAT:.0%}: {verdict} ({most:+.0%})"]
    return Table(title, head, rows, [_raw(one) for one in results], notes)


def _ours(results: Sequence[Series]) -> Series:
    return next(one for one in results if one.role is Role.OURS)


def _best(
    results: Sequence[Series], what: str, figure: Callable[[Series], float], *, highest: bool
) -> list[str]:
    """Ours beside the best of its peers, in words; nothing where it is alone."""
    peers = [one for one in results if one.role is Role.PEER]
    if not peers:
        return []
    best = (max if highest else min)(peers, key=figure)
    return [f"ours / best peer, {what}: {ratio(figure(_ours(results)), figure(best))} ({best.name})"]


def _raw(series: Series) -> dict[str, Any]:
    """Round by round; latencies are too many."""
    return {
        "server": series.name,
        "role": series.role.value,
        "queries_per_second": series.qps,
        "cpu_us_per_query": series.cpu_us,
        "lost": series.lost,
        "latencies": len(series.latencies),
    }
