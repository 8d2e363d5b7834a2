"""What the running sidecar says of itself: the admin API's and /metrics' view of all the pieces.

Read-only and asked per request: nothing is remembered here, so nothing can be out of date.
"""

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from mesh.catalog.model import Container, PublishMode, Service
from mesh.catalog.snapshot import Snapshot
from mesh.catalog.store import Store
from mesh.discovery.source import Source, SourceStatus
from mesh.dns.explain import ShownReply
from mesh.dns.forward.forward import NO_PATHS, ContainerPaths
from mesh.dns.node_listener import NODE, ExplicitResolver
from mesh.dns.resolver import Resolver
from mesh.dns.scope import Scope, scope_of, scope_of_asker
from mesh.dns.wire import QType
from mesh.http.stats import ServiceStats
from mesh.internal_errors import ERRORS
from mesh.kernel.counters import CountedPort
from mesh.kernel.ingress import IngressRules
from mesh.labels.dns import problems as label_problems
from mesh.labels.ports import Carrier, Plans, PortPlan, plan
from mesh.net.limits import cgroup, descriptors
from mesh.relay.port_reconciler import RelayPorts
from mesh.relay.stats import PortStats
from mesh.telemetry.explain import PortPath, ServicePath
from mesh.telemetry.histogram import Histogram
from mesh.telemetry.metrics import MetricsReading
from sidecar import status_model
from sidecar.admin.explain import Explaining
from sidecar.admin.listener import Surface
from sidecar.config import Config
from sidecar.version import mesh_version
from sidecar.wiring.data_plane import DataPlane

Relayed = Sequence[tuple[str, str, PortStats]]  # service, port, what was counted
Carried = Sequence[tuple[str, str, CountedPort]]


