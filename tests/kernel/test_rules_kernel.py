"""The rules in a real kernel: namespaces stand for a container, tasks, a host and the ingress namespace."""

import socket
import threading
from collections.abc import Iterator
from functools import partial
from itertools import pairwise

import pytest

from mesh.balance.hash_slots import NOBODY, Choice, SlotDraw
from mesh.catalog.model import Protocol
from mesh.errors import KernelError, NamespaceGone
from mesh.kernel.devconf import InterfaceSetting, read, write
from mesh.kernel.heartbeat import Heartbeat
from mesh.kernel.netfilter import conntrack, nft, nft_batch
from mesh.kernel.netfilter.nft_batch import Batches
from mesh.kernel.rulesets import (
    NOT_ALIVE,
    DnsPorts,
    HostPath,
    PortTarget,
    container_rules,
    host_rules,
    ingress_rules,
    vips_update,
)
from mesh.net.netns import Namespace
from tests.net.lab import Lab, eventually, inside, laboratory, needs_root

pytestmark = [pytest.mark.root, needs_root]

VIP = "10.9.0.2"


@pytest.fixture
def lab() -> Iterator[Lab]:
    with laboratory() as made:
        yield made


class Greeter:
    """A TCP server in a namespace: says its name and the peer's address, then closes."""

    def __init__(self, where: Namespace, address: str, port: int, name: str) -> None:
        self._socket = where.tcp_listener(address, port)
        self._socket.setblocking(True)
        self._name = name
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, peer = self._socket.accept()
            except OSError:
                return
            with connection:
                connection.sendall(f"{self._name} {peer[0]}".encode())


def greeting(where: Namespace, address: str, port: int) -> str:
    with where.tcp_socket() as sock:
        sock.settimeout(5)
        sock.connect((address, port))
        return sock.recv(100).decode()


def refused(where: Namespace, address: str, port: int) -> bool:
    try:
        greeting(where, address, port)
    except ConnectionRefusedError:
        return True
    return False


@pytest.fixture
def overlay(lab: Lab) -> tuple[Namespace, Namespace, Namespace]:
    switch = lab.switch("sw")
    members = [lab.namespace(name) for name in ("client", "one", "two")]
    for index, member in enumerate(members):
        lab.plug(member, "eth0", f"10.9.0.{10 + index}/24", switch)
    return members[0], members[1], members[2]


def test_virtual_ip_balances_over_tasks_and_keeps_the_source(
    overlay: tuple[Namespace, Namespace, Namespace],
) -> None:
    client, one, two = overlay
    Greeter(one, "10.9.0.11", 80, "one")
    Greeter(two, "10.9.0.12", 80, "two")
    client.call(lambda: nft.run(container_rules({VIP: Choice(("10.9.0.11", "10.9.0.12"))}, None)))
    assert [greeting(client, VIP, 80) for _ in range(4)] in (
        ["one 10.9.0.10", "two 10.9.0.10"] * 2,
        ["two 10.9.0.10", "one 10.9.0.10"] * 2,
    )


def test_a_task_reaches_itself_through_its_own_virtual_ip(
    overlay: tuple[Namespace, Namespace, Namespace],
) -> None:
    _, one, _ = overlay
    Greeter(one, "0.0.0.0", 80, "one")
    one.call(lambda: nft.run(container_rules({VIP: Choice(("10.9.0.11",))}, None)))
    assert greeting(one, VIP, 80) == "one 10.9.0.11"


def test_a_virtual_ip_without_tasks_refuses_at_once_until_a_task_comes(
    overlay: tuple[Namespace, Namespace, Namespace],
) -> None:
    client, one, _ = overlay
    Greeter(one, "0.0.0.0", 80, "one")
    client.call(lambda: nft.run(container_rules({VIP: NOBODY}, None)))
    assert refused(client, VIP, 80)
    client.call(lambda: nft_batch.change(vips_update({VIP: NOBODY}, {VIP: Choice(("10.9.0.11",))})))
    assert greeting(client, VIP, 80) == "one 10.9.0.10"
    client.call(lambda: nft_batch.change(vips_update({VIP: Choice(("10.9.0.11",))}, {VIP: NOBODY})))
    assert refused(client, VIP, 80)


