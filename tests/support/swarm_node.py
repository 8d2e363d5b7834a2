"""A whole sidecar on a node of its own: real namespaces, real rules, and a catalogue that the test says.

The calling thread enters a new network namespace, which is the node's; only what Docker would tell is made
up. Containers are network namespaces without a process, kept by a mount as Docker keeps them, which takes a
millisecond each.
"""

import asyncio
import ctypes
import fcntl
import gc
import os
import socket
import struct
import subprocess
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dnslib import DNSRecord

from mesh.catalog.model import (
    Attachment,
    Container,
    Network,
    Node,
    Role,
    Service,
    ServiceNetwork,
    Task,
    TaskState,
)
from mesh.catalog.snapshot import Change
from mesh.discovery.docker_source import DockerSource
from mesh.discovery.source import SourceStatus
from mesh.kernel.netfilter import nft
from mesh.net.netns import Namespace
from mesh.net.setns import CLONE_NEWNET, libc, open_own_namespace, setns
from sidecar.app import Sidecar
from sidecar.config import (
    Address,
    Admin,
    Config,
    Dns,
    Docker,
    EntryPointAddress,
    Http,
    IngressConfig,
    Metrics,
    OverIpv6,
)
from sidecar.wiring.data_plane import DataPlane

NODE, INGRESS = "node", "ingress"
SIOCSIFFLAGS, IFF_UP = 0x8914, 0x1
MS_BIND, MNT_DETACH = 0x1000, 0x2
ENTRY = Address("127.0.0.1", 8080)
DNS = ("127.0.0.11", 53)  # in a container
ASK_SECONDS = 10.0


# --- namespaces ---------------------------------------------------------------------------------------------


@contextmanager
def new_namespace() -> Iterator[None]:
    """The calling thread, and the threads that it starts, are in a new network namespace meanwhile."""
    home = open_own_namespace()
    try:
        _unshare()
        yield
    finally:
        setns(home)
        os.close(home)


def _unshare() -> None:
    if libc.unshare(CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))


def make_namespace(path: Path) -> None:
    """A new one, kept by a mount on this path."""
    path.touch()
    home = open_own_namespace()
    try:
        _unshare()
        done = libc.mount(b"/proc/thread-self/ns/net", bytes(path), b"none", MS_BIND, None)
        if done != 0:
            raise OSError(ctypes.get_errno(), f"mount {path}")
    finally:
        setns(home)
        os.close(home)


def remove_namespace(path: Path) -> None:
    libc.umount2(bytes(path), MNT_DETACH)
    path.unlink()


def ip(*arguments: str, inside: Path | None = None) -> None:
    enter = ["nsenter", f"--net={inside}"] if inside else []
    subprocess.run([*enter, "ip", *arguments], check=True, capture_output=True)


# --- the node -----------------------------------------------------------------------------------------------


class _MadeUp(DockerSource):
    """Docker's part: the test publishes."""

    def __init__(self) -> None:
        self.unwell: Mapping[str, str] = {}

    async def run(self) -> None:
        await asyncio.Event().wait()

    async def informed(self) -> None: ...

    def status(self) -> SourceStatus:
        return SourceStatus("docker", "worker", connected=True, last_success=time.time())

    def return_path_changed(self) -> None: ...

    def set_unwell(self, unwell: Mapping[str, str]) -> None:
        self.unwell = unwell

    @property
    def leads(self) -> bool:
        return False


class NodeSidecar(Sidecar):
    carrying: DataPlane

    def _docker_source(self) -> DockerSource:
        return _MadeUp()

    async def _carry(self, *how: Any) -> DataPlane:
        self.carrying = await super()._carry(*how)
        return self.carrying


