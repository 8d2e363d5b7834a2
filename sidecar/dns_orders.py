"""What passes between the sidecar and its DNS workers: orders one way, counts the other.

    sidecar ──▶ Begin, then Learn, Join, Leave …        worker ──▶ Counts, every second

Both ends are this program in this version, and the pair of sockets is theirs alone, so pickle does.
"""

import asyncio
import pickle
import struct
from dataclasses import dataclass
from typing import TypeAlias

from mesh.catalog.snapshot import Change
from mesh.dns.config import DnsConfig
from mesh.dns.stats import Counts
from mesh.kernel.rules import DnsPorts

LENGTH = struct.Struct("!I")  # before every message


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


Order: TypeAlias = Begin | Learn | Join | Leave


def packed(message: Order | Counts) -> bytes:
    """As it goes over the pair."""
    body = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    return LENGTH.pack(len(body)) + body


async def unpacked(reader: asyncio.StreamReader) -> object:
    """The next message. Raises IncompleteReadError at the end of the pair."""
    (length,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
    return pickle.loads(await reader.readexactly(length))
