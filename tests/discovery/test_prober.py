"""Probing real sockets on loopback: what each kind of server comes to, and who is told."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest

from mesh.balance.health_state import Result
from mesh.catalog.model import Attachment, Container, Port, Service
from mesh.catalog.snapshot import Change, Snapshot
from mesh.discovery.probe import Probe
from mesh.discovery.prober import Prober, look
from mesh.net.tasks import Tasks
from tests.net.lab import inside, laboratory, needs_root

OWN = "/proc/self/ns/net"
Handle = Callable[[asyncio.StreamReader, asyncio.StreamWriter], object]


@pytest.fixture
async def serve() -> AsyncIterator[Callable[..., object]]:
    servers: list[asyncio.Server] = []

    async def start(answer: bytes | None, port: int = 0) -> int:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if answer is None:
                await reader.read()
            else:
                await reader.readline()
                writer.write(answer)
                await writer.drain()
            writer.close()

        servers.append(await asyncio.start_server(handle, "127.0.0.1", port))
        return int(servers[-1].sockets[0].getsockname()[1])

    yield start
    for server in servers:
        server.close()


def probe(port: int, path: str = "/", interval: float = 0.3) -> Probe:
    return Probe("t", "s", "web", OWN, "127.0.0.1", port, path, interval)


@pytest.mark.root
@pytest.mark.parametrize(
    ("answer", "result"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", Result.WELL),
        (b"HTTP/1.0 302 Found\r\n\r\n", Result.WELL),
        (b"HTTP/1.1 503 Sorry\r\n\r\n", Result.STATUS),
        (b"SSH-2.0-x\r\n", Result.BROKEN),
        (b"", Result.BROKEN),
        (b"x" * 10_000, Result.BROKEN),
        (None, Result.TIMEOUT),
    ],
)
async def test_what_an_http_server_comes_to(
    serve: Callable[..., object], answer: bytes | None, result: Result
) -> None:
    port = await serve(answer)  # type: ignore[misc]
    assert await look(probe(port)) is result
    assert await look(probe(port, path="")) is Result.WELL


async def test_nobody_and_no_namespace() -> None:
    with_nobody = await asyncio.start_server(lambda _r, _w: None, "127.0.0.1", 0)
    port = int(with_nobody.sockets[0].getsockname()[1])
    with_nobody.close()
    await with_nobody.wait_closed()
    assert await look(probe(port)) is Result.REFUSED
    assert await look(replace(probe(port), namespace="/nosuch")) is Result.BROKEN


async def test_a_new_task_is_unwell_until_it_listens_and_again_when_it_has_ended(
    serve: Callable[..., object],
) -> None:
    listening = await asyncio.start_server(lambda _r, w: w.close(), "127.0.0.1", 0)
    port = int(listening.sockets[0].getsockname()[1])
    listening.close()
    await listening.wait_closed()
    labels = {"mesh.port.80.health": "tcp", "mesh.port.80.health_interval": "50ms"}
    service = Service("s", "web", ports=(Port(80, port),), labels=labels)
    box = Container("c", "web.1.t", OWN, (Attachment("n", "127.0.0.1"),), service="s", task="t")
    failures: list[BaseException] = []
    tasks, told = Tasks(lambda _, error: failures.append(error)), asyncio.Queue[dict[str, str]]()
    prober = Prober(tasks, lambda unwell: told.put_nowait(dict(unwell)))
    known = Snapshot().apply(Change(services={"s": service}))
    prober.start(known)

    def publish(change: Change) -> None:
        nonlocal known
        old, known = known, known.apply(change)
        prober.update(old, known, change)

    async with asyncio.timeout(20):
        publish(Change(containers={"c": box}))
        assert await told.get() == {"t": "s"}
        while not prober.results["web", port, "refused"]:
            await asyncio.sleep(0.01)
        assert "task t does not pass its probe" in prober.faults()[0]
        await serve(b"", port)  # type: ignore[misc]
        assert await told.get() == {}
        publish(Change(services={"s": replace(service, ports=(Port(80, 1),))}))  # an update of the port
        assert await told.get() == {"t": "s"}  # after three failures
        publish(Change(containers={"c": None}))
        assert await told.get() == {}
    publish(Change(services={"s": None}))
    assert not prober.results  # of a service that is no more nothing is kept
    await prober.close()
    await tasks.close()
    assert not failures


async def test_what_runs_already_is_well_until_it_fails() -> None:
    labels = {"mesh.port.80.health": "tcp"}
    service = Service("s", "web", ports=(Port(80, 1),), labels=labels)
    box = Container("c", "web.1.t", OWN, (Attachment("n", "127.0.0.1"),), service="s", task="t")
    tasks = Tasks(lambda _, error: None)
    prober = Prober(tasks, lambda unwell: None)
    prober.start(Snapshot().apply(Change(services={"s": service}, containers={"c": box})))
    assert prober.faults() == []
    await prober.close()
    await tasks.close()


DOCKERS_INGRESS_RULES = """
table ip filter {
  chain INPUT { type filter hook input priority 0;
    ip daddr 10.0.0.5 tcp dport 8080 ct state new,established accept
    ip daddr 10.0.0.5 meta l4proto { tcp, udp, sctp } drop
  }
  chain OUTPUT { type filter hook output priority 0;
    ip saddr 10.0.0.5 tcp sport 8080 ct state established accept
    ip saddr 10.0.0.5 meta l4proto { tcp, udp, sctp } drop
  }
}
"""


@needs_root
@pytest.mark.root
@pytest.mark.parametrize("rules", ["", DOCKERS_INGRESS_RULES])
async def test_a_task_may_answer_but_not_ask_from_its_ingress_address(rules: str) -> None:
    """What Docker loads into every task with a published port: only the target port may be spoken to."""
    with laboratory() as lab:
        task = lab.namespace("task")
        lab.plug(task, "eth0", "10.0.0.5/24", lab.switch("ingress"))
        if rules:
            inside(task, "nft", rules)
        with task.tcp_listener("0.0.0.0", 8080):
            assert task.path is not None
            asked = Probe("t", "s", "web", task.path, "10.0.0.5", 8080)
            assert await look(asked) is Result.WELL


class Following:
    """A prober told of changes one after the other, before any probe has had an answer."""

    def __init__(self, *, services: dict[str, Service], containers: dict[str, Container]) -> None:
        self.tasks = Tasks(lambda _, error: None)
        self.prober = Prober(self.tasks, lambda unwell: None)
        self.known = Snapshot().apply(Change(services=services, containers=containers))
        self.prober.start(self.known)

    def publish(self, change: Change) -> None:
        old, self.known = self.known, self.known.apply(change)
        self.prober.update(old, self.known, change)

    async def close(self) -> None:
        await self.prober.close()
        await self.tasks.close()


PROBED = Service("s", "web", ports=(Port(80, 1),), labels={"mesh.port.80.health": "tcp"})
BOX = Container("c", "web.1.t", OWN, (Attachment("n", "127.0.0.1"),), service="s", task="t")


async def test_a_new_task_that_gets_another_address_has_still_to_show_that_it_is_well() -> None:
    one = Following(services={"s": PROBED}, containers={})
    one.publish(Change(containers={"c": BOX}))
    one.publish(Change(containers={"c": replace(BOX, attachments=(Attachment("n", "127.0.0.2"),))}))
    assert len(one.prober.faults()) == 1
    await one.close()


async def test_a_task_whose_service_is_heard_of_late_is_not_taken_for_new() -> None:
    """A node that starts without managers knows its containers first; they may have run for days."""
    one = Following(services={}, containers={"c": BOX})
    one.publish(Change(services={"s": PROBED}))
    assert one.prober.faults() == []
    await one.close()
