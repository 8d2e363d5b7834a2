"""DNS over TLS on loopback, with certificates of an authority made for the test."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mesh.dns.forward.dot import SecureConnections
from mesh.dns.forward.route import DnsServer, Manner, UpstreamRoute
from tests.dns.fakes import Behaviour, say
from tests.dns.forward.asking import TRY, Asking, data
from tests.support.docker_fixtures_pki import HEADERS, SwarmCA

NAME = "dns.test"


@dataclass
class SecureUpstream:
    """Answers over TLS; `last_first`: gathers that many queries and answers them in reverse."""

    behave: Behaviour
    last_first: int = 1
    port: int = 0
    connections: list[asyncio.StreamWriter] = field(default_factory=list)
    queries: list[bytes] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.append(writer)
        gathered: list[bytes] = []
        try:
            while True:
                gathered.append(await reader.readexactly(int.from_bytes(await reader.readexactly(2))))
                self.queries.append(gathered[-1])
                if len(gathered) >= self.last_first:
                    for query in reversed(gathered):
                        for reply in self.behave(query):
                            writer.write(len(reply).to_bytes(2) + reply)
                    gathered.clear()
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            writer.transport.abort()


class Certified:
    """An authority, the server's side and a client that trusts it."""

    def __init__(self, folder: Path) -> None:
        path = Path(SwarmCA().node(folder, NAME))
        key = path / "swarm-node.key"
        key.write_bytes(key.read_bytes().replace(HEADERS, b""))  # which only Swarm understands
        self.server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.server.load_cert_chain(path / "swarm-node.crt", key)
        self.client = ssl.create_default_context(cafile=str(path / "swarm-root-ca.crt"))


@pytest.fixture(scope="module")
def certified(tmp_path_factory: pytest.TempPathFactory) -> Certified:
    return Certified(tmp_path_factory.mktemp("pki"))


@asynccontextmanager
async def secure_upstream(
    certified: Certified, behave: Behaviour, last_first: int = 1
) -> AsyncIterator[SecureUpstream]:
    made = SecureUpstream(behave, last_first)
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0, ssl=certified.server)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        for writer in made.connections:
            writer.transport.abort()


@pytest.fixture
async def trusting(asking: Asking, certified: Certified) -> Asking:
    asking.trust(SecureConnections(asking.tasks, certified.client))
    return asking


def to(server: SecureUpstream, name: str = NAME) -> UpstreamRoute:
    secure = DnsServer("127.0.0.1", server.port, tls_name=name)
    return UpstreamRoute("host", (secure,), manner=Manner(rounds=1, try_timeout=10 * TRY))


async def test_many_questions_share_a_connection_and_replies_come_in_any_order(
    trusting: Asking, certified: Certified
) -> None:
    def by_name(query: bytes) -> list[bytes]:
        return say(f"192.0.2.{chr(query[13])}")(query)

    async with secure_upstream(certified, by_name, last_first=3) as server:
        waiting = [trusting.begin(to(server), f"{n}.example") for n in (1, 2, 3)]
        replies = await asyncio.gather(*waiting)
    assert [data(reply) for reply in replies] == [["192.0.2.1"], ["192.0.2.2"], ["192.0.2.3"]]
    assert len(server.connections) == 1
    assert trusting.stats.upstream_requests == {(f"tls://127.0.0.1:{server.port}#{NAME}", "NOERROR"): 3}


@pytest.mark.parametrize("name", ["other.test", "127.0.0.1"])
async def test_a_certificate_for_another_name_is_refused(
    trusting: Asking, certified: Certified, name: str
) -> None:
    async with secure_upstream(certified, say()) as server:
        assert await trusting.begin(to(server, name)) is None
    assert server.queries == []


async def test_an_authority_that_nobody_trusts_is_refused(asking: Asking, certified: Certified) -> None:
    async with secure_upstream(certified, say()) as server:
        assert await asking.begin(to(server)) is None
    assert server.queries == []


async def test_a_connection_that_the_server_has_closed_is_opened_anew(
    trusting: Asking, certified: Certified
) -> None:
    async with secure_upstream(certified, say()) as server:
        for expected in (1, 2, 3):
            assert data(await trusting.begin(to(server), f"n{expected}.example")) == ["192.0.2.1"]
            assert len(server.connections) == expected
            server.connections[-1].transport.abort()
    assert "ERROR" not in trusting.results


async def test_a_reply_to_something_else_ends_the_connection(trusting: Asking, certified: Certified) -> None:
    def confused(query: bytes) -> list[bytes]:
        return say()(query.replace(b"\x07example", b"\x07exbmple"))

    async with secure_upstream(certified, confused) as server:
        assert await trusting.begin(to(server)) is None
    assert trusting.results[0] == "ERROR"


async def test_what_is_not_tls_is_refused(trusting: Asking, certified: Certified) -> None:
    async def plain(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"\0\x0c" + bytes(12))
        writer.close()

    server = await asyncio.start_server(plain, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    assert await trusting.begin(to(SecureUpstream(say(), port=port))) is None
    server.close()


async def test_a_connection_on_which_nothing_comes_any_more_is_left(
    trusting: Asking, certified: Certified
) -> None:
    """As when a firewall forgot it: the next question goes over another."""

    def first_connection_is_dead(query: bytes) -> list[bytes]:
        return [] if len(server.connections) < 2 else say()(query)

    async with secure_upstream(certified, first_connection_is_dead) as server:
        assert await trusting.begin(to(server)) is None
        assert data(await trusting.begin(to(server), "other.example")) == ["192.0.2.1"]
    assert len(server.connections) == 2
