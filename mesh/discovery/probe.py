"""Which ports of a local task are probed, read from its service's labels. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass

from mesh.catalog.model import Container, Network, Protocol, Service
from mesh.labels.ports import plan

TIMEOUT_SECONDS = 2.0  # of a probe, or its interval if that is shorter


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
