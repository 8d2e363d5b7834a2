"""What was deployed and is removed leaves nothing: 50 stacks with 1,000 containers and 2,000 ports, each of
which is used, come and go, and the sidecar has what it had before."""

import asyncio
import gc
import os
import re
import resource
import socket
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from mesh.catalog.model import Network, Port, Protocol, Service, ServiceNetwork, Task, TaskState
from mesh.http import limits
from mesh.kernel import flow_drain
from mesh.kernel.netfilter import nft
from mesh.net import proc, socket_pool
from mesh.net.netns import Namespace, namespace_of
from mesh.relay import udp_port
from tests.net.lab import needs_root
from tests.support.swarm_node import (
    ENTRY,
    INGRESS,
    NODE,
    GoodService,
    SwarmNode,
    ask_name,
    get,
    ip,
    rss,
    say_hello,
    swarm_node,
)
from tests.support.waiting import until

pytestmark = [pytest.mark.root, needs_root]

ROUNDS, STACKS = 5, 10  # a round's stacks are there together
CONTAINERS, PORTS = 20, 40  # of a stack
RSS_MAX = 5_000  # KB more than after the rounds that warm up
# What is kept for a while after its last use, in seconds.
KEPT = (
    (socket_pool, "IDLE_SECONDS"),
    (flow_drain, "ENDED_KEPT_SECONDS"),
    (udp_port, "QUIET_SECONDS"),
    (limits, "IDLE_ENDPOINT_SECONDS"),
)
STOCK_MAX = 128  # sockets that a process may have in stock
SAME = 6  # looks in a row that find the same
SANDBOX = "10.0.0.2"  # tasks of published ports answer in the ingress namespace itself


@dataclass(frozen=True)
class State:
    """What the process and the kernel hold."""

    descriptors: int
    namespaces: int  # that sockets of the process belong to
    rules: int  # lines that nft lists, of the host and the ingress namespace
    metrics: int  # lines
    listening: int  # sockets of the node's namespace


class Ports:
    """Free ones of the node, which nobody else uses."""

    def __init__(self) -> None:
        self._next = 20_000

    def take(self, count: int) -> list[int]:
        found = list(range(self._next, self._next + count))
        self._next += count
        return found


@pytest.fixture(autouse=True)
def all_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_50_stacks_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in KEPT:
        monkeypatch.setattr(module, name, 0.2)
    async with swarm_node(tmp_path) as node, answering_in(node.sandbox):
        good, ports = GoodService(node), Ports()
        async with good.asked_throughout():
            for number in range(2):  # warms up: allocators keep what a first round has needed
                await deploy_use_and_remove(node, ports, -1 - number)
        before, memory, others = await settled_state(node), rss(), processes()
        async with good.asked_throughout():
            for number in range(ROUNDS):
                await deploy_use_and_remove(node, ports, number)
        assert await settled_state(node) == before
        assert rss() - memory < RSS_MAX
        after = processes()
        assert after.keys() == others.keys()
        for pid, (open_, kilobytes) in after.items():
            assert open_ - others[pid][0] < STOCK_MAX
            assert kilobytes - others[pid][1] < RSS_MAX
    assert len(node.made) == 0


# --- one round ----------------------------------------------------------------------------------------------


async def deploy_use_and_remove(node: SwarmNode, ports: Ports, number: int) -> None:
    stacks = [Stack(node, number * STACKS + place, ports) for place in range(STACKS)]
    for stack in stacks:
        stack.deploy()
    await until(lambda: node.captured == 1 + STACKS * CONTAINERS)
    await node.settled()
    await until(lambda: node.published == sum(len(stack.in_kernel) for stack in stacks))
    for stack in stacks:
        await stack.use()
    for stack in stacks:
        stack.remove()
    await until(lambda: node.captured == 1 and node.published == 0)
    await node.settled()


