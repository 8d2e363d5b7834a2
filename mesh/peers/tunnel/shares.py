"""How many tunnels each peer may have, and who gives way when there is no room. Pure.

A peer is a node of the Swarm, as its certificate proves. One that opens many must not keep the others out:
it has a share, and when all room is taken the peer with the most loses the tunnel that has been silent for
longest to a peer that has fewer.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

TUNNELS_MAX = 1024  # in all; each takes two descriptors and up to some 200 KB of buffers
PEER_TUNNELS_MAX = 512  # of one peer


@dataclass(slots=True, eq=False)
class Tunnel:
    """`at`: when a byte last went through, seconds. `end` closes it."""

    peer: str
    at: float
    end: Callable[[], object] = field(default=lambda: None)


class Shares:
    def __init__(self) -> None:
        self._of: dict[str, set[Tunnel]] = {}  # by peer

    def __len__(self) -> int:
        return sum(map(len, self._of.values()))

    @property
    def peers(self) -> frozenset[str]:
        return frozenset(self._of)

    def of(self, peer: str) -> frozenset[Tunnel]:
        return frozenset(self._of.get(peer, ()))

    def refusal(self, peer: str, total: int = TUNNELS_MAX, share: int = PEER_TUNNELS_MAX) -> str:
        """Why this peer gets no further one; "" when it does."""
        own = len(self._of.get(peer, ()))
        if own >= share:
            return "too many of one node"
        if len(self) < total:
            return ""
        most = max(map(len, self._of.values()), default=0)
        return "" if most > own + 1 and total else "too many"

    def giving_way(self, peer: str, total: int = TUNNELS_MAX) -> Tunnel | None:
        """The tunnel that ends so that this peer, which is not refused, gets one; None: there is room."""
        if len(self) < total:
            return None
        largest = max(self._of.values(), key=len)
        return min(largest, key=lambda one: one.at)

    def add(self, tunnel: Tunnel) -> None:
        self._of.setdefault(tunnel.peer, set()).add(tunnel)

    def remove(self, tunnel: Tunnel) -> None:
        """Safe to call twice."""
        left = self._of.get(tunnel.peer, set())
        left.discard(tunnel)
        if not left:
            self._of.pop(tunnel.peer, None)