@dataclass
class SwarmNode:
    """`sidecar` is running. `container` and `remove` make and end namespaces; `publish` is what is told."""

    sidecar: NodeSidecar
    folder: Path
    sandbox: Path
    made: dict[str, Path] = field(default_factory=dict)

    def publish(self, **changes: object) -> None:
        self.sidecar.store.publish(Change(**changes))  # type: ignore[arg-type]

    def container(self, id_: str, network: str, address: str, service: str = "") -> Container:
        """With its namespace."""
        path = self.namespace(id_)
        return Container(
            id_, f"name-{id_}", str(path), (Attachment(network, address),), service=service, task=f"t-{id_}"
        )

    def namespace(self, name: str) -> Path:
        """In Docker's folder."""
        path = self.made[name] = self.folder / name
        make_namespace(path)
        return path

    def remove(self, id_: str) -> None:
        remove_namespace(self.made.pop(id_))

    @property
    def captured(self) -> int:
        """Containers."""
        assert self.sidecar.carrying.capture is not None
        return self.sidecar.carrying.capture.count

    @property
    def published(self) -> int:
        """Ports that the kernel carries, by the elements of the host's table."""
        listed = nft.run("list set ip mesh published\n")
        return listed.count("tcp .") + listed.count("udp .")

    async def settled(self) -> None:
        """Wait until all that was published has been worked off."""
        carrying = self.sidecar.carrying
        assert carrying.capture is not None
        await carrying.capture.settled()
        for relay in (carrying.relay, carrying.relay6):
            if relay is not None:
                await relay.settled()


def config(folder: Path, **http: object) -> Config:
    return Config(
        node=NODE,
        dns=Dns(listen=(Address("127.0.0.1", 5300),), upstreams=("127.0.0.1:9",)),
        ingress=IngressConfig(ipv6=OverIpv6.TRUE),
        http=Http(entrypoints=(EntryPointAddress("web", ENTRY),), **http),  # type: ignore[arg-type]
        metrics=Metrics(Address("127.0.0.1", 9180)),
        admin=Admin(socket=str(folder / "admin.sock")),
        docker=Docker(netns=str(folder / "netns"), certificates=str(folder / "none")),
        state_dir=str(folder / "state"),
    )


@asynccontextmanager
async def swarm_node(folder: Path, **http: object) -> AsyncIterator[SwarmNode]:
    """In a new namespace, with Docker's bridge and ingress namespace; nothing of it is left at the end."""
    (folder / "netns").mkdir()
    (folder / "state").mkdir()
    with new_namespace():
        sandbox = folder / "netns" / "ingress_sbox"
        make_namespace(sandbox)
        try:
            _join(sandbox)
            sidecar = NodeSidecar(config(folder, **http))
            node = SwarmNode(sidecar, folder / "netns", sandbox)
            try:
                await sidecar.start()
                sidecar.store.identify(NODE)
                node.publish(
                    nodes={NODE: Node(NODE, NODE, "127.0.0.1", Role.WORKER, "active", "ready")},
                    networks={INGRESS: Network(INGRESS, "ingress", ("10.0.0.0/24",), "swarm", ingress=True)},
                )
                yield node
            finally:
                await sidecar.stop()
                for id_ in tuple(node.made):
                    node.remove(id_)
        finally:
            remove_namespace(sandbox)


def _join(sandbox: Path) -> None:
    ip("link", "add", "docker_gwbridge", "type", "bridge")
    ip("addr", "add", "172.18.0.1/16", "dev", "docker_gwbridge")
    ip("link", "set", "docker_gwbridge", "up")
    ip("link", "add", "sbox", "type", "veth", "peer", "name", "eth1")
    ip("link", "set", "eth1", "netns", str(sandbox))
    ip("link", "set", "sbox", "master", "docker_gwbridge", "up")
    ip("addr", "add", "172.18.0.2/16", "dev", "eth1", inside=sandbox)
    ip("link", "set", "eth1", "up", inside=sandbox)
    ip("link", "add", "eth0", "type", "bridge", inside=sandbox)  # any interface will do
    ip("addr", "add", "10.0.0.2/24", "dev", "eth0", inside=sandbox)
    ip("link", "set", "eth0", "up", inside=sandbox)


