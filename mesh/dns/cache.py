"""Ready replies, found by the query's very bytes after its id.

Strategy: beside those bytes a reply depends on the asker's scope and the transport only, so each pair of them
has a `View`, a dictionary that a socket's loop looks into without a call. An entry holds its replies in every
order of rotation; handing out the next one is `next()`. Nothing there needs a clock of its own: an answer of
ours is good until the catalogue changes one of the names it depends on (`invalidate`), and only replies from
elsewhere have a `valid_until`, at most a second away; then `renew` rewrites their TTLs or drops them.
First in, first out, and bounded.
"""

from collections.abc import Hashable, Iterable, Iterator
from itertools import cycle
from math import inf
from typing import TypeAlias
from weakref import WeakValueDictionary

from mesh.dns.config import CACHED_REPLY_MAX
from mesh.dns.forwarded import Aging
from mesh.dns.stats import Cell

ViewKey: TypeAlias = Hashable


class Entry:
    """The replies to one query. `replies` never ends; `cell` counts the hits for the statistics."""

    __slots__ = ("aging", "cell", "names", "query", "replies", "valid_until", "view", "weight")

    def __init__(self, view: "View", query: bytes, tails: list[bytes], cell: Cell) -> None:
        self.view, self.query, self.cell = view, query, cell
        self.replies: Iterator[bytes] = cycle(tails)
        self.weight = len(tails)
        self.names: frozenset[str] = frozenset()
        self.valid_until = inf
        self.aging: Aging | None = None


class View(dict[bytes, Entry]):
    """What one scope sees of the cache over one transport. Only the cache writes to it."""

    __slots__ = ("__weakref__",)


class ReplyCache:
    """Entries of all views, bounded by the number of replies in them."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._views: WeakValueDictionary[ViewKey, View] = WeakValueDictionary()
        self._order: dict[Entry, None] = {}  # a dictionary keeps the order of insertion
        self._by_name: dict[str, dict[Entry, None]] = {}
        self.replies = 0

    def __len__(self) -> int:
        return len(self._order)

    def view(self, key: ViewKey) -> View:
        """The view of a scope and transport; it lives as long as somebody holds it or has entries in it."""
        view = self._views.get(key)
        if view is None:
            view = self._views[key] = View()
        return view

    def put(
        self, view: View, query: bytes, tails: list[bytes], names: frozenset[str], cell: Cell
    ) -> Entry | None:
        """Keep replies (without their ids) to a query (without its id) until one of `names` changes."""
        if not tails or len(tails) > self._capacity or len(tails[0]) > CACHED_REPLY_MAX:
            return None
        if (earlier := view.get(query)) is not None:
            self._drop(earlier)
        while self.replies + len(tails) > self._capacity:
            self._drop(next(iter(self._order)))
        entry = Entry(view, query, tails, cell)
        entry.names = names
        view[query] = entry
        self._order[entry] = None
        self.replies += entry.weight
        for name in names:
            self._by_name.setdefault(name, {})[entry] = None
        return entry

    def put_forwarded(
        self, view: View, query: bytes, aging: Aging, names: frozenset[str], cell: Cell, now: float
    ) -> None:
        """Keep a forwarded reply as long as its records live. It depends on names that are not ours *yet*."""
        entry = self.put(view, query, [aging.at(now)[2:]], names, cell)
        if entry is not None:
            entry.aging = aging
            entry.valid_until = _next_second(aging, now)

    def renew(self, entry: Entry, now: float) -> bool:
        """An entry whose `valid_until` has passed: with younger TTLs again, or dropped (False)."""
        aging = entry.aging
        if aging is None or now >= aging.expires:
            self._drop(entry)
            return False
        entry.replies = cycle([aging.at(now)[2:]])
        entry.valid_until = _next_second(aging, now)
        return True

    def invalidate(self, names: Iterable[str]) -> int:
        """Drop what depends on these lower-case names, and nothing else. Returns how many entries went."""
        dropped = 0
        for name in names:
            for entry in tuple(self._by_name.get(name, ())):
                self._drop(entry)
                dropped += 1
        return dropped

    def _drop(self, entry: Entry) -> None:
        del self._order[entry]
        del entry.view[entry.query]
        self.replies -= entry.weight
        for name in entry.names:
            dependent = self._by_name[name]
            del dependent[entry]
            if not dependent:
                del self._by_name[name]


def _next_second(aging: Aging, now: float) -> float:
    return min(aging.expires, aging.stored + int(now - aging.stored) + 1)
