"""A node with Docker's firewall in network namespaces, our parts in it, and clients outside.

    good 198.51.100.5 ─┐                       ┌─ ens32 198.51.100.14, 2001:db8::e
                       ├─ front switch ── host ┤
    bad 198.51.100.77 ─┘                       └─ docker_gwbridge 172.18.0.1 ── ingress_sbox ── task 10.0.0.11

The operator lets only 198.51.100.0/28 in. Every way of carrying has two ports: one that a rule closes, and
one beside it that stays open.
"""

import asyncio
import socket
import subprocess
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic

import uvloop

from mesh.catalog.model import Network, Port, Protocol, Service, Task, TaskState
from mesh.catalog.snapshot import Change, Snapshot
from mesh.errors import KernelError
from mesh.kernel.firewall.filter_table import Family
from mesh.kernel.firewall.listeners import ListenerFirewall
from mesh.kernel.firewall.watch import FirewallWatch
from mesh.kernel.ingress import IngressRules
from mesh.kernel.table import Tables
from mesh.net.bound_listener import listen
from mesh.net.netns import Namespace, NamespaceWorker
from mesh.net.tasks import Tasks
from mesh.relay.port_reconciler import RelayPorts
from tests.net.lab import Lab, inside, ip, laboratory, of

HOST, HOST6 = "198.51.100.14", "2001:db8::e"
GOOD, GOOD6 = "198.51.100.5", "2001:db8::5"
BAD, BAD6 = "198.51.100.77", "2001:db8::4d"
SANDBOX, TASK = "172.18.0.2", "10.0.0.11"
TRIED_SECONDS = 0.25  # until a packet counts as dropped; an answer takes less than a millisecond

KERNEL, KERNEL_OPEN = 80, 81
RELAY, RELAY_OPEN = 82, 83
ENTRY, ENTRY_OPEN = 8800, 8801
UDP, UDP_OPEN = 5300, 5301
TCP_PORTS = (KERNEL, RELAY, ENTRY)


