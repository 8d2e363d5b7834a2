"""What is counted of a relayed port, and the names of what can go wrong with a connection."""

import errno
from collections import Counter
from dataclasses import dataclass, field

from mesh.net.limits.descriptors import OUT_OF_DESCRIPTORS
from mesh.relay.splice import IdlePipe


@dataclass(slots=True)
class PortStats:
    """Counters of one port, for metrics; they only grow, but for `active`."""

    connections: int = 0
    active: int = 0
    received: int = 0  # client → task
    sent: int = 0  # task → client
    errors: Counter[str] = field(default_factory=Counter)  # by reason, see REASONS
    retries: int = 0
    mode: str = "proxy"  # as the port's label says it

    def __add__(self, other: "PortStats") -> "PortStats":
        return PortStats(
            self.connections + other.connections,
            self.active + other.active,
            self.received + other.received,
            self.sent + other.sent,
            self.errors + other.errors,
            self.retries + other.retries,
            self.mode,
        )


REASONS = (
    "no_endpoint",
    "refused",
    "timeout",
    "unreachable",
    "reset",
    "idle",
    "fd_limit",
    "full",
    "per_address",  # the client's address has its share
    "gave_way",  # to another address, which has less
    "drained",
    "dropped",  # a datagram that would have had to wait
    "proxy_header",
    "other",
)


class Aborted(OSError):
    """Not the network's doing but ours; `reason` as counted."""

    def __init__(self, reason: str) -> None:
        super().__init__(errno.ECONNABORTED, reason)
        self.reason = reason


_REASON_OF = {
    errno.ECONNREFUSED: "refused",
    errno.ETIMEDOUT: "timeout",
    errno.EHOSTUNREACH: "unreachable",
    errno.ENETUNREACH: "unreachable",
    errno.ECONNRESET: "reset",
    errno.EPIPE: "reset",
    errno.ENOTCONN: "reset",
} | dict.fromkeys(OUT_OF_DESCRIPTORS, "fd_limit")


def reason_of(error: OSError) -> str:
    """The error as one of REASONS."""
    if isinstance(error, Aborted):
        return error.reason
    if isinstance(error, IdlePipe):
        return "idle"
    return _REASON_OF.get(error.errno or 0, "other")
