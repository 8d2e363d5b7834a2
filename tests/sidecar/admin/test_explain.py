"""Explanations gathered from real rules in real namespaces, and what is said where nothing can be read."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from mesh.catalog.model import (
    Attachment,
    Container,
    Network,
    Node,
    Port,
    ReturnPath,
    Service,
    ServiceNetwork,
    Task,
    TaskState,
)
from mesh.catalog.snapshot import Change
from mesh.catalog.store import Store
from mesh.errors import Busy
from mesh.kernel.firewall.forward_chain import Firewall
from mesh.kernel.ingress import IngressRules
from mesh.kernel.netfilter import nft
from mesh.kernel.return_paths import put_in
from mesh.kernel.rulesets import container_rules, service_vips
from mesh.kernel.table import Tables
from mesh.labels.ports import Carrier
from mesh.net.netns import Namespace, NamespaceWorker
from mesh.net.tasks import Tasks
from mesh.relay.port_reconciler import RelayPorts
from mesh.telemetry.explain import HopState, ServicePath
from sidecar.admin import explain
from sidecar.admin.explain import NO_KERNEL, Explaining
from sidecar.wiring.data_plane import DataPlane
from tests.net.lab import Lab, inside, laboratory, needs_root

NEAR, FAR, VIP = "10.0.0.3", "10.0.0.4", "10.5.0.2"
MARK = 0x6D650002


def web(*tasks: Task) -> Service:
    return Service(
        "s", "web", networks=(ServiceNetwork("shop", VIP),), ports=(Port(80, 8080),), tasks=tuple(tasks)
    )


def task(number: int, node: str, address: str) -> Task:
    addresses = {"in": address, "shop": f"10.5.0.{number + 2}"}
    return Task(f"t{number}", f"web.{number}", node, TaskState.RUNNING, addresses)


async def test_without_docker_there_is_no_kernel_path() -> None:
    store = Store(on_error=lambda _: None)
    store.publish(Change(services={"s": web()}))
    failures: list[BaseException] = []
    asking = Explaining(
        store, Carrier.KERNEL, DataPlane(RelayPorts(Tasks(lambda _, error: failures.append(error))))
    )
    (path,) = await asking.port(80)
    assert (path.hops[0].state, path.hops[0].note) == (HopState.MISSING, NO_KERNEL)
    assert (await asking.service("web")).ports == (path,)
    with pytest.raises(LookupError, match=r"no service publishes port 80/udp; published are: 80/tcp \(web\)"):
        await asking.port(80, "udp")
    with pytest.raises(LookupError, match="no service 'nope'; there are: web"):
        await asking.service("nope")
    assert not failures


class Passing(Firewall):
    async def allow(self, sandbox: str, bridge: str) -> bool:
        return False

    async def lets_pass(self, sandbox: str, bridge: str) -> bool:
        return True

    async def remove(self) -> int:
        return 0


class World:
    """A node: host, ingress namespace, one task of its own, one container that uses the service."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        gateway, overlay = lab.switch("gw"), lab.switch("over")
        self.host, self.sandbox = lab.namespace("host"), lab.namespace("sbox")
        self.task, self.user = lab.namespace("task"), lab.namespace("user")
        lab.plug(self.host, "docker_gwbridge", "172.18.0.1/16", gateway)
        lab.plug(self.sandbox, "eth1", "172.18.0.2/16", gateway)
        lab.plug(self.sandbox, "eth0", "10.0.0.2/24", overlay)
        lab.plug(self.task, "eth0", f"{NEAR}/24", overlay)
        inside(self.task, "ip", "route", "add", "default", "via", "10.0.0.1")
        (folder / "ingress_sbox").symlink_to(str(self.sandbox.path))
        self.failures: list[BaseException] = []
        self.tasks, self.worker = Tasks(lambda _, error: self.failures.append(error)), NamespaceWorker()
        self.store = Store(on_error=self.failures.append)
        self.store.identify("n0")
        self.ingress = IngressRules(
            self.tasks,
            Tables(self.worker),
            self.worker,
            netns_dir=str(folder),
            host=self.host.path,
            firewall=Passing(),
            ipvs=lambda: False,
        )
        self.over_ipv6 = True
        self.asking = Explaining(
            self.store,
            Carrier.KERNEL,
            DataPlane(
                RelayPorts(self.tasks),
                ingress=self.ingress,
                worker=self.worker,
                relay6=RelayPorts(self.tasks, over_ipv6=True, permitted=lambda: self.over_ipv6),
            ),
            firewall=Passing(),
            host=self.host.path,
        )

    async def start(self) -> None:
        near, far = task(1, "n0", NEAR), task(2, "n1", FAR)
        self.store.publish(
            Change(
                nodes={"n0": Node("n0", "swarm00", ""), "n1": Node("n1", "swarm01", "")},
                networks={
                    "in": Network("in", "ingress", ("10.0.0.0/24",), ingress=True),
                    "shop": Network("shop", "shop", ("10.5.0.0/24",)),
                },
                services={"s": web(near, far)},
                containers={
                    "c1": Container(
                        "c1", "web.1", str(self.task.path), (Attachment("in", NEAR),), service="s", task="t1"
                    ),
                    "c2": Container("c2", "cart", str(self.user.path), (Attachment("shop", "10.5.0.9"),)),
                },
            )
        )
        self.store.subscribe(self.ingress.update)
        self.ingress.start(self.store.current)
        while self.ingress.place is None:
            await asyncio.sleep(0.01)

    def answers(self, *entries: str, tasks: tuple[str, ...]) -> None:
        """What this node says of its way back."""
        said = ReturnPath("10.0.0.2", "", entries, tasks)
        node = replace(self.store.current.nodes["n0"], return_path=said)
        self.store.publish(Change(nodes={"n0": node}))

    async def stop(self) -> None:
        await self.ingress.close()
        await self.tasks.close()
        self.worker.close()
        assert not self.failures


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    # What a test breaks stays broken: the beat would find it and mend it.
    monkeypatch.setattr("mesh.kernel.ingress.BEAT_SECONDS", 3600.0)
    with laboratory() as lab:
        made = World(lab, tmp_path)
        await made.start()
        yield made
        await made.stop()


