"""How many bytes of requests and responses under way may be held in memory, and for whom. Pure.

Three limits, the nearest first: of one connection, of one client's address (IPv6: its /64), of the process.
What is counted is what grows with what clients send or do not take: heads, bodies that the other side does
not take yet or that may have to be sent once more, responses that a client does not read.

A connection counts its own bytes; only in lumps does it ask the address and the process, and not at all for
the first few KiB: a usual request costs one addition and one comparison.
"""

from enum import Enum

from mesh.http.faults import HttpFault, RequestRefused
from mesh.net.limits.fair_shares import share_key
from mesh.net.limits.per_client_limit import Addresses

# Of each connection that nobody counts: a head, a small body. Connections have limits of their own.
FREE_BYTES = 4 * 1024
LUMP_BYTES = 16 * 1024  # a connection asks for so much more at a time, and gives so much back

# All streams of an HTTP/2 connection at their windows (8 MiB and GROWTH), so that no honest client meets it.
CONNECTION_BYTES = 12 * 1024 * 1024
# 300 downloads of one address that nobody reads, of 64 KiB each; with it a sidecar stays under 200 MB.
ADDRESS_BYTES = 24 * 1024 * 1024
# 3,000 of all addresses: the memory that a node should be able to spare for its edge.
PROCESS_BYTES = 192 * 1024 * 1024
# The last quarter of that is for addresses that hold little, so that a few large ones cannot keep all out.
RESERVED = 4
LITTLE_BYTES = 1024 * 1024

# What a request takes besides its bytes: the objects of both sides and of their timers.
REQUEST_BYTES = 8 * 1024
SLOW_BODIES = 64  # of one address, of unknown length, that come slower than `least_rate` asks for
HEAD_COPIES = 3  # of a head while its request is under way: as it came, in lower case, as it goes on


class Over(Enum):
    """Whose limit would be passed."""

    CONNECTION = "connection"
    ADDRESS = "address"
    PROCESS = "process"

    @property
    def refused(self) -> RequestRefused:
        """What the client is told."""
        fault = HttpFault.FULL if self is Over.PROCESS else HttpFault.OVER_SHARE
        return RequestRefused(fault, f"too many bytes are held for its {self.value}")


class _ByteShare:
    """Of one address, whatever connections it has."""

    __slots__ = ("held", "key")

    def __init__(self, key: str) -> None:
        self.key = key
        self.held = 0


class ByteAccount:
    """Of one connection. `close` it at its end: what it held is given back."""

    __slots__ = ("_address", "_budget", "_closed", "_granted", "_share", "_slow", "held", "limited")

    def __init__(self, budget: "ByteBudget", address: str, limited: bool) -> None:
        self._budget = budget
        self._address = address
        self._granted = FREE_BYTES
        self._share: _ByteShare | None = None
        self._closed = False
        self._slow = 0
        self.held = 0
        self.limited = limited  # by the address's share; proxies that speak for others are not

    def take(self, size: int) -> Over | None:
        """Hold so much more. With an answer nothing was counted, and it must not be held."""
        held = self.held + size
        if held > self._granted and not self._closed:
            over = self._grow(held)
            if over is not None:
                return over
        self.held = held
        return None

    def give_back(self, size: int) -> None:
        self.held -= size
        if self._granted - self.held > 2 * LUMP_BYTES and self.held < self._granted // 2:
            self._shrink(self.held)

    def begin_slow(self) -> bool:
        """May one more of its bodies be slow? `end_slow` when it is over."""
        may = not self._closed and (not self.limited or self._budget.slow.enter(self._address))
        self._slow += may
        return may

    def end_slow(self) -> None:
        if self._slow:
            self._slow -= 1
            if self.limited:
                self._budget.slow.leave(self._address)

    def close(self) -> None:
        while self._slow:
            self.end_slow()
        if not self._closed:
            self._closed = True
            self._shrink(-LUMP_BYTES)

    def _grow(self, held: int) -> Over | None:
        if held > CONNECTION_BYTES:
            return Over.CONNECTION
        lumps = -(-(held - self._granted) // LUMP_BYTES)
        share = self._share or self._budget.share(self._address)
        # Who holds much moves much: it asks for a fourth of that at once, where there is so much.
        more = min(max(lumps * LUMP_BYTES, self._granted // 4), CONNECTION_BYTES - self._granted)
        over = self._budget.grant(share, more, self.limited)
        if over is not None and more > lumps * LUMP_BYTES:
            more = lumps * LUMP_BYTES
            over = self._budget.grant(share, more, self.limited)
        if over is None:
            self._share = share
            self._granted += more
        return over

    def _shrink(self, held: int) -> None:
        """To what holds so much, and a lump more."""
        if self._share is None:
            return
        lumps = max(0, -(-(held - FREE_BYTES) // LUMP_BYTES) + 1) if held > -LUMP_BYTES else 0
        less = self._granted - FREE_BYTES - lumps * LUMP_BYTES
        if less > 0:
            self._granted -= less
            self._budget.return_(self._share, less)
        if self._granted == FREE_BYTES:
            self._share = None


class HeldBytes:
    """Bytes of one kind that a connection holds: whoever holds them says how many there are now."""

    __slots__ = ("_account", "size")

    def __init__(self, account: ByteAccount) -> None:
        self._account = account
        self.size = 0

    def set(self, size: int) -> Over | None:
        """As `take`, when there are more now."""
        more = size - self.size
        if more <= 0:
            self._account.give_back(-more)
        elif (over := self._account.take(more)) is not None:
            return over
        self.size = size
        return None


class ByteBudget:
    """Of one process."""

    def __init__(self, most: int = PROCESS_BYTES, per_address: int = ADDRESS_BYTES) -> None:
        self._most = most
        self._per_address = per_address
        self.slow = Addresses(SLOW_BODIES)
        self._shares: dict[str, _ByteShare] = {}  # of addresses that hold anything
        self.held = 0

    def account(self, address: str, *, limited: bool = True) -> ByteAccount:
        """For a new connection of this address."""
        return ByteAccount(self, address, limited)

    def __len__(self) -> int:
        """Addresses that hold anything."""
        return len(self._shares)

    # --- what accounts ask ---

    def share(self, address: str) -> _ByteShare:
        key = share_key(address)
        return self._shares.get(key) or _ByteShare(key)

    def grant(self, share: _ByteShare, more: int, limited: bool) -> Over | None:
        held, total = share.held + more, self.held + more
        if limited and held > self._per_address:
            return Over.ADDRESS
        if total > self._most or (held > LITTLE_BYTES and total > self._most - self._most // RESERVED):
            return Over.PROCESS
        share.held, self.held = held, total
        self._shares[share.key] = share
        return None

    def return_(self, share: _ByteShare, less: int) -> None:
        share.held -= less
        self.held -= less
        if not share.held:
            self._shares.pop(share.key, None)
