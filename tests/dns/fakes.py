"""An upstream that does as it is told, and a client that shows what it gets. Real sockets on loopback."""

import asyncio
import errno
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from dnslib import QTYPE, RR, SOA, A, DNSHeader, DNSRecord

Behaviour = Callable[[bytes], list[bytes]]  # a query → the replies to send
LIMIT = 5.0  # seconds; only a hang takes longer


def say(address: str = "192.0.2.1", rcode: int = 0, ttl: int = 60) -> Behaviour:
    """An upstream that answers every question like this."""

    def behave(query: bytes) -> list[bytes]:
        asked = DNSRecord.parse(query)
        reply = DNSRecord(DNSHeader(id=asked.header.id, qr=1, ra=1, rd=1, rcode=rcode), q=asked.q)
        if rcode == 0:
            reply.add_answer(RR(str(asked.q.qname), QTYPE.A, ttl=ttl, rdata=A(address)))
        elif rcode == 3:
            reply.add_auth(RR(".", QTYPE.SOA, ttl=ttl, rdata=SOA("a.", "b.", (1, 2, 3, 4, ttl))))
        return [bytes(reply.pack())]

    return behave


def silence(_query: bytes) -> list[bytes]:
    return []


@dataclass
class Upstream(asyncio.DatagramProtocol):
    """`queries` are all that it was asked, over either transport, `ports` those they came from over UDP.

    `hold` keeps its replies back until set.
    """

    behave: Behaviour
    queries: list[bytes] = field(default_factory=list)
    ports: list[int] = field(default_factory=list)
    over_tcp: int = 0  # connections
    hold_tcp: asyncio.Event | None = None
    close_tcp: Callable[[], None] = lambda: None
    hold: asyncio.Event | None = None
    port: int = 0
    _transport: asyncio.DatagramTransport | None = None
    _replying: set[asyncio.Task[None]] = field(default_factory=set)
    _arrived: asyncio.Event = field(default_factory=asyncio.Event)

    def __str__(self) -> str:
        return f"127.0.0.1:{self.port}"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def datagram_received(self, data: bytes, addr: object) -> None:
        self._note(data)
        self.ports.append(addr[1])  # type: ignore[index]
        task = asyncio.create_task(self._reply(data, addr))
        self._replying.add(task)
        task.add_done_callback(self._replying.discard)

    def _note(self, query: bytes) -> None:
        self.queries.append(query)
        self._arrived.set()

    async def asked(self, times: int = 1) -> None:
        """Until it was asked that often."""
        async with asyncio.timeout(LIMIT):
            while len(self.queries) < times:
                self._arrived.clear()
                await self._arrived.wait()

    async def _reply(self, data: bytes, addr: object) -> None:
        if self.hold is not None:
            await self.hold.wait()
        for reply in self.behave(data):
            assert self._transport is not None
            self._transport.sendto(reply, addr)  # type: ignore[arg-type]

    async def serve_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            query = await reader.readexactly(int.from_bytes(await reader.readexactly(2)))
        except asyncio.IncompleteReadError:  # the asker has thought better of it
            writer.close()
            return
        self._note(query)
        self.over_tcp += 1
        if self.hold_tcp is not None:
            await self.hold_tcp.wait()
        for reply in self.behave(query):
            writer.write(len(reply).to_bytes(2) + reply)
        await writer.drain()
        writer.close()


@asynccontextmanager
async def upstream(behave: Behaviour, host: str = "127.0.0.1") -> AsyncIterator[Upstream]:
    server = Upstream(behave)
    listener, datagrams = _same_port(host)
    server.port = listener.getsockname()[1]
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: server, sock=datagrams)
    tcp = await asyncio.start_server(server.serve_tcp, sock=listener)
    server.close_tcp = tcp.close
    try:
        yield server
    finally:
        transport.close()
        tcp.close()


def _same_port(host: str) -> tuple[socket.socket, socket.socket]:
    """A listening TCP and a UDP socket on one port that was free in both."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    while True:
        datagrams = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        datagrams.bind((host, 0))
        try:
            return socket.create_server((host, datagrams.getsockname()[1]), family=family), datagrams
        except OSError as error:
            datagrams.close()
            if error.errno != errno.EADDRINUSE:
                raise


def closed_port() -> int:
    """A port of loopback where nobody listens."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def over_udp(port: int, query: bytes, source: str = "127.0.0.1", limit: float = LIMIT) -> bytes:
    """Raises TimeoutError when there is no reply."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as client:
        client.bind((source, 0))
        client.connect(("127.0.0.1", port))
        async with asyncio.timeout(limit):
            await loop.sock_sendall(client, query)
            return await loop.sock_recv(client, 65535)


def question(name: str, qtype: str = "A") -> bytes:
    return bytes(DNSRecord.question(name, qtype).pack())


def shown(reply: bytes) -> list[str]:
    """The data of the records in the answer."""
    return [str(rr.rdata) for rr in DNSRecord.parse(reply).rr]


def rcode(reply: bytes) -> int:
    return reply[3] & 0xF
