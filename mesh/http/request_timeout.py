"""A time limit for all of a request and its response, whoever takes the time."""

from collections.abc import Callable

from mesh.net.isolation import Endable
from mesh.net.timers import Deadlines


class RequestTimeout:
    def __init__(self, deadlines: Deadlines, seconds: float, on_timeout: Callable[[], None]) -> None:
        self._deadlines = deadlines
        self._too_late = on_timeout
        self._entry = deadlines.add(self, seconds)

    def on_due(self) -> None:
        self._too_late()

    def on_fault(self) -> None:
        """Something of ours has failed: the exchange ends all the same."""
        exchange = getattr(self._too_late, "__self__", None)
        if isinstance(exchange, Endable):
            exchange.on_fault()

    def end(self) -> None:
        """It is over in time; nothing if it was not."""
        self._deadlines.drop(self, self._entry)
