"""HTTP services with their endpoints, as they are reached from this node at present."""

import socket
from collections.abc import Callable, Iterator, Mapping

from mesh.balance.health_state import Result
from mesh.balance.policies import Endpoint
from mesh.catalog.model import Service
from mesh.catalog.snapshot import Snapshot
from mesh.http.config.model import HttpService
from mesh.http.runtime import HttpRuntime
from mesh.http.upstream.health_checker import Checks, off
from mesh.http.upstream.network_reach import NetworkReach, endpoints_of, network_for, within_reach
from mesh.http.upstream.routed_service import RoutedTarget


class Targets:
    def __init__(
        self, core: HttpRuntime, reach: NetworkReach, as_published: Callable[[], bool], *, checks: bool = True
    ) -> None:
        """`checks`: endpoints are asked whether they are well."""
        self._with_checks = checks
        self._core = core
        self._reach = reach
        self._as_published = as_published
        self._targets: dict[str, RoutedTarget] = {}
        self._checks: dict[str, Checks] = {}
        self._unwell: dict[str, Mapping[Endpoint, Result | None]] = {}  # who does not pass
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

    def set_endpoints(self, http: HttpService, service: Service, snapshot: Snapshot) -> str:
        """At the tasks that it has now. Returns why it cannot be reached, or ""."""
        network, why = network_for(http, service, snapshot, self._reach)
        wanted = network.id if network else ""
        target = self._targets.get(http.key)
        if target is None or target.http != http or self._networks.get(http.key) != wanted:
            self._close(http.key)
            connect = self._reach.connect(wanted) if network else no_socket
            try:
                target = self._targets[http.key] = RoutedTarget(self._core, http, connect)
            except OSError as error:
                return f"TLS to its tasks: {http.tls_ca}: {error.strerror or error}"
            self._networks[http.key] = wanted
            if self._with_checks and not off(http.check):
                self._checks[http.key] = Checks(self._core, http, connect, self._leaver(target))
        endpoints = endpoints_of(http, service, network, self._as_published()) if network else ()
        endpoints, refused = within_reach(endpoints, self._reach)
        target.update_endpoints(endpoints)
        if (checks := self._checks.get(http.key)) is not None:
            checks.update_endpoints(endpoints)
        return why or refused

    def drop(self, name: str) -> None:
        self._close(name)
        self._targets.pop(name, None)
        self._networks.pop(name, None)

    def unwell(self, name: str) -> Mapping[Endpoint, Result | None]:
        """Endpoints that do not pass their check, with what it found last; None: not asked yet."""
        return self._unwell.get(name, {})

    def close(self) -> None:
        for name in self._targets:
            self._close(name)

    def _leaver(self, target: RoutedTarget) -> Callable[[Mapping[Endpoint, Result | None]], None]:
        def leave_out(unwell: Mapping[Endpoint, Result | None]) -> None:
            self._unwell[target.http.key] = unwell
            target.backend.leave_out(unwell)

        return leave_out

    def _close(self, name: str) -> None:
        if name in self._checks:
            self._checks.pop(name).close()
            self._unwell.pop(name, None)
        if name in self._targets:
            self._targets[name].close()


def no_socket() -> socket.socket:
    raise OSError("no network of the service is on this node")
