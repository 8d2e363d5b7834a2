"""Ours as it is measured: the sidecar's own capture, ingress and relay in one process, a made-up catalogue.

    python -m benchmarks.l4.carrying NETNS_DIR BOX_NAMESPACE

Runs in the entry node's namespace. Service `web` is published by the kernel and by the relay alike, and has a
virtual IP; `bulk` is the same with one task, for a load that needs all its connections to go to one.
"""

import asyncio
import socket
import sys

import uvloop

from benchmarks.l4.world import BOX, SUBNET, TASKS
from mesh.catalog.model import Attachment, Container, Network, Port, Service, ServiceNetwork, Task, TaskState
from mesh.catalog.snapshot import Change, Snapshot
from mesh.kernel.capture import Capture, Closable
from mesh.kernel.ingress import Ingress
from mesh.kernel.table import Tables
from mesh.net.netns import Namespace, NamespaceWorker
from mesh.net.tasks import Tasks
from mesh.relay.ports import RelayPorts

INGRESS, OVERLAY = "ingress", "overlay"  # one wire for both
# What tasks listen on, the published ports that lead there, and the virtual IP.
WEB, WEB_KERNEL, WEB_RELAY, WEB_VIP = 8080, 80, 81, "10.0.0.5"
BULK, BULK_KERNEL, BULK_RELAY, BULK_VIP = 5201, 5201, 5202, "10.0.0.6"


def catalogue(box: str) -> Snapshot:
    services = (
        _service("web", WEB_VIP, WEB, WEB_KERNEL, WEB_RELAY, TASKS),
        _service("bulk", BULK_VIP, BULK, BULK_KERNEL, BULK_RELAY, TASKS[:1]),
    )
    asking = Container("b" * 64, "box", box, (Attachment(OVERLAY, BOX),))
    return Snapshot().apply(
        Change(
            networks={
                INGRESS: Network(INGRESS, INGRESS, subnets=(SUBNET,), ingress=True),
                OVERLAY: Network(OVERLAY, OVERLAY, subnets=(SUBNET,)),
            },
            services={service.id: service for service in services},
            containers={asking.id: asking},
        )
    )


def _service(
    name: str, vip: str, target: int, kernel: int, relay: int, addresses: tuple[str, ...]
) -> Service:
    return Service(
        name,
        name,
        networks=(ServiceNetwork(OVERLAY, vip),),
        ports=(Port(kernel, target), Port(relay, target)),
        labels={f"mesh.port.{relay}.mode": "proxy", f"mesh.port.{kernel}.source_ip": "masquerade"},
        tasks=tuple(_task(name, address) for address in addresses),
    )


def _task(service: str, address: str) -> Task:
    name = f"{service}.{address}"
    return Task(name, name, "node", TaskState.RUNNING, {INGRESS: address, OVERLAY: address})


class Unanswered:
    """DNS sockets of a captured container whose names nobody asks for."""

    def __init__(self, _: Container, *sockets: socket.socket) -> None:
        self._sockets = sockets

    def close(self) -> None:
        for one in self._sockets:
            one.close()


def _endpoint(container: Container, udp: socket.socket, tcp: socket.socket) -> Closable:
    return Unanswered(container, udp, tcp)


async def carry(netns: str, box: str) -> None:
    """Wired as in sidecar/app.py."""
    tasks = Tasks(lambda name, error: sys.exit(f"{name}: {error!r}"))
    worker = NamespaceWorker()
    tables = Tables(worker)
    ingress = Ingress(tasks, tables, worker, netns_dir=netns)
    relay = RelayPorts(tasks, connect=lambda: Namespace(ingress.sandbox_path).tcp_socket())
    capture = Capture(tasks, tables, _endpoint)
    known = catalogue(box)
    for part in (capture, ingress, relay):
        part.start(known)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(carry(*sys.argv[1:]))
