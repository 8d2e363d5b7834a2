"""However many descriptors the sidecar has open, rules are loaded, and everybody else is answered."""

import asyncio
import os
import resource
import socket
import sys
from asyncio.subprocess import PIPE
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from mesh.catalog.model import Port, Protocol, Service, Task, TaskState
from mesh.net.netns import Namespace
from sidecar.cli.doctor import Doctor
from tests.net.lab import needs_root
from tests.support.swarm_node import INGRESS, NODE, GoodService, config, get, rss, swarm_node
from tests.support.waiting import until
from tests.support.workers import children

pytestmark = [pytest.mark.root, needs_root]

HTTP_PROCESS = "sidecar.processes.http"
FD_SETSIZE = 1024  # select(2) cannot take a descriptor of this number or more
CONTAINERS = 500
PORTS, PORTS_PER_SERVICE, FIRST_PORT = 5_000, 50, 20_000
PORT_KB = 15  # of memory at most; a buffer for each UDP port would be 64
CONNECTIONS = 20_000
RELAYED = 2_000  # over both versions of IP: twice as many sockets


@pytest.fixture(autouse=True)
def all_descriptors() -> Iterator[None]:
    """As the sidecar does at its start."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def descriptors(process: int | str = "self") -> int:
    return len(os.listdir(f"/proc/{process}/fd"))


async def test_500_captured_containers(tmp_path: Path) -> None:
    async with swarm_node(tmp_path) as node:
        good = GoodService(node)
        async with good.asked_throughout():
            for number in range(CONTAINERS):
                one = node.container(f"c{number}", "net", f"10.9.{number // 250}.{number % 250 + 2}")
                node.publish(containers={one.id: one})
            await until(lambda: node.captured == CONTAINERS + 1)
            assert descriptors() > FD_SETSIZE
            checks = await asyncio.to_thread(limits_by_doctor, tmp_path)
            assert {"file descriptors", "memory", "processes"} == checks.keys()
            used, of, most = checks["file descriptors"].split()[:3]
            assert (of, int(most)) == ("of", resource.getrlimit(resource.RLIMIT_NOFILE)[1])
            assert int(used) > 3 * CONTAINERS
            node.publish(containers={f"c{number}": None for number in range(CONTAINERS)})
            await until(lambda: node.captured == 1)


def limits_by_doctor(folder: Path) -> dict[str, str]:
    """What `mesh doctor` sees of the sidecar that runs."""
    visit = Doctor(config(folder), config(folder).admin.places[0])
    return {one.name: one.seen for one in visit._of_limits()}


async def test_5000_published_ports(tmp_path: Path) -> None:
    """Over IPv6 each has a socket of ours, and little else."""
    async with swarm_node(tmp_path) as node:
        good = GoodService(node)
        async with good.asked_throughout():
            memory = rss()
            services = [publishing(number) for number in range(PORTS // PORTS_PER_SERVICE)]
            for one in services:
                node.publish(services={one.id: one})
            await until(lambda: node.published == PORTS)
            await node.settled()
            assert descriptors() > PORTS
            assert rss() - memory < PORTS * PORT_KB
            one = node.container("later", "net", "10.9.0.2")
            node.publish(containers={one.id: one})
            await until(lambda: node.captured == 2)
            node.publish(services={one.id: None for one in services})
            await until(lambda: node.published == 0)


def publishing(number: int) -> Service:
    """A service with TCP and UDP ports."""
    first = FIRST_PORT + number * PORTS_PER_SERVICE
    ports = [
        Port(first + one, 80, Protocol.UDP if one % 2 else Protocol.TCP) for one in range(PORTS_PER_SERVICE)
    ]
    address = f"10.0.0.{number + 10}"
    task = Task(f"t{number}", f"s{number}.1", NODE, TaskState.RUNNING, {INGRESS: address})
    return Service(f"s{number}", f"s{number}", ports=tuple(ports), tasks=(task,))


# Holds so many connections, from as many addresses as it takes, until its input ends.
CLIENT = """
import resource, socket, sys
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
wanted, network = int(sys.argv[1]), sys.argv[2]
held = []
for number in range(wanted):
    sock = socket.socket()
    sock.bind((f"127.{network}.0.{number // 1000 + 1}", 0))
    sock.connect(("127.0.0.1", 8080))
    held.append(sock)
