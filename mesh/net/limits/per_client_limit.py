"""How many connections each client's address has, so that one cannot take all that a listener has. Pure.

An address of IPv6 counts with its /64: whoever has one has all of them.
"""

from collections import Counter

from mesh.net.limits.fair_shares import share_key


class Addresses:
    """`most` of each; 0: no limit."""

    __slots__ = ("_counts", "most")

    def __init__(self, most: int) -> None:
        self.most = most
        self._counts: Counter[str] = Counter()

    def count(self, address: str) -> int:
        """Those that it has; 0 where there is no limit."""
        return self._counts[share_key(address)] if self.most else 0

    def enter(self, address: str) -> bool:
        """One more; False, and nothing is counted, when it has as many as it may."""
        if not self.most:
            return True
        key = share_key(address)
        if self._counts[key] >= self.most:
            return False
        self._counts[key] += 1
        return True

    def leave(self, address: str) -> None:
        """One of those that entered is gone."""
        if not self.most:
            return
        key = share_key(address)
        self._counts[key] -= 1
        if not self._counts[key]:
            del self._counts[key]

    def __len__(self) -> int:
        """Addresses that have any."""
        return len(self._counts)
