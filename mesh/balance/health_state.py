"""Active probes: what is probed, and what the results mean. Pure.

A task fails after FALL failures in a row, and is well again after RISE successes: one lost packet must not
take it out, one lucky answer not put it back. A new one is not well before its first success, so that an
application without a health check of its own gets no connection before it listens.

Where all of a service's tasks fail, it has no task to offer and refuses, as HAProxy would: the label was put
there by somebody who wants no connection to go to such a task.
"""

from dataclasses import dataclass
from enum import StrEnum

FALL, RISE = 3, 2
WELL_STATUSES = range(200, 400)  # of an HTTP answer


class Result(StrEnum):
    """What a probe found, as counted."""

    WELL = "well"
    REFUSED = "refused"
    TIMEOUT = "timeout"
    STATUS = "status"  # an HTTP answer that is neither success nor redirect
    BROKEN = "broken"  # no HTTP answer, or the connection broke


@dataclass(slots=True)
class Pulse:
    """What the last results of one probe come to."""

    well: bool
    new: bool = False  # has never been well: one success is enough
    row: int = 0  # results in a row that speak against `well`

    def take(self, result: Result) -> bool:
        """Returns whether `well` has changed."""
        if (result is Result.WELL) == self.well:
            self.row = 0
            return False
        self.row += 1
        if self.row < (FALL if self.well else 1 if self.new else RISE):
            return False
        self.well, self.new, self.row = not self.well, False, 0
        return True
