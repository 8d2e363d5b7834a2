"""Published ports: finding the place, the firewall's rule, and the whole in real namespaces."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from mesh.catalog.model import Network, Port, Service, Task, TaskState
from mesh.catalog.snapshot import Change, Snapshot
from mesh.errors import KernelError
from mesh.kernel.cleanup import cleanup
from mesh.kernel.firewall.forward_chain import Firewall
from mesh.kernel.ingress import IngressRules, locate
from mesh.kernel.netfilter.transaction import Transaction
from mesh.kernel.rulesets import HostPath
from mesh.kernel.table import Tables
from mesh.net.netlink import InterfaceAddress
from mesh.net.netns import Namespace, NamespaceWorker
from mesh.net.tasks import Tasks
from tests.net.lab import Lab, inside, laboratory, needs_root

BRIDGE = InterfaceAddress("docker_gwbridge", "172.18.0.1", 16)
LO = InterfaceAddress("lo", "127.0.0.1", 8)


def test_the_bridges_subnet_tells_the_interfaces_apart() -> None:
    inside_ = [LO, InterfaceAddress("eth0", "10.0.0.2", 24), InterfaceAddress("eth1", "172.18.0.2", 16)]
    place = locate("/x", (1, 2), [LO, BRIDGE], inside_, "docker_gwbridge", ipvs=False)
    assert place.host == HostPath("172.18.0.2", "docker_gwbridge", "172.18.0.0/16")
    assert (place.gateway_interface, place.ingress_interface) == ("eth1", "eth0")


@pytest.mark.parametrize(
    ("host", "within", "says"),
    [
        ([LO], [], "no docker_gwbridge"),
        ([BRIDGE], [LO], "not yet on both"),
        ([BRIDGE], [InterfaceAddress("eth1", "172.18.0.2", 16)], "not yet on both"),
    ],
)
def test_an_unfinished_place_says_what_is_missing(
    host: list[InterfaceAddress], within: list[InterfaceAddress], says: str
) -> None:
    with pytest.raises(KernelError, match=says):
        locate("/x", (1, 2), host, within, "docker_gwbridge", ipvs=False)


class InNamespace(Firewall):
    """The firewall of a namespace of the test's, instead of the host's."""

    def __init__(self) -> None:
        self.allowed: list[tuple[str, str]] = []
        self.removed = 0
        self.broken = True

    async def allow(self, sandbox: str, bridge: str) -> bool:
        if self.broken:
            raise KernelError("no iptables")
        self.allowed.append((sandbox, bridge))
        return True

    async def remove(self) -> int:
        self.removed += 1
        return 1


@pytest.fixture
def lab() -> Iterator[Lab]:
    with laboratory() as made:
        yield made


def service(*addresses: str, state: TaskState = TaskState.RUNNING) -> Service:
    tasks = tuple(Task(a, a, "n", state, {"in": a}) for a in addresses)
    return Service("web", "web", ports=(Port(80, 8080),), tasks=tasks)


async def until(namespace: Namespace, *texts: str) -> None:
    async with asyncio.timeout(20):
        while not all(text in inside(namespace, "nft", "list", "ruleset") for text in texts):
            await asyncio.sleep(0.05)


@pytest.mark.root
@needs_root
async def test_ports_follow_the_catalogue_and_the_ingress_namespace(lab: Lab, tmp_path: Path) -> None:
    gateway, overlay = lab.switch("gw"), lab.switch("over")
    host = lab.namespace("host")
    lab.plug(host, "docker_gwbridge", "172.18.0.1/16", gateway)

    def sandbox(name: str, address: str) -> Namespace:
        made = lab.namespace(name)
        lab.plug(made, "eth1", f"{address}/16", gateway)
        lab.plug(made, "eth0", "10.0.0.2/24", overlay)
        (tmp_path / "ingress_sbox").unlink(missing_ok=True)
        (tmp_path / "ingress_sbox").symlink_to(str(made.path))
        return made

    failures: list[BaseException] = []
    tasks, worker = Tasks(lambda _, error: failures.append(error)), NamespaceWorker()
    firewall = InNamespace()
    ingress = IngressRules(
        tasks,
        Tables(worker),
        worker,
        netns_dir=str(tmp_path),
        host=host.path,
        firewall=firewall,
        ipvs=lambda: False,
    )
    snapshot = Snapshot().apply(Change(networks={"in": Network("in", "ingress", ingress=True)}))
    ingress.start(snapshot)

    def publish(value: Service | None) -> None:
        nonlocal snapshot
        old, change = snapshot, Change(services={"web": value})
        snapshot = old.apply(change)
        ingress.update(old, snapshot, change)

    publish(service("10.0.0.11"))
    while "no ingress namespace" not in ingress.status:
        await asyncio.sleep(0.01)
    first = sandbox("sbox", "172.18.0.2")
    publish(service("10.0.0.11", "10.0.0.12"))
    await until(first, "0 : 10.0.0.11, 1 : 10.0.0.12 }", "map @tcp_80:8080")
    await until(host, "tcp . 80", "dnat to 172.18.0.2")
    assert ingress.status == "no iptables"  # which kept no rule from being loaded
    firewall.broken = False
    for path in ("eth0", "eth1"):
        assert inside(first, "cat", f"/proc/sys/net/ipv4/conf/{path}/forwarding") == "1\n"
    assert inside(host, "cat", "/proc/sys/net/ipv4/conf/docker_gwbridge/route_localnet") == "1\n"
    publish(service("10.0.0.12"))
    await until(first, "dnat to 10.0.0.12:8080")
    ingress.redirect(81, 9000)
    await until(host, "81 : 9000")

    second = sandbox("sbox2", "172.18.0.3")  # the node left and joined again
    await until(second, "dnat to 10.0.0.12:8080")
    await until(host, "dnat to 172.18.0.3")
    inside(second, "nft", "flush", "ruleset")  # somebody's firewall script
    await until(second, "dnat to 10.0.0.12:8080")
    while ingress.status:
        await asyncio.sleep(0.05)
    assert firewall.allowed[-1] == ("172.18.0.3", "docker_gwbridge")
    await ingress.close()
    assert [inside(one, "nft", "list", "ruleset") for one in (host, second)] == ["", ""]
    await tasks.close()
    worker.close()
    assert not failures


LED = """\
	set begun {{
		elements = {{ tcp . 80 counter packets {} bytes 0 }}
	}}
