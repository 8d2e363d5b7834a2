"""Over IPv6 every published port is relayed, to the tasks that it has over IPv4."""

import asyncio
import socket
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from mesh.catalog.model import Port, Protocol, PublishMode, Service
from mesh.catalog.snapshot import Change
from mesh.net.proc import has_ipv6
from mesh.relay.port_reconciler import RelayPorts
from tests.relay.test_port_reconciler import Answering, Backend, Rig, free_port, greeting, service

pytestmark = pytest.mark.skipif(not has_ipv6(), reason="no IPv6 on this machine")


class Rig6(Rig):
    def __init__(self) -> None:
        super().__init__()
        self.ports4 = self.ports
        self.ports = RelayPorts(self.tasks, listen_address="::1", over_ipv6=True)

    async def publish(self, service: Service | None) -> None:
        before = self.snapshot
        await super().publish(service)
        self.ports4.update(before, self.snapshot, Change(services={"web": service}))
        await self.ports4.settled()


@pytest.fixture
async def rig() -> AsyncIterator[Rig6]:
    made = Rig6()
    made.ports.start(made.snapshot)
    made.ports4.start(made.snapshot)
    yield made
    await made.ports.close()
    await made.ports4.close()
    await made.tasks.close()
    assert not made.failures


def greeting6(published: int) -> str:
    with socket.create_connection(("::1", published), timeout=10) as sock:
        return sock.recv(200).decode()


async def test_a_port_that_the_kernel_carries_is_relayed_over_ipv6(rig: Rig6) -> None:
    target = Backend("127.0.0.2", 0).port
    published = free_port()
    await rig.publish(service(published, target, "127.0.0.2", mode="kernel"))
    assert await asyncio.to_thread(greeting6, published) == "127.0.0.2"
    assert [one.key for one in rig.ports.status()] == [f"{published}/tcp"]
    with pytest.raises(ConnectionRefusedError):  # the kernel's, and there are no rules here
        await asyncio.to_thread(greeting, published)


async def test_a_udp_port_that_the_kernel_carries_is_relayed_over_ipv6(rig: Rig6) -> None:
    target = Answering("127.0.0.2", 0).port
    published = free_port()
    one = service(published, target, "127.0.0.2", mode="kernel")
    await rig.publish(replace(one, ports=(Port(published, target, Protocol.UDP),)))
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as client:
        client.settimeout(10)
        client.sendto(b"?", ("::1", published))
        assert await asyncio.to_thread(client.recv, 100) == b"127.0.0.2"
    assert [one.key for one in rig.ports.status()] == [f"{published}/udp"]
    assert list(rig.ports4.status()) == []


async def test_a_relayed_port_is_so_over_both_side_by_side(rig: Rig6) -> None:
    target = Backend("127.0.0.2", 0).port
    published = free_port()
    await rig.publish(service(published, target, "127.0.0.2"))
    assert await asyncio.to_thread(greeting, published) == "127.0.0.2"
    assert await asyncio.to_thread(greeting6, published) == "127.0.0.2"
    ((_, _, four),), ((_, _, six),) = rig.ports4.stats(), rig.ports.stats()
    both = four + six
    assert (both.connections, both.sent) == (2, 2 * len("127.0.0.2"))


async def test_what_is_left_to_docker_is_left_to_it(rig: Rig6) -> None:
    one = service(free_port(), 1, "127.0.0.2", mode="kernel")
    (port,) = one.ports
    for left in (
        replace(one, labels={"mesh.enable": "false"}),
        replace(one, ports=(replace(port, mode=PublishMode.HOST),)),
        replace(one, ports=(Port(port.published, 1, Protocol.SCTP),)),
    ):
        await rig.publish(left)
        assert list(rig.ports.status()) == []


async def test_a_taken_port_is_named_and_the_ipv4_side_goes_on(rig: Rig6) -> None:
    target = Backend("127.0.0.2", 0).port
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as taken:
        published = taken.getsockname()[1]
        await rig.publish(service(published, target, "127.0.0.2"))
        (status,) = rig.ports.status()
        assert f"cannot listen on [::1]:{published}" in status.fault
        assert await asyncio.to_thread(greeting, published) == "127.0.0.2"


async def test_the_task_is_told_of_the_client_by_a_proxy_header(rig: Rig6) -> None:
    with socket.create_server(("127.0.0.2", 0)) as task:
        published = free_port()
        labelled = service(published, task.getsockname()[1], "127.0.0.2", mode="kernel", proxy_protocol="v1")
        await rig.publish(labelled)
        client = await asyncio.to_thread(socket.create_connection, ("::1", published), 10)
        with client:
            asked, _ = await asyncio.to_thread(task.accept)
            with asked:
                told = await asyncio.to_thread(asked.recv, 200)
                source = client.getsockname()[1]
    assert told.decode() == f"PROXY TCP6 ::1 ::1 {source} {published}\r\n"
