"""What passes between the sidecar and the processes that relay: see `port_messages`."""

from dataclasses import dataclass

from sidecar.workers.messages import Messages
from sidecar.workers.port_messages import Carry, Ended, Report, Shut


@dataclass(frozen=True, slots=True)
class Begin:
    """With it comes the process's end of the pair for sockets; none, where it makes its own."""

    log_level: str
    log_format: str


TOLD = Messages((Begin, Carry, Shut))
TELLS = Messages((Report, Ended))
