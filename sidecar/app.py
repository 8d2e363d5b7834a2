"""The only wiring: every piece of the library is made, connected, started and stopped here.

Order of a start: learn first (a broken first catalogue ends it), then answer, then carry, then tell. A stop
goes the other way round, so that nothing leads to us when we are no longer there. A port that cannot be bound
is reported and the others go on; only what nobody could do without raises.

What an earlier sidecar has left in the kernel stays in force until the cluster is known as it is now. And if
a next one is to come, what the kernel carries is left to it, relayed ports too: they become the kernel's.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial

from aiohttp import web

from mesh.catalog.model import NO_RETURN_PATH, ReturnPath
from mesh.catalog.snapshot import Change, Snapshot
from mesh.catalog.store import Store
from mesh.discovery.docker_source import DockerSource
from mesh.discovery.engine_client import EngineClient
from mesh.discovery.file_source import FileSource
from mesh.discovery.host_records import HostRecords, is_manager, other_managers
from mesh.discovery.prober import Prober
from mesh.discovery.saved_hosts import SavedHosts
from mesh.dns.config import DnsConfig
from mesh.dns.node_listener import ExplicitResolver, Sharing
from mesh.dns.resolver import Resolver
from mesh.errors import KernelError, NamespaceGone
from mesh.http.hosts.assigned import AssignedHosts
from mesh.http.hosts.book import HostBook
from mesh.http.upstream.network_reach import Namespaces, OwnNamespace
from mesh.internal_errors import ERRORS
from mesh.kernel.capture import CapturePolicy, ContainerCapture, dns_sockets
from mesh.kernel.firewall.filter_table import Family
from mesh.kernel.firewall.listener_rules import LISTENER_TABLE
from mesh.kernel.firewall.listeners import ListenerFirewall
from mesh.kernel.firewall.watch import FirewallWatch
from mesh.kernel.flow_drain import Flows
from mesh.kernel.ingress import IngressRules, ipvs_here
from mesh.kernel.netfilter import nft
from mesh.kernel.return_paths import ReturnPathRules
from mesh.kernel.table import Tables
from mesh.labels.ports import Carrier
from mesh.net.netns import NamespaceWorker
from mesh.net.proc import has_ipv6
from mesh.net.tasks import Tasks, place_of
from mesh.peers.feed.client import FeedClient
from mesh.peers.feed.server import FeedServer
from mesh.peers.report.client import SignClient
from mesh.peers.swarm_tls import SwarmCertificates
from mesh.relay.port_reconciler import RelayPorts
from mesh.relay.tcp_port import plain_socket
from mesh.telemetry.histogram import Histogram
from sidecar.admin.api import admin_app, metrics_app
from sidecar.admin.explain import Explaining
from sidecar.admin.listener import Surface
from sidecar.admin.status_view import StatusView
from sidecar.config import Address, Config, DiscoveryKind, ListenAddress, OverIpv6, UnixSocket, UpstreamOrder
from sidecar.wiring.acme import AcmeService
from sidecar.wiring.container_dns import CapturedEndpoints
from sidecar.wiring.data_plane import DataPlane
from sidecar.wiring.dns_of_all_processes import open_everywhere
from sidecar.wiring.http import HttpEdge
from sidecar.wiring.successor import has_successor
from sidecar.workers.dns_supervisor import DnsWorkers
from sidecar.workers.http_supervisor import HttpSupervisor
from sidecar.workers.privileges import Restriction
from sidecar.workers.relay_supervisor import RelaySupervisor
from sidecar.workers.socket_broker import PathOf
from sidecar.workers.supervisor import Workers

MIB = 1024 * 1024
INFORMED_SECONDS = 6.0  # for news of the cluster at the start; gossip takes over after 5 s without a manager
DRAIN_SECONDS = 10.0  # that relayed connections get at the end; with the rest below lifecycle.STOP_SECONDS
EDGES_UP_SECONDS = 5.0  # for the processes that relay, before the kernel's rules for their ports go
EVERY_ADDRESS, EVERY_ADDRESS6 = "0.0.0.0", "::"

# All who are told of a change, in their order. Who loads rules stands behind `flows`, which it tells of them;
# who looks at what others have found stands behind those.
SUBSCRIBERS = (
    "dns",
    "dns-workers",
    "http-counts",
    "http-networks",
    "http-workers",
    "flows",
    "relay",
    "relay-ipv6",
    "return-paths",
    "ingress",
    "capture",
    "prober",
    "http",
    "tls-passthrough",
    "certificate-orders",
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BoundAddresses:
    """The addresses that were really bound; `mesh status` says why one was not."""

    dns: tuple[Address, ...]
    metrics: Address
    admin: Address | None = None  # over TCP, where that is configured
    admin_socket: UnixSocket | None = None

    def shown(self) -> dict[str, object]:
        return {
            "dns": [str(address) for address in self.dns],
            "metrics": str(self.metrics),
            "admin": [str(place) for place in (self.admin_socket, self.admin) if place is not None],
        }


class Sidecar:
    """One node's sidecar. `start` once, `stop` as often as you like; `failed` is set when it cannot go on."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self.failed = asyncio.Event()
        self._stopping: list[Callable[[], object]] = []  # last in, first out; may return an awaitable
        self._vital = Tasks(self._task_failed)
        self._queries = Tasks(self._task_failed)
        self._applied = Histogram()
        ERRORS.clear()
        ERRORS.on_restart_needed = self._restart_needed
        self.store = Store(later=_later, order=SUBSCRIBERS)
        self._return_paths: ReturnPathRules | None = None
        self._http_side: HttpEdge | None = None
        self._issuing: AcmeService | None = None

    # --- life ---

    async def start(self) -> BoundAddresses:
        """Raises ConfigError (first catalogue) or EngineUnavailable; everything else is retried and told."""
        config = self._config
        source = self._learn()
        resolver = Resolver(self._dns_config(), self._queries)
        self.store.subscribe(self._timed(resolver.update), "dns", resolver.restart, begin=True)
        workers = self._workers(resolver)
        listen = tuple((a.host, a.port) for a in config.dns.listen)
        sharing = Sharing.OPENED if workers else Sharing.NONE
        explicit = ExplicitResolver(resolver, self._vital, listen, sharing=sharing)
        self._on_stop(explicit.close)
        await explicit.start()
        if workers:
            workers.start(explicit)
        self._vital.keep(source.run, "source")
        carrying = await self._carry(source, resolver, workers)
        explaining = Explaining(self.store, Carrier(config.ingress.mode), carrying)
        telling = StatusView(
            config, self.store, source, resolver, explicit, carrying, explaining, self._applied
        )
        bound = [await self._surface(telling, "metrics", metrics_app, config.metrics.listen)]
        bound += [await self._surface(telling, "admin", admin_app, wanted) for wanted in config.admin.places]
        metrics, *over_tcp = [place for place in bound if isinstance(place, Address)]
        over_unix = [place for place in bound if isinstance(place, UnixSocket)]
        dns = tuple(Address(*place.bound) for place in explicit.places if place.bound)
        return BoundAddresses(dns, metrics, next(iter(over_tcp), None), next(iter(over_unix), None))

    async def stop(self) -> None:
        """Take away everything of ours, in the reverse order of its making. Safe after a failed start."""
        while self._stopping:
            done = self._stopping.pop()()
            if asyncio.iscoroutine(done):
                await done
        await self._vital.close()
        await self._queries.close()

    def _on_stop(self, step: Callable[[], object]) -> None:
        self._stopping.append(step)

    # --- learn ---

    def _learn(self) -> FileSource | DockerSource:
        config = self._config
        if config.discovery.kind is DiscoveryKind.FILE:
            # A file says all at once, so nothing has to be kept while it moves within a stack.
            book = HostBook(config.http.exposed_by_default, AssignedHosts(config.http.hosts), hand_over=0.0)
            hosts = SavedHosts(config.state_dir, book)
            file = FileSource(
                config.discovery.path, self.store.publish, lambda: self.store.current, hosts=hosts
            )
            file.load()
            return file
        return self._docker_source()

    def _docker_source(self) -> DockerSource:
        docker, feed, issuing = self._config.docker, self._config.feed.listen, self._issue()
        handlers = dict(issuing.handlers()) if issuing else {}
        engine = EngineClient(docker.socket)
        self._on_stop(engine.close)
        certificates = SwarmCertificates(docker.certificates)
        hosts = self._host_records(certificates)
        handlers |= hosts.handlers()
        return DockerSource(
            engine,
            self.store.publish,
            lambda view, take: FeedServer(certificates, (feed.host, feed.port), view, take, handlers),
            lambda managers, view, change: FeedClient(certificates, managers, view, change, feed.port),
            lambda managers, report: SignClient(certificates, managers, report, feed.port),
            self._config.state_dir,
            self.store.identify,
            return_path=self._return_path,
            hosts=hosts,
        )

    def _host_records(self, certificates: SwarmCertificates) -> HostRecords:
        """Whose hosts are, as managers have it; also where this node has no entry points itself."""
        http, store = self._config.http, self.store
        return HostRecords(
            HostBook(http.exposed_by_default, AssignedHosts(http.hosts)),
            certificates,
            lambda: other_managers(store.current.nodes, store.current.this_node),
            self._config.feed.listen.port,
            lambda node: is_manager(store.current.nodes, node),
        )

    def _return_path(self) -> ReturnPath:
        """Until we have looked ourselves, what the sidecar before us said: what it set up still works."""
        said = self._return_paths.current if self._return_paths else None
        if said is not None:
            return said
        here = self.store.current.nodes.get(self.store.current.this_node)
        return here.return_path if here else NO_RETURN_PATH

    def _timed(self, subscriber: Callable[[Snapshot, Snapshot, Change], None]) -> Callable[..., None]:
        """Measured as mesh_catalog_apply_seconds."""

        def apply(old: Snapshot, new: Snapshot, change: Change) -> None:
            started = time.perf_counter()
            subscriber(old, new, change)
            self._applied.observe(time.perf_counter() - started)

        return apply

    # --- answer ---

    def _dns_config(self) -> DnsConfig:
        dns = self._config.dns
        return DnsConfig(
            cache=dns.cache,
            upstreams=dns.upstreams,
            listen=tuple((address.host, address.port) for address in dns.listen),
            alike=dns.upstream_order is UpstreamOrder.FASTEST,
            mixed_case=dns.mixed_case,
            resolv_conf=dns.resolv_conf,
            query_log=dns.query_log,
            names=dns.names,
        )

    def _workers(self, resolver: Resolver) -> DnsWorkers | None:
        """The processes that answer DNS beside this one, where they are asked for."""
        others = self._config.dns.workers - 1
        if not others:
            return None
        workers = DnsWorkers(
            others, self._dns_config(), self._config.log, self.store, self._vital, resolver.stats.add
        )
        self.store.subscribe(workers.update, "dns-workers", workers.restart)
        self._on_stop(workers.close)
        return workers

    # --- carry ---

    async def _carry(
        self, source: FileSource | DockerSource, resolver: Resolver, workers: DnsWorkers | None
    ) -> DataPlane:
        """What carries traffic: with Docker the kernel and the relay, otherwise the relay alone."""
        if isinstance(source, DockerSource):
            return await self._carry_on_swarm(source, resolver, workers)
        return self._carry_from_file()

    def _carry_from_file(self) -> DataPlane:
        """The relay and HTTP, on this machine's own addresses."""
        relaying = self._relay_processes(None)
        relay = RelayPorts(
            self._vital,
            listen_address=self._config.ingress.listen,
            default=Carrier(self._config.ingress.mode),
            open_tcp=relaying.open_tcp,
            open_udp=relaying.open_udp,
            open_http=self._http().port,
        )
        self._begin(relay, "relay")
        self._on_stop(lambda: self._drain([relay]))
        self._http().start(OwnNamespace(plain_socket))
        return DataPlane(relay, http=self._http(), processes=self._processes(relaying))

    async def _carry_on_swarm(
        self, source: DockerSource, resolver: Resolver, workers: DnsWorkers | None
    ) -> DataPlane:
        """The kernel, and the relay where a port wants it; whoever tells others begins after them."""
        config = self._config
        default = Carrier(config.ingress.mode)
        await self._until_informed(source)
        self._start_loading_rules()
        worker = self._namespace_worker()
        tables = Tables(worker)
        returning = ReturnPathRules(
            self._vital, worker, source.return_path_changed, CapturePolicy(config.capture)
        )
        self._return_paths = returning
        flows = self._start_flows()
        ingress = self._ingress(tables, worker, returning, flows)
        listeners, watch = await self._ask_operator(tables, ingress)
        relaying = self._relay_processes(lambda place: _ingress_path(place, ingress))
        relay = self._relay_on_swarm(relaying, ingress, listeners)
        self._http().sandbox = lambda: ingress.sandbox_path
        relay6 = self._relay_over_ipv6(relaying, default, listeners)
        endpoints = CapturedEndpoints(resolver, self.store, self._queries)
        capture = self._capture(tables, endpoints, workers, flows, returning)
        prober = Prober(self._vital, source.set_unwell)
        self._on_stop(prober.close)
        relays = [one for one in (relay, relay6) if one is not None]
        self._on_stop(lambda: self._end_carrying(relays, ingress, capture, returning, listeners, watch))
        for name, one in zip(("relay", "relay-ipv6"), (relay, relay6), strict=True):
            if one is not None:
                self._begin(one, name)
        watch.start()
        await relay.settled()  # it listens before the kernel's rules for its ports go
        if relaying.workers.started:
            await relaying.workers.up(EDGES_UP_SECONDS)
        self._begin(returning, "return-paths")
        self._begin(ingress, "ingress")
        self._begin(capture, "capture")
        self._begin(prober, "prober")
        reach = self._begin_http_on_swarm(source, ingress)
        self._on_stop(reach.close)
        return DataPlane(
            relay,
            capture,
            ingress,
            worker,
            endpoints.paths,
            prober,
            relay6,
            self._http(),
            returning,
            listeners,
            processes=self._processes(relaying),
        )

    def _namespace_worker(self) -> NamespaceWorker:
        worker = NamespaceWorker()
        self._on_stop(worker.close)
        return worker

    def _start_flows(self) -> Flows:
        """Ahead of those who tell it what they have loaded."""
        flows = Flows(self._vital, self._namespace_worker())
        self._on_stop(flows.close)
        self._begin(flows, "flows")
        return flows

    def _ingress(
        self, tables: Tables, worker: NamespaceWorker, returning: ReturnPathRules, flows: Flows
    ) -> IngressRules:
        """Published ports that are carried in the kernel."""
        return IngressRules(
            self._vital,
            tables,
            worker,
            netns_dir=self._config.docker.netns,
            default=Carrier(self._config.ingress.mode),
            on_entry=returning.own_entry,
            flows=flows,
        )

    def _relay_on_swarm(
        self, relaying: RelaySupervisor, ingress: IngressRules, listeners: ListenerFirewall
    ) -> RelayPorts:
        """Ports over IPv4 that are not carried in the kernel."""
        return RelayPorts(
            self._vital,
            listen_address=self._config.ingress.listen,
            default=Carrier(self._config.ingress.mode),
            as_published=ipvs_here,
            redirect=ingress.redirect,
            open_tcp=relaying.open_tcp,
            open_udp=relaying.open_udp,
            open_http=self._http().port,
            guard=listeners,
        )

    def _capture(
        self,
        tables: Tables,
        endpoints: CapturedEndpoints,
        workers: DnsWorkers | None,
        flows: Flows,
        returning: ReturnPathRules,
    ) -> ContainerCapture:
        """DNS and virtual IPs of this node's containers."""
        return ContainerCapture(
            self._vital,
            tables,
            open_everywhere(endpoints, workers) if workers else endpoints.open,
            CapturePolicy(self._config.capture),
            ipvs_here(),
            partial(dns_sockets, shared=workers is not None),
            flows,
            returning.look_again,
        )

    def _begin_http_on_swarm(self, source: DockerSource, ingress: IngressRules) -> Namespaces:
        config = self._config
        if (issuing := self._issue()) is not None:
            feed_port = config.feed.listen.port
            issuing.on_swarm(SwarmCertificates(config.docker.certificates), feed_port, lambda: source.leads)
        return self._http().start_on_swarm(
            SwarmCertificates(config.docker.certificates),
            config.docker.netns,
            lambda: ingress.sandbox_path,
            ipvs_here,
        )

    async def _ask_operator(
        self, tables: Tables, ingress: IngressRules
    ) -> tuple[ListenerFirewall, FirewallWatch]:
        """The operator's firewall is asked about all listeners from before they are opened."""
        admin, entries = self._config.admin.listen, self._config.http.entrypoints
        listeners = ListenerFirewall(tables, private=() if admin is None else (admin.port,))
        covered = [("tcp", entry.address.port) for entry in entries]
        for step in (listeners.start, partial(listeners.cover, "entry points", covered)):
            try:
                await step()
            except KernelError as error:
                logger.error("the operator's firewall cannot be asked about listeners (yet): %s", error)

        async def changed(gone: Collection[str]) -> bool:
            ingress.look_at_firewall(gone)
            await listeners.look(verify=not gone or f"inet {LISTENER_TABLE}" in gone)
            return bool(listeners.status)

        return listeners, FirewallWatch(self._vital, changed)

    def _start_loading_rules(self) -> None:
        """Now, while there are descriptors and memory for another process."""
        self._on_stop(nft.close)
        try:
            nft.start()
        except KernelError as error:
            logger.error("%s; the next load of rules tries again", error)

    def _relay_processes(self, path_of: PathOf | None) -> RelaySupervisor:
        """Who carries relayed ports. They start with the first one."""
        config = self._config
        relaying = RelaySupervisor(
            config.ingress.workers, config.log, self._vital, self._restriction(), path_of
        )
        self._on_stop(relaying.close)
        return relaying

    def _processes(self, relaying: RelaySupervisor) -> tuple[Workers, ...]:
        http = self._http().workers
        return (relaying.workers, *((http.workers,) if http is not None else ()))

    def _restriction(self) -> Restriction:
        edge = self._config.edge
        return Restriction(edge.uid, edge.gid, edge.memory * MIB)

    def _relay_over_ipv6(
        self, relaying: RelaySupervisor, default: Carrier, listeners: ListenerFirewall
    ) -> RelayPorts | None:
        wanted = self._config.ingress
        if wanted.ipv6 is OverIpv6.FALSE or wanted.listen != EVERY_ADDRESS or not has_ipv6():
            return None
        if ipvs_here():
            return None  # Docker's engine holds the published ports itself, those of IPv6 too
        relay6 = RelayPorts(
            self._vital,
            listen_address=EVERY_ADDRESS6,
            default=default,
            over_ipv6=True,
            open_tcp=relaying.open_tcp,
            open_udp=relaying.open_udp,
            open_http=self._http().port,
            guard=listeners,
            permitted=lambda: wanted.ipv6 is OverIpv6.TRUE or listeners.asks_operator(Family.IPV6),
        )
        listeners.on_ipv6 = relay6.look_again
        return relay6

    def _http(self) -> HttpEdge:
        """Made once. Processes that serve start with the first port or entry point."""
        if self._http_side is None:
            config = self._config
            on_swarm = config.discovery.kind is DiscoveryKind.DOCKER
            workers = HttpSupervisor(
                config.http,
                config.log,
                self._vital,
                self.store,
                self._restriction(),
                (lambda place: side.path_of(place)) if on_swarm else None,
            )
            self._http_side = side = HttpEdge(config.http, self._vital, self.store, self._issue(), workers)
            self._on_stop(side.stop)
            self._on_stop(workers.end)
        return self._http_side

    def _issue(self) -> AcmeService | None:
        """Made once, where there is an authority."""
        http = self._config.http
        if self._issuing is None and http.acme.directory:
            state_dir = self._config.state_dir
            self._issuing = AcmeService(http.acme, http.entrypoints, state_dir, self._vital, self.store)
            self._on_stop(self._issuing.close)
        return self._issuing

    async def _until_informed(self, source: DockerSource) -> None:
        try:
            async with asyncio.timeout(INFORMED_SECONDS):
                await source.informed()
        except TimeoutError:
            logger.warning(
                "no news of the cluster for %.0f s: going on from what was saved", INFORMED_SECONDS
            )

    def _begin(
        self, part: ContainerCapture | Flows | IngressRules | RelayPorts | ReturnPathRules | Prober, name: str
    ) -> None:
        """What is known already comes as a change does: a fault in it must not keep us from starting."""
        part.start(Snapshot(this_node=self.store.current.this_node))
        restart = part.restart if isinstance(part, Flows | IngressRules | Prober) else None
        self.store.subscribe(self._timed(part.update), name, restart, begin=True)

    async def _drain(self, relays: list[RelayPorts]) -> None:
        """What is carried in user space, all together."""
        ending = [one.close(DRAIN_SECONDS) for one in relays]
        await asyncio.gather(self._http().close(DRAIN_SECONDS), *ending)

    async def _end_carrying(
        self,
        relays: list[RelayPorts],
        ingress: IngressRules,
        capture: ContainerCapture,
        returning: ReturnPathRules,
        listeners: ListenerFirewall,
        watch: FirewallWatch,
    ) -> None:
        """Connections first; while they drain, everything else still follows the catalogue."""
        if has_successor(self.store.current, self._config.docker.service):
            await ingress.carry_all()
            await self._drain(relays)
        else:
            returning.withdraw()
            await asyncio.gather(self._drain(relays), returning.drained(DRAIN_SECONDS))
        leave = has_successor(self.store.current, self._config.docker.service)
        logger.info("rules in the kernel %s", "stay for the next sidecar" if leave else "are taken out")
        await watch.close()  # it would see our own rules go
        await listeners.close(leave=leave)
        await capture.close(leave=leave)
        await ingress.close(leave=leave)
        await returning.close(leave=leave)

    # --- tell ---

    async def _surface(
        self,
        telling: StatusView,
        name: str,
        app: Callable[[StatusView], web.Application],
        wanted: ListenAddress,
    ) -> ListenAddress:
        """One HTTP surface; that its port is taken is told on the other one and in the log."""
        surface = Surface(name, lambda: app(telling), wanted, self._vital)
        telling.surfaces.append(surface)
        self._on_stop(surface.stop)
        return await surface.start()

    # --- when something of ours fails ---

    def _task_failed(self, name: str, error: BaseException) -> None:
        """One that is to run for ever is started again, and gets here with what only a new process mends.
        Any other has failed at one connection or one question."""
        ERRORS.report(place_of(name), error)

    def _restart_needed(self) -> None:
        """Some boundary has caught what only a new process mends: at its limit of memory this one would go on
        and refuse everybody. Docker starts the next one."""
        if not self.failed.is_set():
            logger.critical("a fault that only a new process mends: the sidecar ends, and is started again")
            self.failed.set()


def _later(seconds: float, step: Callable[[], None]) -> None:
    asyncio.get_running_loop().call_later(seconds, step)


def _ingress_path(place: str, ingress: IngressRules) -> str | None:
    """Relayed ports lead through the ingress namespace, and nowhere else."""
    if place:
        raise NamespaceGone("a process that relays has no network of its own")
    return ingress.sandbox_path
