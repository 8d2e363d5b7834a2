"""The growing pause between two tries of something that fails. Pure."""


class Backoff:
    """A pause that doubles with each failure: `first`, 2 × `first`, 4 × `first` … but never above `last`.

    All in seconds. The same object serves until the work succeeds; `reset` makes the next pause the first.
    """

    __slots__ = ("first", "last", "seconds")

    def __init__(self, first: float, last: float) -> None:
        if not 0 < first <= last:
            raise ValueError(f"the first pause ({first} s) is not between 0 and the last ({last} s)")
        self.first, self.last = first, last
        self.seconds = first  # the pause that comes next

    def next(self) -> float:
        """The pause to wait now. The one after it is twice as long."""
        seconds = self.seconds
        self.seconds = min(self.last, 2 * seconds)
        return seconds

    def reset(self) -> None:
        """The work has succeeded, or it fails for a new reason: the next pause is the first again."""
        self.seconds = self.first
