"""Real processes on loopback: they share the port, know what the sidecar knows, and may die."""

import asyncio
import os
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Callable

import pytest
from dnslib import DNSRecord

from mesh.catalog.model import Asker, Network, Service, ServiceNetwork, Task, TaskState
from mesh.catalog.snapshot import Change
from mesh.catalog.store import Store
from mesh.dns.config import DnsConfig
from mesh.dns.node_listener import ExplicitResolver, Sharing
from mesh.dns.resolver import Resolver
from mesh.dns.stats import Counts, DnsStats
from mesh.net.tasks import Tasks
from sidecar.config import Log
from sidecar.workers.dns_supervisor import DnsWorkers

DEADLINE = 20.0
QUERIES = 100  # from as many ports: that none of them falls to one of three processes is out of the question

pytestmark = pytest.mark.skipif(not hasattr(socket, "SO_REUSEPORT"), reason="no SO_REUSEPORT here")


def web(vip: str) -> Service:
    task = Task("t1", "web.1.t1", "n1", TaskState.RUNNING, {"net": "10.0.1.9"})
    return Service("s1", "web", networks=(ServiceNetwork("net", vip),), tasks=(task,))


class Running:
    """A resolver here, two workers, one port."""

    def __init__(self) -> None:
        self.failures: list[BaseException] = []
        self.tasks = Tasks(lambda _, error: self.failures.append(error))
        self.store = Store(self.failures.append)
        askers = (Asker("tests", "127.0.0.0/8", ("net",)),)
        networks = {"net": Network("net", "inside")}
        self.store.publish(Change(networks=networks, services={"s1": web("10.0.1.2")}, askers=askers))
        dns = DnsConfig(upstreams=("127.0.0.1:1",))
        self.resolver = Resolver(dns, self.tasks, self.store.current)
        self.store.subscribe(self.resolver.update)
        self.of_workers = DnsStats()
        self.workers = DnsWorkers(2, dns, Log(), self.store, self.tasks, self.of_workers.add)
        self.store.subscribe(self.workers.update, "dns-workers", self.workers.restart)
        self.explicit = ExplicitResolver(
            self.resolver, self.tasks, (("127.0.0.1", 0),), sharing=Sharing.OPENED
        )

    async def start(self) -> None:
        await self.explicit.start()
        self.workers.start(self.explicit)
        await until(lambda: len(self.sockets()) == 3, "three sockets share the port")

    def sockets(self) -> list[str]:
        """The UDP sockets bound to our port, as the kernel lists them."""
        place = self.explicit.places[0].bound
        assert place is not None
        with open("/proc/net/udp", encoding="ascii") as file:
            return [line for line in file if f"0100007F:{place[1]:04X}" in line.split()[1]]

    async def ask(self, times: int = QUERIES) -> set[str]:
        """The addresses of `web` in the replies to so many queries, each from a port of its own."""
        return set(await asyncio.gather(*(self._ask_one() for _ in range(times))))

    async def _ask_one(self) -> str:
        loop = asyncio.get_running_loop()
        place = self.explicit.places[0].bound
        assert place is not None
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.setblocking(False)
            client.connect(place)
            await loop.sock_sendall(client, DNSRecord.question("web").pack())
            reply = DNSRecord.parse(await asyncio.wait_for(loop.sock_recv(client, 512), DEADLINE))
        return str(reply.rr[0].rdata)

    def counted(self) -> tuple[int, int]:
        """Queries answered here, and by the workers."""
        return sum(self.resolver.requests.values()), sum(self.of_workers.requests.values())

    async def stop(self) -> None:
        await self.workers.close()
        self.explicit.close()
        await self.tasks.close()
        assert not self.failures


async def until(look: Callable[[], bool], what: str) -> None:
    try:
        async with asyncio.timeout(DEADLINE):
            while not look():
                await asyncio.sleep(0.02)
    except TimeoutError:
        pytest.fail(f"not within {DEADLINE} s: {what}")


def children() -> list[int]:
    command = ["pgrep", "-P", str(os.getpid()), "-f", "sidecar.processes.dns"]
    found = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return [int(line) for line in found.split()]


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    made = Running()
    await made.start()
    yield made
    await made.stop()
    assert children() == [], "none outlives the sidecar"


async def test_the_port_is_shared_and_every_query_is_counted_once(running: Running) -> None:
    assert await running.ask() == {"10.0.1.2"}
    await until(lambda: sum(running.counted()) == QUERIES, "the workers have told what they counted")
    here, elsewhere = running.counted()
    assert here
    assert elsewhere


async def test_workers_follow_the_catalogue(running: Running) -> None:
    running.store.publish(Change(services={"s1": web("10.0.1.3")}))
    async with asyncio.timeout(DEADLINE):
        while await running.ask() != {"10.0.1.3"}:
            pass


async def test_a_worker_that_dies_is_replaced_and_knows_what_is_true_by_then(running: Running) -> None:
    before = children()
    for worker in before:
        os.kill(worker, signal.SIGKILL)
    await until(lambda: len(running.sockets()) == 1, "their sockets are gone")
    assert await running.ask() == {"10.0.1.2"}, "the sidecar itself answers"
    running.store.publish(Change(services={"s1": web("10.0.1.3")}))
    await until(lambda: len(running.sockets()) == 3, "there are new ones")
    assert not set(before) & set(children())
    assert await running.ask() == {"10.0.1.3"}


async def test_counts_move_from_one_process_to_another_once() -> None:
    here, there = DnsStats(), DnsStats()
    cell = there.cell("net", 1, 0, "cache")
    cell[0] += 3
    there.durations["cache"].observe(0.001, 3)
    there.drop("stranger", 2)
    there.upstream("192.0.2.1", "NOERROR")
    for _ in range(2):
        here.add(there.take())
    cell[0] += 1
    here.add(there.take())
    assert here.requests == {("net", "A", "NOERROR", "cache"): 4}
    assert sum(here.durations["cache"].counts) == 3
    assert here.dropped == {"stranger": 2}
    assert here.upstream_requests == {("192.0.2.1", "NOERROR"): 1}
    assert isinstance(there.take(), Counts)