@dataclass(slots=True)
class StatusView:
    """`sidecar.admin.api.AdminState` over the running pieces."""

    config: Config
    store: Store
    source: Source
    resolver: Resolver
    explicit: ExplicitResolver
    carrying: DataPlane
    explaining: Explaining
    applied: Histogram
    surfaces: list[Surface] = field(default_factory=list)
    started: float = field(default_factory=time.time)

    @property
    def snapshot(self) -> Snapshot:
        return self.store.current

    # --- status ---

    def status(self) -> status_model.StatusReport:
        snapshot, source = self.snapshot, self.source.status()
        return status_model.StatusReport(
            version=mesh_version(),
            node=self.config.node,
            role=source.role,
            started=self.started,
            catalog_version=snapshot.version,
            source=status_model.SourceView(source.kind, source.connected, _age(source), source.last_error),
            feed=_feed(source),
            containers=tuple(self._containers()),
            ports=tuple(sorted(self._ports(), key=_by_number)),
            listeners=tuple(self._listeners()),
            problems=(*self._problems(source), *self.resolver.stats.faults.values(), *ERRORS.problems()),
            limits=_limits(),
        )

    def unready(self) -> Sequence[str]:
        source = self.source.status()
        reasons = [] if source.last_success is not None else ["the catalogue has not been read yet"]
        reasons += [f"{one.name} {one.address}: {one.error}" for one in self._listeners() if one.error]
        if self.carrying.capture is not None and self.carrying.capture.pending:
            reasons.append("containers are still being captured")
        return reasons

    def _containers(self) -> Iterator[status_model.ContainerView]:
        if self.carrying.capture is not None:
            for one in self.carrying.capture.status():
                yield status_model.ContainerView(
                    one.container, one.name, one.captured, one.reason, one.failed
                )

    def _listeners(self) -> Iterator[status_model.ListenerView]:
        for place in self.explicit.places:
            host, port = place.bound or (place.host, place.port)
            yield status_model.ListenerView("dns", f"{host}:{port}", place.fault)
        yield from (surface.shown() for surface in self.surfaces)
        if self.carrying.http is not None:
            yield from self.carrying.http.telling.listeners()

    def _problems(self, source: SourceStatus) -> Iterator[str]:
        yield from map(str, source.problems)
        yield from map(str, self.store.intake.problems())
        for service in self.snapshot.services.values():
            yield from map(str, self._plans(service).problems)
            try:
                yield from map(str, label_problems(service))
            except Exception as error:  # noqa: BLE001 - the boundary of a service: of all others is told
                ERRORS.report("status of a service", error)
        if self.carrying.prober is not None:
            yield from self.carrying.prober.faults()
        if self.carrying.return_paths is not None:
            yield from map(str, self.carrying.return_paths.problems())
        if self.carrying.http is not None:
            yield from map(str, self.carrying.http.telling.problems(self.snapshot))
        if self.carrying.ingress is not None and self.carrying.ingress.status:
            yield f"published ports: {self.carrying.ingress.status}"

    def routes(self) -> status_model.Routes:
        side = self.carrying.http
        return status_model.Routes(tuple(side.telling.routes()) if side else ())

    def left_out(self, service: Service) -> dict[str, str]:
        found: dict[str, str] = {}
        for one in self._plans(service).ports:
            for seen in self.carrying.relay.seen(one.key) if one.carrier.in_user_space else ():
                if seen.ejected_for > 0:
                    found[str(seen.endpoint)] = f"left out for {seen.ejected_for:.0f} s more"
        if self.carrying.http is not None:
            found.update(self.carrying.http.telling.left_out(service.id))
        return found

    # --- ports ---

    def _plans(self, service: Service) -> Plans:
        try:
            return plan(service, Carrier(self.config.ingress.mode))
        except Exception as error:  # noqa: BLE001 - the boundary of a service: of all others is told
            ERRORS.report("status of a service", error)
            return Plans()

    def _ports(self) -> Iterator[status_model.PortView]:
        faults, faults6 = _faults(self.carrying.relay), _faults(self.carrying.relay6)
        for service in self.snapshot.services.values():
            for one in self._plans(service).ports:
                yield self._port(service, one, faults, faults6.get(one.key, ""))

    def _port(
        self, service: Service, one: PortPlan, faults: dict[str, str], fault6: str
    ) -> status_model.PortView:
        mode, note = status_model.PortCarrier(one.carrier.value), ""
        if one.carrier is Carrier.DOCKER:
            host = one.port.mode is PublishMode.HOST
            note = "published with mode=host" if host else "label mesh.enable=false"
        elif one.carrier.in_user_space and one.key in faults:
            mode, note = status_model.PortCarrier.TAKEN, faults[one.key]
        elif one.carrier is Carrier.KERNEL and self.carrying.ingress is not None:
            note = self.carrying.ingress.status or self._source_note(service, one, self.carrying.ingress)
        elif one.carrier.in_user_space and self.carrying.listeners is not None:
            note = self.carrying.listeners.status
        if fault6:
            note = "; ".join(filter(None, (note, f"over IPv6: {fault6}")))
        return status_model.PortView(
            one.port.published,
            one.port.protocol,
            service.name,
            mode,
            note,
            serving=len(service.serving()),
            total=len(service.tasks),
        )

    def _source_note(self, service: Service, one: PortPlan, ingress: IngressRules) -> str:
        """Where tasks do not see the client's address, and why."""
        if one.source_ip == "masquerade":
            return "source address masqueraded, as labelled"
        network, nodes = self.snapshot.ingress_network(), self.snapshot.nodes
        away = {
            nodes[task.node].name if task.node in nodes else task.node
            for task in service.serving()
            if network and task.addresses.get(network.id) not in ingress.kept
        }
        if not away:
            return ""
        return f"source address masqueraded to tasks on {', '.join(sorted(away))}: no return path there (yet)"

    # --- metrics ---

    async def reading(self) -> MetricsReading:
        source, stats = self.source.status(), self.resolver.stats
        relayed = _summed(self.carrying.relay, self.carrying.relay6)
        carried, active = await self._carried_by_the_kernel()
        http = self._http()
        return MetricsReading(
            version=mesh_version(),
            snapshot=self.snapshot,
            catalog_age=_age(source),
            catalog_apply=self.applied.copy(),
            feed_connected=bool(source.feed_following) if source.role == "worker" else None,
            feed_refused=source.feed_refused,
            signs={(result,): count for result, count in source.signs.items()},
            neighbours_refused={(why,): count for why, count in source.neighbours_refused.items()},
            return_paths_refused=_by_one(source.return_paths_refused),
            captured_containers=self.carrying.capture.count if self.carrying.capture else 0,
            internal_errors=_by_one(ERRORS.counts),
            process_ends={
                (kind.name, reason): count
                for kind in self.carrying.processes
                for reason, count in kind.ends.items()
            },
            quarantined={
                ("catalogue",): self.store.intake.refused,
                **_by_one(self.store.quarantined(ERRORS.quarantined_elsewhere())),
            },
            config_errors=sum(1 for _ in self._problems(source)),
            dns_requests=_labelled(self.resolver.requests),
            dns_durations={name: deepcopy(one) for name, one in stats.durations.items()},
            dns_cache_entries=self.resolver.cache_entries,
            dns_upstream_requests=_labelled(stats.upstream_requests),
            dns_dropped=_by_one(stats.dropped),
            dns_upstream_rejected=_by_one(stats.rejected),
            dns_upstream_faults=len(stats.faults),
            dns_forward_refused=_by_one(stats.refused),
            dns_refreshes=_by_one(stats.refreshes),
            http_requests={
                (name, *labels): count for name, one in http for labels, count in one.by_method().items()
            },
            http_durations={name: deepcopy(one.durations) for name, one in http},
            http_faults={(name, why): count for name, one in http for why, count in one.faults.items()},
            http_retries={(name,): one.retries for name, one in http},
            http_retries_refused={(name,): one.retries_refused for name, one in http},
            http_checks={(name, what): count for name, one in http for what, count in one.checks.items()},
            http_mirrored={(name, what): count for name, one in http for what, count in one.mirrored.items()},
            http_ejections={(name,): one.ejections for name, one in http},
            http_certificates=self._certificates(),
            http_orders=self.carrying.http.telling.orders() if self.carrying.http else {},
            http_tunnels=self._tunnels(),
            http_claims_refused=self.carrying.http.counts.claims_refused() if self.carrying.http else {},
            http_targets_refused=self.carrying.http.counts.targets_refused() if self.carrying.http else {},
            http_passed_on=self.carrying.http.counts.passed_on() if self.carrying.http else {},
            probes={(n, str(p), r): count for (n, p, r), count in self._probed().items()},
            port_connections=_connections(relayed, carried),
            port_active={(name, port, c.mode): c.active for name, port, c in relayed} | active,
            port_bytes=_bytes(relayed, carried),
            port_connect_errors=_connect_errors(relayed, carried),
        )

    def _http(self) -> list[tuple[str, ServiceStats]]:
        """By service name."""
        side, services = self.carrying.http, self.snapshot.services
        known = side.counts.stats().items() if side else ()
        # Of requests that no router is for there is no service.
        return [(services[id_].name if id_ else "", one) for id_, one in known if not id_ or id_ in services]

    def _tunnels(self) -> dict[tuple[str, ...], int]:
        http = self.carrying.http
        return http.counts.tunnels() if http is not None else {}

    def _certificates(self) -> dict[tuple[str, ...], float]:
        side = self.carrying.http
        known = side.certificates.certificates() if side and side.certificates else []
        return {(one.file,): one.not_after for one in known}

    def _probed(self) -> Mapping[tuple[str, int, str], int]:
        return self.carrying.prober.results if self.carrying.prober else {}

    async def _carried_by_the_kernel(self) -> tuple[Carried, dict[tuple[str, ...], int]]:
        """What its ports have counted, and how many connections each has open."""
        if self.carrying.ingress is None:
            return [], {}
        counted, active = await self.carrying.ingress.count(), await self.carrying.ingress.active()
        ports = [
            (service.name, one.key)
            for service in self.snapshot.services.values()
            for one in self._plans(service).ports
            if one.carrier is Carrier.KERNEL and one.key in counted
        ]
        return (
            [(name, key, counted[key]) for name, key in ports],
            {(name, key, "kernel"): active.get(key, 0) for name, key in ports},
        )

    # --- explain ---

    async def explain_port(self, published: int, protocol: str) -> Sequence[PortPath]:
        return await self.explaining.port(published, protocol)

    async def explain_service(self, name: str) -> ServicePath:
        return await self.explaining.service(name)

    def explain_http(self, host: str, path: str, method: str) -> status_model.HttpExplained:
        side = self.carrying.http
        if side is None:
            raise LookupError("nothing speaks HTTP here")
        return side.telling.explain(host, path, method)

    # --- resolve ---

    async def resolve(self, name: str, type_: str, asker: str) -> status_model.Resolution:
        if type_ not in QType.__members__:
            raise LookupError(f"no record type '{type_}'; known are {', '.join(QType.__members__)}")
        scope, paths, who = self._asker(asker)
        found = await self.resolver.resolve(scope, name, QType[type_], paths)
        return status_model.Resolution(
            name=name,
            type=type_,
            asker=who,
            networks=tuple(network for _, network in scope.networks),
            rcode=found.reply.rcode if found.reply else "",
            source=found.source,
            answers=_answers(found.reply),
            why=(
                *(f"tried {reading}" for reading in found.tried),
                found.rule,
                *((found.reply.fault,) if found.reply and found.reply.fault else ()),
            ),
            docker=status_model.ReplyView(found.docker.rcode, _answers(found.docker))
            if found.docker
            else None,
        )

    def _asker(self, asker: str) -> tuple[Scope, ContainerPaths, str]:
        if not asker:
            known = next(iter(self.snapshot.askers), None)
            scope = scope_of_asker(known, self.snapshot) if known else NODE
            return scope, NO_PATHS, known.name if known else f"node {self.config.node}"
        container = self._container(asker)
        return scope_of(container, self.snapshot), self.carrying.paths_of(container.id), container.name

    def _container(self, asker: str) -> Container:
        found = [
            one
            for one in self.snapshot.containers.values()
            if asker == one.name or (len(asker) >= 4 and one.id.startswith(asker))
        ]
        if len(found) != 1:
            several = "several containers are" if found else "no container is"
            raise LookupError(f"{several} called '{asker}' on this node")
        return found[0]


