"""The HTTP side of the sidecar put together: what its parts share, the entry points, the access log."""

import asyncio
import socket
import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_network

from mesh.catalog.snapshot import Change, Snapshot
from mesh.catalog.store import Store
from mesh.errors import NamespaceGone
from mesh.http.codec.path_check import DEFAULT
from mesh.http.config.internal_targets import InternalTargets
from mesh.http.downstream.entry_points import EntryPoints
from mesh.http.downstream.published_port import HttpPort
from mesh.http.hosts.assigned import AssignedHosts
from mesh.http.hosts.ownership import HostOwnership
from mesh.http.routing.passthrough import TlsPassthrough
from mesh.http.routing.routed_ports import RoutedPorts
from mesh.http.routing.router import EntryPoint, RequestRouter
from mesh.http.runtime import HttpRuntime
from mesh.http.tls.certificate_store import GivenCertificates, TlsCertificates
from mesh.http.upstream.external_client import ExternalClient
from mesh.http.upstream.network_reach import Namespaces, NetworkReach
from mesh.net.own_addresses import leads_here
from mesh.net.tasks import Tasks
from mesh.peers.swarm_tls import SwarmCertificates
from mesh.peers.tunnel.client import Tunnels
from mesh.peers.tunnel.server import TunnelServer
from mesh.peers.tunnel.task_lookup import node_of
from mesh.relay.port_interface import OpenPort
from mesh.relay.proxy_protocol import trusts
from sidecar.config import Http
from sidecar.wiring.access_log import access_logger
from sidecar.wiring.acme_worker import Issued, IssuedElsewhere
from sidecar.wiring.http_metrics import HttpCounts
from sidecar.wiring.http_view import HttpTelling
from sidecar.workers.http_supervisor import HttpSupervisor
from sidecar.workers.port_messages import Carriage

NETWORKS_SECONDS = 1.0  # between two looks which networks this node has
CERTIFICATES_SECONDS = 5.0  # between two looks at the folder


@dataclass(frozen=True, slots=True)
class Given:
    """What a process that serves has of certificates."""

    certificates: GivenCertificates
    issued: IssuedElsewhere


