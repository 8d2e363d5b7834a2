"""Active probes: what is probed, and what the results mean. Pure.

A task fails after FALL failures in a row, and is well again after RISE successes: one lost packet must not
take it out, one lucky answer not put it back. A new one is not well before its first success, so that an
application without a health check of its own gets no connection before it listens.

Where all of a service's tasks fail, it has no task to offer and refuses, as HAProxy would: the label was put
there by somebody who wants no connection to go to such a task.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from mesh.catalog.model import Container, Network, Protocol, Service
from mesh.labels.ports import plan

FALL, RISE = 3, 2
TIMEOUT_SECONDS = 2.0  # of a probe, or its interval if that is shorter
WELL_STATUSES = range(200, 400)  # of an HTTP answer
OFF = "off"


@dataclass(frozen=True, slots=True)
class Probe:
    """One port of one local task. `path` "": the port has to accept a connection, no more."""

    task: str
    service: str  # id
    name: str  # of the service
    namespace: str
    address: str
    port: int
    path: str = ""
    interval: float = 5.0

    @property
    def timeout(self) -> float:
        return min(TIMEOUT_SECONDS, self.interval)


class Result(StrEnum):
    """What a probe found, as counted."""

    WELL = "well"
    REFUSED = "refused"
    TIMEOUT = "timeout"
    STATUS = "status"  # an HTTP answer that is neither success nor redirect
    BROKEN = "broken"  # no HTTP answer, or the connection broke


@dataclass(slots=True)
class Pulse:
    """What the last results of one probe come to."""

    well: bool
    new: bool = False  # has never been well: one success is enough
    row: int = 0  # results in a row that speak against `well`

    def take(self, result: Result) -> bool:
        """Returns whether `well` has changed."""
        if (result is Result.WELL) == self.well:
            self.row = 0
            return False
        self.row += 1
        if self.row < (FALL if self.well else 1 if self.new else RISE):
            return False
        self.well, self.new, self.row = not self.well, False, 0
        return True


def probes(container: Container, service: Service | None, ingress: Network | None) -> Iterator[Probe]:
    """Of a local task: one for each published port whose label asks for it."""
    if service is None or not container.task or not container.namespace or not container.running:
        return
    addresses = {one.network: one.address for one in container.attachments}
    address = addresses.get(ingress.id if ingress else "") or next(iter(addresses.values()), "")
    for one in plan(service).ports:
        if one.health == OFF or one.port.protocol is not Protocol.TCP or not address:
            continue
        path = one.health.removeprefix("http:") if one.health.startswith("http:") else ""
        yield Probe(
            container.task,
            service.id,
            service.name,
            container.namespace,
            address,
            one.port.target,
            path,
            one.health_interval,
        )
