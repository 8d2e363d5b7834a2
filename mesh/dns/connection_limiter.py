"""Who may stay on a TCP port that many want: the connections in the order in which they can be spared. Pure.

A connection waits for one of three: its peer's next query, its peer to take replies, or an upstream. Whoever
makes us wait longest goes first: those that ask nothing before those that do not take what they asked for;
who waits for an upstream is not sent away at all (that wait has an end of its own). So a newcomer is refused
only when everybody else is at work. One asker may have a share of the places, and its newcomers replace its
own.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from itertools import islice
from typing import Generic, TypeVar

from mesh.dns.config import TCP_CONNECTIONS_MAX, TCP_IDLE

TCP_ASKER_MAX = TCP_CONNECTIONS_MAX // 4  # connections of one source address, where askers share a port
TCP_IDLE_CROWDED = 2.0  # seconds instead of `TCP_IDLE` when places become few (RFC 7766 6.2.3 allows any)
CROWDED = 0.75  # of all places taken

Connection = TypeVar("Connection")


class Wait(Enum):
    """Whom a connection waits for."""

    QUERY = "the peer, to ask"
    TAKING = "the peer, to take its replies"
    UPSTREAM = "an upstream"


SPARED = (Wait.QUERY, Wait.TAKING)  # in this order


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Connections and seconds of one listener."""

    connections: int = TCP_CONNECTIONS_MAX
    per_asker: int = TCP_CONNECTIONS_MAX
    idle: float = TCP_IDLE
    idle_crowded: float = TCP_IDLE_CROWDED


@dataclass(slots=True)
class _ConnectionPlace:
    asker: str
    wait: Wait


class ConnectionLimiter(Generic[Connection]):
    """The connections of one listener."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self._limits = limits
        self._places: dict[Connection, _ConnectionPlace] = {}
        self._per_asker: Counter[str] = Counter()
        # Since when each waits; a dictionary keeps the order of insertion, so whoever waits longest is first.
        self._since: dict[Wait, dict[Connection, float]] = {wait: {} for wait in Wait}

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[Connection]:
        return iter(tuple(self._places))

    @property
    def askers(self) -> int:
        """Source addresses that have a connection."""
        return len(self._per_asker)

    @property
    def crowded(self) -> bool:
        return len(self._places) > self._limits.connections * CROWDED

    def full(self, asker: str) -> bool:
        """Must somebody go before this asker gets one more?"""
        return len(self._places) >= self._limits.connections or self._has_its_share(asker)

    def to_spare(self, asker: str | None = None) -> Connection | None:
        """Who goes for a newcomer of this asker, or for nobody in particular; None: all are at work."""
        own_only = asker is not None and self._has_its_share(asker)
        for wait in SPARED:
            for connection in self._since[wait]:
                if not own_only or self._places[connection].asker == asker:
                    return connection
        return None

    def _has_its_share(self, asker: str) -> bool:
        return self._per_asker[asker] >= self._limits.per_asker

    def add(self, connection: Connection, asker: str, now: float) -> None:
        """A newcomer, waited for to ask."""
        self._places[connection] = _ConnectionPlace(asker, Wait.QUERY)
        self._per_asker[asker] += 1
        self._since[Wait.QUERY][connection] = now

    def remove(self, connection: Connection) -> None:
        """Safe to call for one that has no place (any more)."""
        for waiting in self._since.values():  # a fault of ours may have left it in another than its own
            waiting.pop(connection, None)
        place = self._places.pop(connection, None)
        if place is None:
            return
        self._per_asker[place.asker] -= 1
        if not self._per_asker[place.asker]:
            del self._per_asker[place.asker]

    def waits(self, connection: Connection, wait: Wait, now: float, *, progress: bool) -> None:
        """What a connection waits for now; its time begins anew if that is another, or with `progress`."""
        place = self._places[connection]
        if place.wait is wait and not progress:
            return
        del self._since[place.wait][connection]
        place.wait = wait
        self._since[wait][connection] = now

    def overdue(self, now: float) -> tuple[Connection, Wait] | None:
        """One that has made us wait too long. When it has gone, patience with the next may be longer."""
        for wait in SPARED:
            for connection, since in islice(self._since[wait].items(), 1):
                if now >= since + self._patience(wait):
                    return connection, wait
        return None

    def next_due(self) -> float | None:
        """When to ask for those `overdue` again; None: nobody is waited for."""
        due = (
            since + self._patience(wait)
            for wait in SPARED
            for since in islice(self._since[wait].values(), 1)  # of those that wait longest
        )
        return min(due, default=None)

    def _patience(self, wait: Wait) -> float:
        return self._limits.idle_crowded if self.crowded and wait is Wait.QUERY else self._limits.idle
