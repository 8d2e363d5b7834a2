"""Checks of other nodes for `mesh doctor`: which ports answer, which version of the sidecar runs there, and
how far its clock is ahead."""

import http.client
import re
import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from mesh.telemetry.doctor_cluster import Peer

GOSSIP, CONTROL = 7946, 2377
CONNECT_SECONDS = 2.0
PEERS_MAX = 32  # in one run: a node that does not answer takes up to four times CONNECT_SECONDS
METRICS_BYTES = 4 << 20  # of /metrics that are read
_VERSION = re.compile(rb'^mesh_build_info\{version="([^"]{1,64})"\}', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class OtherNode:
    """A node to check. `down`: Swarm says so, and nothing is asked of it."""

    name: str
    address: str
    manager: bool = False
    down: bool = False


def nodes_to_check(others: Iterable[OtherNode]) -> list[OtherNode]:
    """The first PEERS_MAX nodes, managers first."""
    return sorted(others, key=lambda one: (not one.manager, one.name))[:PEERS_MAX]


def check_node(other: OtherNode, feed: int, metrics: int) -> Peer:
    """Asks a node's ports; blocks for a bounded time. `feed` and `metrics` are its sidecar's ports."""
    if other.down:
        return Peer(other.name, other.manager, down=True)
    version, skew = sidecar_version(other.address, metrics)
    return Peer(
        other.name,
        other.manager,
        gossip=connect_fault(other.address, GOSSIP),
        control=connect_fault(other.address, CONTROL) if other.manager else None,
        feed=connect_fault(other.address, feed) if other.manager else None,
        version=version,
        skew=skew,
    )


def connect_fault(address: str, port: int) -> str:
    """Says why a TCP connection fails; "" if it can be made."""
    try:
        socket.create_connection((address, port), timeout=CONNECT_SECONDS).close()
    except TimeoutError:
        return f"no answer from {address}:{port}"
    except OSError as error:
        return f"{address}:{port}: {error.strerror or error}"
    return ""


def sidecar_version(address: str, port: int) -> tuple[str, float | None]:
    """Reads (version of the sidecar, seconds that its clock is ahead of ours); ("", None) if none answers."""
    connection = http.client.HTTPConnection(address, port, timeout=CONNECT_SECONDS)
    try:
        connection.request("GET", "/metrics")
        response = connection.getresponse()
        now, date = time.time(), response.getheader("Date", "")
        found = _VERSION.search(response.read(METRICS_BYTES))
    except (OSError, http.client.HTTPException):
        return "", None
    finally:
        connection.close()
    if found is None:
        return "", None
    return found.group(1).decode(errors="replace"), clock_skew(date, now)


def clock_skew(date: str, now: float) -> float | None:
    """Seconds that an HTTP date is ahead of `now`; None if it is no date.

    Dates have whole seconds, so less than one second either way counts as 0.
    """
    try:
        ahead = parsedate_to_datetime(date).timestamp() - now
    except ValueError:
        return None
    return 0.0 if -1.0 < ahead < 1.0 else ahead
