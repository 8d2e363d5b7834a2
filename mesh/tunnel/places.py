"""Whose an address on a network is. Pure."""

from mesh.catalog.model import Node, Task
from mesh.catalog.snapshot import Snapshot


def task_at(snapshot: Snapshot, network: str, address: str) -> Task | None:
    """A walk over the network's services, then over all: one without a virtual IP there is not listed."""
    for services in (snapshot.services_on(network), snapshot.services.values()):
        for service in services:
            for task in service.tasks:
                if task.addresses.get(network) == address:
                    return task
    return None


def node_of(snapshot: Snapshot, network: str, address: str) -> Node | None:
    """Where that task runs."""
    task = task_at(snapshot, network, address)
    return snapshot.nodes.get(task.node) if task else None
