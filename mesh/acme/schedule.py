"""Which certificates are to be ordered now. Pure: what there is, what has failed and the time are arguments.

A certificate is renewed when a third of its life is left, whatever that is: 30 days of 90, 2 of 6. What fails
is tried again after a pause that grows, so that five failures in an hour, which is what Let's Encrypt
allows for a name, do not come about.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

Names = tuple[str, ...]  # of one certificate: lower case, sorted

FIRST_PAUSE, LAST_PAUSE = 300.0, 6 * 3600.0  # seconds after a failure; doubled with each
NAMES_MAX = 100  # in one certificate, as Let's Encrypt has it
CERTIFICATES_MAX = 1000  # that are looked after


@dataclass(frozen=True, slots=True)
class Life:
    """Of a certificate; seconds since the epoch."""

    begins: float
    ends: float

    @property
    def renewal(self) -> float:
        """From when on it is to be replaced."""
        return self.ends - (self.ends - self.begins) / 3


@dataclass(frozen=True, slots=True)
class Failure:
    why: str
    again: float  # when it is tried again
    pause: float


class Schedule:
    """What has failed is remembered as long as it is wanted."""

    def __init__(self) -> None:
        self._failures: dict[Names, Failure] = {}

    def due(self, wanted: Collection[Names], have: Mapping[Names, Life], now: float) -> list[Names]:
        """To be ordered now: what is missing first, then what ends soonest."""
        self._failures = {names: one for names, one in self._failures.items() if names in wanted}
        found = [names for names in orderable(wanted) if self._at(names, have) <= now]
        return sorted(found, key=lambda names: (have[names].ends if names in have else 0.0, names))

    def next(self, wanted: Iterable[Names], have: Mapping[Names, Life]) -> float | None:
        """When the next one is due; seconds since the epoch."""
        return min((self._at(names, have) for names in orderable(wanted)), default=None)

    def failed(self, names: Names, why: str, now: float) -> None:
        before = self._failures.get(names)
        pause = min(LAST_PAUSE, before.pause * 2) if before else FIRST_PAUSE
        self._failures[names] = Failure(why, now + pause, pause)

    def done(self, names: Names) -> None:
        self._failures.pop(names, None)

    def failures(self) -> Mapping[Names, Failure]:
        return self._failures

    def _at(self, names: Names, have: Mapping[Names, Life]) -> float:
        due = have[names].renewal if names in have else 0.0
        return max(due, self._failures[names].again) if names in self._failures else due


def orderable(wanted: Iterable[Names]) -> Iterator[Names]:
    """Those that can be had by HTTP-01, as many as are looked after."""
    for count, names in enumerate(sorted(names for names in wanted if why_not(names) == "")):
        if count == CERTIFICATES_MAX:
            return
        yield names


def why_not(names: Names) -> str:
    """Why a certificate of these names cannot be ordered; "" if it can."""
    if not names:
        return "the rule names no host"
    if len(names) > NAMES_MAX:
        return f"more than {NAMES_MAX} names in one certificate"
    if any("*" in name for name in names):
        return "a wildcard takes a DNS challenge, which is not made here: put its certificate among the files"
    return ""
