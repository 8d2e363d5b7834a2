"""Flows of tasks that leave and end: decided from the catalogue, then done in real namespaces."""

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from typing import TypeVar

import pytest

from mesh.balance.hash_slots import Choice
from mesh.catalog.model import Port, Service, Task, TaskState
from mesh.catalog.snapshot import Change, Snapshot
from mesh.kernel.flow_drain import Flows, drain_of
from mesh.kernel.netfilter import nft, nft_batch
from mesh.kernel.rulesets import container_rules, vips_update
from mesh.net.netns import Namespace, NamespaceWorker
from mesh.net.tasks import Tasks
from tests.net.lab import Lab, laboratory, needs_root

T = TypeVar("T")

pytestmark = [pytest.mark.root, needs_root]

VIP, ONE, TWO = "10.9.0.2", "10.9.0.11", "10.9.0.12"
DRAIN, DRAIN_SECONDS = "300ms", 0.3


def service(id_: str, state: TaskState | None) -> Service:
    tasks = () if state is None else (Task(f"{id_}1", f"{id_}.1", "n1", state, {"n": ONE}),)
    return Service(id_, id_, ports=(Port(80, 80),), labels={"mesh.port.80.drain": DRAIN}, tasks=tasks)


class World:
    """A client whose virtual IP leads to one task, then to the other."""

    def __init__(self, lab: Lab) -> None:
        switch = lab.switch("sw")
        self.client, self.one, self.two = (lab.namespace(name) for name in ("client", "one", "two"))
        for index, member in enumerate((self.client, self.one, self.two)):
            lab.plug(member, "eth0", f"10.9.0.{10 + index}/24", switch)
        self.client.call(lambda: nft.run(container_rules({VIP: Choice((ONE,))}, None)))
        self.failures: list[BaseException] = []
        self.tasks, self.worker = Tasks(lambda _, error: self.failures.append(error)), NamespaceWorker()
        self.flows = Flows(self.tasks, self.worker)
        self.snapshot = Snapshot()
        self.become(TaskState.RUNNING)

    def become(self, state: TaskState | None) -> None:
        """The task is in that state now; None: the cluster does not list it any more."""
        self.publish(web=state)

    def publish(self, **states: TaskState | None) -> None:
        """Services whose only task is in that state now; all of them have the same address."""
        old, change = self.snapshot, Change(services={id_: service(id_, s) for id_, s in states.items()})
        self.snapshot = old.apply(change)
        self.flows.update(old, self.snapshot, change)

    def lead_elsewhere(self) -> None:
        change = vips_update({VIP: Choice((ONE,))}, {VIP: Choice((TWO,))})
        self.client.call(lambda: nft_batch.change(change))
        self.flows.left(self.client.path, [ONE])

    async def close(self) -> None:
        await self.flows.close()
        await self.tasks.close()
        self.worker.close()
        assert not self.failures


@pytest.fixture
def lab() -> Iterator[Lab]:
    with laboratory() as made:
        yield made


@pytest.fixture
async def world(lab: Lab) -> AsyncIterator[World]:
    made = World(lab)
    yield made
    await made.close()


def heard(where: Namespace) -> socket.socket:
    sock = where.udp_socket("0.0.0.0", 53)
    sock.settimeout(5)
    return sock


def connected(world: World) -> tuple[socket.socket, socket.socket]:
    """The client's end and the task's."""
    with world.one.tcp_listener("0.0.0.0", 80) as listener:
        listener.settimeout(5)
        client = world.client.tcp_socket()
        client.settimeout(5)
        client.connect((VIP, 80))
        accepted, _ = listener.accept()
    accepted.settimeout(5)
    return client, accepted


async def test_datagrams_go_elsewhere_at_once_and_connections_go_on(world: World) -> None:
    with world.client.udp_socket("0.0.0.0") as asking, heard(world.one) as first, heard(world.two) as second:
        asking.connect((VIP, 53))
        asking.send(b"1")
        assert first.recv(10) == b"1"
        client, task = connected(world)
        with client, task:
            world.become(TaskState.LEAVING)
            world.lead_elsewhere()
            await world.flows.settled()
            asking.send(b"2")
            assert second.recv(10) == b"2"
            client.send(b"still")
            assert task.recv(10) == b"still"
    assert world.flows.ended == 1


async def test_connections_of_an_unwell_task_go_on_for_longer_than_the_drain_time(world: World) -> None:
    client, task = connected(world)
    with client, task:
        world.become(TaskState.UNWELL)
        world.lead_elsewhere()
        await world.flows.settled()
        await asyncio.sleep(2 * DRAIN_SECONDS)  # nothing is to happen
        client.send(b"still")
        assert task.recv(10) == b"still"
        world.become(TaskState.LEAVING)  # now its drain time runs
        async with asyncio.timeout(10):
            while not world.flows.ended:
                await asyncio.sleep(0.02)


