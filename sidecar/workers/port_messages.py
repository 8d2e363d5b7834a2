"""What passes between the sidecar and restricted processes that carry published ports.

    sidecar ──▶ Carry and Shut, as ports open, change and close
    process ──▶ Report, every second, of ports that have something new; Ended, when a shut port is empty

A port is known by the number of its opening: one that is closed and opened again is another one. How it goes
on is a value with a version: a process is told the whole of it each time, and tells which version it goes by.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from mesh.balance.endpoint_pool import EndpointStatus
from mesh.balance.policies import Endpoint
from mesh.relay.stats import PortStats
from mesh.relay.tcp_connection import RelayOptions
from sidecar.workers.messages import Count, Number, Seconds, Text

REASONS_MAX = 64  # reasons of errors that a report has; there are about forty
ENDPOINTS_MAX = 10_000  # of one port, in a report
PORTS_MAX = 70_000  # in a report: all TCP ports there are

PortNumber = Annotated[int, Field(ge=0, le=65535)]
Counters = Annotated[Mapping[Text, Count], Field(max_length=REASONS_MAX)]


class Carriage(StrEnum):
    """What is spoken on a port."""

    TCP = "tcp"
    UDP = "udp"
    HTTP = "http"


@dataclass(frozen=True, slots=True)
class PortWay:
    """Where a port's connections go, and how."""

    endpoints: tuple[Endpoint, ...]
    near: tuple[Endpoint, ...]
    options: RelayOptions


@dataclass(frozen=True, slots=True)
class Carry:
    """A port as it is now. Its listening socket comes with the first order for it. `service`: whose it is."""

    number: int
    version: int
    carriage: Carriage
    service: str
    way: PortWay


@dataclass(frozen=True, slots=True)
class Shut:
    """Take no more connections; those there are have so many seconds."""

    number: int
    drain: float


@dataclass(frozen=True, slots=True)
class EndpointReport:
    """An endpoint that connections are open to, or that is left alone for so many seconds more."""

    address: Text
    port: PortNumber
    task: Text
    active: Count
    ejected_for: Seconds

    @classmethod
    def of(cls, seen: EndpointStatus) -> "EndpointReport":
        one = seen.endpoint
        return cls(one.address, one.port, one.task, max(0, seen.active), max(0.0, seen.ejected_for))

    @property
    def seen(self) -> EndpointStatus:
        return EndpointStatus(Endpoint(self.address, self.port, self.task), self.active, self.ejected_for)


@dataclass(frozen=True, slots=True)
class PortReport:
    """A port as one process has it: the version it goes by, what it has counted in all."""

    number: Number
    version: Number
    connections: Count
    active: Count
    received: Count
    sent: Count
    errors: Counters
    retries: Count
    endpoints: Annotated[tuple[EndpointReport, ...], Field(max_length=ENDPOINTS_MAX)]

    @classmethod
    def of(
        cls, number: int, version: int, stats: PortStats, seen: tuple[EndpointStatus, ...]
    ) -> "PortReport":
        told = tuple(EndpointReport.of(one) for one in seen if one.active or one.ejected_for)
        return cls(
            number,
            version,
            stats.connections,
            stats.active,
            stats.received,
            stats.sent,
            dict(stats.errors),
            stats.retries,
            told[:ENDPOINTS_MAX],
        )


@dataclass(frozen=True, slots=True)
class PortsReport:
    ports: Annotated[tuple[PortReport, ...], Field(max_length=PORTS_MAX)]


@dataclass(frozen=True, slots=True)
class Ended:
    last: PortReport
