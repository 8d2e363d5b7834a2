"""What people are told of the HTTP side: listeners, problems, routes, and what would become of a request."""

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from mesh.catalog.snapshot import Snapshot
from mesh.errors import Problem
from mesh.http.codec.path_check import check_path, normal_path
from mesh.http.config.matchers import routing_path
from mesh.http.faults import RequestRefused
from mesh.http.routing.request_view import SyntheticRequest
from mesh.http.routing.router import RequestRouter
from mesh.labels.ports import plan
from sidecar import status_model
from sidecar.wiring.http_metrics import HttpCounts

if TYPE_CHECKING:
    from sidecar.wiring.http import HttpEdge


class HttpTelling:
    def __init__(self, side: "HttpEdge", counts: HttpCounts) -> None:
        self._side = side
        self._counts = counts

    def listeners(self) -> Iterator[status_model.ListenerView]:
        for one in self._side.entries.status() if self._side.entries else ():
            yield status_model.ListenerView(f"http {one.name}", one.address, one.fault)
        if (server := self._side.tunnel_server) is not None:
            at = self._side.config.tunnel
            yield status_model.ListenerView("tunnels", f"{at.host}:{at.port}", server.fault)

    def problems(self, snapshot: Snapshot) -> Iterator[Problem]:
        if self._side.site is None or self._side.entries is None:
            return
        yield from self._side.site.problems()
        yield from self._unwell(self._side.site, snapshot)
        if self._side.tunnel_server is not None:
            yield from self._side.tunnel_server.problems()
        if self._side.passing is not None:
            yield from self._side.passing.problems()
        yield from self._without_authority(self._side.site, snapshot)
        if self._side.issuing is not None:
            yield from self._side.issuing.problems()
        if self._side.certificates is not None:
            yield from self._side.certificates.problems()
            if not self._side.certificates.any:
                yield Problem(self._side.config.certificates, "", "no certificate: no TLS handshake succeeds")
        if not self._side.config.trusted:
            yield from self._nobody_trusted(self._side.site, snapshot)
        ours = self._side.entries.ports
        for service in snapshot.services.values():
            for one in plan(service).ports:
                if one.port.published in ours:
                    message = "is an entry point of ours as well; who connects from outside gets this service"
                    yield Problem(service.name, f"port {one.key}", message)

    def _unwell(self, site: RequestRouter, snapshot: Snapshot) -> Iterator[Problem]:
        """As the processes that serve have found. One that serves itself tells of it through `site`."""
        for target in site.targets() if self._side.workers is not None else ():
            owner = snapshot.services.get(target.http.owner)
            for one in self._counts.endpoints(target):
                if one.unwell:
                    message = f"task at {one.address} does not pass its check ({one.unwell})"
                    yield Problem(owner.name if owner else "", target.http.name, message)

    def _without_authority(self, site: RequestRouter, snapshot: Snapshot) -> Iterator[Problem]:
        for route, _, _ in site.routes():
            owner = snapshot.services.get(route.owner)
            if owner is not None and route.certificates and self._side.issuing is None:
                message = "no authority is set (http.acme.directory): the certificate has to be a file"
                yield Problem(owner.name, f"traefik.http.routers.{route.name}.tls.certresolver", message)

    def _nobody_trusted(self, site: RequestRouter, snapshot: Snapshot) -> Iterator[Problem]:
        for route, _, _ in site.routes():
            owner = snapshot.services.get(route.owner)
            if owner is not None and any(one.uses_forwarded_address for one in route.middlewares):
                message = "goes by addresses in X-Forwarded-For, but no proxy is trusted (http.trusted)"
                yield Problem(owner.name, f"traefik.http.routers.{route.name}.middlewares", message)

    def orders(self) -> dict[tuple[str, ...], int]:
        """(result) → certificates that were ordered."""
        return self._side.issuing.orders() if self._side.issuing is not None else {}

    def routes(self) -> Iterator[status_model.RouteView]:
        for route, entries, target in self._side.site.routes() if self._side.site else ():
            yield status_model.RouteView(
                name=route.name,
                rule=route.rule,
                entrypoints=entries,
                priority=route.priority,
                service=route.service,
                middlewares=tuple(type(one).__name__ for one in route.middlewares),
                endpoints=tuple(map(str, target.backend.servers)) if target else (),
            )
        for router, entries, relaying in self._side.passing.routers() if self._side.passing else ():
            yield status_model.RouteView(
                name=router.name,
                rule=" || ".join(f"HostSNI(`{name}`)" for name in router.names),
                entrypoints=entries,
                priority=0,
                service=router.service,
                middlewares=("TLS passed on",),
                endpoints=tuple(map(str, relaying.endpoints)) if relaying else (),
            )

    def left_out(self, service: str) -> Iterator[tuple[str, str]]:
        """Endpoints of a Swarm service (id) that get no request from this node for now, and why."""
        for target in self._side.site.targets_of(service) if self._side.site else ():
            for one in self._counts.endpoints(target):
                if one.unwell:
                    yield one.address, f"does not pass its check ({one.unwell})"
                elif one.ejected_for:
                    yield one.address, f"left out for {one.ejected_for:.0f} s more ({one.why})"

    def explain(self, host: str, path: str, method: str) -> status_model.HttpExplained:
        """What would become of such a request at each entry point. Raises LookupError with a sentence."""
        if self._side.site is None:
            raise LookupError("there is no entry point (http.entrypoints)")
        way, _, query = path.partition("?")
        request = SyntheticRequest(
            host.lower().partition(":")[0].rstrip("."), normal_path(way), method, query
        )
        at = [self._checked(self._side.site, name, request, way) for name in self._side.site.entries]
        return status_model.HttpExplained(method, request.host, request.path, tuple(at))

    def _checked(
        self, site: RequestRouter, name: str, request: SyntheticRequest, path: str
    ) -> status_model.HttpAtEntry:
        """As requests are: the path's other readings must lead to the same router."""
        try:
            normal, readings = check_path(path, site.encoded_characters(name))
        except RequestRefused as refused:
            return status_model.HttpAtEntry(name, note=f"400; {refused}")
        request = replace(request, path=routing_path(normal))
        route = site.would_take(name, request)
        for reading in readings:
            if site.would_take(name, replace(request, path=routing_path(reading))) is not route:
                note = f"400; a server could read the path as {reading}, which is another router's"
                return status_model.HttpAtEntry(name, note=note)
        return self._at_entry(site, name, request)

    def _at_entry(
        self, site: RequestRouter, name: str, request: SyntheticRequest
    ) -> status_model.HttpAtEntry:
        route = site.would_take(name, request)
        if route is None:
            hosts = [one.name for one, entries, _ in site.routes() if request.host in (one.match.hosts or ())]
            note = (
                f"404; routers of this host: {', '.join(hosts)}" if hosts else "404; no router has this host"
            )
            return status_model.HttpAtEntry(name, note=note)
        target = next(
            (found for one, _, found in site.routes() if (one.owner, one.name) == (route.owner, route.name)),
            None,
        )
        endpoints = tuple(self._counts.endpoints(target)) if target else ()
        network = site.network_of(route.target)
        if not endpoints:
            note = "503; " + ("no task serves" if network else "no network of it is on this node")
        else:
            note = "through the sidecars of their nodes" if site.is_elsewhere(route.target) else ""
        return status_model.HttpAtEntry(
            name,
            route.name,
            route.rule,
            route.priority,
            tuple(type(one).__name__ for one in route.middlewares),
            route.service,
            network,
            endpoints,
            note,
        )
