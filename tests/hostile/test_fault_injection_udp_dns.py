"""A fault of ours at one client of a relayed UDP port, or of DNS over TCP: the others are answered.

As in `test_fault_injection`: every method that a scenario calls raises once, before its work and after.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator

import pytest

from mesh.balance.policies import Endpoint
from mesh.dns.connection_limiter import ConnectionLimiter, ConnectionLimits
from mesh.dns.tcp_server import DnsTcpListener, _DnsTcpConnection
from mesh.internal_errors import ERRORS
from mesh.relay import udp_port
from mesh.relay.tcp_connection import RelayOptions
from mesh.relay.udp_port import UdpPort, listen_udp
from tests.dns.fakes import question
from tests.dns.serving import framed
from tests.dns.test_tcp_server import Client, Port
from tests.hostile.test_fault_injection import Place, inject_everywhere, raising
from tests.support.waiting import until

ENEMY, GOOD = "127.0.0.1", "127.0.0.9"
AGAIN_SECONDS = 0.05  # before a client says once more what was perhaps lost
IDLE = 0.1  # seconds that a session or a connection lives in silence


@pytest.fixture(autouse=True)
def _no_faults_before() -> Iterator[None]:
    ERRORS.clear()
    yield
    ERRORS.clear()


# --- a relayed UDP port -------------------------------------------------------------------------------------


class Echo(asyncio.DatagramProtocol):
    """A task that answers all but what begins with "hush"."""

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self.transport = transport
        self.endpoint = Endpoint(*transport.get_extra_info("sockname")[:2])

    def datagram_received(self, data: bytes, sender: tuple[str, int]) -> None:
        if not data.startswith(b"hush"):
            self.transport.sendto(data, sender)


async def echo(address: str) -> Echo:
    loop = asyncio.get_running_loop()
    return (await loop.create_datagram_endpoint(Echo, (address, 0)))[1]


async def ask(sock: socket.socket, data: bytes) -> None:
    """Until it is answered: one datagram may be lost by a fault, and the next one must not be."""
    loop = asyncio.get_running_loop()
    while True:
        await loop.sock_sendall(sock, data)
        try:
            async with asyncio.timeout(AGAIN_SECONDS):
                while await loop.sock_recv(sock, 100) != data:
                    pass
                return
        except TimeoutError:
            continue


def connected(port: UdpPort, source: str) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    made.bind((source, 0))
    made.connect(port.address)
    return made


@pytest.fixture
async def tasks() -> AsyncIterator[tuple[Echo, Echo]]:
    one, other = await echo("127.0.0.3"), await echo("127.0.0.4")
    yield one, other
    one.transport.close()
    other.transport.close()


async def test_udp_sessions(tasks: tuple[Echo, Echo], monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = tasks
    monkeypatch.setattr(udp_port, "MAX_SESSIONS", 3)
    absent = Endpoint("127.0.0.5", one.endpoint.port)  # nobody listens there
    everywhere = (one.endpoint, absent, other.endpoint)
    options = RelayOptions(idle_timeout=IDLE, drain=IDLE / 2)
    port = UdpPort(listen_udp("127.0.0.1", 0), everywhere, options)
    good = connected(port, GOOD)

    async def scenario() -> None:
        """Clients of every task, among them one that isn't there; more silent ones than there is room for;
        and tasks that leave."""
        clients = [connected(port, ENEMY) for _ in range(6)]
        try:
            for number, client in enumerate(clients[:3]):
                await ask(client, b"%d" % number)
            await until(lambda: port.stats.active < 3)
            for client in clients[3:]:
                client.send(b"hush")
            await ask(clients[0], b"once more")
            port.update_endpoints((one.endpoint,))
            await ask(clients[1], b"to the one that is left")
            await until(lambda: not port.stats.active)
        finally:
            port.update_endpoints(everywhere)
            for client in clients:
                client.close()

    def forget_failures() -> None:
        port._upstreams.health.succeeded(absent)

    def busy() -> int:
        return port.stats.active + len(port._unanswered) + sum(seen.active for seen in port.seen())

    place = Place(scenario, lambda: ask(good, b"good"), busy, forget_failures)
    await inject_everywhere(place, (UdpPort,))
    assert ERRORS.counts["UDP session"] > 10
    good.close()
    await port.close()


@pytest.mark.parametrize("method", ["_wait_less", "_end"])
async def test_a_port_closes_although_a_session_does_not(tasks: tuple[Echo, Echo], method: str) -> None:
    port = UdpPort(listen_udp("127.0.0.1", 0), [tasks[0].endpoint], RelayOptions())
    clients = [connected(port, ENEMY) for _ in range(3)]
    for client in clients:
        await ask(client, b"here")
        client.close()
    with raising((UdpPort, method), after=False):
        await port.close(IDLE)
    assert port.stats.active == 0
    assert port.listener.fileno() < 0
    assert ERRORS.counts["UDP session"] == 1


# --- DNS over TCP -------------------------------------------------------------------------------------------


@pytest.fixture
async def port() -> AsyncIterator[Port]:
    made = Port(ConnectionLimits(per_asker=3, idle=IDLE, idle_crowded=IDLE))
    yield made
    made.close()


async def good_query(port: Port) -> None:
    client = Client(GOOD)
    try:
        await client.connect(port.address)
        await port.web(client)
    finally:
        client.close()


async def test_dns_connections(port: Port) -> None:
    async def scenario() -> None:
        """Queries one by one and at once, of which one waits for an upstream; the end of a side; one that
        says too little; and more connections than an asker may have."""
        clients = [Client(ENEMY) for _ in range(5)]
        try:
            first, half, *others = clients
            await first.connect(port.address)
            await port.web(first)
            await first.send(framed(question("slow")) + 40 * framed(question("web")))
            for _ in range(40):
                await first.frame()
            port.resolver.answer_all()
            await first.frame()
            first.socket.shutdown(socket.SHUT_WR)
            assert not await first.some()
            await half.connect(port.address)
            await half.send(b"\0")
            assert not await half.some()
            for client in others:
                await client.connect(port.address)
            await port.web(others[-1])
            last = Client(ENEMY)
            clients.append(last)
            await last.connect(port.address)
            await port.web(last)
        finally:
            port.resolver.answer_all()
            for client in clients:
                client.close()

    place = Place(scenario, lambda: good_query(port), lambda: len(port.listener))
    await inject_everywhere(place, (DnsTcpListener, _DnsTcpConnection, ConnectionLimiter))
    assert ERRORS.counts.total() > 10
    assert not port.listener._crowd.askers


async def test_replies_that_a_peer_does_not_take(port: Port) -> None:
    """They wait for it, which takes other methods; and it is sent away for it."""

    async def scenario() -> None:
        client = Client(ENEMY)
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        try:
            await client.connect(port.address)
            for _ in range(10):
                await client.send(100 * framed(question("big")))
            await until(lambda: not len(port.listener))
        finally:
            client.close()

    place = Place(scenario, lambda: good_query(port), lambda: len(port.listener))
    await inject_everywhere(place, (DnsTcpListener, _DnsTcpConnection, ConnectionLimiter))


@pytest.mark.parametrize("method", ["_resume", "_watch", "_acceptable"])
async def test_the_listener_goes_on_after_a_fault_of_its_own(port: Port, method: str) -> None:
    with raising((DnsTcpListener, method), after=False):
        port.listener.on_fault()
        await good_query(port)
    assert ERRORS.counts["callback of DnsTcpListener"] == 1
    await good_query(port)


async def test_a_fault_at_closing_one_connection_leaves_none_of_the_others(port: Port) -> None:
    for _ in range(3):
        await port.web(await port.connect())
    with raising((_DnsTcpConnection, "_give_back"), after=False):
        port.listener.close()
    assert len(port.listener) == 0
