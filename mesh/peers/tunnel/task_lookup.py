"""Whose an address on a network is. Pure."""

from mesh.catalog.model import Node, Service, Task
from mesh.catalog.snapshot import Snapshot


def task_at(snapshot: Snapshot, network: str, address: str) -> Task | None:
    found = service_at(snapshot, network, address)
    return found[1] if found is not None else None


def service_at(snapshot: Snapshot, network: str, address: str) -> tuple[Service, Task] | None:
    """A walk over the network's services, then over all: one without a virtual IP there is not listed."""
    for services in (snapshot.services_on(network), snapshot.services.values()):
        for service in services:
            for task in service.tasks:
                if task.addresses.get(network) == address:
                    return service, task
    return None


def node_of(snapshot: Snapshot, network: str, address: str) -> Node | None:
    """Where that task runs."""
    task = task_at(snapshot, network, address)
    return snapshot.nodes.get(task.node) if task else None
