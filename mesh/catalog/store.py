"""The one mutable cell of the catalogue.

Sources publish changes; readers take `current` once per query or connection. Subscribers are called in the
order they subscribed, synchronously, after the swap, with (old, new, change); they must not block and must
not raise: one that fails is a bug, reported to `on_error`, and the others are still told.
"""

from collections.abc import Callable
from dataclasses import replace

from mesh.catalog.snapshot import Change, Snapshot

Subscriber = Callable[[Snapshot, Snapshot, Change], None]


class Store:
    """Holds the current snapshot. Not thread-safe: belongs to the event loop's thread."""

    def __init__(self, on_error: Callable[[Exception], None], initial: Snapshot | None = None) -> None:
        self.current = initial or Snapshot()
        self._on_error = on_error
        self._subscribers: list[Subscriber] = []

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Be told of every later change. Returns the function that ends the subscription."""
        self._subscribers.append(subscriber)
        return lambda: self._subscribers.remove(subscriber)

    def identify(self, node: str) -> None:
        """This node's id is known (or another: it left and joined). No change for anybody's work."""
        self.current = replace(self.current, this_node=node)

    def publish(self, change: Change) -> Snapshot:
        """Swap in the next version; an empty change is no version."""
        if not change:
            return self.current
        old, new = self.current, self.current.apply(change)
        self.current = new
        for subscriber in tuple(self._subscribers):
            try:
                subscriber(old, new, change)
            except Exception as error:  # noqa: BLE001 - one subscriber's bug must not starve the others
                self._on_error(error)
        return new
