"""How soon ends and beginnings were told, as tables. Pure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isfinite, isnan
from statistics import median

from benchmarks.figures import percentile
from benchmarks.report import Table

OURS, DOCKER = "ours", "Docker"
FIGURES: Sequence[tuple[str, Callable[[Sequence[float]], float]]] = (
    ("median", median),
    ("p99", lambda values: percentile(values, 0.99)),
    ("max", max),
)


@dataclass(frozen=True)
class Ending:
    """When (seconds, monotonic) the command was given, the task's process was gone, and each resolver gave
    its first answer without it for good; infinite: never."""

    way: str
    command: float
    end: float
    gone: Mapping[str, float]


@dataclass(frozen=True)
class Beginning:
    """When the task's process began, and each resolver named it for the first time."""

    began: float
    known: Mapping[str, float]


def tables(endings: Sequence[Ending], beginnings: Sequence[Beginning]) -> list[Table]:
    """Milliseconds. Below zero: before."""
    ways = {way: [one for one in endings if one.way == way] for way in dict.fromkeys(e.way for e in endings)}
    raw = [{**asdict(one), "gone": _known_to_json(one.gone)} for one in endings]
    from_end = {way: [(one.end, one.gone) for one in own] for way, own in ways.items()}
    from_command = {way: [(one.command, one.gone) for one in own] for way, own in ways.items()}
    begun = {"any": [(one.began, one.known) for one in beginnings]} if beginnings else {}
    return [
        _table("last answer that names a task: ms after its process' end", from_end, raw),
        _table("last answer that names a task: ms after the command that ends it", from_command, None),
        _table("first answer that names a task: ms after its process' start", begun, None),
    ]


def _table(
    title: str, events: Mapping[str, Sequence[tuple[float, Mapping[str, float]]]], raw: object
) -> Table:
    rows = []
    for way, own in events.items():
        after = {who: [told[who] - at for at, told in own] for who in (OURS, DOCKER)}
        shown = [_ms(figure(after[who])) for who in (OURS, DOCKER) for _, figure in FIGURES]
        earlier = median(theirs - ours for ours, theirs in zip(after[OURS], after[DOCKER], strict=True))
        rows.append((way, len(own), *shown, _ms(earlier)))
    head = (
        "event",
        "n",
        *(f"{who} {name}" for who in (OURS, DOCKER) for name, _ in FIGURES),
        "ours sooner by",
    )
    return Table(title, head, rows, raw)


def _known_to_json(times: Mapping[str, float]) -> dict[str, float | None]:
    return {who: at if isfinite(at) else None for who, at in times.items()}


def _ms(seconds: float) -> str:
    if isnan(seconds):  # neither ever told
        return "–"
    return f"{round(seconds * 1e3):,}" if isfinite(seconds) else "never"
