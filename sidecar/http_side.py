"""The HTTP side of the sidecar put together: what its parts share, the entry points, the access log."""

import asyncio
import random
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from functools import partial
from ipaddress import ip_network
from time import monotonic

from mesh.balance.policies import Endpoint
from mesh.balance.ports import plan
from mesh.balance.probing import Result
from mesh.catalog.snapshot import Change, Snapshot
from mesh.catalog.store import Store
from mesh.discovery.feed_tls import Certificates as SwarmCertificates
from mesh.errors import Problem
from mesh.http.access_log import Entry, as_common, as_json
from mesh.http.asked import Imagined
from mesh.http.core import Core
from mesh.http.entry_points import EntryPoints
from mesh.http.exchange import Exchange
from mesh.http.matching import normal_path
from mesh.http.model import Route
from mesh.http.outside import Outside
from mesh.http.passing import Passing
from mesh.http.port import HttpPort
from mesh.http.reach import Namespaces, Reach
from mesh.http.routed import RoutedTarget
from mesh.http.site import EntryPoint, Site
from mesh.http.sources import by_proxies
from mesh.http.stats import ServiceStats
from mesh.http.tls import Certificates
from mesh.net.tasks import Tasks
from mesh.relay.carried import OpenPort
from mesh.relay.proxy_protocol import trusts
from mesh.tunnel.answering import TunnelServer
from mesh.tunnel.dial import Tunnels
from mesh.tunnel.places import node_of
from sidecar import report
from sidecar.config import AccessLog, Http
from sidecar.http_orders import Endpoints, Seen
from sidecar.http_workers import HttpWorkers
from sidecar.issued import Issued

CERTIFICATES_SECONDS = 5.0  # between two looks at the folder


