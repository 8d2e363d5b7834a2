"""A forwarder, and its answers awaited."""

import asyncio
from collections.abc import Hashable

from dnslib import DNSRecord

from mesh.dns.config import DnsConfig
from mesh.dns.forward.dispatcher import Forwarder
from mesh.dns.forward.dot import SecureConnections
from mesh.dns.forward.query_builder import Received, UpstreamQuery
from mesh.dns.forward.route import DnsServer, Manner, UpstreamRoute
from mesh.dns.stats import DnsStats
from mesh.dns.wire import parse_query
from mesh.net.tasks import Tasks
from tests.dns.fakes import question

TRY = 0.2  # seconds for a server; the tests that need silence wait for it


class Asking:
    def __init__(self, *, mixed_case: bool = True, deadline: float = 2.0) -> None:
        self.failures: list[str] = []
        self.tasks = Tasks(lambda name, error: self.failures.append(f"{name}: {error!r}"))
        self.stats = DnsStats()
        config = DnsConfig(mixed_case=mixed_case, deadline=deadline, try_timeout=TRY)
        self.forwarder = Forwarder(config, self.tasks, self.stats)

    def trust(self, secure: SecureConnections) -> None:
        config = DnsConfig(try_timeout=TRY)
        self.forwarder = Forwarder(config, self.tasks, self.stats, secure)

    def begin(
        self, to: UpstreamRoute, name: str = "www.example", *, tcp: bool = False, asker: Hashable = "c1"
    ) -> asyncio.Future[Received | None]:
        query = wanted(name)
        result: asyncio.Future[Received | None] = asyncio.get_running_loop().create_future()
        assert self.forwarder.ask((to.key, query, tcp), query, to, asker, result.set_result, tcp=tcp)
        return result

    async def ask(self, *ports: int, tcp: bool = False, name: str = "www.example") -> Received | None:
        return await self.begin(route(*ports), name, tcp=tcp)

    @property
    def results(self) -> list[str]:
        return [result for (_, result), count in self.stats.upstream_requests.items() for _ in range(count)]


def wanted(name: str, qtype: str = "A") -> UpstreamQuery:
    data = question(name, qtype)
    return UpstreamQuery.of(parse_query(data), data)


def route(*ports: int, alike: bool = False, rounds: int = 2, tcp: bool = False) -> UpstreamRoute:
    servers = tuple(DnsServer("127.0.0.1", port) for port in ports)
    return UpstreamRoute("host", servers, manner=Manner(alike, rounds, TRY, tcp))


def data(received: Received | None) -> list[str]:
    """The data of the records in the answer."""
    assert received is not None
    return [str(rr.rdata) for rr in DNSRecord.parse(received.message).rr]
