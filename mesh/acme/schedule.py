"""Which certificates are to be ordered now. Pure: what there is, what has failed and the time are arguments.

A certificate is renewed when a third of its life is left, whatever that is: 30 days of 90, 2 of 6. What fails
is tried again after a pause that grows, so that five failures in an hour, which is what Let's Encrypt
allows for a name, do not come about.

Stacks take turns: whose turn it is says how many orders each has had lately. So a thousand names of one delay
another's first by one order, and what the authority allows an account is not used up by one of them.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

Names = tuple[str, ...]  # of one certificate: lower case, sorted

FIRST_PAUSE, LAST_PAUSE = 300.0, 6 * 3600.0  # seconds after a failure; doubled with each
NAMES_MAX = 100  # in one certificate, as Let's Encrypt has it
CERTIFICATES_MAX = 1000  # that are looked after
LATELY = 3 * 3600.0  # seconds in which orders are counted
ORDERS_MAX, ORDERS_KEPT = 300, 100  # in that time: what Let's Encrypt allows, and what is left for newcomers


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


def nobodys(_names: Names) -> str:
    """All are the same stack's."""
    return ""


class Schedule:
    """What has failed is remembered as long as it is wanted. `owner`: whose a certificate is."""

    def __init__(self, owner: Callable[[Names], str] = nobodys) -> None:
        self._owner = owner
        self._failures: dict[Names, Failure] = {}
        self._orders: dict[str, deque[float]] = {}  # by owner: when it has had some lately

    def due(self, wanted: Collection[Names], have: Mapping[Names, Life], now: float) -> list[Names]:
        """To be ordered now: whose turn it is first; of one owner what is missing, then what ends soonest."""
        self._failures = {names: one for names, one in self._failures.items() if names in wanted}
        self._forget(now)
        looked_after = orderable(wanted, self._owner)
        share = self._share(looked_after)
        found = [names for names in looked_after if self._at(names, have, share) <= now]
        return sorted(found, key=lambda names: self._turn(names, have))

    def next(self, wanted: Iterable[Names], have: Mapping[Names, Life]) -> float | None:
        """When the next one is due; seconds since the epoch."""
        looked_after = orderable(wanted, self._owner)
        share = self._share(looked_after)
        return min((self._at(names, have, share) for names in looked_after), default=None)

    def ordered(self, names: Names, now: float) -> None:
        """It is being ordered: that is its owner's turn."""
        self._orders.setdefault(self._owner(names), deque()).append(now)

    def failed(self, names: Names, why: str, now: float) -> None:
        before = self._failures.get(names)
        pause = min(LAST_PAUSE, before.pause * 2) if before else FIRST_PAUSE
        self._failures[names] = Failure(why, now + pause, pause)

    def done(self, names: Names) -> None:
        self._failures.pop(names, None)

    def failures(self) -> Mapping[Names, Failure]:
        return self._failures

    def waits_for_its_turn(self, names: Names, wanted: Iterable[Names]) -> bool:
        """Has its owner had as many orders lately as it may?"""
        return len(self._orders.get(self._owner(names), ())) >= self._share(orderable(wanted, self._owner))

    def _turn(self, names: Names, have: Mapping[Names, Life]) -> tuple[int, float, Names]:
        lately = len(self._orders.get(self._owner(names), ()))
        return lately, have[names].ends if names in have else 0.0, names

    def _share(self, looked_after: Collection[Names]) -> int:
        """Orders that each owner may have in LATELY."""
        owners = {self._owner(names) for names in looked_after}
        return max(1, (ORDERS_MAX - ORDERS_KEPT) // max(1, len(owners)))

    def _at(self, names: Names, have: Mapping[Names, Life], share: int) -> float:
        due = have[names].renewal if names in have else 0.0
        if names in self._failures:
            due = max(due, self._failures[names].again)
        orders = self._orders.get(self._owner(names), ())
        return max(due, orders[-share] + LATELY) if len(orders) >= share else due

    def _forget(self, now: float) -> None:
        for owner, orders in tuple(self._orders.items()):
            while orders and orders[0] <= now - LATELY:
                orders.popleft()
            if not orders:
                del self._orders[owner]


def orderable(wanted: Iterable[Names], owner: Callable[[Names], str] = nobodys) -> list[Names]:
    """Those that can be had by HTTP-01, as many as are looked after: of each owner the first, then of each
    the second, and so on."""
    of: dict[str, list[Names]] = {}
    for names in sorted(names for names in wanted if why_not(names) == ""):
        of.setdefault(owner(names), []).append(names)
    ranked = ((rank, names) for one in of.values() for rank, names in enumerate(one))
    return [names for _, names in sorted(ranked)[:CERTIFICATES_MAX]]


def why_not(names: Names) -> str:
    """Why a certificate of these names cannot be ordered; "" if it can."""
    if not names:
        return "the rule names no host"
    if len(names) > NAMES_MAX:
        return f"more than {NAMES_MAX} names in one certificate"
    if any("*" in name for name in names):
        return "a wildcard takes a DNS challenge, which is not made here: put its certificate among the files"
    return ""
