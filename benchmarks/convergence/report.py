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


@dataclass(frozen=True)
class Sent:
    """When the last new connection was sent to a task (seconds, monotonic; infinite: they never ceased), by
    who leads it there, and how many failed meanwhile. `where`: the client, seen from the task."""

    way: str
    where: str
    end: float
    last: Mapping[str, float]
    failed: Mapping[str, Mapping[str, int]]  # why → how many


def connection_tables(sent: Sequence[Sent]) -> list[Table]:
    """Milliseconds after the end of the task's process. Docker has no way of its own to a published port on a
    kernel without IPVS: "–"."""
    groups = dict.fromkeys((one.way, one.where) for one in sent)
    rows = []
    for way, where in groups:
        own = [one for one in sent if (one.way, one.where) == (way, where)]
        shown: list[str] = []
        for who in (OURS, DOCKER):
            after = [one.last[who] - one.end for one in own if who in one.last]
            failed = sum(sum(one.failed.get(who, {}).values()) for one in own)
            shown += [_ms(figure(after)) if after else "–" for _, figure in FIGURES]
            shown.append(f"{failed / len(own):.1f}" if after else "–")
        rows.append((way, where, len(own), *shown))
    names = [*(name for name, _ in FIGURES), "failed"]
    head = ("event", "client", "n", *(f"{who} {name}" for who in (OURS, DOCKER) for name in names))
    raw = [{**asdict(one), "last": _known_to_json(one.last)} for one in sent]
    title = (
        "last new connection sent to a task: ms after its process' end; connections that failed, each time"
    )
    return [Table(title, head, rows, raw)]


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
