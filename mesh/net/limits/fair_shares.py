"""Who holds how many of a limited number of places, so that one cannot have what everybody needs. Pure.

Owners are clients' addresses, containers, services: whoever is to have a share. Items are what takes a place.
An owner has at most its share. When all places are taken, whoever has the most gives way first, its oldest
item first; `FairShares` says who that is, and its caller ends it.
"""

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from functools import lru_cache
from ipaddress import IPv6Network
from typing import Generic, TypeVar

Owner = TypeVar("Owner", bound=Hashable)
Item = TypeVar("Item", bound=Hashable)

NETWORKS_KEPT = 4096  # of addresses of IPv6: to work one out takes ten times as long as all else
IPV6_PREFIX = 64  # bits: whoever has one address of such a network has all of them


class FairShares(Generic[Owner, Item]):
    """`places` for all together, `per_owner` for each. All steps take constant time."""

    __slots__ = ("_by_count", "_items", "_most", "_of", "per_owner", "places")

    def __init__(self, places: int, per_owner: int) -> None:
        self.places = places
        self.per_owner = per_owner
        self._items: OrderedDict[Item, Owner] = OrderedDict()  # the oldest first
        self._of: dict[Owner, OrderedDict[Item, None]] = {}  # likewise
        self._by_count: dict[int, OrderedDict[Owner, None]] = {}  # owners that have so many
        self._most = 0

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Item]:
        return iter(tuple(self._items))

    def __contains__(self, item: object) -> bool:
        return item in self._items

    @property
    def owners(self) -> int:
        """Those that have any."""
        return len(self._of)

    @property
    def full(self) -> bool:
        """Are all places taken?"""
        return len(self._items) >= self.places

    def counts(self) -> dict[Owner, int]:
        """Places of each owner that has any."""
        return {owner: len(items) for owner, items in self._of.items()}

    def count(self, owner: Owner) -> int:
        """Places that this owner has."""
        return len(self._of.get(owner, ()))

    def has_its_share(self, owner: Owner) -> bool:
        return self.count(owner) >= self.per_owner

    def add(self, owner: Owner, item: Item) -> None:
        """Whether there is a place is the caller's question."""
        items = self._of.setdefault(owner, OrderedDict())
        self._items[item] = owner
        items[item] = None
        self._move(owner, len(items) - 1, len(items))

    def remove(self, item: Item) -> bool:
        """False: it has none."""
        if item not in self._items:
            return False
        owner = self._items.pop(item)
        items = self._of[owner]
        del items[item]
        self._move(owner, len(items) + 1, len(items))
        if not items:
            del self._of[owner]
        return True

    def oldest_of(self, owner: Owner) -> Item | None:
        """The first to give way when the owner has its share."""
        return next(iter(self._of.get(owner, ())), None)

    def oldest(self) -> Item | None:
        """Of all, whoever has it."""
        return next(iter(self._items), None)

    def to_give_way(self, owner: Owner) -> Item | None:
        """The oldest of whoever has the most, for a newcomer of this owner. None: nobody has more than this
        one would have."""
        if self._most <= self.count(owner) + 1:
            return None
        return self.oldest_of(next(iter(self._by_count[self._most])))

    def _move(self, owner: Owner, before: int, now: int) -> None:
        if before:
            among = self._by_count[before]
            del among[owner]
            if not among:
                del self._by_count[before]
        if now:
            self._by_count.setdefault(now, OrderedDict())[owner] = None
        if now > self._most or (before == self._most and before not in self._by_count):
            self._most = now  # counts change by one, so the next lower one is the most


def share_key(address: str) -> str:
    """Whose share a client's address takes: its own, of IPv6 its /64's."""
    if ":" not in address:
        return address
    return _network(address.partition("%")[0])


@lru_cache(NETWORKS_KEPT)
def _network(address: str) -> str:
    return str(IPv6Network((address, IPV6_PREFIX), strict=False))
