"""The pieces that carry traffic, for those who tell of them."""

from collections.abc import Callable
from dataclasses import dataclass

from mesh.discovery.prober import Prober
from mesh.dns.forward.forward import NO_PATHS, Paths
from mesh.kernel.capture import Capture
from mesh.kernel.firewall.listeners import ListenerFirewall
from mesh.kernel.ingress import Ingress
from mesh.kernel.return_paths import ReturnPaths
from mesh.net.netns import NamespaceWorker
from mesh.relay.port_reconciler import RelayPorts
from sidecar.wiring.http import HttpSide
from sidecar.workers.supervisor import Workers


def no_paths(_container: str) -> Paths:
    """Where nothing is captured there are no ways of its own."""
    return NO_PATHS


@dataclass(frozen=True, slots=True)
class Carrying:
    """What carries traffic here. Without Docker there is only the relay."""

    relay: RelayPorts
    capture: Capture | None = None
    ingress: Ingress | None = None
    worker: NamespaceWorker | None = None
    paths_of: Callable[[str], Paths] = no_paths  # container id → the ways its endpoint has of its own
    prober: Prober | None = None
    relay6: RelayPorts | None = None  # what comes over IPv6
    http: HttpSide | None = None
    return_paths: ReturnPaths | None = None
    listeners: ListenerFirewall | None = None
    processes: tuple[Workers, ...] = ()  # that meet strangers
