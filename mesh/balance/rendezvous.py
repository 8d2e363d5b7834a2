"""Source hash: a client keeps its endpoint, and when one goes only its own clients move. Pure.

Rendezvous hashing: of all endpoints the one that scores highest with the client takes it. Scoring each of
them for every connection would cost a microsecond per endpoint, so clients are gathered in slots and a
slot's winner is remembered until the endpoints change.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

from mesh.balance.policies import Endpoint

SLOTS = 16_384  # with 1,000 endpoints each has about 16; bounds what is remembered


@dataclass(slots=True)
class Rendezvous:
    """The winners among `endpoints`."""

    endpoints: Sequence[Endpoint]
    _winners: dict[int, Endpoint] = field(default_factory=dict)

    def choose(self, source: str, among: Sequence[Endpoint]) -> Endpoint:
        """The source's endpoint; where that is not `among` those to choose from, the best of them."""
        slot = slot_of(source)
        winner = self._winners.get(slot)
        if winner is None:
            winner = self._winners[slot] = best(slot, self.endpoints)
        if among is self.endpoints or winner in among:
            return winner
        return best(slot, among)


def slot_of(source: str) -> int:
    return int.from_bytes(blake2b(source.encode(), digest_size=4).digest()) % SLOTS


def best(slot: int, endpoints: Sequence[Endpoint]) -> Endpoint:
    """The highest score. The endpoint's task has no part in it: all nodes agree, whatever they call it."""
    prefix = blake2b(slot.to_bytes(4), digest_size=8)

    def score(endpoint: Endpoint) -> bytes:
        hashed = prefix.copy()
        hashed.update(str(endpoint).encode())
        return hashed.digest()

    return max(endpoints, key=score)
