"""A sidecar's State that says what a test wants said, and its two surfaces on real loopback sockets."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import pytest
import uvloop

from mesh.catalog import codec
from mesh.catalog.model import Service
from mesh.catalog.snapshot import Change, Snapshot
from mesh.errors import Busy
from mesh.telemetry.explain import Hop, HopState, PortPath, ServicePath, TaskPath, Unused, VipPath, VipTask
from mesh.telemetry.metrics import MetricsReading
from sidecar import status_model
from sidecar.admin import api
from sidecar.config import Address

# What uses the loop as it is runs on uvloop too, which the sidecar has; or there only, as processes are slow.
LOOPS: Mapping[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.SelectorEventLoop,
    "uvloop": uvloop.new_event_loop,
}
LOOPS_OF = {"test_worker_channel": ("asyncio", "uvloop"), "test_relay_supervisor": ("uvloop",)}


@pytest.hookimpl(optionalhook=True)  # versions of pytest-asyncio without it test asyncio's loop only
def pytest_asyncio_loop_factories(
    item: pytest.Item,
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {name: LOOPS[name] for name in LOOPS_OF.get(item.path.stem, ("asyncio",))}


LOOPBACK = Address("127.0.0.1", 0)

CATALOGUE = codec.parse_text(
    """
networks: {shop: {subnet: 10.0.0.0/24}, ingress: {subnet: 10.1.0.0/24, ingress: true}}
nodes: {swarm00: {address: 10.10.10.60, role: manager}, swarm01: {state: down}}
services:
  web:
    networks: {shop: {vip: 10.0.0.2}}
    ports: [{published: 80, target: 8080}]
    tasks:
      - {name: web.1.a, node: swarm00, addresses: {shop: 10.0.0.3}}
      - {name: web.2.b, node: swarm01, state: dead}
  db: {mode: dnsrr, networks: {shop: {}}}
