"""The client's address kept, in a real kernel: two entries, a task elsewhere, the way back through either."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import pytest

from mesh.balance.hash_slots import Choice
from mesh.catalog.model import Attachment, Container, Network, Node, Protocol, ReturnPath
from mesh.catalog.snapshot import Change, Snapshot
from mesh.errors import KernelError
from mesh.kernel.devconf import InterfaceSetting, write
from mesh.kernel.netfilter import conntrack, nft, nft_batch
from mesh.kernel.netfilter.ctnetlink import FlowMatch
from mesh.kernel.return_paths import ReturnPathRules, kept_connections, put_in, take_out
from mesh.kernel.return_rules import ReturnEntry
from mesh.kernel.rulesets import HostPath, PortTarget, host_rules, host_update, ingress_rules, ingress_update
from mesh.net.netns import Namespace, NamespaceWorker
from mesh.net.tasks import Tasks
from tests.kernel.test_rules_kernel import Greeter, greeting
from tests.net.lab import Lab, inside, laboratory, needs_root

pytestmark = [pytest.mark.root, needs_root]

CLIENT, TASK = "10.8.0.1", "10.0.0.11"


@pytest.fixture
def lab() -> Iterator[Lab]:
    with laboratory() as made:
        yield made


class World:
    """client ── two nodes, each with its ingress namespace ── one task, with a default route of its own."""

    def __init__(self, lab: Lab) -> None:
        front, overlay, elsewhere = (lab.switch(name) for name in ("front", "over", "gw"))
        self.client, self.task = lab.namespace("client"), lab.namespace("task")
        lab.plug(self.client, "eth0", f"{CLIENT}/24", front)
        lab.plug(self.task, "eth0", f"{TASK}/24", overlay)
        lab.plug(self.task, "eth1", "172.18.0.9/16", elsewhere)
        inside(self.task, "ip", "route", "add", "default", "via", "172.18.0.1")  # nobody is there
        self.hosts: list[Namespace] = []
        self.entries = [self._node(lab, front, overlay, number) for number in (2, 3)]
        Greeter(self.task, "0.0.0.0", 8080, "web")

    def _node(self, lab: Lab, front: Namespace, overlay: Namespace, number: int) -> Namespace:
        host, sandbox, gateway = (lab.namespace(f"{name}{number}") for name in ("host", "sbox", "gw"))
        self.hosts.append(host)
        inside(gateway, "ip", "link", "add", "br0", "type", "bridge")
        inside(gateway, "ip", "link", "set", "br0", "up")
        lab.plug(host, "ens32", f"10.8.0.6{number}/24", front)
        lab.plug(host, "docker_gwbridge", "172.18.0.1/16", gateway)
        lab.plug(sandbox, "eth1", "172.18.0.2/16", gateway)
        lab.plug(sandbox, "eth0", f"10.0.0.{number}/24", overlay)
        inside(sandbox, "ip", "link", "set", "eth0", "address", mac(number))
        inside(sandbox, "ip", "route", "add", "default", "via", "172.18.0.1")
        for box, interfaces in ((host, ("ens32", "docker_gwbridge")), (sandbox, ("eth0", "eth1"))):
            for name in interfaces:
                box.call(lambda name=name: write(name, {InterfaceSetting.forwarding: 1}))  # type: ignore[misc]
        ports = {
            "80/tcp": PortTarget(80, Protocol.TCP, 8080, Choice((TASK,))),
            "81/tcp": PortTarget(81, Protocol.TCP, 8080, Choice((TASK,)), masqueraded=True),
            "80/udp": PortTarget(80, Protocol.UDP, 8080, Choice((TASK,))),
        }
        host.call(lambda: nft.run(host_rules(HostPath("172.18.0.2"), ports, {})))
        sandbox.call(lambda: nft.run(ingress_rules(ports, "172.18.0.2", "eth0", kept=(TASK,))))
        return sandbox


def mac(number: int) -> str:
    return f"02:42:0a:00:00:0{number}"


def mark(number: int) -> int:
    return 0x6D650000 + number


def test_the_application_sees_the_client_by_whichever_node_it_came(lab: Lab) -> None:
    world = World(lab)
    marks = {mac(n): mark(n) for n in (2, 3)}
    world.task.call(lambda: put_in(TASK, marks, None, {mark(n): f"10.0.0.{n}" for n in (2, 3)}))
    assert greeting(world.client, "10.8.0.62", 80) == f"web {CLIENT}"
    assert greeting(world.client, "10.8.0.63", 80) == f"web {CLIENT}"
    assert greeting(world.client, "10.8.0.63", 81) == "web 10.0.0.3"
    assert [datagram(world, number) for number in (2, 3, 2)] == [f"{CLIENT}!"] * 3
    world.task.call(lambda: put_in(TASK, {mac(2): mark(2)}, marks, {mark(2): "10.0.0.2"}))
    assert greeting(world.client, "10.8.0.62", 80) == f"web {CLIENT}"
    assert "10.0.0.3" not in inside(world.task, "ip", "route", "show", "table", "all")
    assert world.task.call(take_out)
    assert not world.task.call(take_out)
    assert inside(world.task, "nft", "list", "ruleset") == ""
    assert "fwmark" not in inside(world.task, "ip", "rule")


def datagram(world: World, entry: int) -> str:
    """What a UDP application that is bound to no address answers: whom it has heard."""
    with world.task.udp_socket("0.0.0.0", 8080) as app, world.client.udp_socket("0.0.0.0") as asking:
        for sock in (app, asking):
            sock.settimeout(5)
        asking.connect((f"10.8.0.6{entry}", 80))
        asking.send(b"?")
        _, peer = app.recvfrom(100)
        app.sendto(f"{peer[0]}!".encode(), peer)
        return asking.recv(100).decode()


def box(namespace: Namespace, *networks: str) -> Container:
    addresses = {"in": TASK, "other": "10.9.0.9"}
    attached = tuple(Attachment(network, addresses[network]) for network in networks)
    return Container("c1", "web.1.x", str(namespace.path), attached)


def test_open_connections_that_need_the_way_back_are_counted(lab: Lab) -> None:
    world = World(lab)
    world.task.call(lambda: put_in(TASK, {mac(2): mark(2)}, None, {mark(2): "10.0.0.2"}))
    assert world.task.call(kept_connections) == 0
    with world.task.tcp_listener("0.0.0.0", 8081) as listener, world.client.tcp_socket() as client:
        ports = {"82/tcp": PortTarget(82, Protocol.TCP, 8081, Choice((TASK,)))}
        host, sandbox = world.hosts[0], world.entries[0]
        host.call(lambda: nft_batch.change(host_update({}, ports, {}, {})))
        sandbox.call(lambda: nft_batch.change(ingress_update({}, ports)))
        for sock in (listener, client):
            sock.settimeout(5)
        client.connect(("10.8.0.62", 82))
        with listener.accept()[0] as accepted:
            accepted.settimeout(5)
            assert world.task.call(kept_connections) == 1
            # Docker's IPVS forgets a connection that has been silent for 900 s (moby#31208). Ours is kept:
            for place in (host, sandbox, world.task):
                flows = place.call(lambda: conntrack.find(FlowMatch()))
                assert [flow.left > 3600 for flow in flows if flow.open] == [True], place.path
            client.close()
            assert accepted.recv(1) == b""
        assert world.task.call(kept_connections) == 0


async def test_what_is_said_follows_what_is_set_up(lab: Lab) -> None:
    task = lab.namespace("task")
    lab.plug(task, "eth0", f"{TASK}/24", lab.switch("over"))
    with pytest.raises(KernelError, match="no default route"):
        task.call(lambda: put_in(TASK, {}, None, {}))
    inside(task, "ip", "route", "add", "default", "via", "10.0.0.1")
    failures: list[BaseException] = []
    tasks, worker, said = Tasks(lambda _, error: failures.append(error)), NamespaceWorker(), asyncio.Event()
    paths = ReturnPathRules(tasks, worker, said.set)
    snapshot = Snapshot().apply(
        Change(networks={"in": Network("in", "ingress", ("10.0.0.0/24",), ingress=True)})
    )
    assert paths.current is None  # not: nothing; an earlier sidecar's word may hold
    paths.start(snapshot)

    def publish(change: Change) -> None:
        nonlocal snapshot
        old, snapshot = snapshot, snapshot.apply(change)
        paths.update(old, snapshot, change)

    async def says(wanted: ReturnPath) -> None:
        async with asyncio.timeout(20):
            while paths.current != wanted:
                said.clear()
                await said.wait()

    paths.own_entry(ReturnEntry("10.0.0.2", mac(2)))
    await says(ReturnPath("10.0.0.2", mac(2)))
    publish(Change(containers={"c1": box(task, "in", "other")}))
    await says(ReturnPath("10.0.0.2", mac(2), ("10.0.0.2",), (TASK,)))
    other = Node("n2", "n2", "", return_path=ReturnPath("10.0.0.3", mac(3)))
    publish(Change(nodes={"n2": other}))
    await says(ReturnPath("10.0.0.2", mac(2), ("10.0.0.2", "10.0.0.3"), (TASK,)))
    assert "via 10.0.0.3 dev eth0" in inside(task, "ip", "route", "get", "8.8.8.8", "mark", hex(mark(3)))
    publish(Change(nodes={"n2": replace(other, return_path=ReturnPath())}))  # its connections may go on
    assert paths.current == ReturnPath("10.0.0.2", mac(2), ("10.0.0.2", "10.0.0.3"), (TASK,))
    publish(Change(nodes={"n2": replace(other, state="down")}))
    await says(ReturnPath("10.0.0.2", mac(2), ("10.0.0.2",), (TASK,)))
    assert mac(3) not in inside(task, "nft", "list", "ruleset")
    publish(Change(containers={"c1": box(task, "other")}))
    await says(ReturnPath("10.0.0.2", mac(2)))
    publish(Change(containers={"c1": box(task, "in")}))
    await says(ReturnPath("10.0.0.2", mac(2), ("10.0.0.2",), (TASK,)))
    inside(task, "nft", "flush", "ruleset")
    paths.look_again("c1")
    assert paths.current == ReturnPath("10.0.0.2", mac(2))
    await says(ReturnPath("10.0.0.2", mac(2), ("10.0.0.2",), (TASK,)))
    assert mac(2) in inside(task, "nft", "list", "ruleset")
    publish(Change(containers={"c1": None}))
    assert paths.current == ReturnPath("10.0.0.2", mac(2))
    publish(Change(containers={"c1": box(task, "in")}))
    await says(ReturnPath("10.0.0.2", mac(2), ("10.0.0.2",), (TASK,)))
    await paths.close()
    assert paths.current == ReturnPath()
    assert inside(task, "nft", "list", "ruleset") == ""
    await tasks.close()
    worker.close()
    assert not failures