async def test_after_the_drain_time_a_connection_is_reset(world: World) -> None:
    client, task = connected(world)
    with client, task:
        world.become(TaskState.LEAVING)
        world.lead_elsewhere()
        async with asyncio.timeout(10):
            while not world.flows.ended:
                await asyncio.sleep(0.02)
        client.send(b"?")
        with pytest.raises(ConnectionResetError):
            client.recv(10)


async def test_when_the_task_has_ended_connections_are_reset_at_once(world: World) -> None:
    client, task = connected(world)
    with client, task:
        world.become(None)
        world.lead_elsewhere()
        await world.flows.settled()
        client.send(b"?")
        with pytest.raises(ConnectionResetError):
            client.recv(10)


async def test_the_end_may_come_after_the_rules_have_changed(world: World) -> None:
    client, task = connected(world)
    with client, task:
        world.become(TaskState.LEAVING)
        world.lead_elsewhere()
        await world.flows.settled()
        world.become(TaskState.DEAD)
        await world.flows.settled()
        assert world.flows.ended == 1


async def test_a_task_that_serves_after_all_keeps_its_flows(world: World) -> None:
    client, task = connected(world)
    with client, task:
        world.become(TaskState.LEAVING)
        world.become(TaskState.RUNNING)
        world.flows.left(world.client.path, [ONE])
        await world.flows.settled()
        client.send(b"still")
        assert task.recv(10) == b"still"
    assert world.flows.ended == 0


@pytest.mark.parametrize("order", [("web", "api"), ("api", "web")])
@pytest.mark.parametrize("noticed", ["later", "at once"])
async def test_who_has_the_address_of_an_ended_task_now_keeps_its_flows(
    world: World, order: tuple[str, str], noticed: str
) -> None:
    """The cluster lists another service's task there before, or while, the old one is not listed any more."""
    if noticed == "later":
        world.publish(web=TaskState.LEAVING)
        world.publish(api=TaskState.RUNNING)
        world.publish(web=None)
    else:
        changed = {"web": None, "api": TaskState.RUNNING}
        world.publish(**{id_: changed[id_] for id_ in order})
    client, task = connected(world)
    with client, task:
        world.flows.left(world.client.path, None)  # all rules are loaded anew
        world.flows.left(world.client.path, [ONE])
        await world.flows.settled()
        client.send(b"still")
        assert task.recv(10) == b"still"
        assert world.flows.ended == 0
        world.publish(api=None)
        world.lead_elsewhere()
        await world.flows.settled()
        assert world.flows.ended == 1


async def test_who_served_before_the_start_is_known(world: World) -> None:
    world.publish(web=TaskState.LEAVING, api=TaskState.RUNNING)
    later = Flows(world.tasks, world.worker)
    later.start(world.snapshot)
    client, task = connected(world)
    with client, task:
        old, change = world.snapshot, Change(services={"web": None})
        later.update(old, old.apply(change), change)
        later.left(world.client.path, [ONE])
        await later.settled()
        client.send(b"still")
        assert task.recv(10) == b"still"
    assert later.ended == 0
    await later.close()


class Counting(NamespaceWorker):
    """Counts the visits to each namespace."""

    def __init__(self) -> None:
        super().__init__()
        self.visits: Counter[str | None] = Counter()

    async def run(self, path: str | None, work: Callable[[], T]) -> T:
        self.visits[path] += 1
        return await super().run(path, work)


async def test_a_namespace_is_visited_once_for_all_who_have_left(world: World, lab: Lab) -> None:
    worker, places = Counting(), [lab.namespace(name).path for name in ("three", "four")]
    flows = Flows(world.tasks, worker)
    addresses = [f"10.9.1.{number}" for number in range(1, 101)]
    running, ended = (
        Service("many", "many", tasks=tuple(Task(a, a, "n1", state, {"n": a}) for a in addresses))
        for state in (TaskState.RUNNING, TaskState.DEAD)
    )
    snapshot = Snapshot().apply(Change(services={"many": running}))
    flows.start(snapshot)
    change = Change(services={"many": ended})
    flows.update(snapshot, snapshot.apply(change), change)
    for address in addresses:
        for place in places:
            flows.left(place, [address])
    await flows.settled()
    assert worker.visits == dict.fromkeys(places, 1)
    await flows.close()
    worker.close()


async def test_a_namespace_that_is_gone_is_forgotten(world: World) -> None:
    world.become(None)
    world.flows.left("/nosuch/namespace", [ONE])
    await world.flows.settled()
    assert world.flows.ended == 0


def test_the_longest_drain_of_a_services_ports_counts() -> None:
    service = Service("web", "web", ports=(Port(80, 80), Port(81, 81)))
    assert drain_of(service) == 30
    longer = replace(service, labels={"mesh.port.81.drain": "2m", "mesh.port.80.drain": "1s"})
    assert drain_of(longer) == 120
    assert drain_of(Service("web", "web")) == 30
