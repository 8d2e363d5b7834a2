"""Limits the TLS handshakes under way: which new one is admitted, and which one is evicted for it. Pure.

A client that opens connections and sends nothing takes places that others need. Each address (IPv6: each /64)
may have a share of the places. A new handshake of an address that has its share evicts that address's oldest
silent one. When all places are taken, the oldest silent one of the address with the most is evicted, or the
oldest silent one of all, or, if none is silent, the oldest of the others in the same way.
"""

from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

from mesh.http import limits
from mesh.net.limits.fair_shares import FairShares, share_key

Handshake = TypeVar("Handshake", bound=Hashable)


class HandshakePlaces(Generic[Handshake]):
    """A handshake is silent until `mark_active`: something has come from its client."""

    def __init__(
        self, places: int = limits.HANDSHAKES_MAX, per_address: int = limits.HANDSHAKES_PER_ADDRESS
    ) -> None:
        self._places, self._per_address = places, per_address
        self._silent: FairShares[str, Handshake] = FairShares(places, per_address)
        self._active: FairShares[str, Handshake] = FairShares(places, per_address)

    def __len__(self) -> int:
        return len(self._silent) + len(self._active)

    def __iter__(self) -> Iterator[Handshake]:
        yield from self._silent
        yield from self._active

    def admit(self, address: str, *, shared: bool = False) -> tuple[bool, Handshake | None]:
        """(a handshake of this address may begin, the one to abort for it). `shared`: a trusted proxy's
        address stands for many clients, so no share limits it."""
        key = share_key(address)
        own = self._silent.count(key) + self._active.count(key)
        if not shared and own >= self._per_address:
            oldest = self._silent.oldest_of(key)
            return oldest is not None, oldest
        if len(self) < self._places:
            return True, None
        for among in (self._silent, self._active):
            evicted = among.to_give_way(key)
            if evicted is None:
                evicted = among.oldest()
            if evicted is not None:
                return True, evicted
        return False, None

    def add(self, address: str, handshake: Handshake, *, active: bool = False) -> None:
        (self._active if active else self._silent).add(share_key(address), handshake)

    def mark_active(self, address: str, handshake: Handshake) -> None:
        """Something has come from it."""
        if self._silent.remove(handshake):
            self._active.add(share_key(address), handshake)

    def remove(self, handshake: Handshake) -> None:
        if not self._silent.remove(handshake):
            self._active.remove(handshake)
