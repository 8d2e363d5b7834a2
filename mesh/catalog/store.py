"""The one mutable cell of the catalogue.

Sources publish changes; readers take `current` once per query or connection. Subscribers are called in their
order, synchronously, after the swap, with (old, new, change); they must not block. One that raises is kept
apart: the others get the change, and it is brought up again (`mesh.catalog.subscription`).
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from mesh.catalog.intake import Intake
from mesh.catalog.snapshot import Change, Snapshot
from mesh.catalog.subscription import ASKERS, KINDS, Later, Restart, Subscription, Update, value_of

Subscriber = Update

logger = logging.getLogger(__name__)


class Store:
    """Holds the current snapshot. Not thread-safe: belongs to the event loop's thread.

    `on_error` is told what a subscriber raised at a change. `later` (seconds, step) is the loop's
    `call_later`: without it, a subscriber that is down waits for the next change. `order`: the names of all
    subscribers, in the order in which they are told; without it, in the order in which they came.
    """

    def __init__(
        self,
        on_error: Callable[[Exception], None] = lambda _: None,
        initial: Snapshot | None = None,
        *,
        later: Later | None = None,
        order: Sequence[str] = (),
    ) -> None:
        self.current = initial or Snapshot()
        self._on_error = on_error
        self._later = later
        self._order = {name: number for number, name in enumerate(order)}
        self._subscriptions: list[Subscription] = []
        self.intake = Intake()

    @property
    def names(self) -> frozenset[str]:
        """Of all subscribers that there may be."""
        return frozenset(self._order or (one.name for one in self._subscriptions))

    def quarantined(self, elsewhere: Iterable[tuple[str, str, str]] = ()) -> dict[str, int]:
        """Entries that subscribers leave out, by name; once each, however many processes leave it out.

        `elsewhere`: (subscriber, kind, id) as other processes say; what isn't in the catalogue, or is of a
        subscriber that there isn't, doesn't count."""
        found = {one.name: set(one.quarantined) for one in self._subscriptions}
        names = self.names
        for name, kind, id_ in elsewhere:
            exists = kind in KINDS or (kind, id_) == ASKERS
            known = exists and bool(value_of(self.current, (kind, id_)))
            if known and name in names:
                found.setdefault(name, set()).add((kind, id_))
        return {name: len(keys) for name, keys in found.items()}

    @property
    def subscriptions(self) -> tuple[Subscription, ...]:
        return tuple(self._subscriptions)

    def subscribe(
        self, update: Subscriber, name: str = "", restart: Restart | None = None, *, begin: bool = False
    ) -> Callable[[], None]:
        """Be told of every later change. Returns the function that ends the subscription. `restart`: forget
        everything and take a whole snapshot. `begin`: what there is now is taken in the same way, at once."""
        name = name or getattr(update, "__qualname__", type(update).__name__)
        one = Subscription(name, update, restart, self.current, self._later)
        self._subscriptions.append(one)
        if self._order:
            self._subscriptions.sort(key=lambda one: self._order[one.name])  # KeyError: not in its list

        if begin:
            one.begin()

        def end() -> None:
            one.end()
            self._subscriptions.remove(one)

        return end

    def identify(self, node: str) -> None:
        """This node's id is known (or another: it left and joined). No change for anybody's work."""
        self.current = replace(self.current, this_node=node)
        for one in self._subscriptions:
            one.identify(node)

    def publish(self, change: Change) -> Snapshot:
        """Swap in the next version; an empty change is no version. What can't be used of it is left out."""
        change, refused = self.intake.admit(change)
        for problem in refused:
            logger.warning("catalogue: %s", problem)
        if not change:
            return self.current
        old, new = self.current, self.current.apply(change)
        self.current = new
        for one in tuple(self._subscriptions):
            if (error := one.publish(old, new, change)) is not None:
                self._on_error(error)
        return new