@pytest.mark.root
@needs_root
async def test_a_port_is_explained_from_what_the_kernel_holds(world: World) -> None:
    (path,) = await world.asking.port(80)
    assert [hop.state for hop in path.hops] == [HopState.OK] * 3, path
    assert path.hops[0].what.endswith("172.18.0.2")
    near, far = path.tasks
    assert not any("IPv6" in note for note in path.notes)
    world.over_ipv6 = False
    (path,) = await world.asking.port(80)
    assert any(note.startswith("not opened on IPv6: ip6tables have no DOCKER-USER") for note in path.notes)
    assert (near.address, near.share, near.client) == (f"{NEAR}:8080", 0.5, "masqueraded")
    assert "swarm01 says nothing" in far.why


@pytest.mark.root
@needs_root
async def test_the_way_back_is_read_in_the_tasks_namespace(world: World) -> None:
    place = world.ingress.place
    assert place is not None
    world.answers("10.0.0.2", tasks=(NEAR,))

    async def near(state: HopState) -> str:
        async with asyncio.timeout(20):
            while True:
                (path,) = await world.asking.port(80)
                found = path.tasks[0]
                if (found.client, found.state) == ("kept", state):
                    return found.note or found.back
                await asyncio.sleep(0.05)

    assert "no table mesh_return" in await near(HopState.DIFFERS)
    world.task.call(lambda: put_in(NEAR, {place.entry.mac: MARK}, None, {MARK: "10.0.0.2"}))
    assert await near(HopState.OK) == f"through 10.0.0.2 (this node), mark {MARK:#x}"


@pytest.mark.root
@needs_root
async def test_what_was_flushed_or_never_loaded_is_told(world: World) -> None:
    inside(world.sandbox, "nft", "flush", "ruleset")
    inside(world.host, "nft", "delete", "element", "ip", "mesh", "published", "{ tcp . 80 }")
    (path,) = await world.asking.port(80)
    host, _, sandbox = path.hops
    assert (host.state, host.note) == (HopState.MISSING, "not loaded yet")
    assert (sandbox.state, "flushed" in sandbox.note) == (HopState.MISSING, True)
    assert {one.state for one in path.tasks} == {HopState.UNKNOWN}


@pytest.mark.root
@needs_root
async def test_a_service_is_explained_from_each_containers_namespace(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await world.asking.service("web")
    assert before.networks[0].containers[0].state is HopState.MISSING
    snapshot = world.store.current
    vips = service_vips(snapshot.containers["c2"], snapshot.services["s"], "n0")
    world.user.call(lambda: nft.run(container_rules(vips, None)))
    path = await world.asking.service("web")
    (shop,) = path.networks
    assert (shop.vip, [one.address for one in shop.tasks]) == (VIP, ["10.5.0.3", "10.5.0.4"])
    (hop,) = shop.containers
    assert (hop.where, hop.what, hop.state) == ("cart", "dnat to one of 2 tasks, in turn", HopState.OK)
    assert path.ports == await world.asking.port(80)
    monkeypatch.setattr(explain, "CONTAINERS_MAX", 0)
    (shop,) = (await world.asking.service("web")).networks
    assert (shop.containers, shop.unseen) == ((), 1)


@pytest.mark.root
@needs_root
async def test_a_container_that_ends_meanwhile_is_a_hop_that_says_so(world: World) -> None:
    gone = replace(world.store.current.containers["c2"], namespace="/nowhere")
    world.store.publish(Change(containers={"c2": gone}))
    (shop,) = (await world.asking.service("web")).networks
    assert [hop.state for hop in shop.containers] == [HopState.UNKNOWN]
    assert Namespace(gone.namespace).exists() is False


@pytest.mark.root
@needs_root
async def test_so_many_may_wait_and_no_more(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explain, "QUESTIONS_MAX", 2)
    found = await asyncio.gather(*(world.asking.service("web") for _ in range(3)), return_exceptions=True)
    assert [type(one) for one in found] == [ServicePath, ServicePath, Busy]
    assert (await world.asking.service("web")).service == "web"
