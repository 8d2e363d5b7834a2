"""Containers that ask for more than their share, upstreams that answer with loops; one asks beside them."""

import asyncio
import struct
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from dnslib import DNSRecord

from mesh.dns.config import FORWARDS_MAX, FORWARDS_PER_ASKER, DnsConfig
from mesh.dns.forward import dispatcher as forwarder_module
from mesh.dns.forward.forward import ContainerPaths, Later
from mesh.dns.resolver import Resolver
from mesh.dns.scope import Scope
from mesh.dns.wire import RECORD, QType
from mesh.net.tasks import Tasks
from tests.dns.fakes import Upstream, question, rcode, say, shown, upstream
from tests.dns.world import FRONT, snapshot

REFUSED, SERVFAIL = 5, 2


def one_name_only(query: bytes) -> list[bytes]:
    """An upstream that knows one name and is silent about all others."""
    known = str(DNSRecord.parse(query).q.qname).lower().startswith("good")
    return say(ttl=0)(query) if known else []


class Node:
    def __init__(self, server: Upstream) -> None:
        self.tasks = Tasks(lambda name, error: pytest.fail(f"{name}: {error!r}"))
        config = DnsConfig(upstreams=(str(server),), try_timeout=1.0, deadline=4.0)
        self.resolver = Resolver(config, self.tasks, snapshot())

    def ask(self, name: str, container: str, id_: int = 1) -> asyncio.Future[bytes]:
        replied: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        scope: Scope = replace(FRONT, container=container)
        view = self.resolver.view(scope, False)
        query = id_.to_bytes(2) + question(name)[2:]
        reply = self.resolver.reply(query, scope, view, replied.set_result, ContainerPaths())
        if reply is not Later.PENDING:
            assert reply is not None
            replied.set_result(reply)
        return replied

    async def good(self, container: str = "good", name: str = "good.example") -> None:
        async with asyncio.timeout(10):
            assert shown(await self.ask(name, container)) == ["192.0.2.1"]


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    async with upstream(one_name_only) as server:
        made = Node(server)
        yield made
        await made.tasks.close()


async def test_four_containers_repeat_an_unanswered_question(node: Node) -> None:
    replies: list[asyncio.Future[bytes]] = []
    for turn in range(FORWARDS_PER_ASKER):
        replies += [node.ask("bad.example", container, turn) for container in "abcd"]
        if turn % 100 == 0:
            await node.good(f"good{turn}")
    await node.good()
    told = [one.result() for one in replies if one.done()]
    assert {rcode(reply) for reply in told} <= {REFUSED, SERVFAIL}
    assert "total" not in node.resolver.stats.refused


async def test_four_containers_take_all_places_with_different_questions(node: Node) -> None:
    for turn in range(FORWARDS_PER_ASKER + 50):
        for container in "abcd":
            node.ask(f"bad{turn}.example", container)
        if turn % 200 == 0:
            await node.good(f"good{turn}")
    waiting = node.resolver._forwarding._forwarder._shares
    assert len(waiting) <= FORWARDS_MAX
    for number in range(20):
        await node.good(f"good{number}", f"good{number}.example")


async def test_one_container_takes_all_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwarder_module, "getrlimit", lambda _: (100, 1000))
    async with upstream(one_name_only) as server:
        node = Node(server)
        for turn in range(300):
            node.ask(f"bad{turn}.example", "greedy")
            if turn % 30 == 0:
                await node.good()
        refused = node.resolver.stats.refused
        assert refused["descriptors"] > 0
        await node.good("other", "good2.example")
        await node.tasks.close()


async def test_many_containers_leave_something_for_one_that_has_nothing(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node.resolver._forwarding._forwarder._shares, "places", 200)
    for turn in range(10):
        for number in range(50):
            node.ask(f"bad{turn}.example", f"container{number}")
        await node.good(f"good{turn}", f"good{turn}.example")


def looping(query: bytes) -> list[bytes]:
    """A name whose compression never ends: in an owner, and in the data of a record."""
    (reply,) = say(ttl=0)(query)
    asked = DNSRecord.parse(query)
    end = (
        12
        + len(bytes(asked.q.qname.label and b"".join(bytes([len(x)]) + x for x in asked.q.qname.label)))
        + 5
    )
    name = str(asked.q.qname)
    head = reply[:6] + struct.pack("!HHH", 1, 0, 0) + reply[12:end]
    if name.lower().startswith("owner"):
        here = struct.pack("!H", 0xC000 | end)
        return [head + here + RECORD.pack(QType.A, 1, 60, 4) + b"\x7f\0\0\1"]
    if name.lower().startswith("data"):
        here = struct.pack("!H", 0xC000 | (end + 2 + RECORD.size))
        return [head + b"\xc0\x0c" + RECORD.pack(QType.CNAME, 1, 60, 2) + here]
    if name.lower().startswith("ahead"):
        return [head + b"\xff\xff" + RECORD.pack(QType.A, 1, 60, 4) + b"\x7f\0\0\1"]
    return [reply]


@pytest.mark.parametrize("kind", ["owner", "data", "ahead"])
async def test_a_loop_of_pointers_is_passed_to_nobody(kind: str) -> None:
    async with upstream(looping) as server:
        node = Node(server)
        await node.good()
        reply = await node.ask(f"{kind}.example", "a")
        assert rcode(reply) == SERVFAIL
        assert DNSRecord.parse(reply).rr == []
        await node.good()
        await node.tasks.close()
