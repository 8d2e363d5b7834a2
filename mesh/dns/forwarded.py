"""Upstreams' replies, kept once for all scopes that ask the same servers, whatever the spelling of the name.

A reply is kept as it came, with the time; `Aging.at` says how it reads now. First in, first out, bounded.
"""

from collections.abc import Hashable

from mesh.dns.config import CACHED_NEGATIVE_TTL_MAX, CACHED_REPLY_MAX, CACHED_TTL_MAX
from mesh.dns.wire import Rcode, Reply, aged


class Aging:
    """A forwarded reply and its age. `message` is whole, with the id it came with."""

    __slots__ = ("expires", "message", "offsets", "stored")

    def __init__(self, message: bytes, offsets: tuple[int, ...], stored: float, expires: float) -> None:
        self.message, self.offsets = message, offsets
        self.stored, self.expires = stored, expires

    @classmethod
    def of(cls, message: bytes, reply: Reply, now: float) -> "Aging | None":
        """None: not to be kept (RFC 2308, RFC 2181 8; no error but NXDOMAIN is)."""
        negative = reply.rcode == Rcode.NXDOMAIN or message[6:8] == b"\0\0"
        ttl = min(reply.ttl, CACHED_NEGATIVE_TTL_MAX if negative else CACHED_TTL_MAX)
        if ttl <= 0 or len(message) > CACHED_REPLY_MAX:
            return None
        return cls(message, reply.ttl_offsets, now, now + ttl)

    def at(self, now: float) -> bytes:
        """The message as it reads now."""
        return aged(self.message, self.offsets, int(now - self.stored))

    def spelled(self, message: bytes) -> "Aging":
        """The same age for the same reply in another spelling."""
        return Aging(message, self.offsets, self.stored, self.expires)


class Forwarded:
    """Replies of upstreams by (servers asked, transport, question in lower case and all that follows it)."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._kept: dict[Hashable, Aging] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: Hashable, now: float) -> Aging | None:
        found = self._kept.get(key)
        if found is not None and now >= found.expires:
            del self._kept[key]
            return None
        return found

    def put(self, key: Hashable, aging: Aging) -> None:
        if self._capacity <= 0:
            return
        self._kept.pop(key, None)
        if len(self._kept) >= self._capacity:
            del self._kept[next(iter(self._kept))]
        self._kept[key] = aging
