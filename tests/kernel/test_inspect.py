"""What the kernel holds, read back from real namespaces: as our own rules put it there."""

from collections.abc import Iterator
from functools import partial

import pytest

from mesh.balance.hash_slots import choice
from mesh.balance.policies import Policy
from mesh.catalog.model import Protocol
from mesh.kernel import inspect
from mesh.kernel.inspect import Leading, leading_in
from mesh.kernel.netfilter import nft
from mesh.kernel.return_paths import put_in
from mesh.kernel.rulesets import HostPath, PortTarget, container_rules, host_rules, ingress_rules
from mesh.net.netns import Namespace
from tests.net.lab import Lab, inside, laboratory, needs_root

ONE, TWO = "10.0.0.3", "10.0.0.4"
SANDBOX = "172.18.0.2"


@pytest.fixture
def box() -> Iterator[Namespace]:
    with laboratory() as lab:
        yield lab.namespace("box")


@pytest.fixture
def lab() -> Iterator[Lab]:
    with laboratory() as made:
        yield made


def load(where: Namespace, text: str) -> None:
    where.call(partial(nft.run, text))


def nothing(_: str) -> str:
    return ""


@pytest.mark.parametrize(
    ("rule", "found"),
    [
        ("dnat to 10.0.0.3", Leading("the only one", (ONE,))),
        ("ip protocol tcp dnat to 10.0.0.3:8080", Leading("the only one", (ONE,), 8080)),
        (
            "ct mark set 0x6d65ffff dnat to numgen inc mod 2 map { 0 : 10.0.0.3, 1 : 10.0.0.4 }:5",
            Leading("in turn", (ONE, TWO), 5, masqueraded=True),
        ),
        (
            "dnat to numgen random mod 4 map { 0-2 : 10.0.0.3, 3 : 10.0.0.4 }",
            Leading("at random", (ONE, ONE, ONE, TWO)),
        ),
    ],
)
def test_a_rule_in_words(rule: str, found: Leading) -> None:
    assert leading_in(f"table ip mesh {{\n\tchain x {{\n\t\t{rule}\n\t}}\n}}\n", nothing) == found


def test_a_chain_that_leads_nowhere() -> None:
    assert leading_in("table ip mesh {\n\tchain x {\n\t\tcounter accept\n\t}\n}\n", nothing) is None
    assert leading_in("", nothing) is None


def test_a_rule_whose_map_vanished_meanwhile_leads_nowhere_known() -> None:
    found = leading_in("  dnat to numgen inc mod 2 map @tcp_80:8080\n", nothing)
    assert found == Leading("in turn", (), 8080)
    assert found.share(ONE) == 0.0


@pytest.mark.root
@needs_root
@pytest.mark.parametrize(
    ("policy", "how"),
    [
        (Policy.ROUND_ROBIN, "in turn"),
        (Policy.RANDOM, "at random"),
        (Policy.SOURCE_HASH, "by client address"),
    ],
)
def test_a_published_port_in_the_ingress_namespace(box: Namespace, policy: Policy, how: str) -> None:
    wanted = choice(policy, (ONE, TWO))
    targets = {
        "80/tcp": PortTarget(80, Protocol.TCP, 8080, wanted),
        "53/udp": PortTarget(53, Protocol.UDP, 5353, choice(policy, (ONE,)), masqueraded=True),
        "81/tcp": PortTarget(81, Protocol.TCP, 8081),
    }
    read = inspect.sandbox_port
    assert box.call(partial(read, 80, "tcp")) == inspect.SandboxPort(table=False)
    load(box, ingress_rules(targets, SANDBOX, "eth0", kept=(TWO,)))
    found = box.call(partial(read, 80, "tcp"))
    assert found == inspect.SandboxPort(True, Leading(how, wanted.slots, 8080), frozenset({TWO}), alive=True)
    assert found.leading.share(ONE) == pytest.approx(0.5, abs=0.1)
    udp = box.call(partial(read, 53, "udp"))
    assert udp.leading == Leading("the only one", (ONE,), 5353, masqueraded=True)
    for absent in ((81, "tcp"), (80, "udp"), (9, "tcp")):
        found = box.call(partial(read, *absent))
        assert (found.table, found.leading) == (True, None)


@pytest.mark.root
@needs_root
def test_a_table_without_any_kept_task_is_seen(box: Namespace) -> None:
    load(box, ingress_rules({}, SANDBOX, "eth0"))
    assert box.call(partial(inspect.sandbox_port, 80, "tcp")) == inspect.SandboxPort(table=True, alive=True)


@pytest.mark.root
@needs_root
def test_a_published_port_on_the_host(box: Namespace) -> None:
    listener = box.tcp_listener("127.0.0.1", 80)
    read = partial(inspect.host_port, 80, "tcp")
    assert box.call(read) == inspect.HostPort(table=False, listening=("127.0.0.1",))
    listener.close()
    ports = {
        "80/tcp": PortTarget(80, Protocol.TCP, 8080),
        "80/udp": PortTarget(80, Protocol.UDP, 8080),
        "443/tcp": PortTarget(443, Protocol.TCP, 8443, relayed=True),
    }
    load(box, host_rules(HostPath(SANDBOX), ports, {443: 40443}))
    assert box.call(read) == inspect.HostPort(True, SANDBOX, alive=True)
    assert box.call(partial(inspect.host_port, 443, "tcp")) == inspect.HostPort(
        True, orphaned=True, redirected=40443, alive=True
    )
    assert box.call(partial(inspect.host_port, 443, "udp")) == inspect.HostPort(True, alive=True)
    load(box, "delete element ip mesh alive { tcp, udp, icmp, sctp }\n")
    assert not box.call(read).alive


@pytest.mark.root
@needs_root
def test_virtual_ips_of_a_container(box: Namespace) -> None:
    led, refused, unknown = "10.9.0.2", "10.9.0.3", "10.9.0.4"
    read = partial(inspect.container_vips, (led, refused, unknown))
    assert set(box.call(read).values()) == {inspect.ContainerVip(table=False)}
    vips = {led: choice(Policy.ROUND_ROBIN, (ONE, TWO)), refused: choice(Policy.ROUND_ROBIN, ())}
    load(box, container_rules(vips, None))
    assert box.call(read) == {
        led: inspect.ContainerVip(True, Leading("in turn", (ONE, TWO)), alive=True),
        refused: inspect.ContainerVip(True, refused=True, alive=True),
        unknown: inspect.ContainerVip(True, alive=True),
    }


@pytest.mark.root
@needs_root
def test_a_tasks_way_back(lab: Lab) -> None:
    task, overlay = lab.namespace("task"), lab.switch("over")
    lab.plug(task, "eth0", "10.0.0.3/24", overlay)
    mac, mark = "02:42:0a:00:00:02", 0x6D650002
    inside(task, "ip", "route", "add", "default", "via", "10.0.0.1")
    assert not task.call(inspect.way_back).table
    task.call(lambda: put_in(ONE, {mac: mark}, None, {mark: "10.0.0.2"}))
    found = task.call(inspect.way_back)
    assert (found.table, found.marks, found.routed) == (True, {mac: mark}, frozenset({mark}))
    assert found.leads(mac)
    assert found.rp_filter["eth0"] == 2
    assert not found.leads("02:42:0a:00:00:09")
    inside(task, "ip", "rule", "del", "fwmark", hex(mark))
    assert not task.call(inspect.way_back).leads(mac)