class Stack:
    """A network, a service with a router and a port of every kind, and one with all other ports."""

    def __init__(self, node: SwarmNode, number: int, ports: Ports) -> None:
        self.node, self.name = node, f"s{number}"
        self.network = f"net-{number}"
        self.subnet = f"10.{100 + number % 100}.0"
        taken = ports.take(PORTS)
        self.proxied, self.udp, self.http, *self.in_kernel = taken

    def deploy(self) -> None:
        node, network = self.node, Network(self.network, self.network, (f"{self.subnet}.0/24",))
        self.balancer = node.namespace(f"lb_{self.network}")  # Docker makes it ahead of the first container
        ip(
            "addr", "add", f"{self.subnet}.3/24", "dev", "lo", inside=self.balancer
        )  # all of the subnet is there
        containers = [
            node.container(f"{self.name}-c{number}", self.network, f"{self.subnet}.{number + 10}", self.name)
            for number in range(CONTAINERS)
        ]
        node.publish(
            networks={self.network: network},
            containers={one.id: one for one in containers},
            services={self.name: self._service(), f"{self.name}-more": self._more()},
        )

    def _service(self) -> Service:
        labels = {
            "com.docker.stack.namespace": self.name,
            f"mesh.port.{self.proxied}.mode": "proxy",
            f"mesh.port.{self.udp}.mode": "proxy",
            f"mesh.port.{self.http}.mode": "http",
            f"mesh.port.{self.proxied}.policy": "p2c",
            f"traefik.http.routers.{self.name}.rule": f"Host(`{self.name}.example`)",
            f"traefik.http.routers.{self.name}.middlewares": f"{self.name}-r,{self.name}-f",
            f"traefik.http.middlewares.{self.name}-r.ratelimit.average": "1000",
            f"traefik.http.middlewares.{self.name}-f.inflightreq.amount": "100",
            f"traefik.http.services.{self.name}.loadbalancer.server.port": "80",
            f"traefik.http.services.{self.name}.loadbalancer.healthcheck.path": "/",
            f"mesh.port.{self.http}.health": "/",
        }
        tasks = [
            Task(
                f"t-{self.name}-c{number}",
                f"{self.name}.{number}.t",
                NODE,
                TaskState.RUNNING,
                {self.network: f"{self.subnet}.{number + 10}"} | ({INGRESS: SANDBOX} if number == 0 else {}),
                f"{self.name}-c{number}",
            )
            for number in range(CONTAINERS)
        ]
        published = (
            Port(self.proxied, 80),
            Port(self.udp, 80, Protocol.UDP),
            Port(self.http, 80),
        )
        on = (ServiceNetwork(self.network, f"{self.subnet}.2"), ServiceNetwork(INGRESS))
        return Service(self.name, self.name, networks=on, ports=published, labels=labels, tasks=tuple(tasks))

    def _more(self) -> Service:
        name = f"{self.name}-more"
        ports = [Port(one, 80, Protocol.UDP if one % 2 else Protocol.TCP) for one in self.in_kernel]
        task = Task(f"t-{name}", f"{name}.1.t", "other", TaskState.RUNNING, {INGRESS: "10.0.0.77"})
        return Service(name, name, ports=tuple(ports), tasks=(task,))

    async def use(self) -> None:
        """Every way once."""
        inside = Namespace(str(self.node.made[f"{self.name}-c0"]))
        async with answering_in(self.balancer, "0.0.0.0"):
            assert b"hello" in await get((ENTRY.host, ENTRY.port), f"{self.name}.example")
        for port in (self.proxied, self.http):
            for address in ("127.0.0.1", "::1"):
                assert b"hello" in await get((address, port), "any")
        assert await echoed(self.udp) == b"hello"
        assert await ask_name(inside, self.name) == [f"{self.subnet}.2"]
        assert await ask_name(inside, "nowhere.example") == []

    def remove(self) -> None:
        ids = [id_ for id_ in self.node.made if id_.startswith(f"{self.name}-")]
        for id_ in (*ids, f"lb_{self.network}"):
            self.node.remove(id_)
        self.node.publish(
            networks={self.network: None},
            containers=dict.fromkeys(ids),
            services={self.name: None, f"{self.name}-more": None},
        )


@asynccontextmanager
async def answering_in(path: Path, address: str = SANDBOX) -> AsyncIterator[None]:
    """Whoever asks on port 80 there gets hello, over TCP and UDP."""
    loop, inside = asyncio.get_running_loop(), Namespace(str(path))
    server = await asyncio.start_server(say_hello, sock=inside.tcp_listener(address, 80))
    udp = inside.udp_socket(address, 80)
    loop.add_reader(udp, lambda: udp.sendto(b"hello", udp.recvfrom(100)[1]))
    try:
        yield
    finally:
        loop.remove_reader(udp)
        udp.close()
        server.close()


async def echoed(port: int) -> bytes:
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.connect(("127.0.0.1", port))
        await loop.sock_sendall(sock, b"?")
        async with asyncio.timeout(10):
            return await loop.sock_recv(sock, 100)


# --- what is held -------------------------------------------------------------------------------------------


async def settled_state(node: SwarmNode) -> State:
    """As it is when nothing has changed for a while: connections that were used have been closed."""
    seen = [await look(node)]
    async with asyncio.timeout(60):
        while len(seen) < SAME or len(set(seen[-SAME:])) > 1:
            await asyncio.sleep(0.2)
            seen.append(await look(node))
    return seen[-1]


async def look(node: SwarmNode) -> State:
    gc.collect()
    rules = nft.run("list ruleset\n") + Namespace(str(node.sandbox)).call(lambda: nft.run("list ruleset\n"))
    text = (await get(("127.0.0.1", 9180), "any", "/metrics")).decode()
    names = {line.partition(" ")[0] for line in text.splitlines() if line.startswith("mesh_")}
    ours = [name for name in names if re.search(r'"s-?\d+|net-', name)]
    return State(
        len(os.listdir("/proc/self/fd")),
        len(namespaces()),
        len(rules.splitlines()),
        len(ours),
        len(proc.bound("tcp") + proc.bound6() + proc.bound("udp")),
    )


def processes() -> dict[int, tuple[int, int]]:
    """Those that the sidecar has started, by their ids: (descriptors, KB of memory)."""
    found = {}
    for thread in Path("/proc/self/task").iterdir():
        for pid in map(int, (thread / "children").read_text().split()):
            fields = dict(line.split(":") for line in Path(f"/proc/{pid}/status").read_text().splitlines())
            found[pid] = len(os.listdir(f"/proc/{pid}/fd")), int(fields["VmRSS"].split()[0])
    return found


def namespaces() -> set[int]:
    """Inodes of the network namespaces that sockets of this process belong to."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            if not stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                continue
        except OSError:
            continue  # that of the listing
        with socket.socket(fileno=os.dup(int(name))) as sock:
            descriptor = namespace_of(sock)
        found.add(os.fstat(descriptor).st_ino)
        os.close(descriptor)
    return found