class HttpSide:
    """`port` for published ports of `mode: http`; `start` for the entry points, if there are any."""

    def __init__(
        self,
        config: Http,
        tasks: Tasks,
        store: Store,
        issuing: Issued | None = None,
        *,
        listens: bool = True,
    ) -> None:
        """`listens`: opens its entry points itself; else it is given their sockets (`listen_too`)."""
        self._issuing = issuing
        self._listens = listens
        self._workers: HttpWorkers | None = None
        self._config = config
        self._tasks = tasks
        self._store = store
        self.core = Core(config.connections_per_address)
        self.site: Site | None = None
        self.passing: Passing | None = None
        self._entries: EntryPoints | None = None
        self._outside = Outside(tasks)
        self.certificates: Certificates | None = None
        self.tunnels: Tunnels | None = None
        self.tunnel_server: TunnelServer | None = None
        self._here: Namespaces | None = None
        store.subscribe(self._forget_gone)

    def share(self, workers: HttpWorkers) -> None:
        """Serve entry points together with these. Before the start."""
        self._workers = workers

    def listen_too(self, name: str, listener: socket.socket) -> None:
        """Serve this entry point on a socket that is open elsewhere as well."""
        if self._entries is None:
            listener.close()
        else:
            self._entries.adopt(name, listener)

    def port(self, service: str) -> OpenPort:
        """How a published port of this service (id) is opened."""
        return partial(HttpPort, self.core, service)

    def start_on_swarm(
        self,
        certificates: SwarmCertificates,
        netns: str,
        sandbox: Callable[[], str | None],
        as_published: Callable[[], bool],
    ) -> Namespaces:
        """Entry points of a Swarm's node, and what its nodes do for each other. Close what it returns."""
        store, tunnel = self._store, self._config.tunnel
        self.tunnels = tunnels = Tunnels(
            self._tasks,
            certificates,
            tunnel.port,
            lambda network, address: node_of(store.current, network, address),
        )
        reach = Namespaces(netns, sandbox, lambda: store.current, tunnels.to)
        self._here = here = Namespaces(netns, sandbox, lambda: store.current)
        if self._config.entrypoints and self._listens:
            self.tunnel_server = server = TunnelServer(
                self._tasks, certificates, (tunnel.host, tunnel.port), lambda: store.current, here.connect
            )
            self._tasks.start(server.run(), "tunnels")
        self.start(reach, as_published, here)
        return reach

    def start(
        self,
        reach: Reach,
        as_published: Callable[[], bool] = lambda: False,
        here: Reach | None = None,
    ) -> None:
        """`here`: without the help of other nodes, if `reach` has that."""
        config = self._config
        if not config.entrypoints:
            return
        kinds = {entry.name: entry.tls for entry in config.entrypoints}
        if any(kinds.values()):
            issued = self._issuing.folder if self._issuing is not None else None
            self.certificates = certificates = Certificates(config.certificates, issued)
            certificates.look()
            self._tasks.start(self._look_again(certificates), "certificates")
        self.site = site = Site(
            self.core,
            reach,
            tuple(EntryPoint(name, tls) for name, tls in kinds.items()),
            exposed_by_default=config.exposed_by_default,
            as_published=as_published,
            over=self._logged if config.access_log is not AccessLog.OFF else _nothing,
            outside=self._outside,
        )
        site.start(self._store.current)
        if self._issuing is not None and self.certificates is not None:
            self._issuing.start(site, self.certificates)
        self._store.subscribe(site.update)
        # Tasks that take over a whole connection are reached where their network is, not through other nodes.
        self.passing = passing = Passing(
            self.core, here or reach, [name for name, tls in kinds.items() if tls]
        )
        passing.start(self._store.current)
        self._store.subscribe(passing.update)
        trusted = tuple(map(ip_network, config.trusted))
        places = [
            (entry.name, entry.address.host, entry.address.port)
            for entry in (config.entrypoints if self._listens else ())
        ]
        self._entries = EntryPoints(
            self._tasks,
            self.core,
            site,
            places,
            lambda address: trusts(trusted, address),
            lambda name: self.certificates.context if self.certificates and kinds[name] else None,
            passing,
            self._workers.opened if self._workers is not None else _nobody_else,
        )
        self._entries.start()

    async def _look_again(self, certificates: Certificates) -> None:
        news = self._issuing.changed if self._issuing is not None else asyncio.Event()
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(CERTIFICATES_SECONDS):
                    await news.wait()
            news.clear()
            await asyncio.to_thread(certificates.look)

    async def close(self, drain_seconds: float) -> None:
        """Accept no more, let requests end for so long."""
        elsewhere = self._workers.close(drain_seconds) if self._workers is not None else _at_once()
        if self._entries is not None:
            await asyncio.gather(self._entries.close(drain_seconds), elsewhere)
        else:
            await elsewhere
        if self.passing is not None:
            await self.passing.close(drain_seconds)
        if self.site is not None:
            self.site.close()
        await self._outside.close()
        if self._here is not None:
            self._here.close()

    def stop(self) -> None:
        """When every port is closed."""
        self.core.close()

    # --- telling ---

    def listeners(self) -> Iterator[report.Listener]:
        for one in self._entries.listening() if self._entries else ():
            yield report.Listener(f"http {one.name}", one.address, one.fault)
        if (server := self.tunnel_server) is not None:
            at = self._config.tunnel
            yield report.Listener("tunnels", f"{at.host}:{at.port}", server.fault)

    def problems(self, snapshot: Snapshot) -> Iterator[Problem]:
        if self.site is None or self._entries is None:
            return
        yield from self.site.problems()
        if self.passing is not None:
            yield from self.passing.problems()
        yield from self._without_authority(self.site, snapshot)
        if self._issuing is not None:
            yield from self._issuing.problems()
        if self.certificates is not None:
            yield from self.certificates.problems()
            if not self.certificates.any:
                yield Problem(self._config.certificates, "", "no certificate: no TLS handshake succeeds")
        if not self._config.trusted:
            yield from self._nobody_trusted(self.site, snapshot)
        ours = self._entries.ports
        for service in snapshot.services.values():
            for one in plan(service).ports:
                if one.port.published in ours:
                    message = "is an entry point of ours as well; who connects from outside gets this service"
                    yield Problem(service.name, f"port {one.key}", message)

    def _without_authority(self, site: Site, snapshot: Snapshot) -> Iterator[Problem]:
        for route, _, _ in site.routes():
            owner = snapshot.services.get(route.owner)
            if owner is not None and route.certificates and self._issuing is None:
                message = "no authority is set (http.acme.directory): the certificate has to be a file"
                yield Problem(owner.name, f"traefik.http.routers.{route.name}.tls.certresolver", message)

    def orders(self) -> dict[tuple[str, ...], int]:
        """(result) → certificates that were ordered."""
        return self._issuing.orders() if self._issuing is not None else {}

    def _nobody_trusted(self, site: Site, snapshot: Snapshot) -> Iterator[Problem]:
        for route, _, _ in site.routes():
            owner = snapshot.services.get(route.owner)
            if owner is not None and any(map(by_proxies, route.middlewares)):
                message = "goes by addresses in X-Forwarded-For, but no proxy is trusted (http.trusted)"
                yield Problem(owner.name, f"traefik.http.routers.{route.name}.middlewares", message)

    def own_stats(self) -> dict[str, ServiceStats]:
        """Of this process, by service id; by "" what was for no service."""
        found = dict(self.core.stats)
        if self._entries is not None and (refusals := self._entries.refusals):
            nobodys = found[""] = found.get("", ServiceStats()).copy()
            nobodys.faults += refusals
        return found

    def stats(self) -> dict[str, ServiceStats]:
        """Of all processes."""
        found = self.own_stats()
        for id_, one in self._workers.stats() if self._workers is not None else ():
            found[id_] = found[id_] + one if id_ in found else one
        return found

    def own_tunnels(self) -> dict[tuple[str, ...], int]:
        """Of this process: (side, result) → how many."""
        found: dict[tuple[str, ...], int] = {}
        if (asked := self.tunnels) is not None:
            found["asked", "open"] = asked.opened
            found |= {("asked", reason): count for reason, count in asked.failed.items()}
        if (answered := self.tunnel_server) is not None:
            found["answered", "open"] = answered.opened
            found |= {("answered", reason): count for reason, count in answered.refused.items()}
        return found

    def tunnels_by_result(self) -> dict[tuple[str, ...], int]:
        """Of all processes: (side, result) → how many."""
        found = self.own_tunnels()
        for key, count in self._workers.tunnels().items() if self._workers is not None else ():
            found[key] = found.get(key, 0) + count
        return found

    def routes(self) -> Iterator[report.Route]:
        for route, entries, target in self.site.routes() if self.site else ():
            yield report.Route(
                name=route.name,
                rule=route.rule,
                entrypoints=entries,
                priority=route.priority,
                service=route.service,
                middlewares=tuple(type(one).__name__ for one in route.middlewares),
                endpoints=tuple(map(str, target.backend.servers)) if target else (),
            )
        for router, entries, relaying in self.passing.routers() if self.passing else ():
            yield report.Route(
                name=router.name,
                rule=" || ".join(f"HostSNI(`{name}`)" for name in router.names),
                entrypoints=entries,
                priority=0,
                service=router.service,
                middlewares=("TLS passed on",),
                endpoints=tuple(map(str, relaying.endpoints)) if relaying else (),
            )

    def own_passed_on(self) -> dict[tuple[str, str], int]:
        """Of this process: (service id, result) → TLS connections that were passed on."""
        found = Counter[tuple[str, str]]()
        for owner, stats in self.passing.stats() if self.passing else ():
            found[owner, "relayed"] += stats.connections
            for reason, count in stats.errors.items():
                found[owner, reason] += count
        return dict(found)

    def passed_on(self) -> dict[tuple[str, ...], int]:
        """Of all processes: (service, result) → TLS connections that were passed on."""
        services, found = self._store.current.services, Counter[tuple[str, ...]]()
        own = Counter(self.own_passed_on())
        for (owner, result), count in (own + self._workers.passed() if self._workers else own).items():
            found[services[owner].name if owner in services else owner, result] += count
        return dict(found)

    def own_seen(self, services: Collection[str]) -> tuple[Endpoints, set[str]]:
        """Of this process: what is to be said of endpoints of these services (ids), and of which of them."""
        found: Endpoints = {}
        owners: set[str] = set()
        for target in self.site.targets() if self.site is not None else ():
            if target.http.owner in services:
                for endpoint, one in self._own_endpoints(target):
                    if one != _UNTOUCHED:
                        found[target.http.name, endpoint] = one
                        owners.add(target.http.owner)
        return found, owners

    def left_out(self, service: str) -> Iterator[tuple[str, str]]:
        """Endpoints of a Swarm service (id) that get no request from this node for now, and why."""
        for target in self.site.targets_of(service) if self.site else ():
            for one in self._endpoints(target):
                if one.unwell:
                    yield one.address, f"does not pass its check ({one.unwell})"
                elif one.ejected_for:
                    yield one.address, f"left out for {one.ejected_for:.0f} s more ({one.why})"

    def explain(self, host: str, path: str, method: str) -> report.HttpExplained:
        """What would become of such a request at each entry point. Raises LookupError with a sentence."""
        if self.site is None:
            raise LookupError("there is no entry point (http.entrypoints)")
        way, _, query = path.partition("?")
        request = Imagined(host.lower().partition(":")[0].rstrip("."), normal_path(way), method, query)
        at = [self._at_entry(self.site, name, request) for name in self.site.entries]
        return report.HttpExplained(method, request.host, request.path, tuple(at))

    def _at_entry(self, site: Site, name: str, request: Imagined) -> report.HttpAtEntry:
        route = site.would_take(name, request)
        if route is None:
            hosts = [one.name for one, entries, _ in site.routes() if request.host in (one.match.hosts or ())]
            note = (
                f"404; routers of this host: {', '.join(hosts)}" if hosts else "404; no router has this host"
            )
            return report.HttpAtEntry(name, note=note)
        target = next((found for one, _, found in site.routes() if one == route), None)
        endpoints = tuple(self._endpoints(target)) if target else ()
        network = site.network_of(route.service)
        if not endpoints:
            note = "503; " + ("no task serves" if network else "no network of it is on this node")
        else:
            note = "through the sidecars of their nodes" if site.is_elsewhere(route.service) else ""
        return report.HttpAtEntry(
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

    # --- what is logged ---

    def _logged(self, exchange: Exchange, route: Route | None) -> None:
        config = self._config
        if config.access_log_sample < 1 and random.random() >= config.access_log_sample:
            return
        entry = _entry(exchange, route)
        line = as_json(entry) if config.access_log is AccessLog.JSON else as_common(entry)
        sys.stdout.write(line + "\n")

    def _forget_gone(self, old: Snapshot, new: Snapshot, change: Change) -> None:
        for id_, service in change.services.items():
            if service is None:
                self.core.forget(id_)
                if self._workers is not None:
                    self._workers.forget(id_)

    # --- endpoints ---

    def _endpoints(self, target: RoutedTarget) -> Iterator[report.HttpEndpoint]:
        """As all processes together have them: left out is who is left out by any."""
        for endpoint, own in self._own_endpoints(target):
            others = self._workers.seen(target.http.name, endpoint) if self._workers is not None else []
            worst = max((own, *others), key=lambda one: one.left)
            yield report.HttpEndpoint(
                str(endpoint),
                sum((one.active for one in others), own.active),
                worst.left,
                worst.why,
                next((one.unwell for one in (own, *others) if one.unwell), ""),
            )

    def _own_endpoints(self, target: RoutedTarget) -> Iterator[tuple[Endpoint, Seen]]:
        backend, now = target.backend, monotonic()
        unwell = self.site.unwell(target.http.name) if self.site is not None else {}
        for one, server in backend.servers.items():
            # One that had to stay because too many are left out gets requests.
            left = 0.0 if backend.takes(server) else round(backend.health.ejected_for(one, now), 1)
            why = backend.health.why(one) if left else ""
            yield one, Seen(server.active, left, why, _said(unwell, one))


_UNTOUCHED = Seen(0, 0.0, "", "")


def _said(unwell: Mapping[Endpoint, Result | None], endpoint: Endpoint) -> str:
    return str(unwell[endpoint] or "not yet checked") if endpoint in unwell else ""


async def _at_once() -> None:
    """There is nobody to wait for."""


def _nobody_else(_name: str, _listener: socket.socket) -> None:
    """The socket is ours alone."""


def _nothing(exchange: Exchange, route: Route | None) -> None:
    """Nobody wants to know."""


def _entry(exchange: Exchange, route: Route | None) -> Entry:
    head, last = exchange.head, exchange.tried[-1] if exchange.tried else None

    def shown(value: bytes | None) -> str:
        return (value or b"").decode("latin-1")

    return Entry(
        at=time.time(),
        client=exchange.source,
        method=shown(head.method),
        host=head.host,
        target=shown(head.target),
        version=exchange.client.edge.version or f"HTTP/1.{head.minor}",
        status=exchange.status,
        sent=exchange.sent,
        received=exchange.received,
        took=monotonic() - exchange.started,
        route=route.name if route else "",
        service=route.service if route else "",
        endpoint=str(last.endpoint) if last else "",
        attempts=len(exchange.tried),
        fault=exchange.fault.reason if exchange.fault else "",
        request_id=shown(exchange.client.request_id),
        referer=shown(head.fields.get(b"referer")),
        agent=shown(head.fields.get(b"user-agent")),
    )