def _answers(reply: ShownReply | None) -> tuple[status_model.ResolvedRecord, ...]:
    records = reply.records if reply else ()
    return tuple(status_model.ResolvedRecord(one.name, one.type, one.ttl, one.data) for one in records)


def _by_number(port: status_model.PortView) -> tuple[int, str, str]:
    return port.published, port.protocol, port.service


def _labelled(counts: Mapping[Any, int]) -> dict[tuple[str, ...], int]:
    return dict(counts)


def _by_one(counts: Mapping[str, int]) -> dict[tuple[str, ...], int]:
    """By one label."""
    return {(label,): count for label, count in counts.items()}


def _age(source: SourceStatus) -> float | None:
    return None if source.last_success is None else max(0.0, time.time() - source.last_success)


def _feed(source: SourceStatus) -> status_model.FeedView | None:
    if source.kind != "docker":
        return None
    return status_model.FeedView(
        following=source.feed_following,
        serving=source.feed_serving,
        clients=source.feed_clients,
        refused=source.feed_refused,
        last_error=source.feed_error,
    )


def _faults(relay: RelayPorts | None) -> dict[str, str]:
    return {one.key: one.fault for one in relay.status() if one.fault} if relay else {}


def _summed(*relays: RelayPorts | None) -> Relayed:
    """A port may be carried over IPv4 and over IPv6."""
    found: dict[tuple[str, str], PortStats] = {}
    for relay in filter(None, relays):
        for name, key, counts in relay.stats():
            found[name, key] = found[name, key] + counts if (name, key) in found else counts
    return [(name, key, counts) for (name, key), counts in found.items()]


