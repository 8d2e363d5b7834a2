"""The pieces that carry traffic, for those who tell of them."""

from collections.abc import Callable
from dataclasses import dataclass

from mesh.discovery.prober import Prober
from mesh.dns.forward.forward import NO_PATHS, ContainerPaths
from mesh.kernel.capture import ContainerCapture
from mesh.kernel.firewall.listeners import ListenerFirewall
from mesh.kernel.ingress import IngressRules
from mesh.kernel.return_paths import ReturnPathRules
from mesh.net.netns import NamespaceWorker
from mesh.relay.port_reconciler import RelayPorts
from sidecar.wiring.http import HttpEdge
from sidecar.workers.supervisor import Workers


def no_paths(_container: str) -> ContainerPaths:
    """Where nothing is captured there are no ways of its own."""
    return NO_PATHS


@dataclass(frozen=True, slots=True)
class DataPlane:
    """What carries traffic here. Without Docker there is only the relay."""

    relay: RelayPorts
    capture: ContainerCapture | None = None
    ingress: IngressRules | None = None
    worker: NamespaceWorker | None = None
    paths_of: Callable[[str], ContainerPaths] = (
        no_paths  # container id → the ways its endpoint has of its own
    )
    prober: Prober | None = None
    relay6: RelayPorts | None = None  # what comes over IPv6
    http: HttpEdge | None = None
    return_paths: ReturnPathRules | None = None
    listeners: ListenerFirewall | None = None
    processes: tuple[Workers, ...] = ()  # that meet strangers
