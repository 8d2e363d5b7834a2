"""What is ending on this node, since when, and how sure that is. Pure; the clock is an argument.

A container that was told to stop, or found unhealthy, is about to end; whether it does is not sure: a process
may catch SIGTERM and go on. One that has ended does not come back as the same task. So an ending that is not
sure is taken back when the container still runs longer than `docker stop` waits, and a sure one is forgotten
when the cluster does not list its task any more, and every manager has had time to see that.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mesh.peers.report.codec import ENDINGS_MAX

SURVIVED_SECONDS = 12.0  # `docker stop` kills after 10; what then still runs was not stopped
ENDED_SECONDS = 30.0  # that a sure one is told at least: managers may be that far behind each other


@dataclass(frozen=True, slots=True)
class _Ending:
    service: str
    since: float
    sure: bool


class StoppingTasks:
    """Tasks of this node that take no new work, oldest first."""

    def __init__(self) -> None:
        self._tasks: dict[str, _Ending] = {}

    @property
    def report(self) -> Mapping[str, str]:
        """Task id → service id: what the managers are to be told."""
        return {task: one.service for task, one in self._tasks.items()}

    def begin(self, task: str, service: str, now: float) -> bool:
        """It was told to stop, or is unhealthy. Returns whether that is news to others."""
        known = self._tasks.get(task)
        if known is None or not known.sure:
            self._put(task, _Ending(service, now, sure=False))
        return known is None

    def end(self, task: str, service: str, now: float) -> bool:
        """Its container has ended. Returns whether that is news to others."""
        known = self._tasks.get(task)
        if known is None or not known.sure:
            self._put(task, _Ending(service, now, sure=True))
        return known is None

    def sift(self, now: float, listed: Callable[[str, str], bool]) -> bool:
        """Take back and forget. `listed`: does the cluster list this task of this service? True if any."""
        before = len(self._tasks)
        self._tasks = {task: one for task, one in self._tasks.items() if _stays(task, one, now, listed)}
        return len(self._tasks) < before

    def _put(self, task: str, ending: _Ending) -> None:
        self._tasks.pop(task, None)
        self._tasks[task] = ending
        if len(self._tasks) > ENDINGS_MAX:
            del self._tasks[next(iter(self._tasks))]


def _stays(task: str, one: _Ending, now: float, listed: Callable[[str, str], bool]) -> bool:
    if one.sure:
        return now - one.since < ENDED_SECONDS or listed(task, one.service)
    return now - one.since < SURVIVED_SECONDS
