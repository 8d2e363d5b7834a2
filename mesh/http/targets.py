"""HTTP services with their endpoints, as they are reached from this node at present."""

import socket
from collections.abc import Callable, Iterator

from mesh.catalog.model import Service
from mesh.catalog.snapshot import Snapshot
from mesh.http.core import Core
from mesh.http.model import HttpService
from mesh.http.reach import Reach, endpoints_of, network_for
from mesh.http.routed import RoutedTarget


class Targets:
    def __init__(self, core: Core, reach: Reach, as_published: Callable[[], bool]) -> None:
        self._core = core
        self._reach = reach
        self._as_published = as_published
        self._targets: dict[str, RoutedTarget] = {}
        self._networks: dict[str, str] = {}  # HTTP service → the network it is reached on

    def __contains__(self, name: str) -> bool:
        return name in self._targets

    def __iter__(self) -> Iterator[RoutedTarget]:
        return iter(self._targets.values())

    def get(self, name: str) -> RoutedTarget | None:
        return self._targets.get(name)

    def network(self, name: str) -> str:
        """Its id; "" where it cannot be reached."""
        return self._networks.get(name, "")

    def aim(self, http: HttpService, service: Service, snapshot: Snapshot) -> str:
        """At the tasks that it has now. Returns why it cannot be reached, or ""."""
        network, why = network_for(http, service, snapshot, self._reach)
        wanted = network.id if network else ""
        target = self._targets.get(http.name)
        if target is None or target.http != http or self._networks.get(http.name) != wanted:
            if target is not None:
                target.close()
            connect = self._reach.connect(wanted) if network else no_socket
            target = self._targets[http.name] = RoutedTarget(self._core, http, connect)
            self._networks[http.name] = wanted
        target.retarget(endpoints_of(http, service, network, self._as_published()) if network else ())
        return why

    def drop(self, name: str) -> None:
        if name in self._targets:
            self._targets.pop(name).close()
            self._networks.pop(name, None)

    def close(self) -> None:
        for target in self._targets.values():
            target.close()


def no_socket() -> socket.socket:
    raise OSError("no network of the service is on this node")
