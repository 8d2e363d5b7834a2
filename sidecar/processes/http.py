"""A restricted process that serves HTTP: entry points, and published ports of `mode: http`.

It accepts from listening sockets that the sidecar has opened, reaches tasks with sockets that the sidecar has
made, and has a copy of as much of the catalogue as routers need. What it knows of endpoints, clients and
limits it knows of its own requests alone.
"""

import asyncio
import socket

from mesh.catalog.snapshot import Change
from mesh.catalog.store import Store
from mesh.http.downstream.published_port import HttpPort
from mesh.http.stats import ServiceStats
from mesh.http.tls.certificate_store import GivenCertificates, KeyPair
from mesh.http.upstream.network_reach import OwnNamespace
from mesh.net.tasks import Tasks
from mesh.relay.port_interface import PortHandle
from mesh.relay.tcp_port import plain_socket
from sidecar.wiring.acme_worker import IssuedElsewhere
from sidecar.wiring.http import Given, HttpEdge
from sidecar.workers import worker_main
from sidecar.workers.carried_ports import CarriedPorts
from sidecar.workers.channel import Channel
from sidecar.workers.edge_reach import EdgeReach, EdgeTunnels
from sidecar.workers.http_messages import (
    TELLS,
    TOLD,
    AcmeProof,
    BeginHttp,
    ConnectionBroken,
    Done,
    Here,
    HttpReport,
    KeyPairs,
    LearnHttp,
    Listen,
    SeenReport,
    ShutAll,
    StatsReport,
    TunnelDialled,
)
from sidecar.workers.port_messages import Carry, Shut
from sidecar.workers.socket_stock import SocketStock

REPORT_SECONDS = 1.0


class HttpProcess:
    """The sidecar is at the other end of the channel."""

    def __init__(self, begin: BeginHttp, sockets: tuple[socket.socket, ...], channel: Channel) -> None:
        self.failed = asyncio.Event()
        self._channel = channel
        self._tasks = Tasks(worker_main.on_task_failed(self.failed))
        self.store = Store(later=worker_main.later)
        self._certificates, self._issued = GivenCertificates(), IssuedElsewhere()
        given = Given(self._certificates, self._issued)
        self._side = HttpEdge(begin.settings.http, self._tasks, self.store, given=given)
        self._stock = SocketStock(sockets[0], self.failed.set) if sockets else None
        self._connect = self._stock.connect("") if self._stock else plain_socket
        self._ports = CarriedPorts(self._tasks, channel, self._open)
        self._tunnels = EdgeTunnels(channel)
        self._here = Here((), False)
        self._networks = frozenset[str]()
        self._reported: dict[str, ServiceStats] = {}
        self._concerned: set[str] = set()  # services (ids) of which something was seen

    async def start(self) -> None:
        if self._stock is None:
            self._side.start(OwnNamespace(plain_socket))
        else:
            reach = self._reach(self._stock)
            reach_with_tunnels = self._reach(self._stock, self._tunnels)
            self._side.start(reach_with_tunnels, lambda: self._here.as_published, reach)
        self._tasks.keep(self._report, "reports")

    def _reach(self, stock: SocketStock, tunnels: EdgeTunnels | None = None) -> EdgeReach:
        return EdgeReach(
            stock,
            self._side.internal,
            lambda: self._networks,
            self._is_ingress,
            tunnels.to if tunnels is not None else None,
        )

    def _is_ingress(self, network: str) -> bool:
        known = self.store.current.networks.get(network)
        return known is not None and known.ingress

    def _open(self, order: Carry, listener: socket.socket) -> PortHandle:
        way = order.way
        return HttpPort(
            self._side.core, order.service, listener, way.endpoints, way.options, self._connect, way.near
        )

    def handle(self, message: object, sockets: tuple[socket.socket, ...]) -> None:
        match message:
            case LearnHttp():
                if message.node != self.store.current.this_node:
                    self.store.identify(message.node)
                self.store.publish(message.change(self.store.current))
            case Here():
                self._on_here(message)
            case Listen():
                sockets[0].setblocking(False)
                self._side.adopt(message.name, sockets[0])
            case Carry():
                self._ports.carry(message, sockets)
            case Shut():
                self._ports.shut(message)
            case ShutAll():
                self._tasks.start(self._shut(message.drain), "http-drain")
            case TunnelDialled():
                self._tunnels.on_dialled(message)
            case ConnectionBroken():
                self._tunnels.on_broken(message, sockets)
            case KeyPairs():
                self._certificates.set_pairs({file: _as_bytes(*pair) for file, pair in message.pairs.items()})
            case AcmeProof():
                self._issued.thumbprint = message.thumbprint

    def _on_here(self, message: Here) -> None:
        self._here, networks = message, frozenset(message.networks)
        moved, self._networks = networks ^ self._networks, networks
        known = self.store.current.networks
        if changed := {id_: known[id_] for id_ in moved if id_ in known}:
            self.store.publish(Change(networks=changed))  # they are reached in another way from now on

    async def stop(self) -> None:
        """At once: who wants requests drained has said so before."""
        await self._tasks.close()
        await self._ports.close()
        await self._side.close(0.0)
        if self._stock is not None:
            self._stock.close()
        self._side.stop()

    async def _shut(self, drain: float) -> None:
        await self._side.close(drain)
        self._channel.send(Done(self._news()))

    async def _report(self) -> None:
        while True:
            self._channel.send(self._news())  # also when there is no news: it says that we are here
            self._channel.send(self._ports.report())
            await self._channel.taken()
            await asyncio.sleep(REPORT_SECONDS)

    def _news(self) -> HttpReport:
        counts = self._side.counts
        now = counts.own_stats()
        news = {id_: one for id_, one in now.items() if self._reported.get(id_) != one}
        self._reported = {id_: one.copy() for id_, one in now.items()}
        # Only what was asked for something can be other than it was, or what was left out before.
        seen, self._concerned = counts.own_seen({*news, *self._concerned})
        return HttpReport(
            tuple(StatsReport.of(id_, one) for id_, one in news.items()),
            tuple(SeenReport.of(http, endpoint, one) for (http, endpoint), one in seen.items()),
            tuple((*key, count) for key, count in counts.own_passed_on().items()),
            counts.own_targets_refused(),
        )


def _as_bytes(chain: str, key: str) -> KeyPair:
    return KeyPair(chain.encode("latin-1"), key.encode("latin-1"))


def run(descriptor: int) -> int:
    """Returns the exit status."""
    return worker_main.run(descriptor, HttpProcess, TOLD, TELLS)
