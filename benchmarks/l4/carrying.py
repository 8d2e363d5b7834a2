"""Ours as it is measured: the sidecar's own capture, ingress and relay, a made-up catalogue.

    python -m benchmarks.l4.carrying NETNS_DIR BOX_NAMESPACE TASKS_NAMESPACE PROCESSES

Runs in the entry node's namespace, and is the tasks' own node as well. Service `web` is published by the
kernel, with the client's address kept and masqueraded, and by the relay, and has a virtual IP; `bulk` is the
same with one task, for a load that needs all its connections to go to one.
"""

import asyncio
import socket
import sys
from dataclasses import replace

import uvloop

from benchmarks.l4.world import BOX, ENTRY, SUBNET, TASKS
from mesh.catalog.model import (
    Attachment,
    Container,
    Network,
    Node,
    Port,
    Service,
    ServiceNetwork,
    Task,
    TaskState,
)
from mesh.catalog.snapshot import Change, Snapshot
from mesh.catalog.store import Store
from mesh.kernel.capture import Closable, ContainerCapture
from mesh.kernel.ingress import IngressRules
from mesh.kernel.return_paths import ReturnPathRules
from mesh.kernel.table import Tables
from mesh.net.netns import NamespaceWorker
from mesh.net.tasks import Tasks
from mesh.relay.port_reconciler import RelayPorts
from sidecar.config import Log
from sidecar.workers.privileges import Restriction
from sidecar.workers.relay_supervisor import RelaySupervisor

INGRESS, OVERLAY = "ingress", "overlay"  # one wire for both
NODE = "node"
EDGE_UID = 65534  # nobody
# What tasks listen on, the published ports that lead there, and the virtual IP.
WEB, WEB_KERNEL, WEB_RELAY, WEB_KEPT, WEB_VIP = 8080, 80, 81, 82, "10.0.0.5"
BULK, BULK_KERNEL, BULK_RELAY, BULK_KEPT, BULK_VIP = 5201, 5201, 5202, 5203, "10.0.0.6"


def catalogue(box: str, tasks: str) -> Snapshot:
    services = (
        _service("web", WEB_VIP, WEB, (WEB_KERNEL, WEB_RELAY, WEB_KEPT), TASKS),
        _service("bulk", BULK_VIP, BULK, (BULK_KERNEL, BULK_RELAY, BULK_KEPT), TASKS[:1]),
    )
    asking = Container("box", "box", box, (Attachment(OVERLAY, BOX),))
    # All in one namespace, which one of them is captured for.
    serving = [_container(address, tasks, INGRESS) for address in TASKS[1:]]
    containers = (asking, _container(TASKS[0], tasks, INGRESS, OVERLAY), *serving)
    return Snapshot().apply(
        Change(
            networks={
                INGRESS: Network(INGRESS, INGRESS, subnets=(SUBNET,), ingress=True),
                OVERLAY: Network(OVERLAY, OVERLAY, subnets=(SUBNET,)),
            },
            services={service.id: service for service in services},
            containers={one.id: one for one in containers},
            nodes={NODE: Node(NODE, NODE, ENTRY)},
        )
    )


def _service(
    name: str, vip: str, target: int, published: tuple[int, int, int], addresses: tuple[str, ...]
) -> Service:
    masqueraded, relayed, _ = published
    return Service(
        name,
        name,
        networks=(ServiceNetwork(OVERLAY, vip),),
        ports=tuple(Port(port, target) for port in published),
        labels={f"mesh.port.{relayed}.mode": "proxy", f"mesh.port.{masqueraded}.source_ip": "masquerade"},
        tasks=tuple(_task(name, address) for address in addresses),
    )


def _container(address: str, namespace: str, *networks: str) -> Container:
    name = f"web.{address}"
    return Container(name, name, namespace, tuple(Attachment(network, address) for network in networks))


def _task(service: str, address: str) -> Task:
    name = f"{service}.{address}"
    return Task(name, name, NODE, TaskState.RUNNING, {INGRESS: address, OVERLAY: address})


class Unanswered:
    """DNS sockets of a captured container whose names nobody asks for."""

    def __init__(self, _: Container, *sockets: socket.socket) -> None:
        self._sockets = sockets

    def close(self) -> None:
        for one in self._sockets:
            one.close()


def endpoint(container: Container, udp: socket.socket, tcp: socket.socket) -> Closable:
    return Unanswered(container, udp, tcp)


async def carry(netns: str, box: str, containers: str, processes: str) -> None:
    """Wired as in sidecar/app.py. So many `processes` relay, beside this one."""
    tasks = Tasks(lambda name, error: sys.exit(f"{name}: {error!r}"))
    store = Store(lambda error: sys.exit(repr(error)), catalogue(box, containers))
    worker = NamespaceWorker()
    tables = Tables(worker)

    def say() -> None:
        """What the node's report does on its way by a manager."""
        if returning.current is not None:
            node = replace(store.current.nodes[NODE], return_path=returning.current)
            store.publish(Change(nodes={NODE: node}))

    returning = ReturnPathRules(tasks, worker, say)
    ingress = IngressRules(tasks, tables, worker, netns_dir=netns, on_entry=returning.own_entry)
    restriction = Restriction(EDGE_UID, EDGE_UID, 0)
    relaying = RelaySupervisor(int(processes), Log(), tasks, restriction, lambda _: ingress.sandbox_path)
    relay = RelayPorts(tasks, open_tcp=relaying.open_tcp, open_udp=relaying.open_udp)
    capture = ContainerCapture(tasks, tables, endpoint)
    for part in (returning, capture, ingress, relay):
        store.subscribe(part.update)
        part.start(store.current)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(carry(*sys.argv[1:]))