print("held", flush=True)
sys.stdin.read()
"""


async def test_20000_connections(tmp_path: Path) -> None:
    """Or as many as there are descriptors for."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    half = min(CONNECTIONS, hard - 1_000) // 2
    async with swarm_node(tmp_path, connections_per_address=0) as node:
        good = GoodService(node)
        async with good.asked_throughout():
            (serving,) = children(HTTP_PROCESS)
            before = descriptors(serving)
            clients = [await holding(half, network) for network in (1, 2)]
            await until(lambda: descriptors(serving) >= before + 2 * half)
            for number in range(20):
                one = node.container(f"c{number}", "net", f"10.9.0.{number + 2}")
                node.publish(containers={one.id: one})
            await until(lambda: node.captured == 21)
            for client in clients:
                assert client.stdin is not None
                client.stdin.close()
                await client.wait()
            await until(lambda: descriptors(serving) < FD_SETSIZE)


async def holding(connections: int, network: int) -> asyncio.subprocess.Process:
    client = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CLIENT, str(connections), str(network), stdin=PIPE, stdout=PIPE
    )
    assert client.stdout is not None
    assert await client.stdout.readline() == b"held\n"
    return client


async def test_clients_do_not_get_the_last_descriptors(tmp_path: Path) -> None:
    """More connect than the limit permits: all others are answered and containers are captured meanwhile."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1_000, hard))  # of the processes that serve as well
    async with swarm_node(tmp_path, connections_per_address=0) as node:
        good = GoodService(node)
        async with good.asked_throughout():
            client = await holding(2_000, 1)  # the kernel takes those that we don't
            for number in range(20):
                one = node.container(f"c{number}", "net", f"10.9.0.{number + 2}")
                node.publish(containers={one.id: one})
            await until(lambda: node.captured == 21)
            assert client.stdin is not None
            client.stdin.close()
            await client.wait()
            async with asyncio.timeout(20):
                while b'reason="fd_limit"' not in await get(("127.0.0.1", 9180), "any", "/metrics"):
                    await asyncio.sleep(0.1)


async def test_a_port_takes_no_second_descriptor_while_its_process_starts(tmp_path: Path) -> None:
    """With room for all listening sockets, but not for a copy of each on its way to who carries them."""
    async with swarm_node(tmp_path) as node:
        good = GoodService(node)
        async with good.asked_throughout():
            _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors() + 2 * RELAYED + RELAYED, hard))
            ports = tuple(Port(FIRST_PORT + one, 80, Protocol.UDP) for one in range(RELAYED))
            labels = {f"mesh.port.{one.published}.mode": "proxy" for one in ports}
            tasks = (Task("t", "udp.1", NODE, TaskState.RUNNING, {INGRESS: "10.0.0.2"}),)
            node.publish(services={"udp": Service("udp", "udp", ports=ports, labels=labels, tasks=tasks)})
            await node.settled()
            answering = Namespace(str(node.sandbox)).udp_socket("10.0.0.2", 80)
            asyncio.get_running_loop().add_reader(
                answering, lambda: answering.sendto(b"hello", answering.recvfrom(100)[1])
            )
            assert await echoed(ports[-1].published) == b"hello"
            asyncio.get_running_loop().remove_reader(answering)
            answering.close()


async def echoed(port: int) -> bytes:
    """As applications do: asked again where nothing comes."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.connect(("127.0.0.1", port))
        async with asyncio.timeout(20):
            while True:
                with suppress(TimeoutError, ConnectionRefusedError):
                    await loop.sock_sendall(sock, b"?")
                    async with asyncio.timeout(0.5):
                        return await loop.sock_recv(sock, 100)
