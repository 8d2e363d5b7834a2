"""Addresses of the node on which we may be asked: had now, or later, or told why not."""

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest
from dnslib import DNSRecord

from mesh.catalog.model import Asker, Network, Service, ServiceNetwork, Task, TaskState
from mesh.catalog.snapshot import Change, Snapshot
from mesh.dns import node_listener
from mesh.dns.config import DnsConfig
from mesh.dns.node_listener import GATEWAY, ExplicitResolver
from mesh.dns.resolver import Resolver
from mesh.net.tasks import Tasks

TASK = Task("t1", "web.1.t1", "n1", TaskState.RUNNING, {"net": "10.0.1.3"})
WEB = Service("s1", "web", networks=(ServiceNetwork("net", "10.0.1.2"),), tasks=(TASK,))
SNAPSHOT = Snapshot().apply(
    Change(
        networks={"net": Network("net", "inside")},
        services={"s1": WEB},
        askers=(Asker("tests", "127.0.0.0/8", ("net",)),),
    )
)


@pytest.fixture
async def tasks() -> AsyncIterator[Tasks]:
    failures: list[BaseException] = []
    owner = Tasks(lambda _, error: failures.append(error))
    yield owner
    await owner.close()
    assert not failures


def resolver(tasks: Tasks) -> Resolver:
    return Resolver(DnsConfig(upstreams=("127.0.0.1:1",)), tasks, SNAPSHOT)


async def reply_to(name: str, address: tuple[str, int]) -> DNSRecord:
    """Through a connected socket, as stub resolvers do: nothing from another address comes in."""
    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as client:
        client.setblocking(False)
        client.connect(address)
        await loop.sock_sendall(client, DNSRecord.question(name).pack())
        return DNSRecord.parse(await asyncio.wait_for(loop.sock_recv(client, 512), 5))


async def ask(address: tuple[str, int]) -> list[str]:
    return [str(rr.rdata) for rr in (await reply_to("web", address)).rr]


async def bound(place: node_listener.ListenPlace) -> tuple[str, int]:
    async with asyncio.timeout(5):
        while place.bound is None:
            await asyncio.sleep(0.01)
    return place.bound


async def test_the_gateway_is_taken_as_soon_as_there_is_one(
    tasks: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_listener, "LOOK_SECONDS", 0.02)
    found: list[str] = []
    one = ExplicitResolver(resolver(tasks), tasks, ((GATEWAY, 0),), lambda: found[0] if found else None)
    await one.start()
    (place,) = one.places
    assert "docker_gwbridge" in place.fault
    found.append("127.0.0.5")
    address = await bound(place)
    assert (address[0], place.fault) == ("127.0.0.5", "")
    assert await ask(address) == ["10.0.1.2"]
    found[0] = "127.0.0.6"  # the bridge was made anew
    async with asyncio.timeout(5):
        while (await bound(place))[0] != "127.0.0.6":
            await asyncio.sleep(0.01)
    assert await ask(await bound(place)) == ["10.0.1.2"]
    one.close()


async def test_a_taken_address_is_told_and_tried_again_while_others_serve(tasks: Tasks) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        taken = holder.getsockname()
        one = ExplicitResolver(resolver(tasks), tasks, (taken, ("127.0.0.1", 0)))
        await one.start()
        first, second = one.places
        assert f"{taken[0]}:{taken[1]}" in first.fault
        assert "in use" in first.fault
        assert await ask(await bound(second)) == ["10.0.1.2"]
    assert await bound(first) == taken
    one.close()


async def test_the_node_itself_is_forwarded_and_a_stranger_is_nobody(tasks: Tasks) -> None:
    one = ExplicitResolver(resolver(tasks), tasks, (("127.0.0.1", 0),))
    await one.start()
    assert one.scope("127.0.0.1") is not None, "an asker of the catalogue"
    assert one.scope("203.0.113.9") is None
    one.close()


@pytest.mark.parametrize(("listen", "asked"), [("0.0.0.0", "127.0.0.2"), ("::", "::1"), ("::", "127.0.0.2")])
async def test_on_a_wildcard_address_replies_leave_from_the_address_that_was_asked(
    tasks: Tasks, listen: str, asked: str
) -> None:
    own = (Asker("tests", "127.0.0.0/8", ("net",)), Asker("tests6", "::1/128", ("net",)))
    world = SNAPSHOT.apply(Change(askers=own))
    served = ExplicitResolver(
        Resolver(DnsConfig(upstreams=("127.0.0.1:1",)), tasks, world), tasks, ((listen, 0),)
    )
    await served.start()
    address = (asked, (await bound(served.places[0]))[1])
    assert await ask(address) == ["10.0.1.2"]
    assert await ask(address) == ["10.0.1.2"], "from the cache, with many at once"
    assert (await reply_to("elsewhere.test", address)).header.rcode == 2, "a reply that took its time"
    served.close()
