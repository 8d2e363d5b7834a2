"""Endpoints that say what a test wants, and a client that speaks bytes."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import pytest

from mesh.balance.policies import Endpoint
from mesh.catalog.model import Network, Service, ServiceNetwork, Task, TaskState
from mesh.catalog.snapshot import Change, Snapshot
from mesh.http.downstream.listener import HttpListener
from mesh.http.downstream.published_port import HttpPort
from mesh.http.hosts.ownership import HostOwnership
from mesh.http.routing.router import EntryPoint, RequestRouter
from mesh.http.runtime import HttpRuntime
from mesh.http.upstream.network_reach import OwnNamespace
from mesh.net.bound_listener import listen
from mesh.relay.tcp_connection import RelayOptions
from mesh.relay.tcp_port import plain_socket

LIMIT = 10.0  # seconds for whatever a test waits for

Handler = Callable[["Conversation"], Awaitable[None]]


@dataclass
class Conversation:
    """One side of a TCP connection, as a script."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def head(self) -> str:
        """Up to the empty line; "" when the other side ends before."""
        try:
            return (await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), LIMIT)).decode("latin-1")
        except asyncio.IncompleteReadError as short:
            if short.partial:
                raise
            return ""

    async def read(self, count: int) -> bytes:
        return await asyncio.wait_for(self.reader.readexactly(count), LIMIT)

    async def until(self, end: bytes) -> bytes:
        return await asyncio.wait_for(self.reader.readuntil(end), LIMIT)

    async def rest(self) -> bytes:
        """Up to the end of the stream."""
        return await asyncio.wait_for(self.reader.read(), LIMIT)

    async def say(self, data: bytes | str) -> None:
        self.writer.write(data if isinstance(data, bytes) else data.encode("latin-1"))
        await asyncio.wait_for(self.writer.drain(), LIMIT)

    async def request(self, *lines: str, body: bytes = b"", first: str = "GET / HTTP/1.1") -> None:
        head = "".join(f"{line}\r\n" for line in (first, "Host: a.example", *lines))
        await self.say(head.encode("latin-1") + b"\r\n" + body)

    async def response(self) -> tuple[int, dict[str, str], bytes]:
        """Status, fields (lower case) and the body, by Content-Length or in chunks."""
        status, fields = parsed(await self.head())
        if "chunked" in fields.get("transfer-encoding", ""):
            return status, fields, await self.chunks()
        return status, fields, await self.read(int(fields.get("content-length", "0")))

    async def chunks(self) -> bytes:
        body = b""
        while size := int((await self.until(b"\r\n")).split(b";")[0], 16):
            body += await self.read(size)
            assert await self.read(2) == b"\r\n"
        assert await self.read(2) == b"\r\n"
        return body

    def close(self) -> None:
        self.writer.close()

    def reset(self) -> None:
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.writer.close()


def parsed(head: str) -> tuple[int, dict[str, str]]:
    assert head, "the connection ended instead of a response"
    first, *lines = head.split("\r\n")[:-2]
    pairs = (line.split(": ", 1) if ": " in line else (line.rstrip(":"), "") for line in lines)
    return int(first.split(" ")[1]), {name.lower(): value for name, value in pairs}


@dataclass
class Tasks:
    """An endpoint: what it was sent, and the exceptions that its script has met."""

    endpoint: Endpoint
    connections: int = 0
    faults: list[BaseException] = field(default_factory=list)


@asynccontextmanager
async def serving(handler: Handler, address: str = "127.0.0.1", port: int = 0) -> AsyncIterator[Tasks]:
    """An endpoint on loopback; every connection runs the handler."""

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.connections += 1
        try:
            await handler(Conversation(reader, writer))
        except (AssertionError, OSError, TimeoutError, asyncio.IncompleteReadError) as fault:
            tasks.faults.append(fault)
        finally:
            writer.close()

    server = await asyncio.start_server(run, address, port)
    tasks = Tasks(Endpoint(*server.sockets[0].getsockname()[:2]))
    try:
        yield tasks
    finally:
        server.close()


