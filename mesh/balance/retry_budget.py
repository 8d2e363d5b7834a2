"""A budget of repeated requests: a share of those under way, so that they cannot multiply an outage. Pure.

When much fails at once, every failure that is asked for again is more load for what is left, and may fail
again. So at a time only so many are; a few always may, or a service with little to do would have no repeat.
"""

from dataclasses import dataclass

SHARE = 20  # per cent
LEAST = 10  # at once, whatever the share comes to


@dataclass(slots=True)
class RetryBudget:
    share: int = SHARE  # per cent of the requests under way
    least: int = LEAST
    taken: int = 0  # requests under way that are repeated ones

    def take(self, under_way: int) -> bool:
        """For one more of the requests `under_way`. False: that would be too many."""
        if self.taken >= max(self.least, under_way * self.share // 100):
            return False
        self.taken += 1
        return True

    def give_back(self) -> None:
        """One has ended."""
        self.taken -= 1
