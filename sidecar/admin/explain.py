"""What `mesh explain` is told: gathers what is wanted and what the kernel and the relay have, in one go.

One question at a time, and a bounded number of namespaces for each: reading is work for the thread that also
loads rules. What cannot be read is a hop that says so, never a failure of the whole.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import TypeVar

from mesh.catalog.model import Container, Service
from mesh.catalog.snapshot import Snapshot
from mesh.catalog.store import Store
from mesh.errors import Busy, KernelError
from mesh.kernel import inspect
from mesh.kernel.firewall.forward_chain import Firewall
from mesh.kernel.firewall.review import Review, review
from mesh.kernel.firewall.rule_walk import Obstacle
from mesh.kernel.ingress import SandboxPlace
from mesh.kernel.ingress_state import Ports, Published, as_published
from mesh.kernel.rulesets import service_vips
from mesh.labels.ports import Carrier, PortPlan, plan
from mesh.telemetry.explain import PortPath, ServicePath, named
from mesh.telemetry.explain_port import Kernel, Reached, RelayHop, port_path
from mesh.telemetry.explain_service import Vips, service_path
from sidecar.wiring.data_plane import DataPlane
from sidecar.wiring.first_packets import forwarded, listened

CONTAINERS_MAX = 64  # of this node whose namespaces one question may visit; 20 ms each
QUESTIONS_MAX = 8  # under way, all but one of them waiting for their turn
NOT_OVER_IPV6 = "not opened on IPv6: ip6tables have no DOCKER-USER to be asked (ingress.ipv6: true opens it)"
NO_KERNEL = "nothing is carried by the kernel here: the catalogue does not come from Docker"

T = TypeVar("T")


class Explaining:
    """`host`: path of the host's namespace, None: the one we live in. Without Docker no kernel part."""

    def __init__(
        self,
        store: Store,
        default: Carrier,
        carrying: DataPlane,
        firewall: Firewall | None = None,
        host: str | None = None,
        reviewing: Review | None = None,
    ) -> None:
        self._store = store
        self._default = default
        self._relay = carrying.relay
        self._relay6 = carrying.relay6
        self._capture = carrying.capture
        self._ingress = carrying.ingress
        self._worker = carrying.worker
        self._firewall = firewall or Firewall()
        self._host = host
        self._review = reviewing or partial(review, namespace=host)
        self._turn = asyncio.Lock()
        self._questions = 0

    async def port(self, published: int, protocol: str = "") -> tuple[PortPath, ...]:
        """Every service's port with this number. LookupError, with a sentence, when there is none; Busy."""
        async with self._one_at_a_time():
            snapshot = self._store.current
            plans = list(self._plans(snapshot, snapshot.services.values()))
            found = [
                one
                for one in plans
                if one.port.published == published and protocol in ("", one.port.protocol)
            ]
            if not found:
                known = named(f"{one.key} ({snapshot.services[one.service].name})" for one in _ordered(plans))
                asked = f"{published}/{protocol}" if protocol else str(published)
                raise LookupError(f"no service publishes port {asked}; published are: {known}")
            return tuple([await self._port(snapshot, one) for one in _ordered(found)])

    async def service(self, name: str) -> ServicePath:
        """By name or id. LookupError, with a sentence, when there is none; Busy."""
        async with self._one_at_a_time():
            snapshot = self._store.current
            service = snapshot.service_named(name)
            if service is None:
                known = named(sorted(one.name for one in snapshot.services.values()))
                raise LookupError(f"no service '{name}'; there are: {known}")
            ports = [await self._port(snapshot, one) for one in self._plans(snapshot, [service])]
            seen, unseen = await self._containers(snapshot, service)
            place = self._ingress.place if self._ingress else None
            return service_path(snapshot, service, ports, seen, unseen, bool(place and place.ipvs))

    @asynccontextmanager
    async def _one_at_a_time(self) -> AsyncIterator[None]:
        if self._questions >= QUESTIONS_MAX:
            raise Busy(f"{QUESTIONS_MAX} questions are under way already: ask again")
        self._questions += 1
        try:
            async with self._turn:
                yield
        finally:
            self._questions -= 1

    def _plans(self, snapshot: Snapshot, services: Iterable[Service]) -> Iterator[PortPlan]:
        for service in services:
            yield from plan(service, self._default).ports

    # --- ports ---

    async def _port(self, snapshot: Snapshot, one: PortPlan) -> PortPath:
        kernel = Kernel() if one.carrier is Carrier.DOCKER else await self._kernel(snapshot, one)
        place = self._ingress.place if self._ingress else None
        wanted = self._wanted(snapshot, snapshot.services[one.service], place)
        relay = self._relayed(one) if one.carrier.in_user_space else None
        path = port_path(snapshot, one, wanted.targets.get(one.key), wanted.kept, kernel, relay)
        if one.carrier is not Carrier.DOCKER and self._relay6 is not None and not self._relay6.permitted:
            path = replace(path, notes=(*path.notes, NOT_OVER_IPV6))
        return path

    def _wanted(self, snapshot: Snapshot, service: Service, place: SandboxPlace | None) -> Ports:
        """What the kernel is to hold for the service, by the same rules as it is told."""
        published = Published(self._default, snapshot.this_node)
        published.set_service(service.id, service, snapshot.ingress_network())
        wanted = published.everything(place.entry.address if place else "", snapshot.nodes)
        return as_published(wanted) if place and place.ipvs else wanted

    def _relayed(self, one: PortPlan) -> RelayHop:
        status = next((s for s in self._relay.status() if s.key == one.key), None)
        endpoints = tuple(
            Reached(str(seen.endpoint), seen.active, seen.ejected_for) for seen in self._relay.seen(one.key)
        )
        return RelayHop(status.address, status.fault, endpoints) if status else RelayHop()

    async def _kernel(self, snapshot: Snapshot, one: PortPlan) -> Kernel:
        if self._ingress is None or self._worker is None:
            return Kernel(fault=NO_KERNEL)
        place, fault = self._ingress.place, self._ingress.status
        if place is None:
            return Kernel(fault=fault or "not set up yet")
        port, protocol = one.port.published, str(one.port.protocol)
        kernel = Kernel(
            fault,
            place.host.sandbox,
            place.entry,
            place.ipvs,
            await self._read(self._host, partial(inspect.host_port, port, protocol)),
            obstacles=await self._obstacles(one, place),
        )
        if one.carrier.in_user_space:
            return kernel
        sandbox = await self._read(place.path, partial(inspect.sandbox_port, port, protocol))
        passes = await self._passes(place)
        ways = await self._ways_back(snapshot, snapshot.services[one.service])
        return replace(kernel, sandbox=sandbox, passes=passes, ways_back=ways)

    async def _obstacles(self, one: PortPlan, place: SandboxPlace) -> tuple[Obstacle, ...]:
        port, protocol = one.port.published, str(one.port.protocol)
        asked = listened if one.carrier.in_user_space else partial(forwarded, place=place)
        packets = {"": asked(protocol, port), "over IPv6": listened(protocol, port, over_ipv6=True)}
        try:
            found = await self._review(packets)
        except KernelError:
            return ()
        return tuple(
            replace(obstacle, rule=f"{obstacle.rule} ({name})" if name else obstacle.rule)
            for name, obstacles in found.items()
            for obstacle in obstacles
        )

    async def _passes(self, place: SandboxPlace) -> bool | None:
        try:
            return await self._firewall.lets_pass(place.host.sandbox, place.host.bridge)
        except KernelError:
            return None

    async def _ways_back(self, snapshot: Snapshot, service: Service) -> dict[str, inspect.WayBack]:
        """By ingress address, of the service's tasks here."""
        ingress = snapshot.ingress_network()
        found = dict[str, inspect.WayBack]()
        for container in _limited(c for c in snapshot.containers.values() if c.service == service.id):
            address = next(
                (a.address for a in container.attachments if ingress and a.network == ingress.id), ""
            )
            if address and (seen := await self._read(container.namespace, inspect.way_back)) is not None:
                found[address] = seen
        return found

    # --- virtual IPs ---

    async def _containers(self, snapshot: Snapshot, service: Service) -> tuple[list[Vips], int]:
        """(what those of this node have, how many more there are)."""
        networks = {member.network for member in service.networks if member.vip}
        near = [
            one
            for one in snapshot.containers.values()
            if one.running and any(a.network in networks for a in one.attachments)
        ]
        reasons = {one.container: one for one in self._capture.status()} if self._capture else {}
        seen = []
        for container in _limited(near):
            status = reasons.get(container.short_id)
            reason = "" if status is None or status.captured else status.reason
            seen.append(await self._vips(snapshot, service, container, reason))
        return seen, len(near) - len(seen)

    async def _vips(self, snapshot: Snapshot, service: Service, container: Container, reason: str) -> Vips:
        on = frozenset(attachment.network for attachment in container.attachments)
        if reason:
            return Vips(container.name, on, reason)
        wanted = service_vips(container, service, snapshot.this_node)
        held = await self._read(container.namespace, partial(inspect.container_vips, tuple(wanted)))
        return Vips(container.name, on, "", held, wanted)

    # --- reading ---

    async def _read(self, path: str | None, work: Callable[[], T]) -> T | None:
        if self._worker is None:
            return None
        try:
            return await self._worker.run(path, work)
        except KernelError:
            return None


def _limited(containers: Iterable[Container]) -> list[Container]:
    found = sorted((one for one in containers if one.running and one.namespace), key=lambda one: one.name)
    return found[:CONTAINERS_MAX]


def _ordered(plans: Iterable[PortPlan]) -> list[PortPlan]:
    return sorted(plans, key=lambda one: (one.port.published, one.port.protocol, one.service))
