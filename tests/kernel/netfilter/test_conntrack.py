"""conntrack's messages, and real flows found and ended in namespaces."""

import socket
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.balance.hash_slots import Choice
from mesh.kernel.netfilter import conntrack, nft, nft_batch
from mesh.kernel.netfilter.ctnetlink import (
    TCP,
    UDP,
    Flow,
    FlowMatch,
    FlowSide,
    answers_from,
    delete_request,
    flow_of,
    port_in_use,
)
from mesh.kernel.rulesets import container_rules, vips_update
from mesh.net import netlink
from mesh.net.netns import Namespace
from tests.net.lab import Lab, eventually, laboratory, needs_root

VIP, ONE, TWO = "10.9.0.2", "10.9.0.11", "10.9.0.12"


@given(st.binary(max_size=200))
def test_whatever_comes_is_a_flow_or_none(data: bytes) -> None:
    assert flow_of(data) is None or isinstance(flow_of(data), Flow)


def tuple_(kind: int, source: str, destination: str, protocol: bytes) -> bytes:
    ends = b"".join(
        netlink.attribute(end, socket.inet_aton(address)) for end, address in ((1, source), (2, destination))
    )
    parts = netlink.attribute(1 | netlink.NESTED, ends) + netlink.attribute(2 | netlink.NESTED, protocol)
    return netlink.attribute(kind | netlink.NESTED, parts)


ADDRESSES = st.ip_addresses(v=4).map(str)


@given(ADDRESSES, st.binary(max_size=40), st.permutations(range(4)))
def test_a_look_finds_the_address_that_reading_finds(task: str, rest: bytes, order: list[int]) -> None:
    """In the kernel's order and in any other, whatever the protocol's own part is like."""
    parts = [
        tuple_(1, "1.1.1.1", VIP, netlink.attribute(1, b"\x06")),
        tuple_(2, task, "1.1.1.1", netlink.attribute(1, b"\x06")),
        netlink.attribute(3, b"\0\0\0\2"),
        netlink.attribute(4 | netlink.NESTED, rest),
    ]
    for body in (b"".join(parts), b"".join(parts[index] for index in order)):
        flow = flow_of(b"\2\0\0\0" + body)
        assert flow is not None
        assert socket.inet_ntoa(answers_from(b"\2\0\0\0" + body)) == flow.reply.source == task


@given(st.binary(max_size=200))
def test_a_look_at_anything_is_an_address_or_nothing(data: bytes) -> None:
    flow = flow_of(data)
    assert flow is None or len(answers_from(data)) == 4
    assert answers_from(b"") == b""


def test_what_is_wanted() -> None:
    flow = Flow(TCP, FlowSide("1.1.1.1", VIP, 5, 80), FlowSide(ONE, "1.1.1.1", 80, 5), mark=0x6D650002)
    assert FlowMatch().matches(flow)
    assert FlowMatch(ONE, VIP, (0x6D650000, 0xFFFF0000)).matches(flow)
    assert not FlowMatch(TWO).matches(flow)
    assert not FlowMatch(destination=ONE).matches(flow)
    assert not FlowMatch(mark=(1, 1)).matches(flow)


@pytest.fixture
def boxes() -> Iterator[tuple[Namespace, Namespace, Namespace]]:
    with laboratory() as lab:
        yield plugged(lab)


def plugged(lab: Lab) -> tuple[Namespace, Namespace, Namespace]:
    switch, made = lab.switch("sw"), [lab.namespace(name) for name in ("client", "one", "two")]
    for index, member in enumerate(made):
        lab.plug(member, "eth0", f"10.9.0.{10 + index}/24", switch)
    return made[0], made[1], made[2]


def answering(where: Namespace) -> socket.socket:
    sock = where.udp_socket("0.0.0.0", 53)
    sock.settimeout(5)
    return sock


@pytest.mark.root
@needs_root
def test_a_udp_client_is_led_elsewhere_once_its_flow_is_deleted(
    boxes: tuple[Namespace, Namespace, Namespace],
) -> None:
    """The black hole of moby#36878: without the deletion the second question goes to the first task again."""
    client, one, two = boxes
    client.call(lambda: nft.run(container_rules({VIP: Choice((ONE,))}, None)))
    with client.udp_socket("0.0.0.0") as asking, answering(one) as first, answering(two) as second:
        asking.connect((VIP, 53))
        asking.send(b"1")
        assert first.recv(10) == b"1"
        client.call(lambda: nft_batch.change(vips_update({VIP: Choice((ONE,))}, {VIP: Choice((TWO,))})))
        asking.send(b"2")
        assert first.recv(10) == b"2"
        (flow,) = client.call(lambda: conntrack.find(FlowMatch(answers_from=ONE)))
        assert (flow.protocol, flow.original.destination, flow.answered) == (UDP, VIP, False)
        assert client.call(lambda: conntrack.delete([flow, flow])) == 1
        asking.send(b"3")
        assert second.recv(10) == b"3"
        (moved,) = client.call(lambda: conntrack.find(FlowMatch(destination=VIP)))
        assert moved.reply.source == TWO