def test_every_small_change_is_accepted_by_the_kernel(
    overlay: tuple[Namespace, Namespace, Namespace],
) -> None:
    client = overlay[0]
    states: list[dict[str, Choice]] = [
        {},
        {VIP: Choice(("10.9.0.11",))},
        {VIP: Choice(("10.9.0.11", "10.9.0.12")), "10.9.0.3": NOBODY},
        {VIP: NOBODY, "10.9.0.3": Choice(("10.9.0.12",))},
        {"10.9.0.3": Choice(("10.9.0.11",))},
        {"10.9.0.3": Choice(("10.9.0.11", "10.9.0.12"), SlotDraw.HASH)},
        {"10.9.0.3": Choice(("10.9.0.12", "10.9.0.11"), SlotDraw.HASH)},
        {"10.9.0.3": Choice(("10.9.0.12", "10.9.0.11"), SlotDraw.RANDOM)},
        {},
    ]
    client.call(lambda: nft.run(container_rules({}, None)))
    for before, after in pairwise(states):
        client.call(partial(nft_batch.change, vips_update(before, after)))
    table = inside(client, "nft", "list", "table", "ip", "mesh")
    assert "vip_" not in table
    assert "10.9.0" not in table


def answer_dns(sock: socket.socket, name: bytes) -> None:
    sock.setblocking(True)

    def serve() -> None:
        while True:
            try:
                query, peer = sock.recvfrom(512)
                sock.sendto(name + query, peer)
            except OSError:
                return

    threading.Thread(target=serve, daemon=True).start()


def ask(where: Namespace) -> str:
    with where.udp_socket("0.0.0.0") as sock:
        sock.settimeout(2)
        sock.connect(("127.0.0.11", 53))
        try:
            sock.send(b"?")
            return sock.recv(100).decode()
        except OSError as error:
            return type(error).__name__


def test_lookups_come_to_us_while_we_live_and_go_back_to_docker_when_we_do_not(lab: Lab) -> None:
    container = lab.namespace("box")
    docker, ours = (container.udp_socket("127.0.0.11") for _ in range(2))
    ours_tcp = container.tcp_listener("127.0.0.11")
    answer_dns(docker, b"docker")
    answer_dns(ours, b"mesh")
    port = docker.getsockname()[1]
    inside(
        container,
        *("iptables-nft", "-t", "nat", "-A", "OUTPUT", "-d", "127.0.0.11", "-p", "udp", "--dport", "53"),
        *("-j", "DNAT", "--to", f"127.0.0.11:{port}"),
    )
    assert ask(container) == "docker?"
    dns = DnsPorts(ours.getsockname()[1], ours_tcp.getsockname()[1])
    container.call(lambda: nft.run(container_rules({}, dns)))
    opened = container.call(Batches)
    heart = Heartbeat(opened)
    for _ in range(100):
        heart.beat()
    assert ask(container) == "mesh?"
    eventually(lambda: ask(container) == "docker?", "Docker's resolver answers again after the last beat")
    heart.beat()
    assert ask(container) == "mesh?"
    opened.close()


def test_a_beat_re_arms_the_full_timeout(lab: Lab) -> None:
    box = lab.namespace("box")
    box.call(lambda: nft.run(container_rules({}, None)))
    opened = box.call(Batches)
    heart = Heartbeat(opened)

    def left() -> str:
        return inside(box, "nft", "list", "set", "ip", "mesh", "alive")

    eventually(lambda: "expires 1s" in left(), "the timeout runs down")
    heart.beat()
    assert "expires 1s" not in left()
    opened.close()


def test_a_beat_without_its_table_is_an_error_and_later_beats_tell_the_truth(lab: Lab) -> None:
    box = lab.namespace("box")
    opened = box.call(Batches)
    heart = Heartbeat(opened)
    with pytest.raises(KernelError, match="ENOENT"):
        heart.beat()
    box.call(lambda: nft.run(container_rules({}, None)))
    heart.beat()
    opened.close()


def test_nft_quotes_what_it_refuses(lab: Lab) -> None:
    box = lab.namespace("box")
    with pytest.raises(KernelError, match="no_such_chain"):
        box.call(lambda: nft.run("add rule ip mesh no_such_chain accept\n"))


def test_settings_of_an_interface_without_proc_sys(lab: Lab) -> None:
    box = lab.namespace("box")
    wanted = {
        InterfaceSetting.forwarding: 1,
        InterfaceSetting.rp_filter: 2,
        InterfaceSetting.route_localnet: 1,
    }
    box.call(lambda: write("lo", wanted))
    assert box.call(lambda: {setting: read("lo", setting) for setting in wanted}) == wanted
    with pytest.raises(NamespaceGone):
        box.call(lambda: write("nosuch0", wanted))


