"""What one HTTP/2 peer may spend on frames that achieve nothing. Pure.

Every frame costs about the same, whatever it achieves: some microseconds of an event loop that other clients
need too. A frame that achieves nothing (a ping, a body of one byte, a WINDOW_UPDATE of one byte) is paid for
from a budget. Time fills the budget again, and so does useful work: finished requests, bytes of bodies, and
DATA frames that were sent, each of which a careful peer may answer with two WINDOW_UPDATE frames.
"""

from collections.abc import Callable

BUDGET = 1000.0  # frames that achieve nothing: some ten milliseconds
PER_SECOND = 10.0  # frames that the budget gains
PER_REQUEST = 2.0  # frames: gained for a finished request, spent for one that is reset
BYTES_PER_FRAME = 4096  # so many bytes of bodies earn one frame
UPDATES_PER_FRAME = 2  # WINDOW_UPDATE frames that answer one DATA frame: of its stream, of its connection
SENT_MIN = 256  # bytes of a sent DATA frame that the peer's window cut short; a smaller one earns nothing
EARNED_MAX = 16_384.0  # frames that useful work earns at once: a peer may acknowledge many small frames late

# In HPACK one byte can stand for a field of kilobytes, which has to be checked each time. Decoded bytes of a
# head beyond DECODED_FREE, and beyond four times the bytes of its block, cost one frame per
# DECODED_PER_FRAME.
DECODED_FREE = 8 * 1024
DECODED_PER_FRAME = 2048

# gRPC puts five bytes before each message, so a useful frame with fewer is the rest of a larger message.
TINY, TINY_COST = 5, 0.25
SMALL, SMALL_COST = 32, 0.05


class FrameBudget:
    """The budget of one connection. Its owner adds to `useful_bytes` and `frames_sent`."""

    __slots__ = ("_clock", "_filled", "frames_sent", "left", "useful_bytes")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._filled = clock()
        self.left = BUDGET
        self.useful_bytes = 0  # of bodies received, since the last refill
        self.frames_sent = 0  # DATA frames, since the last refill

    def spend(self, cost: float) -> bool:
        """Takes so much. False: not so much is left."""
        self.left -= cost
        return self.left >= 0 or self._refill()

    def spend_on_head(self, coded: int, decoded: int) -> bool:
        """As `spend`, for a block of fields of so many bytes, before and after decoding."""
        beyond = decoded - DECODED_FREE - 4 * coded
        return beyond <= 0 or self.spend(beyond / DECODED_PER_FRAME)

    def gain(self, amount: float) -> None:
        self.left = min(self.left + amount, BUDGET)

    def _refill(self) -> bool:
        """Adds what time and useful work have earned. Hardly any connection ever needs it."""
        now = self._clock()
        by_time = (now - self._filled) * PER_SECOND
        earned = self.useful_bytes / BYTES_PER_FRAME + self.frames_sent * UPDATES_PER_FRAME
        self._filled = now
        self.useful_bytes = self.frames_sent = 0
        self.left += min(by_time, BUDGET) + min(earned, EARNED_MAX)
        return self.left >= 0


def cost_of_data(size: int) -> float:
    """Of a DATA frame with so many bytes of payload that does not end its stream."""
    if size >= SMALL:
        return 0.0
    if size >= TINY:
        return SMALL_COST
    return TINY_COST if size else 1.0
