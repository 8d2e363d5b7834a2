"""What is said at the beginning of a tunnel, a line each way: which task, and whether it is had. Pure."""

import re
from dataclasses import dataclass

from mesh.errors import WireError
from mesh.parsing import PORT_MAX, is_int, parse_port

VERSION = b"MESH/1"
OPEN = b"OK\r\n"
ASK_MAX = 128  # bytes of the line that asks; the longest that is understood has 101

_WANTED = re.compile(rb"MESH/1 ([0-9a-z]{1,64}) ([0-9.]{7,15}) ([0-9]{1,5})\r\n")
_REFUSED = re.compile(rb"NO ([ -~]{1,200})\r\n")


@dataclass(frozen=True, slots=True)
class TunnelRequest:
    """A task's port on a network (its id)."""

    network: str
    address: str
    port: int


def ask(wanted: TunnelRequest) -> bytes:
    return b"%b %b %b %d\r\n" % (VERSION, wanted.network.encode(), wanted.address.encode(), wanted.port)


def read_wanted(line: bytes) -> TunnelRequest:
    """Raises WireError."""
    found = _WANTED.fullmatch(line)
    if found is None or not is_int(found[3], 0, PORT_MAX):
        raise WireError("a line that asks for no task")
    return TunnelRequest(found[1].decode(), found[2].decode(), parse_port(found[3], 0))


def refuse(reason: str) -> bytes:
    """`reason`: for the other sidecar's log."""
    return b"NO %b\r\n" % reason.encode("ascii", "replace")[:200]


def read_answer(line: bytes) -> str:
    """Why not; "" when the tunnel is open. Raises WireError."""
    if line == OPEN:
        return ""
    found = _REFUSED.fullmatch(line)
    if found is None:
        raise WireError("a line that is no answer")
    return found[1].decode()
