"""Policies as the kernel can follow them: a row of slots, and how a new flow draws one. Pure.

The kernel takes the next slot in turn, a random one, or the one that the client's address hashes to; each
slot names a task. By turn and at random every task has one slot. By hash there are many slots, each given to
the task that scores highest in it (rendezvous hashing): when a task goes only its own slots are given away,
and a new one takes its share from all the others, so that few clients move.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from hashlib import shake_128

from mesh.balance.policies import Policy

HASH_SLOTS = 1024  # with 100 tasks each has about 10, so shares differ by a third at most places
SCORES_KEPT = 4096  # tasks whose scores are remembered: 4 KiB each


class SlotDraw(StrEnum):
    """How a new flow gets its slot."""

    TURN = "turn"
    RANDOM = "random"
    HASH = "hash"  # of the client's address; on all nodes the same


@dataclass(frozen=True, slots=True)
class Choice:
    """Where new flows go. No slots: nowhere."""

    slots: tuple[str, ...] = ()  # addresses
    draw: SlotDraw = SlotDraw.TURN

    @property
    def addresses(self) -> frozenset[str]:
        return frozenset(self.slots)


NOBODY = Choice()
DRAWS = {Policy.RANDOM: SlotDraw.RANDOM, Policy.SOURCE_HASH: SlotDraw.HASH}


def choice(policy: Policy, addresses: Sequence[str]) -> Choice:
    """Of the addresses, in their order. Policies that count connections the kernel cannot follow: in turn."""
    draw = DRAWS.get(policy, SlotDraw.TURN)
    if draw is SlotDraw.HASH and len(addresses) > 1:
        return Choice(_hashed(addresses), draw)
    return Choice(tuple(addresses), draw)


def nearest(addresses: Sequence[str], here: Collection[str]) -> Sequence[str]:
    """Those that are `here`, on this node; all of them when none is."""
    return [address for address in addresses if address in here] or addresses


def _hashed(addresses: Sequence[str]) -> tuple[str, ...]:
    rows = [_scores(address) for address in addresses]
    best = (max(range(len(rows)), key=column.__getitem__) for column in zip(*rows, strict=True))
    return tuple(addresses[index] for index in best)


@lru_cache(maxsize=SCORES_KEPT)
def _scores(address: str) -> memoryview:
    """A number for each slot, the same on all nodes of one byte order."""
    return memoryview(shake_128(address.encode()).digest(4 * HASH_SLOTS)).cast("I")