""",
    "test",
)

STATUS = status_model.StatusReport(
    version="1.2.3",
    node="swarm00",
    role="manager",
    started=1000.0,
    catalog_version=7,
    source=status_model.SourceView("docker", connected=True, age=0.25),
    feed=status_model.FeedView(serving=True, clients=2, refused=1),
    containers=(
        status_model.ContainerView("abcdef0123456789", "web.1.a", captured=True),
        status_model.ContainerView(
            "fedcba9876543210", "plain", captured=False, reason="label mesh.capture=off"
        ),
    ),
    ports=(
        status_model.PortView(80, "tcp", "web", status_model.PortCarrier.KERNEL, serving=1, total=2),
        status_model.PortView(443, "tcp", "tls", status_model.PortCarrier.TAKEN, note="nginx (pid 12)"),
    ),
    listeners=(
        status_model.ListenerView("dns", "172.18.0.1:53"),
        status_model.ListenerView("metrics", "0.0.0.0:9180", error="address in use"),
    ),
    problems=("web: label mesh.port.80.mode: 'fast' is not kernel or proxy",),
)


WEB_80 = PortPath(
    "80/tcp",
    "web",
    "kernel",
    "swarm00",
    "round_robin",
    hops=(
        Hop("swarm00:80/tcp", "host's table mesh: dnat to ingress_sbox 172.18.0.2"),
        Hop("ingress_sbox:80/tcp", "dnat to the one task", HopState.MISSING, "not loaded yet"),
    ),
    tasks=(TaskPath("web.1.a", "swarm00", "10.1.0.3:8080", 1.0, "masqueraded", "by label", "back"),),
    unused=(Unused("web.2.b", "swarm01", "dead", "its node is down"),),
    notes=("mind this",),
)
WEB = ServicePath(
    "web",
    "swarm00",
    networks=(
        VipPath(
            "shop",
            "10.0.0.2",
            "led",
            (VipTask("web.1.a", "swarm00", "10.0.0.3"),),
            (Hop("cart", "dnat", HopState.DIFFERS, "it still leads to 10.0.0.9"),),
            unseen=3,
        ),
    ),
    ports=(WEB_80,),
    unused=WEB_80.unused,
)


@dataclass
class FakeState:
    snapshot: Snapshot = field(
        default_factory=lambda: Snapshot().apply(
            Change(nodes=CATALOGUE.nodes, networks=CATALOGUE.networks, services=CATALOGUE.services)
        )
    )
    told: status_model.StatusReport = STATUS
    reasons: tuple[str, ...] = ()
    leaves_out: dict[str, str] = field(default_factory=dict)

    def status(self) -> status_model.StatusReport:
        return self.told

    def routes(self) -> status_model.Routes:
        return status_model.Routes(
            (
                status_model.RouteView(
                    "web", "Host(`a`)", ("web",), 9, "web", ("StripPrefix",), ("10.0.1.3:80", "10.0.1.4:80")
                ),
            )
        )

    def left_out(self, service: Service) -> dict[str, str]:
        return self.leaves_out

    def unready(self) -> Sequence[str]:
        return self.reasons

    async def reading(self) -> MetricsReading:
        return MetricsReading(version="1.2.3", snapshot=self.snapshot)

    async def explain_port(self, published: int, protocol: str) -> Sequence[PortPath]:
        if published == 503:
            raise Busy("ask again")
        if published != 80 or protocol not in ("", "tcp"):
            raise LookupError(f"no service publishes port {published}; published are: 80/tcp (web)")
        return [WEB_80]

    def explain_http(self, host: str, path: str, method: str) -> status_model.HttpExplained:
        if host == "nowhere":
            raise LookupError("there is no entry point (http.entrypoints)")
        taken = status_model.HttpAtEntry(
            "web",
            "shop",
            "Host(`a`)",
            9,
            ("StripPrefix",),
            "shop",
            "net",
            (
                status_model.HttpEndpoint("10.0.1.3:80", 2, 0.0),
                status_model.HttpEndpoint("10.0.1.5:80", 0, 0.0, unwell="status"),
                status_model.HttpEndpoint("10.0.1.4:80", 0, 3.5, "503"),
            ),
        )
        return status_model.HttpExplained(
            method, host, path, (taken, status_model.HttpAtEntry("internal", note="404"))
        )

    async def explain_service(self, name: str) -> ServicePath:
        if name != "web":
            raise LookupError(f"no service '{name}'; there are: web")
        return WEB

    async def resolve(self, name: str, type_: str, asker: str) -> status_model.Resolution:
        if asker not in ("", "web.1.a"):
            raise LookupError(f"no container '{asker}' on this node")
        known = name == "web"
        answers = (status_model.ResolvedRecord("web.", type_, 5, "10.0.0.2"),) if known else ()
        return status_model.Resolution(
            name=name,
            type=type_,
            asker=asker or "this node",
            networks=("shop",),
            rcode="NOERROR" if known else "NXDOMAIN",
            source="local",
            answers=answers,
            why=("web is a service on shop",),
        )


@pytest.fixture
def state() -> FakeState:
    return FakeState()


@pytest.fixture
async def metrics_address(state: FakeState) -> AsyncIterator[Address]:
    server = api.SurfaceServer(api.metrics_app(state), LOOPBACK)
    yield await server.start()
    await server.stop()


@pytest.fixture
async def admin_address(state: FakeState) -> AsyncIterator[Address]:
    server = api.SurfaceServer(api.admin_app(state), LOOPBACK)
    yield await server.start()
    await server.stop()


@pytest.fixture
def running(state: FakeState) -> Iterator[Address]:
    """The admin API in a thread of its own, for the blocking client and the command line."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def call(work: Callable[[], object]) -> object:
        return asyncio.run_coroutine_threadsafe(work(), loop).result(10)  # type: ignore[arg-type]

    server = api.SurfaceServer(api.admin_app(state), LOOPBACK)
    address = call(server.start)
    assert isinstance(address, Address)
    yield address
    call(server.stop)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()
