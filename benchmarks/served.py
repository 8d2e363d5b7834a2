"""Our resolver as it is measured: a process that answers for a made-up catalogue.

python -m benchmarks.served PORT [--names N] [--tasks N] [--namespace PATH] [--upstream PORT]
"""

import argparse
import asyncio
import sys

import uvloop

from benchmarks.peers import ZONE
from mesh.catalog.model import Asker, Network, Service, ServiceNetwork, Task, TaskState
from mesh.catalog.snapshot import Change, Snapshot
from mesh.dns.config import DnsConfig
from mesh.dns.resolver import Resolver
from mesh.dns.udp_server import DnsEndpoint
from mesh.net.netns import Namespace
from mesh.net.tasks import Tasks

DOCKER_RESOLVER = "127.0.0.11"
NO_UPSTREAM = 1  # port: nobody listens there


def names(count: int) -> dict[str, tuple[str, ...]]:
    """`nameN` → its address, the same for all servers."""
    return {f"name{n}.{ZONE}": (f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}",) for n in range(count)}


def tasks_names(services: int, tasks: int) -> dict[str, tuple[str, ...]]:
    """`tasks.nameN` → the addresses of its tasks."""
    return {
        f"tasks.name{n}.{ZONE}": tuple(_task_address(n, tasks, slot) for slot in range(tasks))
        for n in range(services)
    }


def _task_address(service: int, tasks: int, slot: int) -> str:
    number = service * tasks + slot
    return f"11.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


def snapshot(count: int, tasks: int = 1) -> Snapshot:
    """A catalogue in which `name0` … are services with a VIP on a network called as the zone."""
    services = {}
    for number, (name, (vip,)) in enumerate(names(count).items()):
        label = name.removesuffix(f".{ZONE}")
        services[label] = Service(
            label,
            label,
            networks=(ServiceNetwork(ZONE, vip),),
            tasks=tuple(_task(label, slot, _task_address(number, tasks, slot)) for slot in range(tasks)),
        )
    askers = (Asker("anyone", "127.0.0.0/8", (ZONE,)),)
    return Snapshot().apply(Change(networks={ZONE: Network(ZONE, ZONE)}, services=services, askers=askers))


def _task(service: str, slot: int, address: str) -> Task:
    return Task(f"{service}.{slot}", f"{service}.{slot}.x", "node", TaskState.RUNNING, {ZONE: address})


def resolver(known: Snapshot, upstream: int = NO_UPSTREAM) -> Resolver:
    tasks = Tasks(lambda name, error: print(name, repr(error), file=sys.stderr))
    return Resolver(DnsConfig(upstreams=(f"127.0.0.1:{upstream}",)), tasks, known)


async def serve(options: argparse.Namespace) -> None:
    answering = resolver(snapshot(options.names, options.tasks), options.upstream)
    address = DOCKER_RESOLVER if options.namespace else "127.0.0.1"
    udp = Namespace(options.namespace).udp_socket(address, options.port)
    tcp = Namespace(options.namespace).tcp_listener(address, options.port)
    endpoint = DnsEndpoint(answering, udp, tcp, answering.scope_by_source)
    await endpoint.start()
    await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.served")
    parser.add_argument("port", type=int)
    parser.add_argument("--names", type=int, default=1000)
    parser.add_argument("--tasks", type=int, default=1, help="of each service")
    parser.add_argument("--namespace", help="path of the network namespace to listen in")
    parser.add_argument("--upstream", type=int, default=NO_UPSTREAM, help="port on 127.0.0.1 to forward to")
    uvloop.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
