"""A resolver behind real sockets on loopback, and the framing of a client over TCP."""

import asyncio
import socket

from mesh.catalog.model import Service, ServiceNetwork
from mesh.catalog.snapshot import Change
from mesh.dns.config import DnsConfig
from mesh.dns.resolver import Resolver
from mesh.dns.scope import Scope
from mesh.dns.udp_server import DnsEndpoint, ScopeSource
from mesh.net.tasks import Tasks
from tests.dns.fakes import LIMIT, closed_port, over_udp, question, shown
from tests.dns.world import BOTH, FRONTEND, SERVICES, snapshot, task

TRIES = 20  # to find a number that is free for UDP and TCP

BIG = Service(
    "big",
    "big",
    networks=(ServiceNetwork("n1"),),
    tasks=tuple(task(f"big.{n}.x", FRONTEND, f"10.1.1.{n}") for n in range(60)),
)


class Serving:
    """A resolver behind one endpoint on loopback."""

    def __init__(self, scope: Scope | ScopeSource | None, *upstreams: str) -> None:
        self.failures: list[str] = []
        self.tasks = Tasks(lambda name, error: self.failures.append(f"{name}: {error!r}"))
        config = DnsConfig(upstreams=upstreams or (f"127.0.0.1:{closed_port()}",))
        self.resolver = Resolver(config, self.tasks, snapshot((*SERVICES, BIG)))
        udp, tcp, self.port = bound()
        self.endpoint = DnsEndpoint(self.resolver, udp, tcp, scope or self.resolver.scope_by_source)

    async def shown(self, name: str) -> list[str]:
        return shown(await over_udp(self.port, question(name)))

    def publish(self, change: Change) -> None:
        old = self.resolver.snapshot
        self.resolver.update(old, old.apply(change), change)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)


def bound() -> tuple[socket.socket, socket.socket, int]:
    """A UDP and a listening TCP socket on the same port, as the process would hand them over."""
    for _ in range(TRIES):
        tcp = socket.create_server(("127.0.0.1", 0))
        port = tcp.getsockname()[1]
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            udp.bind(("127.0.0.1", port))
        except OSError:  # of this number another program has the UDP port
            udp.close()
            tcp.close()
            continue
        for made in (udp, tcp):
            made.setblocking(False)
        return udp, tcp, port
    raise OSError(f"no port that is free for UDP and TCP alike, {TRIES} times")


class Starter:
    def __init__(self) -> None:
        self.started: list[Serving] = []

    async def __call__(self, scope: Scope | ScopeSource | None = BOTH, *upstreams: object) -> Serving:
        serving = Serving(scope, *map(str, upstreams))
        self.started.append(serving)
        await serving.endpoint.start()
        return serving


def framed(*queries: bytes) -> bytes:
    return b"".join(len(query).to_bytes(2) + query for query in queries)


async def frame(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(LIMIT):
        return await reader.readexactly(int.from_bytes(await reader.readexactly(2)))
