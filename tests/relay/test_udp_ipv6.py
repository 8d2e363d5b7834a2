"""A relayed UDP port whose clients come over IPv6: a namespace of its own has the addresses for it."""

import asyncio
import socket
import subprocess
from contextlib import closing

import pytest

from mesh.balance.policies import Endpoint
from mesh.net.bound_listener import PortTaken
from mesh.net.netns import in_new_namespace
from mesh.net.proc import has_ipv6
from mesh.relay.tcp_connection import RelayOptions
from mesh.relay.udp_port import UdpPort, listen_udp
from tests.net.lab import needs_root

PATIENCE = 20.0

pytestmark = pytest.mark.skipif(not has_ipv6(), reason="no IPv6 on this machine")


def socket_at(address: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    made = socket.socket(family, socket.SOCK_DGRAM)
    made.bind((address, 0))
    made.settimeout(PATIENCE)
    return made


async def exchange(listen: str, asked: str) -> tuple[bytes, bytes, str]:
    """What a task gets and what its client gets back, and from which address, without its scope."""
    with socket_at("127.0.0.1") as task, socket_at("::") as client:
        endpoint = Endpoint(*task.getsockname())
        port = UdpPort(listen_udp(listen, 0), [endpoint], RelayOptions())
        to = socket.getaddrinfo(asked, port.address[1], type=socket.SOCK_DGRAM)[0][4]
        client.sendto(b"question", to)
        got, sender = await asyncio.to_thread(task.recvfrom, 100)
        task.sendto(b"answer", sender)
        answer, source = await asyncio.to_thread(client.recvfrom, 100)
        await port.close()
    return got, answer, source[0].partition("%")[0]


async def test_datagrams_go_both_ways() -> None:
    assert await exchange("::1", "::1") == (b"question", b"answer", "::1")


@pytest.mark.root
@needs_root
def test_an_answer_leaves_from_the_address_that_was_asked() -> None:
    def inside() -> None:
        for command in (
            "link set lo up",
            "address add fd00::1/128 dev lo",
            "address add fd00::2/128 dev lo",
            "link add wire0 type veth peer name wire1",
            "link set wire0 up",
            "link set wire1 up",
            "address add fe80::5/64 dev wire0 nodad",
        ):
            subprocess.run(["ip", *command.split()], check=True, timeout=PATIENCE)
        for asked in ("fd00::1", "fd00::2", "fe80::5%wire0"):
            answer_from = asked.partition("%")[0]
            assert asyncio.run(exchange("::", asked)) == (b"question", b"answer", answer_from)

    in_new_namespace(inside)


def test_a_taken_port_is_named() -> None:
    with closing(socket_at("::1")) as taken:
        number = taken.getsockname()[1]
        with pytest.raises(PortTaken, match=rf"\[::1\]:{number}/udp"):
            listen_udp("::1", number)
