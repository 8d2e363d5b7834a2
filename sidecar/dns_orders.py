"""What passes between the sidecar and its DNS workers: orders one way, counts the other.

sidecar ──▶ Begin, then Learn, Join, Leave …        worker ──▶ Counts (mesh.dns.stats), every second
"""

from dataclasses import dataclass

from mesh.catalog.snapshot import Change
from mesh.dns.config import DnsConfig
from mesh.kernel.rules import DnsPorts


@dataclass(frozen=True, slots=True)
class Begin:
    """`listen`: addresses of the explicit resolver, ports as the sidecar has bound them."""

    dns: DnsConfig
    listen: tuple[tuple[str, int], ...]
    log_level: str
    log_format: str


@dataclass(frozen=True, slots=True)
class Learn:
    change: Change


@dataclass(frozen=True, slots=True)
class Join:
    """A captured container's port. The container is in the catalogue by then."""

    container: str
    ports: DnsPorts


@dataclass(frozen=True, slots=True)
class Leave:
    container: str
