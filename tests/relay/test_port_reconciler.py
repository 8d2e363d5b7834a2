"""The relayed ports follow the catalogue."""

import asyncio
import gc
import os
import socket
import threading
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from mesh.balance.endpoint_pool import EndpointStatus
from mesh.balance.policies import Endpoint
from mesh.catalog.model import Network, Port, Protocol, Service, Task, TaskState
from mesh.catalog.snapshot import Change, Snapshot
from mesh.net.bound_listener import listen
from mesh.net.tasks import Tasks
from mesh.relay.port_interface import PortOpener
from mesh.relay.port_reconciler import RelayPorts
from mesh.relay.tcp_connection import RelayOptions
from mesh.relay.tcp_port import TcpPort as RelayedPort
from mesh.relay.tcp_port import plain_socket
from tests.support.waiting import until


class Backend:
    """Says its name to every connection on one loopback address."""

    def __init__(self, address: str, port: int) -> None:
        self._listener = socket.create_server((address, port))
        self.port = self._listener.getsockname()[1]
        self._name = address.encode()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                connection.sendall(self._name)


class Rig:
    def __init__(self) -> None:
        self.failures: list[BaseException] = []
        self.redirects: list[tuple[int, int | None]] = []
        self.ipvs = False
        self.tasks = Tasks(lambda _, error: self.failures.append(error))
        self.snapshot = Snapshot().apply(Change(networks={"in": Network("in", "ingress", ingress=True)}))
        self.ports = RelayPorts(
            self.tasks,
            listen_address="127.0.0.1",
            as_published=lambda: self.ipvs,
            redirect=lambda published, local: self.redirects.append((published, local)),
        )

    async def publish(self, service: Service | None) -> None:
        old, change = self.snapshot, Change(services={"web": service})
        self.snapshot = old.apply(change)
        self.ports.update(old, self.snapshot, change)
        await self.ports.settled()


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    made = Rig()
    made.ports.start(made.snapshot)
    yield made
    await made.ports.close()
    await made.tasks.close()
    assert not made.failures


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def service(published: int, target: int, *addresses: str, **labels: str) -> Service:
    tasks = tuple(Task(a, a, "n", TaskState.RUNNING, {"in": a}) for a in addresses)
    named = {f"mesh.port.{published}.{key}": value for key, value in ({"mode": "proxy"} | labels).items()}
    return Service("web", "web", ports=(Port(published, target),), labels=named, tasks=tasks)


def greeting(published: int) -> str:
    with socket.create_connection(("127.0.0.1", published), timeout=10) as sock:
        return sock.recv(100).decode()


async def test_a_port_opens_follows_its_tasks_and_closes(rig: Rig) -> None:
    target = Backend("127.0.0.2", 0).port
    Backend("127.0.0.3", target)
    published = free_port()
    await rig.publish(service(published, target, "127.0.0.2"))
    assert await asyncio.to_thread(greeting, published) == "127.0.0.2"
    await rig.publish(service(published, target, "127.0.0.3"))
    assert await asyncio.to_thread(greeting, published) == "127.0.0.3"
    (status,) = rig.ports.status()
    assert (status.service, status.address) == ("web", f"127.0.0.1:{published}")
    assert status.endpoints == (f"127.0.0.3:{target}",)
    ((name, key, stats),) = rig.ports.stats()
    assert (name, key, stats.connections) == ("web", f"{published}/tcp", 2)
    await rig.publish(service(published, target, "127.0.0.3", mode="kernel"))
    with pytest.raises(ConnectionRefusedError):
        await asyncio.to_thread(greeting, published)
    assert list(rig.ports.status()) == []


async def test_tasks_of_this_node_come_first_where_the_label_says_so(rig: Rig) -> None:
    target = Backend("127.0.0.2", 0).port
    Backend("127.0.0.3", target)
    rig.snapshot = replace(rig.snapshot, this_node="here")
    published = free_port()
    both = service(published, target, "127.0.0.2", "127.0.0.3", locality="node")
    here = replace(both, tasks=(both.tasks[0], replace(both.tasks[1], node="here")))
    await rig.publish(here)
    assert {await asyncio.to_thread(greeting, published) for _ in range(4)} == {"127.0.0.3"}
    await rig.publish(both)
    assert len({await asyncio.to_thread(greeting, published) for _ in range(4)}) == 2


async def test_problems_of_labels_are_reported_while_they_are_there(rig: Rig) -> None:
    published = free_port()
    await rig.publish(service(published, 1, policy="best"))
    (problem,) = rig.ports.problems()
    assert problem.key == f"mesh.port.{published}.policy"
    await rig.publish(None)
    assert rig.ports.problems() == ()


async def test_a_taken_port_is_named_and_taken_over_when_free(rig: Rig) -> None:
    target = Backend("127.0.0.2", 0).port
    with socket.create_server(("127.0.0.1", 0)) as taken:
        published = taken.getsockname()[1]
        await rig.publish(service(published, target, "127.0.0.2"))
        (status,) = rig.ports.status()
        assert status.address == ""
        assert f"cannot listen on 127.0.0.1:{published}" in status.fault
    await until(lambda: next(rig.ports.status()).address != "")
    assert await asyncio.to_thread(greeting, published) == "127.0.0.2"
    assert next(rig.ports.status()).fault == ""