class Node:
    """The namespaces and Docker's rules in them. `backend`: nft or legacy."""

    def __init__(self, lab: Lab, folder: Path, backend: str) -> None:
        self.lab, self.folder, self.backend = lab, folder, backend
        front, gateway, overlay = lab.switch("front"), lab.switch("gw"), lab.switch("over")
        self.host, self.sandbox, self.task = (lab.namespace(one) for one in ("host", "sbox", "task"))
        self.client = lab.namespace("client")
        self._gateway = gateway
        lab.plug(self.host, "ens32", f"{HOST}/24", front)
        lab.plug(self.host, "docker_gwbridge", "172.18.0.1/16", gateway)
        lab.plug(self.sandbox, "eth1", f"{SANDBOX}/16", gateway)
        lab.plug(self.sandbox, "eth0", "10.0.0.2/24", overlay)
        lab.plug(self.task, "eth0", f"{TASK}/24", overlay)
        lab.plug(self.client, "eth0", f"{GOOD}/24", front)
        ip("-n", of(self.client), "addr", "add", f"{BAD}/24", "dev", "eth0")
        for where, interface, address in (
            (self.host, "ens32", HOST6),
            (self.client, "eth0", GOOD6),
            (self.client, "eth0", BAD6),
        ):
            ip("-n", of(where), "addr", "add", f"{address}/64", "dev", interface, "nodad")
        ip("-n", of(self.sandbox), "route", "add", "default", "via", "172.18.0.1")
        inside(self.host, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        (folder / "ingress_sbox").symlink_to(str(self.sandbox.path))
        self.docker(4)
        self._servers = [
            _serve(self.task, 8080, socket.SOCK_STREAM),
            _serve(self.task, 8053, socket.SOCK_DGRAM),
        ]

    def iptables(self, *words: str, family: int = 4) -> str:
        return inside(self.host, f"{'ip' if family == 4 else 'ip6'}tables-{self.backend}", "-w", *words)

    def operator(self, rule: str, family: int = 4) -> None:
        self.iptables(*rule.split(), family=family)

    def restore(self, text: str, family: int = 4) -> None:
        """As a firewall's service does when it is reloaded: what the file does not say is gone."""
        program = f"{'ip' if family == 4 else 'ip6'}tables-{self.backend}-restore"
        subprocess.run(
            ["nsenter", f"--net={self.host.path}", program],
            input=text,
            text=True,
            check=True,
            capture_output=True,
        )

    def docker(self, family: int) -> None:
        """What the engine makes when it starts."""
        for rule in (
            "-P FORWARD DROP",
            "-N DOCKER-USER",
            "-N DOCKER-FORWARD",
            "-A DOCKER-FORWARD -i docker_gwbridge -j ACCEPT",
            "-A DOCKER-USER -j RETURN",
            "-A FORWARD -j DOCKER-USER",
            "-A FORWARD -j DOCKER-FORWARD",
        ):
            self.operator(rule, family)

    def docker_again(self) -> None:
        """What it does to FORWARD whenever it is restarted: its jumps go, and come back at the top."""
        for chain in ("DOCKER-FORWARD", "DOCKER-USER"):
            self.operator(f"-D FORWARD -j {chain}")
            self.operator(f"-I FORWARD -j {chain}")

    def reached(self, port: int, source: str = BAD, kind: int = socket.SOCK_STREAM) -> bool:
        """Does a client with this address get an answer?"""
        ipv6 = ":" in source
        family = socket.AF_INET6 if ipv6 else socket.AF_INET
        with self.client.call(lambda: socket.socket(family, kind)) as sock:
            sock.settimeout(TRIED_SECONDS)
            sock.bind((source, 0))
            try:
                sock.connect((HOST6 if ipv6 else HOST, port))
                sock.send(b"?")
                return sock.recv(16) == b"here"
            except OSError:
                return False

    async def is_reached(self, port: int, source: str = BAD, kind: int = socket.SOCK_STREAM) -> bool:
        return await asyncio.to_thread(self.reached, port, source, kind)

    async def back(self, port: int, source: str = GOOD, kind: int = socket.SOCK_STREAM) -> float:
        """Seconds until it answers."""
        began = monotonic()
        while not await self.is_reached(port, source, kind):
            assert monotonic() - began < 20, f"{port} does not answer {source}"
        return monotonic() - began

    def datagrams(self) -> socket.socket:
        """A client's socket, for several datagrams from the same port."""
        made = self.client.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        made.settimeout(TRIED_SECONDS)
        made.bind((GOOD, 0))
        return made

    def answered(self, client: socket.socket, port: int) -> bool:
        client.sendto(b"?", (HOST, port))
        try:
            return client.recvfrom(16)[0] == b"here"
        except OSError:
            return False

    def flush_ruleset(self) -> None:
        inside(self.host, "nft", "flush", "ruleset")

    def container(self) -> Namespace:
        """On the bridge, and able to send 127.0.0.1 its way (NET_RAW can write any packet)."""
        made = self.lab.namespace("container")
        self.lab.plug(made, "eth0", "172.18.0.9/16", self._gateway)
        for setting in ("route_localnet", "accept_local"):
            inside(made, "sh", "-c", f"echo 1 > /proc/sys/net/ipv4/conf/eth0/{setting}")
        inside(made, "ip", "route", "del", "local", "127.0.0.0/8", "table", "local")
        inside(made, "ip", "route", "del", "local", "127.0.0.1", "table", "local")
        inside(made, "ip", "route", "add", "127.0.0.0/8", "via", "172.18.0.1", "src", "172.18.0.9")
        return made

    def connects(self, where: Namespace, address: str, port: int) -> bool:
        with where.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as sock:
            sock.settimeout(TRIED_SECONDS)
            sock.bind(("172.18.0.9", 0))
            try:
                sock.connect((address, port))
            except OSError:
                return False
            return True

    def asked_locally(self, port: int) -> bool:
        with socket.socket() as sock:  # this thread is in the host's namespace
            sock.settimeout(5)
            sock.connect(("127.0.0.1", port))
            sock.send(b"?")
            return sock.recv(16) == b"here"

    def rules(self) -> str:
        """All that is in the host's kernel."""
        saved = [
            inside(self.host, f"{family}-{backend}-save")
            for family in ("iptables", "ip6tables")
            for backend in {"nft", self.backend}
        ]
        return inside(self.host, "nft", "list", "ruleset") + "".join(saved)


@contextmanager
def node(folder: Path, backend: str) -> Iterator[Node]:
    with laboratory() as lab:
        yield Node(lab, folder, backend)


def services(*, udp: bool = True) -> dict[str, Service]:
    def one(published: int, mode: str, protocol: Protocol = Protocol.TCP) -> Service:
        name = f"s{published}"
        target = 8080 if protocol is Protocol.TCP else 8053
        tasks = (Task(f"{name}.1", name, "n", TaskState.RUNNING, {"in": TASK}),)
        labels = {f"mesh.port.{published}.mode": mode}
        return Service(name, name, ports=(Port(published, target, protocol),), tasks=tasks, labels=labels)

    found = [one(port, "kernel") for port in (KERNEL, KERNEL_OPEN)]
    found += [one(port, "proxy") for port in (RELAY, RELAY_OPEN)]
    found += [one(port, "proxy", Protocol.UDP) for port in ((UDP, UDP_OPEN) if udp else ())]
    return {service.id: service for service in found}


class Sidecar:
    """Our parts that carry, as `sidecar.app` puts them together."""

    def __init__(self, node: Node, *, ipv6: bool | None = None) -> None:
        self.failures: list[BaseException] = []
        self.tasks = Tasks(lambda _, error: self.failures.append(error))
        self.worker = NamespaceWorker()
        tables = Tables(self.worker)
        self.ingress = IngressRules(
            self.tasks, tables, self.worker, netns_dir=str(node.folder), ipvs=lambda: False
        )
        self.listeners = ListenerFirewall(tables, private=[9181])

        async def changed(gone: frozenset[str]) -> bool:
            self.ingress.look_at_firewall(gone)
            await self.listeners.look(verify=not gone or "inet mesh_listeners" in gone)
            return bool(self.listeners.status)

        self.watch = FirewallWatch(self.tasks, changed)
        sandbox = Namespace(str(node.folder / "ingress_sbox"))
        self.relay = RelayPorts(
            self.tasks,
            connect=sandbox.tcp_socket,
            connect_udp=lambda: sandbox.call(lambda: _nonblocking(socket.SOCK_DGRAM)),
            guard=self.listeners,
        )
        self.relay6 = RelayPorts(
            self.tasks,
            listen_address="::",
            connect=sandbox.tcp_socket,
            connect_udp=lambda: sandbox.call(lambda: _nonblocking(socket.SOCK_DGRAM)),
            over_ipv6=True,
            guard=self.listeners,
            permitted=lambda: self.listeners.asks_operator(Family.IPV6) if ipv6 is None else ipv6,
        )
        self.listeners.on_ipv6 = self.relay6.look_again
        self._entries: list[socket.socket] = []

    async def start(self) -> None:
        snapshot = Snapshot().apply(
            Change(networks={"in": Network("in", "ingress", ingress=True)}, services=services())
        )
        await self.listeners.start()
        await self.listeners.cover("entry points", [("tcp", ENTRY), ("tcp", ENTRY_OPEN)])
        self.relay.start(snapshot)
        self.relay6.start(snapshot)
        self.watch.start()
        for port in (ENTRY, ENTRY_OPEN):
            self._entries.append(listener := listen("0.0.0.0", port))
            threading.Thread(target=_answer, args=(listener,), daemon=True).start()
        await self.relay.settled()
        await self.relay6.settled()
        self.ingress.start(snapshot)

    async def stop(self, *, leave: bool = False) -> None:
        for listener in self._entries:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        await self.relay.close()
        await self.relay6.close()
        await self.watch.close()
        await self.listeners.close(leave=leave)
        await self.ingress.close(leave=leave)
        await self.tasks.close()
        self.worker.close()
        assert not self.failures


def run(node: Node, work: Callable[[], Awaitable[None]]) -> None:
    """On a loop inside the host's namespace: sockets, threads and programs of it are there as well."""

    async def whole() -> None:
        await work()

    def looped() -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # as in the sidecar
            runner.run(whole())

    node.host.call(looped)


def _serve(where: Namespace, port: int, kind: int) -> socket.socket:
    def made() -> socket.socket:
        sock = socket.socket(socket.AF_INET, kind)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("0.0.0.0", port))
        return sock

    sock = where.call(made)
    if kind == socket.SOCK_STREAM:
        sock.listen(64)
    threading.Thread(
        target=_answer if kind == socket.SOCK_STREAM else _echo, args=(sock,), daemon=True
    ).start()
    return sock


def _answer(listener: socket.socket) -> None:
    listener.settimeout(None)
    while True:
        try:
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(5)
                connection.recv(16)
                connection.sendall(b"here")
        except (TimeoutError, ConnectionError):
            continue
        except OSError:
            return


def _echo(sock: socket.socket) -> None:
    while True:
        try:
            _, asker = sock.recvfrom(64)
            sock.sendto(b"here", asker)
        except OSError:
            return


def _nonblocking(kind: int) -> socket.socket:
    made = socket.socket(socket.AF_INET, kind)
    made.setblocking(False)
    return made


__all__ = ["KernelError"]
