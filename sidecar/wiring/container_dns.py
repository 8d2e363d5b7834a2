"""DNS inside captured containers: an endpoint's scope follows the catalogue, and its ways lead inside.

The sidecar and each of its DNS workers have one `CapturedEndpoints`. The sidecar is handed the sockets; a
worker opens another UDP socket on the same port (`join`).
"""

import socket

from mesh.catalog.model import Container
from mesh.catalog.store import Store
from mesh.dns.forward import DnsServer
from mesh.dns.forward.forward import NO_PATHS, ContainerPaths
from mesh.dns.resolver import Resolver
from mesh.dns.scope import Scope, scope_of
from mesh.dns.udp_server import DnsEndpoint
from mesh.kernel.capture import docker_resolver
from mesh.kernel.rulesets import DOCKER_RESOLVER, DnsPorts
from mesh.net.netns import Namespace
from mesh.net.tasks import Tasks


class CapturedEndpoints:
    """Opens endpoints; whoever gets one closes it."""

    def __init__(self, resolver: Resolver, store: Store, tasks: Tasks) -> None:
        self._resolver, self._store, self._tasks = resolver, store, tasks
        self._paths: dict[str, ContainerPaths] = {}

    def open(self, container: Container, udp: socket.socket, tcp: socket.socket) -> DnsEndpoint:
        """The endpoint owns the sockets."""
        return self._open(container, udp, tcp, DnsPorts(udp.getsockname()[1], tcp.getsockname()[1]))

    def join(self, container: Container, ports: DnsPorts) -> DnsEndpoint:
        """On a UDP port that another process has opened for sharing. Raises KernelError, OSError."""
        udp = Namespace(container.namespace).udp_socket(DOCKER_RESOLVER, ports.udp, shared=True)
        return self._open(container, udp, None, ports)

    def paths(self, container: str) -> ContainerPaths:
        return self._paths.get(container, NO_PATHS)

    def _open(
        self, container: Container, udp: socket.socket, tcp: socket.socket | None, ports: DnsPorts
    ) -> DnsEndpoint:
        id_, known = container.id, self._store.current.containers
        self._paths = {other: paths for other, paths in self._paths.items() if other in known}
        self._paths[id_] = _paths(container, ports)
        endpoint = DnsEndpoint(self._resolver, udp, tcp, lambda _: self._scope(id_), self._paths[id_])
        self._tasks.start(endpoint.start(), f"dns endpoint {id_[:12]}")
        return endpoint

    def _scope(self, id_: str) -> Scope | None:
        container = self._store.current.containers.get(id_)
        return None if container is None else scope_of(container, self._store.current)


def _paths(container: Container, ours: DnsPorts) -> ContainerPaths:
    """From inside: sockets of that namespace, and Docker's own resolver past our redirect."""
    namespace = Namespace(container.namespace)

    def sockets(family: int, kind: int) -> socket.socket:
        def make() -> socket.socket:
            made = socket.socket(family, kind)
            made.setblocking(False)
            return made

        return namespace.call(make)

    docker = docker_resolver(container, ours)
    server = DnsServer(DOCKER_RESOLVER, docker.udp, docker.tcp, label="docker") if docker else None
    return ContainerPaths(sockets, server)