async def test_a_port_that_is_newly_taken_is_tried_again_soon_although_another_has_long_been_taken(
    rig: Rig,
) -> None:
    rig.ports._backoff.seconds = 3600.0  # where the pauses of another port have grown to
    with socket.create_server(("127.0.0.1", 0)) as taken:
        published = taken.getsockname()[1]
        await rig.publish(service(published, 1, "127.0.0.2"))
        assert next(rig.ports.status()).fault
    await until(lambda: next(rig.ports.status()).address != "")


async def test_where_dockers_ingress_holds_the_port_the_relay_listens_elsewhere(rig: Rig) -> None:
    rig.ipvs = True
    with socket.create_server(("127.0.0.1", 0)) as held_by_the_engine:
        published = held_by_the_engine.getsockname()[1]
        backend = Backend("127.0.0.2", published)  # tasks take the published port there
        await rig.publish(service(published, 8080, "127.0.0.2"))
        ((told, local),) = rig.redirects
        assert told == published == backend.port
        assert local is not None
        assert await asyncio.to_thread(greeting, local) == "127.0.0.2"
        await rig.publish(None)
        assert rig.redirects[-1] == (published, None)


async def test_what_a_port_has_experienced_of_its_endpoints_can_be_seen(rig: Rig) -> None:
    target = Backend("127.0.0.2", 0).port
    published = free_port()
    await rig.publish(service(published, target, "127.0.0.2", "127.0.0.4"))  # nobody listens on the second

    def second() -> EndpointStatus:
        found = {str(one.endpoint): one for one in rig.ports.seen(f"{published}/tcp")}
        assert found[f"127.0.0.2:{target}"].ejected_for == 0.0
        return found[f"127.0.0.4:{target}"]

    for _ in range(20):  # every client is served; the endpoint that refuses is left out meanwhile
        assert await asyncio.to_thread(greeting, published) == "127.0.0.2"
    assert second().ejected_for > 0.0
    assert rig.ports.seen("1/tcp") == ()


class Answering:
    """Answers each datagram with its name."""

    def __init__(self, address: str, port: int) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((address, port))
        self.port = self._socket.getsockname()[1]
        self._name = address.encode()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            _, sender = self._socket.recvfrom(100)
            self._socket.sendto(self._name, sender)


def answer(published: int) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(10)
        sock.sendto(b"?", ("127.0.0.1", published))
        return sock.recv(100).decode()


def over_both(published: int, target: int, *addresses: str) -> Service:
    tcp = service(published, target, *addresses)
    return replace(tcp, ports=(*tcp.ports, Port(published, target, Protocol.UDP)))


async def test_a_number_is_relayed_over_tcp_and_udp_side_by_side(rig: Rig) -> None:
    target = Backend("127.0.0.2", 0).port
    Answering("127.0.0.2", target)
    Answering("127.0.0.3", target)
    published = free_port()
    await rig.publish(over_both(published, target, "127.0.0.2"))
    assert await asyncio.to_thread(greeting, published) == "127.0.0.2"
    assert await asyncio.to_thread(answer, published) == "127.0.0.2"
    assert [one.key for one in rig.ports.status()] == [f"{published}/tcp", f"{published}/udp"]
    assert {key: stats.connections for _, key, stats in rig.ports.stats()} == {
        f"{published}/tcp": 1,
        f"{published}/udp": 1,
    }
    await rig.publish(over_both(published, target, "127.0.0.3"))
    assert await asyncio.to_thread(answer, published) == "127.0.0.3"
    await rig.publish(service(published, target, "127.0.0.2"))  # no longer over UDP
    assert [one.key for one in rig.ports.status()] == [f"{published}/tcp"]


async def test_a_taken_udp_port_is_named_and_the_others_go_on(rig: Rig) -> None:
    target = Backend("127.0.0.2", 0).port
    published = free_port()
    rig.ipvs = True  # there is no redirect for UDP: nowhere else to listen
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", published))
        await rig.publish(over_both(published, target, "127.0.0.2"))
        tcp, udp = rig.ports.status()
        assert (tcp.fault, udp.address) == ("", "")
        assert f"cannot listen on 127.0.0.1:{published}/udp" in udp.fault
    assert rig.redirects == []


async def test_ports_share_a_poller_and_take_a_descriptor_each() -> None:
    opener, opened = PortOpener(), list[RelayedPort]()
    target = Backend("127.0.0.2", 0).port

    def open_one() -> None:
        listener = listen("127.0.0.1", 0)
        found = (Endpoint("127.0.0.2", target),)
        opened.append(opener.open(listener, found, RelayOptions(), plain_socket, ()))

    open_one()
    gc.collect()  # what tests before this one have left in circles would close meanwhile
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        open_one()
    assert len(os.listdir("/proc/self/fd")) == before + 10
    await opened[0].close()  # the others go on
    for port in opened[1:]:
        assert await asyncio.to_thread(greeting, port.address[1]) == "127.0.0.2"
        await port.close()
    opener.stop()
    assert len(os.listdir("/proc/self/fd")) == before - 2  # nor is there the poller, nor the first one
