"""How many connections each client's address has, so that one cannot take all that a listener has. Pure.

An address of IPv6 counts with its /64: whoever has one has all of them.
"""

from collections import Counter
from ipaddress import IPv6Network


class Addresses:
    """`most` of each; 0: no limit."""

    __slots__ = ("_counts", "most")

    def __init__(self, most: int) -> None:
        self.most = most
        self._counts: Counter[str] = Counter()

    def enter(self, address: str) -> bool:
        """One more; False, and nothing is counted, when it has as many as it may."""
        if not self.most:
            return True
        key = _key(address)
        if self._counts[key] >= self.most:
            return False
        self._counts[key] += 1
        return True

    def leave(self, address: str) -> None:
        """One of those that entered is gone."""
        if not self.most:
            return
        key = _key(address)
        self._counts[key] -= 1
        if not self._counts[key]:
            del self._counts[key]

    def __len__(self) -> int:
        """Addresses that have any."""
        return len(self._counts)


def _key(address: str) -> str:
    if ":" not in address:
        return address
    return str(IPv6Network((address.partition("%")[0], 64), strict=False))