def ingress(lab: Lab) -> tuple[Namespace, Namespace, Namespace, Namespace]:
    """client ── host ═ docker_gwbridge ═ ingress_sbox ── overlay ── tasks."""
    front, gateway, overlay = (lab.switch(name) for name in ("front", "gw", "over"))
    client, host, sandbox, one, two = (lab.namespace(n) for n in ("client", "host", "sbox", "one", "two"))
    lab.plug(client, "eth0", "10.8.0.1/24", front)
    lab.plug(host, "ens32", "10.8.0.60/24", front)
    lab.plug(host, "docker_gwbridge", "172.18.0.1/16", gateway)
    lab.plug(sandbox, "eth1", "172.18.0.2/16", gateway)
    lab.plug(sandbox, "eth0", "10.0.0.2/24", overlay)
    lab.plug(one, "eth0", "10.0.0.11/24", overlay)
    lab.plug(two, "eth0", "10.0.0.12/24", overlay)
    inside(sandbox, "ip", "route", "add", "default", "via", "172.18.0.1")
    forward = {InterfaceSetting.forwarding: 1}
    host.call(
        lambda: (
            write("ens32", forward),
            write("docker_gwbridge", forward | {InterfaceSetting.route_localnet: 1}),
        )
    )
    sandbox.call(lambda: (write("eth0", forward), write("eth1", forward)))
    Greeter(one, "0.0.0.0", 8080, "one")
    Greeter(two, "0.0.0.0", 8080, "two")
    return client, host, sandbox, one


def test_a_published_port_leads_through_host_and_ingress_to_the_tasks(lab: Lab) -> None:
    client, host, sandbox, _ = ingress(lab)
    ports = {
        "80/tcp": PortTarget(
            80,
            Protocol.TCP,
            8080,
            Choice(
                (
                    "10.0.0.11",
                    "10.0.0.12",
                )
            ),
        ),
        "81/tcp": PortTarget(81, Protocol.TCP, 8080),
    }
    host.call(lambda: nft.run(host_rules(HostPath("172.18.0.2"), ports, {82: 9000})))
    sandbox.call(lambda: nft.run(ingress_rules(ports, "172.18.0.2", "eth0")))
    assert {greeting(client, "10.8.0.60", 80) for _ in range(4)} == {"one 10.0.0.2", "two 10.0.0.2"}
    assert {greeting(host, "127.0.0.1", 80) for _ in range(4)} == {"one 10.0.0.2", "two 10.0.0.2"}
    assert greeting(host, "10.8.0.60", 80).endswith("10.0.0.2")
    assert refused(client, "10.8.0.60", 81)
    assert refused(client, "10.8.0.60", 82)
    Greeter(host, "0.0.0.0", 9000, "relay")
    assert greeting(client, "10.8.0.60", 82) == "relay 10.8.0.1"
    assert greeting(host, "127.0.0.1", 82) == "relay 127.0.0.1"


def test_a_relayed_port_is_the_kernels_when_nobody_is_alive_to_relay(lab: Lab) -> None:
    client, host, sandbox, _ = ingress(lab)
    ports = {"80/tcp": PortTarget(80, Protocol.TCP, 8080, Choice(("10.0.0.11",)), relayed=True)}
    Greeter(host, "0.0.0.0", 80, "relay")
    sandbox.call(lambda: nft.run(ingress_rules(ports, "172.18.0.2", "eth0")))
    host.call(lambda: nft.run(host_rules(HostPath("172.18.0.2"), ports, {})))
    assert greeting(client, "10.8.0.60", 80) == "relay 10.8.0.1"
    host.call(lambda: nft.run(NOT_ALIVE))
    assert greeting(client, "10.8.0.60", 80) == "one 10.0.0.2"


def test_a_neighbour_on_the_bridge_reaches_a_published_port_by_the_hosts_address(lab: Lab) -> None:
    _, host, sandbox, _ = ingress(lab)
    switch = Namespace(sandbox.path.replace("-sbox", "-gw")) if sandbox.path else sandbox
    neighbour = lab.namespace("other")
    lab.plug(neighbour, "eth1", "172.18.0.9/16", switch)
    inside(neighbour, "ip", "route", "add", "default", "via", "172.18.0.1")
    ports = {"80/tcp": PortTarget(80, Protocol.TCP, 8080, Choice(("10.0.0.11",)))}
    host.call(lambda: nft.run(host_rules(HostPath("172.18.0.2"), ports, {})))
    sandbox.call(lambda: nft.run(ingress_rules(ports, "172.18.0.2", "eth0")))
    assert greeting(neighbour, "10.8.0.60", 80) == "one 10.0.0.2"


