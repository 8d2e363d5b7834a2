"""Results as tables: for people, and as JSON."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tabulate import tabulate

from benchmarks.measure import Series, percentile


@dataclass(frozen=True)
class Table:
    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[object]]
    raw: Any = field(default=None)  # everything that was measured

    def __str__(self) -> str:
        return f"{self.title}\n{tabulate(self.rows, self.head, tablefmt='simple', disable_numparse=True)}"

    def document(self) -> dict[str, Any]:
        rows = [dict(zip(self.head, row, strict=True)) for row in self.rows]
        return {"title": self.title, "rows": rows, "raw": self.raw}


def rates(title: str, results: Sequence[Series]) -> Table:
    """Medians of the rounds, and what the first of the series is to each other one."""
    own_qps, own_cpu = results[0].median()
    rows = []
    for series in results:
        qps, cpu = series.median()
        rows.append(
            (
                series.name,
                f"{qps:,.0f}",
                f"{cpu:.2f}",
                series.lost,
                f"{own_qps / qps:.2f}",
                f"{own_cpu / cpu:.2f}",
            )
        )
    head = ("server", "queries/s", "CPU µs/query", "lost", "first/it, rate", "first/it, CPU")
    return Table(title, head, rows, [vars(series) for series in results])


def latencies(title: str, results: Sequence[Series]) -> Table:
    """Of all rounds together."""
    rows = []
    for series in results:
        own = series.latencies
        shown = [f"{percentile(own, share) * 1e6:,.0f}" for share in (0.5, 0.99, 0.999)]
        rows.append((series.name, *shown, f"{series.median()[1]:.1f}", series.lost))
    head = ("server", "p50 µs", "p99 µs", "p99.9 µs", "CPU µs/query", "lost")
    raw = [{"server": series.name, "queries": len(series.latencies)} for series in results]
    return Table(title, head, rows, raw)
