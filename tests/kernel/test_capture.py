"""The reconciler of containers: decisions over fakes, then the whole in real namespaces."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field, replace

import pytest

from mesh.catalog.model import Attachment, Container, Network, Service, ServiceNetwork, Task, TaskState
from mesh.catalog.snapshot import Change, Snapshot
from mesh.errors import KernelError, NamespaceGone
from mesh.kernel.capture import CapturePolicy, ContainerCapture, why_not
from mesh.kernel.netfilter.transaction import Transaction, as_text
from mesh.kernel.rulesets import DELETE
from mesh.kernel.table import Tables
from mesh.net.netns import NamespaceWorker
from mesh.net.tasks import Tasks
from tests.net.lab import Lab, inside, laboratory, needs_root

OWN = "/proc/self/ns/net"  # a path that exists; the fakes never enter it


def container(id_: str = "c1", **changes: object) -> Container:
    base = Container(id_, f"name-{id_}", OWN, attachments=(Attachment("n1", "10.9.0.10"),))
    return replace(base, **changes)  # type: ignore[arg-type]


def service(id_: str = "s1", vip: str = "10.9.0.2", addresses: tuple[str, ...] = ("10.9.0.11",)) -> Service:
    tasks = tuple(Task(f"t{a}", f"{id_}.{a}", "node", TaskState.RUNNING, {"n1": a}) for a in addresses)
    return Service(id_, id_, networks=(ServiceNetwork("n1", vip),), tasks=tasks)


NETWORKS = {"n1": Network("n1", "web"), "b": Network("b", "bridge", driver="bridge", scope="local")}


class Closing:
    def __init__(self) -> None:
        self.closed = False

    def close(self) -> None:
        self.closed = True


@dataclass
class FakeTable:
    texts: list[str] = field(default_factory=list)
    fail: list[KernelError] = field(default_factory=list)
    closed: bool = False

    async def load(self, text: str) -> None:
        if self.fail:
            raise self.fail.pop()
        self.texts.append(text)

    async def change(self, transaction: Transaction) -> None:
        await self.load(as_text(transaction))

    async def ask(self, *texts: str) -> str:
        raise AssertionError(texts)  # containers' tables are not read

    def beat(self) -> None: ...

    async def close(self) -> None:
        self.closed = True


@dataclass
class FakeTables:
    made: list[FakeTable] = field(default_factory=list)
    cleared: list[str | None] = field(default_factory=list)
    fail: list[KernelError] = field(default_factory=list)

    async def open(self, path: str | None) -> FakeTable:
        if self.fail:
            raise self.fail.pop()
        self.made.append(FakeTable())
        return self.made[-1]

    async def clear(self, path: str | None) -> bool:
        self.cleared.append(path)
        return False


class Rig:
    """A capture over fakes, with a store of one snapshot."""

    def __init__(self, policy: CapturePolicy = CapturePolicy.ALL) -> None:
        self.failures: list[BaseException] = []
        self.tasks = Tasks(lambda _, error: self.failures.append(error))
        self.tables = FakeTables()
        self.endpoints: list[Closing] = []
        self.snapshot = Snapshot().apply(Change(networks=NETWORKS))
        self.capture = ContainerCapture(
            self.tasks, self.tables, self.endpoint, policy, open_sockets=self.sockets
        )

    def endpoint(self, _: Container, udp: socket.socket, tcp: socket.socket) -> Closing:
        udp.close()
        tcp.close()
        self.endpoints.append(Closing())
        return self.endpoints[-1]

    def sockets(self, _: Container) -> tuple[socket.socket, socket.socket]:
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.bind(("127.0.0.1", 0))
        tcp = socket.create_server(("127.0.0.1", 0))
        return udp, tcp

    async def change(self, **changes: object) -> None:
        old, change = self.snapshot, Change(**changes)  # type: ignore[arg-type]
        self.snapshot = old.apply(change)
        self.capture.update(old, self.snapshot, change)
        await self.capture.settled()
        assert not self.failures


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    made = Rig()
    made.capture.start(made.snapshot)
    yield made
    await made.capture.close()
    await made.tasks.close()


@pytest.mark.parametrize(
    ("box", "labels", "policy", "reason"),
    [
        (container(), {}, CapturePolicy.ALL, ""),
        (container(namespace=""), {}, CapturePolicy.ALL, "no network namespace of its own"),
        (container(running=False), {}, CapturePolicy.ALL, "not running"),
        (
            container(attachments=(Attachment("b", "172.17.0.2"),)),
            {},
            CapturePolicy.ALL,
            "on no user-defined network",
        ),
        (container(), {}, CapturePolicy.OFF, "capture is off on this node"),
        (container(), {}, CapturePolicy.LABELLED, "no label mesh.capture=on"),
        (container(), {"mesh.capture": "on"}, CapturePolicy.LABELLED, ""),
        (container(), {"mesh.capture": "off"}, CapturePolicy.ALL, "label mesh.capture=off"),
        (container(labels={"mesh.capture": "on"}), {"mesh.capture": "off"}, CapturePolicy.ALL, ""),
        (container(), {"mesh.enable": "false"}, CapturePolicy.ALL, "label mesh.enable=false"),
    ],
)
def test_which_containers_are_captured(
    box: Container, labels: dict[str, str], policy: CapturePolicy, reason: str
) -> None:
    assert why_not(box, replace(service(), labels=labels), policy, NETWORKS) == reason


async def test_a_container_is_captured_kept_up_to_date_and_let_go(rig: Rig) -> None:
    await rig.change(services={"s1": service()})
    await rig.change(containers={"c1": container()})
    (table,) = rig.tables.made
    assert "10.9.0.2 : goto vip_10_9_0_2" in table.texts[0]
    assert rig.capture.count == 1
    await rig.change(services={"s1": service(addresses=("10.9.0.11", "10.9.0.12"))})
    assert table.texts[1].startswith("flush chain ip mesh vip_10_9_0_2\n")
    await rig.change(services={"other": replace(service("other"), networks=())})
    assert len(table.texts) == 2
    await rig.change(containers={"c1": None})
    assert table.closed
    assert rig.endpoints[0].closed
    assert DELETE not in table.texts


async def test_opting_out_takes_the_table_away(rig: Rig) -> None:
    await rig.change(containers={"c1": container()})
    await rig.change(containers={"c1": container(labels={"mesh.capture": "off"})})
    assert rig.tables.made[0].texts[-1] == DELETE
    assert rig.tables.made[0].closed
    (status,) = rig.capture.status()
    assert (status.captured, status.reason) == (False, "label mesh.capture=off")


async def test_an_uncaptured_container_loses_the_table_of_an_earlier_sidecar_once(rig: Rig) -> None:
    box = container(labels={"mesh.capture": "off"})
    await rig.change(containers={"c1": box})
    await rig.change(containers={"c1": replace(box, hostname="other")})
    assert rig.tables.cleared == [OWN]


async def test_a_refused_change_is_mended_by_loading_the_whole_table(rig: Rig) -> None:
    await rig.change(containers={"c1": container()})
    table = rig.tables.made[0]
    table.fail.append(KernelError("no"))
    await rig.change(services={"s1": service()})
    assert not next(iter(rig.capture.status())).captured
    while len(table.texts) < 2:
        await asyncio.sleep(0.01)
    assert table.texts[1].startswith(DELETE)
    assert "10.9.0.2 : goto" in table.texts[1]
    assert rig.capture.count == 1


async def test_a_namespace_that_vanishes_is_no_error(rig: Rig) -> None:
    rig.tables.fail.append(NamespaceGone("gone"))
    await rig.change(containers={"c1": container()})
    assert rig.capture.count == 0


async def test_closing_takes_everything_out(rig: Rig) -> None:
    await rig.change(containers={"c1": container(), "c2": container("c2")})
    await rig.capture.close()
    assert all(table.texts[-1] == DELETE and table.closed for table in rig.tables.made)
    assert all(endpoint.closed for endpoint in rig.endpoints)


@pytest.fixture
def lab() -> Iterator[Lab]:
    with laboratory() as made:
        yield made


@pytest.mark.root
@needs_root
async def test_in_real_namespaces(lab: Lab) -> None:
    boxes = [lab.namespace(f"box{n}") for n in range(3)]
    failures: list[BaseException] = []
    tasks, worker = Tasks(lambda _, error: failures.append(error)), NamespaceWorker()
    answered: list[str] = []

    class Endpoint(Closing):
        def __init__(self, box: Container, udp: socket.socket, tcp: socket.socket) -> None:
            super().__init__()
            self.udp, self.tcp = udp, tcp
            asyncio.get_running_loop().add_reader(udp, lambda: answered.append(box.id) or udp.recv(99))

        def close(self) -> None:
            asyncio.get_running_loop().remove_reader(self.udp)
            self.udp.close()
            self.tcp.close()

    capture = ContainerCapture(tasks, Tables(worker), Endpoint)
    containers = {
        f"c{n}": container(f"c{n}", namespace=box.path, attachments=(Attachment("n1", f"10.9.0.{n + 20}"),))
        for n, box in enumerate(boxes)
    }
    start = Snapshot().apply(Change(networks=NETWORKS, containers=containers, services={"s1": service()}))
    capture.start(start)
    await capture.settled()
    assert capture.count == 3
    for box in boxes:
        with box.udp_socket("127.0.0.1") as sock:
            sock.sendto(b"?", ("127.0.0.11", 53))
    while len(answered) < 3:
        await asyncio.sleep(0.01)
    assert set(answered) == {"c0", "c1", "c2"}
    with boxes[1].udp_socket("127.0.0.11") as docker:
        found = capture.docker_resolver("c1")
        assert found is not None
        assert found.udp == docker.getsockname()[1]
    inside(boxes[0], "nft", "flush", "ruleset")
    while "goto vip_10_9_0_2" not in inside(boxes[0], "nft", "list", "ruleset"):
        await asyncio.sleep(0.05)
    lab.remove(boxes[2])
    while capture.count == 3:
        await asyncio.sleep(0.05)
    await capture.close()
    assert all(inside(box, "nft", "list", "ruleset") == "" for box in boxes[:2])
    await tasks.close()
    worker.close()
    assert not failures


async def test_for_a_next_sidecar_virtual_ips_stay_and_lookups_go_back_to_docker(rig: Rig) -> None:
    await rig.change(containers={"c1": container()}, services={"s1": service()})
    await rig.capture.close(leave=True)
    (table,) = rig.tables.made
    assert table.texts[-1] == "flush set ip mesh alive\n"
    assert DELETE not in table.texts
    assert table.closed
    assert rig.endpoints[0].closed
