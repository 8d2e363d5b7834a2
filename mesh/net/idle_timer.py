"""A time limit that is moved with every request and hardly ever reached.

Moving one in `Deadlines` costs more than the rest of the bookkeeping of a request. So a connection has one
entry there, made for the first limit; when that is due, the limit that holds by then is looked at.
"""

import math
from time import monotonic

from mesh.net.timers import Deadlines

NEVER = math.inf


class IdleTimer:
    """Derive, set limits with `within`, and be told by `on_timeout`."""

    __slots__ = ("_deadlines", "_entry", "_looked_at", "limit")

    def __init__(self, deadlines: Deadlines) -> None:
        self._deadlines = deadlines
        self.limit = NEVER  # monotonic seconds; NEVER may be set directly
        self._looked_at = NEVER
        self._entry = 0.0

    def within(self, seconds: float) -> None:
        """From now on this one holds."""
        self.limit = limit = monotonic() + seconds
        if limit < self._looked_at:
            self._arm(seconds)

    def on_due(self) -> None:
        self._looked_at = NEVER
        if self.limit is NEVER:
            return
        left = self.limit - monotonic()
        if left > 0:
            self._arm(left)
        else:
            self.limit = NEVER
            self.on_timeout()

    def on_timeout(self) -> None:
        raise NotImplementedError

    def stop_clock(self) -> None:
        self.limit = NEVER
        if self._looked_at is not NEVER:
            self._deadlines.drop(self, self._entry)
            self._looked_at = NEVER

    def _arm(self, seconds: float) -> None:
        if self._looked_at is not NEVER:
            self._deadlines.drop(self, self._entry)
        self._looked_at = self.limit
        self._entry = self._deadlines.add(self, seconds)
