"""How another node looks from here: which ports answer, which sidecar runs there, what its clock says."""

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
PEERS_MAX = 32  # looked at in one visit: each takes up to four times CONNECT_SECONDS when nothing answers
METRICS_BYTES = 4 << 20  # of its metrics that are read
_VERSION = re.compile(rb'^mesh_build_info\{version="([^"]{1,64})"\}', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Other:
    name: str
    address: str
    manager: bool = False
    down: bool = False


def first_of(others: Iterable[Other]) -> list[Other]:
    """As many as one visit looks at, managers first."""
    return sorted(others, key=lambda one: (not one.manager, one.name))[:PEERS_MAX]


def look_at(other: Other, feed: int, metrics: int) -> Peer:
    """Blocks, for a bounded time. `feed`, `metrics`: the ports of sidecars."""
    if other.down:
        return Peer(other.name, other.manager, down=True)
    version, skew = sidecar_of(other.address, metrics)
    return Peer(
        other.name,
        other.manager,
        gossip=reach(other.address, GOSSIP),
        control=reach(other.address, CONTROL) if other.manager else None,
        feed=reach(other.address, feed) if other.manager else None,
        version=version,
        skew=skew,
    )


def reach(address: str, port: int) -> str:
    """Why a TCP connection to it fails; "" when it does not."""
    try:
        socket.create_connection((address, port), timeout=CONNECT_SECONDS).close()
    except TimeoutError:
        return f"no answer from {address}:{port}"
    except OSError as error:
        return f"{address}:{port}: {error.strerror or error}"
    return ""


def sidecar_of(address: str, port: int) -> tuple[str, float | None]:
    """(its version, seconds that its clock is ahead of ours); ("", None) when none answers."""
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
    return found.group(1).decode(errors="replace"), skew_of(date, now)


def skew_of(date: str, now: float) -> float | None:
    """Of an HTTP date, which has whole seconds: less than one either way counts as none."""
    try:
        ahead = parsedate_to_datetime(date).timestamp() - now
    except ValueError:
        return None
    return 0.0 if -1.0 < ahead < 1.0 else ahead
