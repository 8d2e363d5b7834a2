"""What one HTTP/2 peer may spend on frames that achieve nothing. Pure.

A frame costs us about the same whatever it brings: some microseconds of the loop that also answers DNS. One
that brings nothing (a ping, a byte of a body, a window opened a bit further) is paid for from a budget. Time
fills the budget up again, and so does useful work: finished requests, bytes of bodies, and DATA frames that
we send, each of which a careful client may answer with two WINDOW_UPDATE frames.
"""

from collections.abc import Callable

BUDGET = 1000.0  # frames that achieve nothing: some ten milliseconds of our time
PER_SECOND = 10.0
PER_REQUEST = 2.0  # gained with each that is finished; and the cost of one that is reset
BYTES_PER_FRAME = 4096  # so many bytes of bodies make up for one frame
UPDATES_PER_FRAME = 2  # WINDOW_UPDATE frames that answer one DATA frame: of its stream, of its connection
SENT_MIN = (
    256  # bytes of a DATA frame that we send which the peer's window cut short: with fewer it earns nothing
)
EARNED_MAX = (
    16_384.0  # what useful work can fill up at once: a peer may answer late for a window of small frames
)

# A byte can stand for a field of kilobytes (HPACK), which has to be looked at each time. A head costs a frame
# for each so many of its bytes beyond what is free; bytes of the block itself pay for four times as many.
DECODED_FREE = 8 * 1024
DECODED_PER_FRAME = 2048

# gRPC puts five bytes before each message, so an honest frame of fewer is the rest of a larger one.
TINY, TINY_COST = 5, 0.25
SMALL, SMALL_COST = 32, 0.05


class FrameBudget:
    """`useful_bytes` and `frames_sent` are counted by whoever reads and writes frames: plain additions."""

    __slots__ = ("_clock", "_filled", "frames_sent", "left", "useful_bytes")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._filled = clock()
        self.left = BUDGET
        self.useful_bytes = 0  # of bodies that came, since this was last looked at
        self.frames_sent = 0  # DATA frames that we sent, since this was last looked at

    def spend(self, cost: float) -> bool:
        """False: there is not so much left."""
        self.left -= cost
        return self.left >= 0 or self._refill()

    def spend_on_head(self, coded: int, decoded: int) -> bool:
        """Of a block of fields. As `spend`."""
        beyond = decoded - DECODED_FREE - 4 * coded
        return beyond <= 0 or self.spend(beyond / DECODED_PER_FRAME)

    def gain(self, amount: float) -> None:
        self.left = min(self.left + amount, BUDGET)

    def _refill(self) -> bool:
        """Only now look at what the peer has earned: nearly all connections never come here."""
        now = self._clock()
        by_time = (now - self._filled) * PER_SECOND
        earned = self.useful_bytes / BYTES_PER_FRAME + self.frames_sent * UPDATES_PER_FRAME
        self._filled = now
        self.useful_bytes = self.frames_sent = 0
        self.left += min(by_time, BUDGET) + min(earned, EARNED_MAX)
        return self.left >= 0


def cost_of_data(size: int) -> float:
    """Of a DATA frame with so many bytes that does not end its stream."""
    if size >= SMALL:
        return 0.0
    if size >= TINY:
        return SMALL_COST
    return TINY_COST if size else 1.0