"""


class Counters:
    """A table whose counters stand where the test says; listing one that is not loaded fails."""

    def __init__(self) -> None:
        self.connections = 0
        self.loaded = False

    async def load(self, text: str) -> None:
        self.loaded, self.connections = True, 0

    async def change(self, transaction: Transaction) -> None:
        raise AssertionError(transaction)  # nothing changes while it is loaded

    async def ask(self, *_texts: str) -> str:
        if not self.loaded:
            raise KernelError("No such file or directory")
        return LED.format(self.connections)

    def beat(self) -> None: ...
    async def close(self) -> None: ...


class SlowTables:
    """The second table is opened when the test says so."""

    def __init__(self, *tables: Counters) -> None:
        self._tables = iter(tables)
        self.opened = 0
        self.go_on, self.waits = asyncio.Event(), asyncio.Event()

    async def open(self, _path: str | None) -> Counters:
        self.opened += 1
        if self.opened % 2 == 0:
            self.waits.set()
            await self.go_on.wait()
        return next(self._tables)

    async def clear(self, _path: str | None) -> bool:
        return False


@pytest.mark.root
@needs_root
async def test_totals_are_told_while_tables_are_opened_and_outlive_them(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mesh.kernel.ingress.COUNT_SECONDS", 0.0)
    gateway, host, sandbox = lab.switch("gw"), lab.namespace("host"), lab.namespace("sbox")
    lab.plug(host, "docker_gwbridge", "172.18.0.1/16", gateway)
    lab.plug(sandbox, "eth1", "172.18.0.2/16", gateway)
    lab.plug(sandbox, "eth0", "10.0.0.2/24", gateway)
    (tmp_path / "ingress_sbox").symlink_to(str(sandbox.path))
    failures: list[BaseException] = []
    tasks, worker = Tasks(lambda _, error: failures.append(error)), NamespaceWorker()
    first, second = Counters(), Counters()
    tables = SlowTables(Counters(), first, Counters(), second)
    ingress = IngressRules(
        tasks,
        tables,
        worker,
        netns_dir=str(tmp_path),
        host=host.path,
        firewall=InNamespace(),
        ipvs=lambda: False,
    )
    ingress.start(Snapshot())
    await tables.waits.wait()
    assert await ingress.count() == {}  # somebody scrapes in the middle of it
    tables.go_on.set()
    while ingress.place is None:
        await asyncio.sleep(0.01)
    first.connections = 5
    assert (await ingress.count())["80/tcp"].connections == 5
    first.connections = 7  # since the last scrape

    lab.plug(sandbox, "eth2", "10.0.1.2/24", gateway)
    inside(sandbox, "ip", "link", "del", "eth0")  # the ingress network's interface is another one now
    ingress.redirect(81, None)  # wakes it
    async with asyncio.timeout(20):
        while not second.loaded or ingress.place is None:
            await asyncio.sleep(0.01)
    second.connections = 8  # as if it had gone on from 7, but it has begun at 0
    assert (await ingress.count())["80/tcp"].connections == 15
    await ingress.close()
    await tasks.close()
    worker.close()
    assert not failures


@pytest.mark.root
@needs_root
def test_the_firewall_rule_comes_moves_and_goes(lab: Lab) -> None:
    box = lab.namespace("box")
    inside(box, "iptables-nft", "-N", "DOCKER-USER")
    inside(box, "iptables-nft", "-A", "DOCKER-USER", "-j", "RETURN")

    def rules() -> str:
        return inside(box, "iptables-nft", "-S")

    # Children inherit the namespace of the thread that forks them.
    def run(work: object) -> object:
        return box.call(lambda: asyncio.run(work))  # type: ignore[arg-type]

    firewall = Firewall()
    assert run(firewall.lets_pass("172.18.0.2", "docker_gwbridge")) is False
    assert run(firewall.allow("172.18.0.2", "docker_gwbridge")) is True
    assert run(firewall.allow("172.18.0.2", "docker_gwbridge")) is False
    assert run(firewall.lets_pass("172.18.0.2", "docker_gwbridge")) is True
    assert run(firewall.lets_pass("172.18.0.3", "docker_gwbridge")) is False
    assert "172.18.0.2/32" in rules()
    assert run(firewall.allow("172.18.0.3", "docker_gwbridge")) is True
    assert "172.18.0.2" not in rules()
    assert run(firewall.remove()) == 2  # there and back
    assert "mesh" not in rules().lower()
    assert "RETURN" in rules()


@pytest.mark.root
@needs_root
def test_a_host_that_drops_and_has_no_chain_for_us_is_an_error(lab: Lab) -> None:
    box = lab.namespace("box")
    firewall = Firewall()
    assert box.call(lambda: asyncio.run(firewall.allow("172.18.0.2", "docker_gwbridge"))) is False
    assert box.call(lambda: asyncio.run(firewall.lets_pass("172.18.0.2", "docker_gwbridge"))) is True
    inside(box, "iptables-nft", "-P", "FORWARD", "DROP")
    with pytest.raises(KernelError, match="no chain DOCKER-USER"):
        box.call(lambda: asyncio.run(firewall.allow("172.18.0.2", "docker_gwbridge")))


@pytest.mark.root
@needs_root
def test_cleanup_takes_everything_out_and_nothing_else(lab: Lab, tmp_path: Path) -> None:
    host, one, two = (lab.namespace(name) for name in ("host", "one", "two"))
    for box in (one, two):
        (tmp_path / Path(str(box.path)).name).symlink_to(str(box.path))
    (tmp_path / "default").touch()  # what Docker leaves for a moment: a file that is no namespace
    for box in (host, one):
        inside(box, "nft", "add table ip mesh; add table ip other; add table ip6 mesh")
    removed = host.call(lambda: asyncio.run(cleanup(str(tmp_path))))
    assert removed.clean
    assert removed.tables == ("host", Path(str(one.path)).name)
    assert inside(one, "nft", "list", "tables") == "table ip other\ntable ip6 mesh\n"
    assert host.call(lambda: asyncio.run(cleanup(str(tmp_path)))).tables == ()