def test_with_ipvs_below_every_redirect_fails_open(lab: Lab) -> None:
    client, host, sandbox, _ = ingress(lab)
    ports = {"80/tcp": PortTarget(80, Protocol.TCP, 8080, Choice(("10.0.0.11",)))}
    Greeter(host, "0.0.0.0", 80, "docker")
    host.call(lambda: nft.run(host_rules(HostPath("172.18.0.2"), ports, {}, ipvs=True)))
    sandbox.call(lambda: nft.run(ingress_rules(ports, "172.18.0.2", "eth0", ipvs=True)))
    assert greeting(client, "10.8.0.60", 80) == "one 10.0.0.2"
    eventually(lambda: greeting(client, "10.8.0.60", 80) == "docker 10.8.0.1", "Docker's own path is back")


class UdpGreeter:
    """Answers each datagram with its name and the sender's address."""

    def __init__(self, where: Namespace, address: str, port: int, name: str) -> None:
        self._socket = where.udp_socket(address, port)
        self._socket.setblocking(True)
        self._name = name
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            _, peer = self._socket.recvfrom(100)
            self._socket.sendto(f"{self._name} {peer[0]}".encode(), peer)


def answer(sock: socket.socket, address: str, port: int) -> str:
    sock.settimeout(5)
    sock.sendto(b"?", (address, port))
    return sock.recv(100).decode()


def test_clients_of_a_relayed_udp_port_are_the_kernels_when_nobody_is_alive(lab: Lab) -> None:
    """Those too who go on from the same port, and back again when there is a relay."""
    client, host, sandbox, task = ingress(lab)
    ports = {"53/udp": PortTarget(53, Protocol.UDP, 5353, Choice(("10.0.0.11",)), relayed=True)}
    UdpGreeter(host, "0.0.0.0", 53, "relay")
    UdpGreeter(task, "10.0.0.11", 5353, "one")
    sandbox.call(lambda: nft.run(ingress_rules(ports, "172.18.0.2", "eth0")))
    host.call(lambda: nft.run(host_rules(HostPath("172.18.0.2"), ports, {})))
    with client.udp_socket("0.0.0.0") as outside, host.udp_socket("0.0.0.0") as local:
        for _ in range(2):
            assert answer(outside, "10.8.0.60", 53) == "relay 10.8.0.1"
            assert answer(local, "10.8.0.60", 53) == "relay 10.8.0.60"
            host.call(lambda: nft.run(NOT_ALIVE))
            assert answer(outside, "10.8.0.60", 53) == "one 10.0.0.2"
            assert answer(local, "10.8.0.60", 53) == "one 10.0.0.2"
            host.call(lambda: nft.run(host_rules(HostPath("172.18.0.2"), ports, {})))


def test_a_late_answer_of_a_relay_that_ends_does_not_keep_its_client(lab: Lab) -> None:
    client, host, sandbox, task = ingress(lab)
    ports = {"53/udp": PortTarget(53, Protocol.UDP, 5353, Choice(("10.0.0.11",)), relayed=True)}
    UdpGreeter(task, "10.0.0.11", 5353, "one")
    sandbox.call(lambda: nft.run(ingress_rules(ports, "172.18.0.2", "eth0")))
    host.call(lambda: nft.run(host_rules(HostPath("172.18.0.2"), ports, {})))
    with client.udp_socket("0.0.0.0") as asking, host.udp_socket("10.8.0.60", 53) as relay:
        asking.settimeout(5)
        relay.settimeout(5)
        asking.sendto(b"?", ("10.8.0.60", 53))
        _, peer = relay.recvfrom(100)
        host.call(lambda: nft.run(NOT_ALIVE))
        relay.sendto(b"late", peer)
        assert asking.recv(100) == b"late"
        assert answer(asking, "10.8.0.60", 53) == "one 10.0.0.2"


def test_a_datagram_in_fragments_reaches_the_relay_whole(lab: Lab) -> None:
    client, host, _, _ = ingress(lab)
    ports = {"53/udp": PortTarget(53, Protocol.UDP, 5353, Choice(("10.0.0.11",)), relayed=True)}
    host.call(lambda: nft.run(host_rules(HostPath("172.18.0.2"), ports, {})))
    large = bytes(range(256)) * 100  # of seventeen packets only the first has the ports
    with client.udp_socket("0.0.0.0") as asking, host.udp_socket("10.8.0.60", 53) as relay:
        asking.settimeout(5)
        relay.settimeout(5)
        asking.sendto(large, ("10.8.0.60", 53))
        got, peer = relay.recvfrom(65_535)
        assert got == large
        relay.sendto(large, peer)
        assert asking.recv(65_535) == large
    assert host.call(conntrack.count) == 0
