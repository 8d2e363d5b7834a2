"""Upstreams' replies, kept once for all who may ask the same servers, whatever the spelling of the name.

A reply is kept as it came, with the time; `at` says how it reads now. When its records have run out it stays
for a day, to be given for lack of a better one (RFC 8767), unless the room is needed: the cache is bounded in
replies and in bytes, and what was used longest ago goes first. Absence is kept likewise (RFC 2308): a search
list's wrong guesses must go on failing in the same way for the right one to be reached.

It is found under the question that was asked and the servers that may be asked, and under nothing else: what
a reply says besides (other names in its additional section) goes to the asker and is never looked up.
"""

from collections.abc import Hashable
from dataclasses import replace

from mesh.dns.config import (
    CACHED_NEGATIVE_TTL_MAX,
    CACHED_REPLY_MAX,
    CACHED_TTL_MAX,
    FAILURE_TTL,
    FAILURES_MAX,
    FORWARDED_BYTES_MAX,
    PREFETCH_SHARE,
    STALE_MAX_AGE,
    STALE_RECHECK,
    STALE_TTL,
)
from mesh.dns.forward.query_builder import Received
from mesh.dns.forward.reply_parser import UpstreamReply, aged

KEY_COST = 400  # bytes, about, of a key and its places in dictionaries


class Aging:
    """A forwarded reply and its age. `message` is whole, with the id it came with."""

    __slots__ = ("expires", "message", "offsets", "stored")

    def __init__(self, message: bytes, offsets: tuple[int, ...], stored: float, expires: float) -> None:
        self.message, self.offsets = message, offsets
        self.stored, self.expires = stored, expires

    @classmethod
    def of(cls, message: bytes, reply: UpstreamReply, now: float) -> "Aging | None":
        """None: not to be kept."""
        seconds = lifetime(reply)
        return cls(message, reply.ttl_offsets, now, now + seconds) if seconds > 0 else None

    def at(self, now: float) -> bytes:
        """The message as it reads now."""
        return aged(self.message, self.offsets, int(now - self.stored))


def lifetime(reply: UpstreamReply) -> int:
    """Seconds that a reply is good for, 0 for not at all (RFC 2308; RFC 2181 8; no error but NXDOMAIN is)."""
    return min(reply.ttl, CACHED_NEGATIVE_TTL_MAX if reply.negative else CACHED_TTL_MAX)


class CachedReply:
    """One reply in the cache."""

    __slots__ = ("expires", "received", "refreshing", "stored")

    def __init__(self, received: Received, stored: float, expires: float) -> None:
        self.received, self.stored, self.expires = received, stored, expires
        self.refreshing = False  # it is being asked for again, so nobody else need see to it

    def fresh(self, now: float) -> bool:
        return now < self.expires

    def due(self, now: float) -> bool:
        """In the last part of its life, and nobody asks for it yet?"""
        return not self.refreshing and now >= self.expires - PREFETCH_SHARE * (self.expires - self.stored)

    def at(self, now: float) -> Received:
        """The reply as it reads now."""
        seconds = int(now - self.stored)
        if seconds <= 0:
            return self.received
        message = aged(self.received.message, self.received.reply.ttl_offsets, seconds)
        return replace(self.received, message=message)

    def stale(self) -> Received:
        """The reply as a stale one (RFC 8767 4)."""
        message = bytearray(self.received.message)
        for at in self.received.reply.ttl_offsets:
            message[at : at + 4] = STALE_TTL.to_bytes(4)
        return replace(self.received, message=bytes(message))


class UpstreamCache:
    """Replies of upstreams by (servers asked, what was asked), and what they have failed to answer."""

    def __init__(self, capacity: int, bytes_max: int = FORWARDED_BYTES_MAX) -> None:
        self._capacity, self._bytes_max = capacity, bytes_max
        self._kept: dict[Hashable, CachedReply] = {}  # the one used longest ago comes first
        self._failed: dict[Hashable, float] = {}  # until when nobody asks again
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: Hashable, now: float) -> CachedReply | None:
        """Fresh or stale; None when there is neither."""
        found = self._kept.pop(key, None)
        if found is None:
            return None
        if now >= found.expires + STALE_MAX_AGE:
            self.bytes -= _cost(found)
            return None
        self._kept[key] = found
        return found

    def put(self, key: Hashable, received: Received, now: float) -> CachedReply | None:
        """None: not to be kept. The same reply again is what is kept already."""
        found = self._kept.get(key)
        if found is not None and found.received is received:
            return found
        self._failed.pop(key, None)
        seconds = lifetime(received.reply)
        if not received.reply.truncated:
            self._drop(key)  # whatever comes next: it is no longer what upstreams say
        if seconds <= 0 or len(received.message) > CACHED_REPLY_MAX or self._capacity <= 0:
            return None
        made = self._kept[key] = CachedReply(received, now, now + seconds)
        self.bytes += _cost(made)
        while len(self._kept) > self._capacity or self.bytes > self._bytes_max:
            self._drop(next(iter(self._kept)))
        return self._kept.get(key)

    def _drop(self, key: Hashable) -> None:
        found = self._kept.pop(key, None)
        if found is not None:
            self.bytes -= _cost(found)

    # --- failures -------------------------------------------------------------------------------------------

    def failed(self, key: Hashable, now: float) -> None:
        """All servers have failed to answer it."""
        found = self._kept.get(key)
        if found is not None:
            found.refreshing = False
        self._failed.pop(key, None)
        if len(self._failed) >= FAILURES_MAX:
            del self._failed[next(iter(self._failed))]
        self._failed[key] = now + (FAILURE_TTL if found is None else STALE_RECHECK)

    def has_just_failed(self, key: Hashable, now: float) -> bool:
        until = self._failed.get(key)
        if until is not None and now >= until:
            del self._failed[key]
            return False
        return until is not None


def _cost(kept: CachedReply) -> int:
    return KEY_COST + kept.received.cost
