"""Where a service's tasks can be reached from on this node: which of its networks, and its sockets there.

A network is there on a node when something of it is: the load balancer's namespace that Docker makes for it,
or a container. The sidecar joins no network: it opens its sockets in one of these. The ingress network is on
every node, but leads only to ports that are published. What is not there at all is reached through another
node's sidecar (`mesh.peers.tunnel`).
"""

import socket
from collections.abc import Callable, Container, Sequence
from pathlib import Path
from typing import Protocol

from mesh.balance.policies import Endpoint
from mesh.catalog.model import Network, PublishMode, Service
from mesh.catalog.snapshot import Snapshot
from mesh.errors import NamespaceGone
from mesh.http.config.internal_targets import InternalTargets, TargetRefused, why_internal
from mesh.http.config.model import HttpService
from mesh.net.socket_pool import Sockets

LB_PREFIX, LB_ID = "lb_", 9  # Docker names that namespace by the first characters of the network's id

Connect = Callable[[], socket.socket]


class NetworkReach(Protocol):
    """Where sockets come from."""

    def here(self, network: Network, snapshot: Snapshot) -> bool:
        """Can one be made on this network?"""
        ...

    @property
    def elsewhere(self) -> bool:
        """Does another node help out where nothing of a network is here?"""
        ...

    def connect(self, network: str) -> Connect: ...
    def why_refused(self, address: str) -> str:
        """Why a task at this address is not connected to; "" if it is."""
        ...


class OwnNamespace:
    """Where nothing has a namespace of its own (the file's catalogue)."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect

    def here(self, network: Network, snapshot: Snapshot) -> bool:
        return True

    @property
    def elsewhere(self) -> bool:
        return False

    def connect(self, network: str) -> Connect:
        return self._connect

    def why_refused(self, address: str) -> str:
        return ""  # the catalogue is a file of this machine's, and so may the tasks be


class Namespaces:
    """On a node of a Swarm. `sandbox`: the path of the ingress namespace, None while there is none.
    `elsewhere`: makes sockets that lead to a network's tasks through other nodes."""

    def __init__(
        self,
        folder: str,
        sandbox: Callable[[], str | None],
        current: Callable[[], Snapshot],
        elsewhere: Callable[[str], socket.socket] | None = None,
        internal: InternalTargets | None = None,
    ) -> None:
        self._internal = internal or InternalTargets()
        self._elsewhere = elsewhere
        self._folder = Path(folder)
        self._sandbox = sandbox
        self._current = current
        self._sockets: dict[str, Sockets] = {}

    def here(self, network: Network, snapshot: Snapshot) -> bool:
        # The ingress network is on every node, if only in a moment.
        return network.ingress or self._path(network, snapshot) is not None

    def networks_here(self, snapshot: Snapshot) -> frozenset[str]:
        """Those (ids) that sockets can be made on, but for the ingress network."""
        try:
            balancers = {one.name for one in self._folder.iterdir() if one.name.startswith(LB_PREFIX)}
        except OSError:
            balancers = set()
        found = {id_ for id_ in snapshot.networks if LB_PREFIX + id_[:LB_ID] in balancers}
        for container in snapshot.containers.values():
            if container.running and container.namespace:
                found.update(one.network for one in container.attachments)
        return frozenset(id_ for id_ in found if id_ in snapshot.networks)

    @property
    def elsewhere(self) -> bool:
        return self._elsewhere is not None

    def connect(self, network: str) -> Connect:
        networks = self._current().networks
        sockets = self._sockets.get(network)
        if sockets is None:
            self._forget_gone(networks)
            sockets = self._sockets[network] = Sockets(lambda: self.path_of(network))
        known = networks.get(network)
        lead = self._elsewhere
        if lead is None or (known is not None and known.ingress):
            return sockets.take

        def take() -> socket.socket:
            try:
                return sockets.take()
            except NamespaceGone:
                return lead(network)

        return take

    def _forget_gone(self, networks: Container[str]) -> None:
        """Their sockets are closed by then, as nobody has taken one for some time, or soon will be."""
        for gone in [network for network in self._sockets if network not in networks]:
            self._sockets.pop(gone).close()

    def why_refused(self, address: str) -> str:
        """Of the namespace that we connect from, not of the node: there it is a task's like any other."""
        reason = why_internal(address, self._internal.allowed)
        return str(TargetRefused(address, reason)) if reason else ""

    def close(self) -> None:
        for sockets in self._sockets.values():
            sockets.close()
        self._sockets.clear()

    def path_of(self, network: str) -> str:
        """Of a namespace that is on it. Raises NamespaceGone."""
        snapshot = self._current()
        known = snapshot.networks.get(network)
        path = self._path(known, snapshot) if known else None
        if path is None:
            raise NamespaceGone(f"nothing of network {known.name if known else network} is on this node")
        return path

    def _path(self, network: Network, snapshot: Snapshot) -> str | None:
        if network.ingress:
            return self._sandbox()
        balancer = self._folder / (LB_PREFIX + network.id[:LB_ID])
        if balancer.exists():
            return str(balancer)
        for container in snapshot.containers.values():
            on = container.running and any(one.network == network.id for one in container.attachments)
            if on and container.namespace:
                return container.namespace
        return None


def network_for(
    http: HttpService, service: Service, snapshot: Snapshot, reach: NetworkReach
) -> tuple[Network | None, str]:
    """The network on which its tasks are reached from here; None, and why there is none."""
    networks = snapshot.networks
    member = [networks[one.network] for one in service.networks if one.network in networks]
    if http.network:
        member = [one for one in member if one.name == http.network]
        if not member:
            return None, f"it is not on network {http.network!r}"
    elif not member and (first := next(iter(service.tasks), None)):
        member = [networks[id_] for id_ in first.addresses if id_ in networks]
    ingress = snapshot.ingress_network()
    own = sorted((one for one in member if not one.ingress), key=lambda one: one.name)
    if not http.network and ingress is not None and _published(http, service) is not None:
        own.append(ingress)
    for one in own:
        if reach.here(one, snapshot):
            return one, ""
    if reach.elsewhere and own:
        return own[0], ""
    names = ", ".join(one.name for one in own)
    return None, f"this node has nothing on {names}" if names else "it is on no network"


def within_reach(endpoints: Sequence[Endpoint], reach: NetworkReach) -> tuple[tuple[Endpoint, ...], str]:
    """Those that may be connected to, and why others may not."""
    refused = {one: why for one in endpoints if (why := reach.why_refused(one.address))}
    return tuple(one for one in endpoints if one not in refused), next(iter(refused.values()), "")


def endpoints_of(
    http: HttpService, service: Service, network: Network, as_published: bool
) -> tuple[Endpoint, ...]:
    """Its serving tasks there. `as_published`: at the ingress network Docker redirects the published port."""
    port = http.port
    if network.ingress and as_published:
        port = _published(http, service) or port
    found = (
        Endpoint(task.addresses[network.id], port, task.id)
        for task in service.serving()
        if network.id in task.addresses
    )
    return tuple(sorted(found, key=lambda endpoint: (endpoint.address, endpoint.task)))


def _published(http: HttpService, service: Service) -> int | None:
    return next(
        (
            port.published
            for port in service.ports
            if port.target == http.port and port.mode is PublishMode.INGRESS and port.published
        ),
        None,
    )