class HttpEdge:
    """`port` for published ports of `mode: http`; `start` for the entry points, if there are any."""

    def __init__(
        self,
        config: Http,
        tasks: Tasks,
        store: Store,
        issuing: Issued | None = None,
        workers: HttpSupervisor | None = None,
        *,
        given: Given | None = None,
    ) -> None:
        """`workers`: the processes that serve what is planned and listened on here. Without any it serves
        itself, with the certificates and the listening sockets that it is `given`."""
        self.issuing = issuing
        self.workers = workers
        self._given = given
        self.config = config
        self._tasks = tasks
        self.store = store
        self.core = HttpRuntime(config.connections_per_address)
        self.site: RequestRouter | None = None
        self.passing: TlsPassthrough | None = None
        self.entries: EntryPoints | None = None
        allowed = tuple(map(ip_network, config.allow_internal_targets))
        self.internal = InternalTargets(allowed, leads_here)
        self._outside = ExternalClient(tasks, internal=self.internal)
        self.certificates: TlsCertificates | None = None
        self.tunnels: Tunnels | None = None
        self.tunnel_server: TunnelServer | None = None
        self._here: Namespaces | None = None
        self.sandbox: Callable[[], str | None] = lambda: (
            None
        )  # the namespace that published ports lead through
        self.counts = HttpCounts(self)
        self.telling = HttpTelling(self, self.counts)
        store.subscribe(self._forget_gone, "http-counts", self._forget_all_gone)

    def adopt(self, name: str, listener: socket.socket) -> None:
        """Serve this entry point on a socket that somebody else has opened."""
        if self.entries is None:
            listener.close()
        else:
            self.entries.adopt(name, listener)

    def port(self, service: str) -> OpenPort:
        """How a published port of this service (id) is opened."""
        if self.workers is not None:
            return self.workers.ports.open(Carriage.HTTP, service)
        return partial(HttpPort, self.core, service)

    def path_of(self, place: str) -> str | None:
        """The namespace that a process gets sockets of: "" is that of published ports, else a network's."""
        if not place:
            return self.sandbox()
        if self._here is None:
            raise NamespaceGone(f"no network {place!r}")
        return self._here.path_of(place)

    def start_on_swarm(
        self,
        certificates: SwarmCertificates,
        netns: str,
        sandbox: Callable[[], str | None],
        as_published: Callable[[], bool],
    ) -> Namespaces:
        """Entry points of a Swarm's node, and what its nodes do for each other. Close what it returns."""
        store, tunnel = self.store, self.config.tunnel
        self.tunnels = tunnels = Tunnels(
            self._tasks,
            certificates,
            tunnel.port,
            lambda network, address: node_of(store.current, network, address),
        )
        reach = Namespaces(netns, sandbox, lambda: store.current, tunnels.to, self.internal)
        self._here = here = Namespaces(netns, sandbox, lambda: store.current, internal=self.internal)
        if self.workers is not None and self.config.entrypoints:
            self.workers.lead_through(tunnels)
            self._look_who_is_here(as_published)
            look = lambda *_: self._look_who_is_here(as_published)  # noqa: E731 - update and restart alike
            store.subscribe(look, "http-networks", look)
            self._tasks.keep(partial(self._look_again_who_is_here, as_published), "http-networks")
        if self.config.entrypoints:
            self.tunnel_server = server = TunnelServer(
                self._tasks,
                certificates,
                (tunnel.host, tunnel.port),
                lambda: store.current,
                here.connect,
                RoutedPorts(self.config.exposed_by_default).serves,
            )
            self._tasks.keep(server.run, "tunnels")
        self.start(reach, as_published, here)
        return reach

    def start(
        self,
        reach: NetworkReach,
        as_published: Callable[[], bool] = lambda: False,
        here: NetworkReach | None = None,
    ) -> None:
        """`here`: without the help of other nodes, if `reach` has that."""
        config = self.config
        if not config.entrypoints:
            return
        kinds = {entry.name: entry.tls for entry in config.entrypoints}
        if any(kinds.values()) and self._given is None:
            self._start_certificates()
        self.site = site = RequestRouter(
            self.core,
            reach,
            tuple(
                EntryPoint(name, tls, config.encoded_characters.get(name, DEFAULT))
                for name, tls in kinds.items()
            ),
            exposed_by_default=config.exposed_by_default,
            as_published=as_published,
            on_close=access_logger(config.access_log, config.access_log_sample),
            external=self._outside,
            checks=self.workers is None,
            ownership=HostOwnership(AssignedHosts(config.hosts)),
        )
        self.store.subscribe(site.update, "http", site.restart, begin=True)
        if self._given is not None:
            self._given.issued.start(site)
        elif self.issuing is not None and self.certificates is not None:
            self.issuing.start(site, self.certificates)  # it looks at what is wanted when `site` knows
        # Tasks that take over a whole connection are reached where their network is, not through other nodes.
        self.passing = passing = TlsPassthrough(
            self.core, here or reach, [name for name, tls in kinds.items() if tls], site.ownership
        )
        self.store.subscribe(passing.update, "tls-passthrough", passing.restart, begin=True)
        self._open_entry_points(site, passing, kinds)

    def _start_certificates(self) -> None:
        issued = self.issuing.folder if self.issuing is not None else None
        self.certificates = certificates = TlsCertificates(self.config.certificates, issued)
        certificates.refresh()
        self._hand_out(certificates)
        self._tasks.keep(partial(self._look_again, certificates), "certificates")

    def _open_entry_points(
        self, site: RequestRouter, passing: TlsPassthrough, kinds: Mapping[str, bool]
    ) -> None:
        """`kinds`: name of an entry point → is it with TLS?"""
        trusted = tuple(map(ip_network, self.config.trusted))

        def context() -> ssl.SSLContext | None:
            store = self._given.certificates if self._given is not None else self.certificates
            return store.context if store is not None else None

        places = [
            (entry.name, entry.address.host, entry.address.port)
            for entry in (self.config.entrypoints if self._given is None else ())
        ]
        self.entries = EntryPoints(
            self._tasks,
            self.core,
            site,
            places,
            lambda address: trusts(trusted, address),
            lambda name: context() if kinds[name] else None,
            passing,
            self.workers.opened if self.workers is not None else None,
        )
        self.entries.start()

    async def _look_again(self, certificates: TlsCertificates) -> None:
        news = self.issuing.changed if self.issuing is not None else asyncio.Event()
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(CERTIFICATES_SECONDS):
                    await news.wait()
            news.clear()
            await asyncio.to_thread(certificates.refresh)
            self._hand_out(certificates)

    def _hand_out(self, certificates: TlsCertificates) -> None:
        """To the processes that serve."""
        if self.workers is not None:
            self.workers.set_thumbprint(self.issuing.thumbprint if self.issuing is not None else "")
            self.workers.set_certificates(certificates.pairs)

    def _look_who_is_here(self, as_published: Callable[[], bool]) -> None:
        if self.workers is not None and self._here is not None:
            networks = self._here.networks_here(self.store.current)
            self.workers.set_here(networks, as_published=as_published())

    async def _look_again_who_is_here(self, as_published: Callable[[], bool]) -> None:
        """Docker makes and removes a network's namespace without a word."""
        while True:
            await asyncio.sleep(NETWORKS_SECONDS)
            self._look_who_is_here(as_published)

    async def close(self, drain_seconds: float) -> None:
        """Accept no more, let requests end for so long."""
        elsewhere = self.workers.close(drain_seconds) if self.workers is not None else _at_once()
        if self.entries is not None:
            await asyncio.gather(self.entries.close(drain_seconds), elsewhere)
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

    def _forget_gone(self, _old: Snapshot, _new: Snapshot, change: Change) -> None:
        for id_, service in change.services.items():
            if service is None:
                self._forget(id_)

    def _forget_all_gone(self, snapshot: Snapshot) -> None:
        counted = set(self.core.stats)
        if self.workers is not None:
            counted |= {id_ for id_, _ in self.workers.stats()}
        for id_ in counted.difference(snapshot.services, ("",)):  # "": what belongs to no service
            self._forget(id_)

    def _forget(self, service: str) -> None:
        self.core.forget(service)
        if self.workers is not None:
            self.workers.forget(service)


async def _at_once() -> None:
    """There is nobody to wait for."""
