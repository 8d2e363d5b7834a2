"""Faults of our own, caught at a boundary: counted, logged with their traceback, named in `mesh status`.

Every boundary that isolates one thing from the others (a subscriber, a vital task, a connection, a service's
labels) tells them here. There is one book per process, `ERRORS`, as there is one log: a fault can come up
anywhere, and where it is told must not be one more thing that each part has to be given.

What fails for as long as its cause is there (a subscriber that is down, a service in quarantine) is *told*
with a subject and stays in `problems` until it is `mended`. What is over at once (one connection) is counted,
and named by its place alone.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

PLACES_MAX = 64  # different places that are told apart; they are written in the code, so there are fewer
SUBJECTS_MAX = 256  # named in `mesh status` at once; of more the number is told
TRACEBACKS_MAX = 10  # of one place in the log; then one for each doubling: a client may cause one at will
SHOWN_MAX = 200  # characters of an error's text
OTHER = "other"  # of more than PLACES_MAX places

# What a new process mends and this one can't: it has no memory left, or the interpreter itself is broken.
MENDED_BY_RESTART = (MemoryError, SystemError)

Quarantined = tuple[str, str, str]  # subscriber, kind and id of an entry of the catalogue

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Other:
    """What another process of ours has told of itself."""

    counts: Counter[str] = field(default_factory=Counter)
    problems: tuple[str, ...] = ()
    quarantined: tuple[Quarantined, ...] = ()


class InternalErrors:
    """Not thread-safe: belongs to the event loop's thread.

    `on_restart_needed` is called at what only a new process mends (`MENDED_BY_RESTART`).
    """

    def __init__(self) -> None:
        self.on_restart_needed: Callable[[], None] = lambda: None
        self.counts: Counter[str] = Counter()  # by place
        self._last: dict[str, str] = {}  # of each place, of what is over at once
        self._told: dict[tuple[str, str], str] = {}  # (place, subject) → what is wrong with it now
        self._others: dict[str, _Other] = {}  # by process

    def report(self, where: str, error: BaseException, subject: str = "", effect: str = "") -> None:
        """`where`: the place in our code, one of a few; `subject`: what it is about, if that lasts; `effect`:
        what becomes of it, in words."""
        if where not in self.counts and len(self.counts) >= PLACES_MAX:
            where = OTHER
        self.counts[where] += 1
        what = f"{type(error).__name__}: {error}"[:SHOWN_MAX]
        if not subject:
            self._last[where] = what
        elif (where, subject) in self._told or len(self._told) < SUBJECTS_MAX:
            self._told[where, subject] = f"{what}{'; ' if effect else ''}{effect}"
        if restart_mends(error):
            self.on_restart_needed()
        self._log(where, error, subject, effect)

    def mended(self, where: str, subject: str) -> None:
        """It is as it should be again."""
        if self._told.pop((where, subject), None) is not None:
            logger.warning("%s: %s is well again", where, subject)

    def problems(self) -> Iterator[str]:
        """Sentences for `mesh status`."""
        for (where, subject), what in tuple(self._told.items()):
            yield f"{subject}: fault of ours in {where}: {what}"
        for where, what in tuple(self._last.items()):
            yield f"{where}: {self.counts[where]} faults of ours, see the log; the last one: {what}"
        for who, other in self._others.items():
            yield from (f"{who}: {one}" for one in other.problems)

    def quarantined_elsewhere(self) -> frozenset[Quarantined]:
        """What other processes of ours leave out now, as they say."""
        return frozenset(one for other in self._others.values() for one in other.quarantined)

    def hear(
        self,
        who: str,
        counts: Counter[str],
        problems: Sequence[str],
        quarantined: Sequence[Quarantined] = (),
    ) -> None:
        """What another process of ours has counted since its start, and what is wrong there now."""
        before = self._others.get(who, _Other()).counts
        for where, count in (counts - before).items():
            self.counts[where if where in self.counts or len(self.counts) < PLACES_MAX else OTHER] += count
        self._others[who] = _Other(counts, tuple(problems), tuple(quarantined))

    def forget(self, who: str) -> None:
        """That process has ended. What it has counted stays."""
        self._others.pop(who, None)

    def clear(self) -> None:
        """Nothing has happened yet."""
        self.counts.clear()
        self._last.clear()
        self._told.clear()
        self._others.clear()

    def _log(self, where: str, error: BaseException, subject: str, effect: str) -> None:
        count = self.counts[where]
        if count > TRACEBACKS_MAX and count & (count - 1):
            return
        about = f" of {subject}" if subject else ""
        effect = effect or "all else goes on"
        logger.error("fault of ours (%d) in %s%s; %s", count, where, about, effect, exc_info=error)


ERRORS = InternalErrors()


def restart_mends(error: BaseException) -> bool:
    """Is it, or is among them, what only a new process mends?"""
    if isinstance(error, BaseExceptionGroup):
        return any(map(restart_mends, error.exceptions))
    return isinstance(error, MENDED_BY_RESTART)
