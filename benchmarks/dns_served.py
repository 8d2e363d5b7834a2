"""Our resolver as it is measured: a process that answers for a made-up catalogue, or the bare minimum.

    python -m benchmarks.dns_served PORT [--names N] [--tasks N] [--namespace PATH] [--upstream PORT] [--echo]

`--echo` is the floor: datagrams in, the same datagrams out, through the same two system calls and no
look-up in between. What ours costs above it is the price of an answer.
"""

import argparse
import asyncio
import socket
import sys

import uvloop

from benchmarks.peers import ZONE
from mesh.catalog.model import Asker, Network, Service, ServiceNetwork, Task, TaskState
from mesh.catalog.snapshot import Change, Snapshot
from mesh.dns.config import DnsConfig
from mesh.dns.datagrams import SIZE_STEP, Batch
from mesh.dns.resolver import Resolver
from mesh.dns.server import Endpoint
from mesh.net.netns import Namespace
from mesh.net.tasks import Tasks

DOCKER_RESOLVER = "127.0.0.11"


def names(count: int) -> dict[str, str]:
    """name → address, the same for all servers."""
    return {f"name{n}.{ZONE}": f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}" for n in range(count)}


def snapshot(count: int, tasks: int = 1) -> Snapshot:
    """A catalogue in which `name0` … are services with a VIP on a network called as the zone."""
    services = {}
    for number, (name, address) in enumerate(names(count).items()):
        label = name.removesuffix(f".{ZONE}")
        services[label] = Service(
            label,
            label,
            networks=(ServiceNetwork(ZONE, address),),
            tasks=tuple(_task(label, number * tasks + one, one) for one in range(1, tasks + 1)),
        )
    askers = (Asker("anyone", "127.0.0.0/8", (ZONE,)),)
    return Snapshot().apply(Change(networks={ZONE: Network(ZONE, ZONE)}, services=services, askers=askers))


def _task(label: str, number: int, slot: int) -> Task:
    at = {ZONE: f"11.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"}
    return Task(f"{label}.{slot}", f"{label}.{slot}.x", "node", TaskState.RUNNING, at)


async def serve(options: argparse.Namespace) -> None:
    tasks = Tasks(lambda name, error: print(name, repr(error), file=sys.stderr))
    upstreams = (f"127.0.0.1:{options.upstream}",) if options.upstream else ("127.0.0.1:1",)
    resolver = Resolver(DnsConfig(upstreams=upstreams), tasks, snapshot(options.names, options.tasks))
    address = DOCKER_RESOLVER if options.namespace else "127.0.0.1"
    udp = Namespace(options.namespace).udp_socket(address, options.port)
    tcp = Namespace(options.namespace).tcp_listener(address, options.port)
    endpoint = Endpoint(resolver, udp, tcp, resolver.scope_by_source)
    await endpoint.start()
    await asyncio.Event().wait()


async def echo(port: int) -> None:
    udp = Namespace(None).udp_socket("127.0.0.1", port)
    batch = Batch(socket.AF_INET)

    def drain() -> None:
        count = batch.receive(udp.fileno())
        for index in range(count):
            batch.data[batch.starts[index] + 2] = 0x81  # a response, so that the load generator takes it
            batch.sizes[index * SIZE_STEP] = batch.lengths[index]
        sent = 0
        while sent < count:
            sent += batch.send(udp.fileno(), sent, count)

    asyncio.get_running_loop().add_reader(udp.fileno(), drain)
    await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dns_served", description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("--names", type=int, default=1000)
    parser.add_argument("--tasks", type=int, default=1, help="of each service")
    parser.add_argument("--namespace", help="path of the network namespace to listen in")
    parser.add_argument("--upstream", type=int, help="port on 127.0.0.1 to forward to")
    parser.add_argument("--echo", action="store_true", help="the floor")
    options = parser.parse_args()
    uvloop.run(echo(options.port) if options.echo else serve(options))


if __name__ == "__main__":
    main()
