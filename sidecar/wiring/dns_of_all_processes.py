"""A captured container's DNS in the sidecar and in all of its DNS workers: opened and closed together."""

import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from mesh.catalog.model import Container
from mesh.kernel.capture import Closable, OpenEndpoint
from mesh.kernel.rulesets import DnsPorts
from sidecar.wiring.container_dns import CapturedEndpoints
from sidecar.workers.dns_supervisor import DnsWorkers


def open_everywhere(endpoints: CapturedEndpoints, workers: DnsWorkers) -> OpenEndpoint:
    """A captured container's endpoint here and in every worker."""

    def open_(container: Container, udp: socket.socket, tcp: socket.socket) -> Closable:
        here = endpoints.open(container, udp, tcp)
        workers.join(container, DnsPorts(udp.getsockname()[1], tcp.getsockname()[1]))
        return _EndpointEverywhere(here, partial(workers.leave, container.id))

    return open_


@dataclass(frozen=True, slots=True)
class _EndpointEverywhere:
    here: Closable
    elsewhere: Callable[[], None]

    def close(self) -> None:
        self.elsewhere()
        self.here.close()