# --- a service that is answered throughout ------------------------------------------------------------------


class GoodService:
    """A task here that is asked for its name, in its container, and for a page, at the entry point, all the
    time. `asked` counts; who is not answered in time, or wrongly, fails the test."""

    NETWORK, ADDRESS, VIP = "good-net", "10.77.0.5", "10.77.0.2"

    def __init__(self, node: SwarmNode) -> None:
        self.asked = 0
        container = node.container("c-good", self.NETWORK, self.ADDRESS, "good")
        ip("addr", "add", f"{self.ADDRESS}/24", "dev", "lo", inside=Path(container.namespace))
        self._inside = Namespace(container.namespace)
        labels = {
            "traefik.http.routers.good.rule": "Host(`good.example`)",
            "traefik.http.services.good.loadbalancer.server.port": "80",
        }
        tasks = (Task("t-good", "good.1.t", NODE, TaskState.RUNNING, {self.NETWORK: self.ADDRESS}),)
        on = (ServiceNetwork(self.NETWORK, self.VIP),)
        node.publish(
            networks={self.NETWORK: Network(self.NETWORK, "good", ("10.77.0.0/24",))},
            containers={container.id: container},
            services={"good": Service("good", "good", networks=on, labels=labels, tasks=tasks)},
        )

    @asynccontextmanager
    async def asked_throughout(self) -> AsyncIterator[None]:
        """From the first answer on."""
        server = await asyncio.start_server(say_hello, sock=self._inside.tcp_listener(self.ADDRESS, 80))
        asking = asyncio.create_task(self._keep_asking())
        try:
            async with asyncio.timeout(ASK_SECONDS):
                while not self.asked and not asking.done():
                    await asyncio.sleep(0.01)
            yield
            before = self.asked
            async with asyncio.timeout(ASK_SECONDS):
                while self.asked < before + 2 and not asking.done():
                    await asyncio.sleep(0.01)
        finally:
            asking.cancel()
            server.close()
            ended = await asyncio.gather(asking, return_exceptions=True)
        if isinstance(ended[0], Exception):
            raise ended[0]

    async def _keep_asking(self) -> None:
        while True:
            async with asyncio.timeout(ASK_SECONDS):
                assert (found := await self.name()) == [self.VIP], found
                assert b"hello" in await self.page()
            self.asked += 1
            await asyncio.sleep(0.02)

    async def name(self) -> list[str]:
        return await ask_name(self._inside, "good")

    async def page(self) -> bytes:
        return await get((ENTRY.host, ENTRY.port), "good.example")


async def ask_name(inside: Namespace, name: str) -> list[str]:
    """Addresses, as a container's own resolver asks for them: 127.0.0.11, port 53."""
    loop = asyncio.get_running_loop()
    with inside.udp_socket("127.0.0.1") as sock:
        while True:
            sock.connect(DNS)
            try:
                await loop.sock_sendall(sock, DNSRecord.question(name).pack())
                async with asyncio.timeout(1):
                    reply = DNSRecord.parse(await loop.sock_recv(sock, 4096))
            except (ConnectionRefusedError, TimeoutError):  # as resolvers do: not captured yet, or lost
                await asyncio.sleep(0.02)
            else:
                return [str(record.rdata) for record in reply.rr]


async def get(address: tuple[str, int], host: str, path: str = "/") -> bytes:
    """Head and body."""
    while True:
        try:
            reader, writer = await asyncio.open_connection(*address)
        except ConnectionRefusedError:  # the sidecar has only begun
            await asyncio.sleep(0.02)
            continue
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        try:
            return await reader.read()
        finally:
            writer.close()


async def say_hello(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")
    await writer.drain()
    writer.close()


def rss() -> int:
    """KB, when the allocator has given back what it can."""
    gc.collect()
    libc.malloc_trim(0)
    fields = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["VmRSS"].split()[0])
