"""A time limit for all of a request and its response, whoever takes the time."""

from collections.abc import Callable

from mesh.relay.deadlines import Deadlines


class Overall:
    def __init__(self, deadlines: Deadlines, seconds: float, too_late: Callable[[], None]) -> None:
        self._deadlines = deadlines
        self._too_late = too_late
        self._entry = deadlines.add(self, seconds)

    def due(self) -> None:
        self._too_late()

    def end(self) -> None:
        """It is over in time; nothing if it was not."""
        self._deadlines.drop(self, self._entry)
