"""Who gets a place among the TLS handshakes under way, and who gives way for it. Pure.

A client that opens connections and says nothing takes places that others need. Each address has a share of
them (IPv6: each /64). A newcomer of an address that has its share takes the place of that address's oldest
silent one. When all places are taken, the oldest silent one of whoever has the most gives way, or the oldest
silent one of all, or, where none is silent, one that has been at it for longest.
"""

from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

from mesh.http import limits
from mesh.net.limits.fair_shares import FairShares, share_key

Handshake = TypeVar("Handshake", bound=Hashable)


class HandshakePlaces(Generic[Handshake]):
    """Each is silent at first, and `heard` when something has come from the client."""

    def __init__(
        self, places: int = limits.HANDSHAKES_MAX, per_address: int = limits.HANDSHAKES_PER_ADDRESS
    ) -> None:
        self._places, self._per_address = places, per_address
        self._silent: FairShares[str, Handshake] = FairShares(places, per_address)
        self._heard: FairShares[str, Handshake] = FairShares(places, per_address)

    def __len__(self) -> int:
        return len(self._silent) + len(self._heard)

    def __iter__(self) -> Iterator[Handshake]:
        yield from self._silent
        yield from self._heard

    def room_for(self, address: str, *, shared: bool = False) -> tuple[bool, Handshake | None]:
        """Whether one of this address may begin, and who has to give way for it. `shared`: a trusted proxy's
        address is many clients', so it has no share of its own."""
        key = share_key(address)
        own = self._silent.count(key) + self._heard.count(key)
        if not shared and own >= self._per_address:
            oldest = self._silent.oldest_of(key)
            return oldest is not None, oldest
        if len(self) < self._places:
            return True, None
        for among in (self._silent, self._heard):
            giving_way = among.to_give_way(key)
            if giving_way is None:
                giving_way = among.oldest()
            if giving_way is not None:
                return True, giving_way
        return False, None

    def add(self, address: str, handshake: Handshake, *, heard: bool = False) -> None:
        (self._heard if heard else self._silent).add(share_key(address), handshake)

    def heard(self, address: str, handshake: Handshake) -> None:
        """Something has come from it."""
        if self._silent.remove(handshake):
            self._heard.add(share_key(address), handshake)

    def remove(self, handshake: Handshake) -> None:
        if not self._silent.remove(handshake):
            self._heard.remove(handshake)