class Stand:
    """A port of `mode: http` in front of scripted endpoints."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack
        self.core = HttpRuntime()
        stack.callback(self.core.close)

    async def endpoint(self, handler: Handler) -> Tasks:
        return await self._stack.enter_async_context(serving(handler))

    async def endpoint_at(self, address: str, port: int, handler: Handler) -> Tasks:
        return await self._stack.enter_async_context(serving(handler, address, port))

    async def port(self, *endpoints: Endpoint, options: RelayOptions | None = None) -> HttpPort:
        port = HttpPort(
            self.core, "web", listen("127.0.0.1", 0), endpoints, options or RelayOptions(), plain_socket
        )
        self._stack.push_async_callback(port.close)
        return port

    async def client(self, port: HttpPort) -> Conversation:
        reader, writer = await asyncio.open_connection(*port.address)
        self._stack.callback(writer.close)
        return Conversation(reader, writer)

    async def before(self, *handlers: Handler, options: RelayOptions | None = None) -> Conversation:
        """A client in front of endpoints that do this."""
        endpoints: Sequence[Tasks] = [await self.endpoint(handler) for handler in handlers]
        self.endpoints = endpoints
        self.port_ = await self.port(*(one.endpoint for one in endpoints), options=options)
        return await self.client(self.port_)


@pytest.fixture
async def stand() -> AsyncIterator[Stand]:
    async with AsyncExitStack() as stack:
        yield Stand(stack)


# --- entry points ---

ROUTER, SERVICE, MIDDLEWARE = (f"traefik.http.{kind}" for kind in ("routers", "services", "middlewares"))
STACK = {"com.docker.stack.namespace": "shop"}  # of services that belong together
NET = Network("n1", "net", ("127.0.0.0/8",))


def saying(text: str) -> Handler:
    async def endpoint(one: Conversation) -> None:
        while head := await one.head():
            body = f"{text} {head.split(' ')[1]}"
            await one.say(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}")

    return endpoint


class World:
    def __init__(
        self, stand: Stand, draw: Callable[[], float], ownership: HostOwnership | None = None
    ) -> None:
        self.stand = stand
        self.snapshot = Snapshot().apply(Change(networks={NET.id: NET}))
        entries = (EntryPoint("web"), EntryPoint("internal"))
        reach = OwnNamespace(plain_socket)
        self.site = RequestRouter(stand.core, reach, entries, draw=draw, ownership=ownership)
        self.site.start(self.snapshot)
        self.fronts = {
            name: HttpListener(stand.core, listen("127.0.0.1", 0), self.site.serving(name))
            for name in ("web", "internal")
        }
        # The entry point `web` again, as those find it whom it trusts.
        self.fronts["behind a proxy"] = HttpListener(
            stand.core, listen("127.0.0.1", 0), self.site.serving("web"), lambda _peer: True
        )

    def put(self, id_: str, labels: dict[str, str], *tasks: Tasks) -> None:
        """A service whose tasks all listen on the same port number at addresses of their own."""
        service = Service(
            id_,
            id_,
            networks=(ServiceNetwork(NET.id),),
            labels=labels,
            tasks=tuple(
                Task(f"{id_}.{i}", f"{id_}.{i}", "here", TaskState.RUNNING, {NET.id: one.endpoint.address})
                for i, one in enumerate(tasks)
            ),
        )
        self.change(Change(services={id_: service}))

    def change(self, change: Change) -> None:
        old, self.snapshot = self.snapshot, self.snapshot.apply(change)
        self.site.update(old, self.snapshot, change)

    async def client(self, entry: str = "web") -> Conversation:
        reader, writer = await asyncio.open_connection(*self.fronts[entry].address)
        return Conversation(reader, writer)

    async def get(
        self, url: str, *lines: str, entry: str = "web", method: str = "GET"
    ) -> tuple[int, dict[str, str], str]:
        host, slash, path = url.partition("/")
        one = await self.client(entry)
        head = "".join(
            f"{line}\r\n" for line in (f"{method} {slash}{path} HTTP/1.1", f"Host: {host}", *lines)
        )
        await one.say(head + "Connection: close\r\n\r\n")
        status, fields, body = await one.response()
        one.close()
        return status, fields, body.decode()


@pytest.fixture
async def world(stand: Stand) -> World:
    made = World(stand, draw=lambda: 0.05)
    async with AsyncExitStack() as stack:
        for front in made.fronts.values():
            stack.push_async_callback(front.close)
        stand._stack.push_async_callback(stack.pop_all().aclose)
    return made


def routed(name: str, rule: str, port: int, **more: str) -> dict[str, str]:
    labels = {f"{ROUTER}.{name}.rule": rule, f"{SERVICE}.{name}.loadbalancer.server.port": str(port)}
    return labels | {f"{ROUTER}.{name}.{option}": value for option, value in more.items()}
