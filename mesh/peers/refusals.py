"""What peers were refused: counted by reason, and the last ones by name for a while, for people. Pure."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

RECENT_MAX = 64  # peers and reasons that are remembered by name; the oldest gives way
SHOWN_SECONDS = 600.0  # after the last time: long enough to be looked at, short enough not to stay for ever


@dataclass(slots=True)
class PeerRefusal:
    """`peer`: a node's id or an address, "" when it has not said who it is."""

    peer: str
    reason: str
    count: int = 0
    at: float = 0.0  # seconds, of the caller's clock


class Refusals:
    """`counts`: by reason, for metrics."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._recent: dict[tuple[str, str], PeerRefusal] = {}  # the one that happened last is the last

    def add(self, reason: str, now: float, peer: str = "") -> bool:
        """True when it is worth a line in the log: the 1st, 10th, 100th … of its reason."""
        self.counts[reason] += 1
        if peer:
            one = self._recent.pop((peer, reason), None) or PeerRefusal(peer, reason)
            one.count, one.at = one.count + 1, now
            self._recent[peer, reason] = one
            if len(self._recent) > RECENT_MAX:
                del self._recent[next(iter(self._recent))]
        return str(self.counts[reason]).strip("0") == "1"

    def recent(self, now: float) -> Iterator[PeerRefusal]:
        """Those of the last while, by peer."""
        for key, one in sorted(self._recent.items()):
            if now - one.at < SHOWN_SECONDS:
                yield one
            else:
                del self._recent[key]