@pytest.mark.root
@needs_root
def test_an_unanswered_syn_and_an_established_connection(
    boxes: tuple[Namespace, Namespace, Namespace],
) -> None:
    client, one, two = boxes
    listener = two.tcp_listener("0.0.0.0", 80)
    one.call(
        lambda: nft.run("table ip x {\n chain i {\n type filter hook input priority 0; policy drop;\n }\n}\n")
    )
    client.call(lambda: nft.run(container_rules({VIP: Choice((ONE,))}, None)))
    waiting = client.tcp_socket()
    assert waiting.connect_ex((VIP, 80)) != 0
    (begun,) = client.call(lambda: conntrack.find(FlowMatch(answers_from=ONE)))
    assert begun.beginning
    client.call(lambda: nft_batch.change(vips_update({VIP: Choice((ONE,))}, {VIP: Choice((TWO,))})))
    assert client.call(lambda: conntrack.delete([begun])) == 1
    listener.settimeout(10)
    accepted, _ = listener.accept()  # the client's kernel sent its SYN again, to the task that is there
    (flow,) = client.call(lambda: conntrack.find(FlowMatch(answers_from=TWO)))
    assert flow.answered
    assert not flow.beginning
    for sock in (accepted, waiting, listener):
        sock.close()
    assert one.call(lambda: conntrack.find(FlowMatch())) == []


@pytest.mark.root
@needs_root
def test_thousands_of_flows_are_found_and_deleted(boxes: tuple[Namespace, Namespace, Namespace]) -> None:
    client, one, _ = boxes
    client.call(lambda: nft.run(container_rules({VIP: Choice((ONE,))}, None)))
    with answering(one), client.udp_socket("0.0.0.0") as asking:
        for port in range(2000, 5000):
            asking.sendto(b"?", (VIP, port))
    found = client.call(lambda: conntrack.find(FlowMatch(answers_from=ONE)))
    assert len({flow.original.destination_port for flow in found}) == 3000
    assert client.call(lambda: conntrack.delete(found)) == 3000
    assert client.call(lambda: conntrack.find(FlowMatch(answers_from=ONE))) == []


@given(st.binary(max_size=200), st.binary(min_size=4, max_size=4))
def test_a_port_in_use_is_a_protocol_and_a_port_whatever_comes(data: bytes, destination: bytes) -> None:
    used = port_in_use(data, destination)
    assert used is None or (0 <= used[0] < 256 and used[1] >= 0)


@pytest.mark.root
@needs_root
def test_open_connections_are_counted_by_port(boxes: tuple[Namespace, Namespace, Namespace]) -> None:
    client, one, _ = boxes
    client.call(lambda: nft.run(container_rules({VIP: Choice((ONE,))}, None)))
    with (
        one.tcp_listener("0.0.0.0", 80) as listener,
        answering(one) as server,
        client.udp_socket("0.0.0.0") as heard,
        client.udp_socket("0.0.0.0") as unheard,
    ):
        listener.settimeout(5)
        ends = [connected(client, address, listener) for address in (VIP, VIP, VIP, ONE)]
        for asking in (unheard, heard):
            asking.sendto(b"?", (VIP, 53))
        peers = [server.recvfrom(1)[1] for _ in range(2)]
        server.sendto(b"!", next(peer for peer in peers if peer[1] == heard.getsockname()[1]))
        assert client.call(lambda: conntrack.count_open(VIP)) == {"80/tcp": 3, "53/udp": 1}
        for end in ends[0]:
            end.close()
        eventually(lambda: client.call(lambda: conntrack.count_open(VIP))["80/tcp"] == 2, "it has ended")
        for end in ends[1] + ends[2] + ends[3]:
            end.close()
    assert client.call(lambda: conntrack.count_open("10.9.0.99")) == {}


def connected(
    client: Namespace, address: str, listener: socket.socket
) -> tuple[socket.socket, socket.socket]:
    made = client.tcp_socket()
    made.settimeout(5)
    made.connect((address, 80))
    return made, listener.accept()[0]


@pytest.mark.root
@needs_root
def test_one_look_finds_the_flows_of_many_tasks_and_no_others(
    boxes: tuple[Namespace, Namespace, Namespace],
) -> None:
    client, one, two = boxes
    other = "10.9.0.3"
    client.call(lambda: nft.run(container_rules({VIP: Choice((ONE,)), other: Choice((TWO,))}, None)))
    assert client.call(conntrack.count) == 0
    with answering(one), answering(two), client.udp_socket("0.0.0.0") as asking:
        for address in (VIP, other, ONE):  # the last goes there without our doing
            asking.sendto(b"?", (address, 53))
    assert client.call(conntrack.count) == 3

    def led_to(*tasks: str) -> set[tuple[str, str]]:
        found = client.call(lambda: conntrack.find_led(tasks, lambda flow: flow.protocol == UDP))
        return {(flow.original.destination, flow.reply.source) for flow in found}

    assert led_to(ONE) == {(VIP, ONE)}
    assert led_to(ONE, TWO, "10.9.0.99") == {(VIP, ONE), (other, TWO)}
    assert led_to("10.9.0.98", "10.9.0.99") == set()
    assert client.call(lambda: conntrack.find_led([ONE, TWO], lambda _: False)) == []


def test_a_deletion_names_tuple_and_id() -> None:
    flow = Flow(
        UDP, FlowSide("1.1.1.1", VIP), FlowSide(ONE, "1.1.1.1"), key=netlink.attribute(12, b"\0\0\0\7")
    )
    assert netlink.attributes(delete_request(flow)[4:]) == {12: b"\0\0\0\7"}