def _connections(relayed: Relayed, carried: Carried) -> dict[tuple[str, ...], int]:
    counted: dict[tuple[str, ...], int] = {
        (name, port, counts.mode): counts.connections for name, port, counts in relayed
    }
    counted |= {(name, port, "kernel"): counts.connections for name, port, counts in carried}
    return counted


def _bytes(relayed: Relayed, carried: Carried) -> dict[tuple[str, ...], int]:
    counted = Counter[tuple[str, ...]]()
    both: tuple[Sequence[tuple[str, str, PortStats | CountedPort]], ...] = (relayed, carried)
    for one in both:  # a port of the kernel's is relayed as well, over IPv6
        for name, port, counts in one:
            counted[name, port, "in"] += counts.received
            counted[name, port, "out"] += counts.sent
    return counted


def _connect_errors(relayed: Relayed, carried: Carried) -> dict[tuple[str, ...], int]:
    counted = Counter[tuple[str, ...]]()
    for name, port, counts in relayed:
        for reason, count in counts.errors.items():
            counted[name, port, reason] += count
    for name, port, kernels in carried:
        counted[name, port, "no_endpoint"] += kernels.refused
    return counted


def _limits() -> status_model.LimitsView:
    soft, hard = descriptors.limits()
    group = cgroup.limits()
    return status_model.LimitsView(
        _open_descriptors(),
        soft,
        hard,
        group.memory,
        group.memory_max,
        group.processes,
        group.processes_max,
    )


def _open_descriptors() -> int | None:
    try:
        return descriptors.count()
    except OSError:  # none is left to look with, or there is no such folder here
        return None
