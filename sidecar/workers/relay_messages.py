"""What passes between the sidecar and the processes that relay: see `port_messages`."""

from dataclasses import dataclass

from sidecar.workers.messages import Messages
from sidecar.workers.port_messages import Carry, Ended, PortsReport, Shut


@dataclass(frozen=True, slots=True)
class BeginRelay:
    """With it comes the process's end of the pair for sockets; none, where it makes its own."""

    log_level: str
    log_format: str


TOLD = Messages((BeginRelay, Carry, Shut))
TELLS = Messages((PortsReport, Ended))
