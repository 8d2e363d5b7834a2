"""Going into namespaces and always coming back."""

import asyncio
import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mesh.errors import KernelError, NamespaceGone
from mesh.net import netlink, netns, proc, setns
from mesh.net.netns import Namespace, NamespaceWorker
from tests.net.lab import Lab, laboratory, needs_root


def here() -> str:
    return os.readlink(setns.OWN_NAMESPACE)


@pytest.fixture
def lab() -> Iterator[Lab]:
    with laboratory() as made:
        yield made


def test_no_path_is_the_namespace_we_are_in() -> None:
    assert Namespace(None).call(here) == here()
    with Namespace(None).tcp_listener("127.0.0.1") as listener:
        assert not listener.getblocking()


def test_a_vanished_path_is_gone() -> None:
    assert not Namespace("/nowhere").exists()
    with pytest.raises(NamespaceGone, match="/nowhere"):
        Namespace("/nowhere").call(here)


@pytest.mark.root
@needs_root
def test_a_file_that_is_no_namespace_any_more_is_gone(tmp_path: Path) -> None:
    (tmp_path / "left").touch()
    with pytest.raises(NamespaceGone):
        Namespace(str(tmp_path / "left")).call(here)


@pytest.mark.root
@needs_root
@pytest.mark.parametrize("enter", [setns._setns_libc, setns._setns_os])
def test_a_call_goes_in_and_comes_back_even_from_an_error(
    lab: Lab, enter: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    if enter is setns._setns_os and not hasattr(os, "setns"):
        pytest.skip("os.setns came with Python 3.12")
    monkeypatch.setattr(netns, "setns", enter)
    home, box = here(), lab.namespace("box")
    assert box.call(here) != home
    assert here() == home

    def fail() -> None:
        raise ValueError("inside")

    with pytest.raises(ValueError, match="inside"):
        box.call(fail)
    assert here() == home


@pytest.mark.root
@needs_root
def test_sockets_belong_to_the_namespace_they_were_made_in(lab: Lab) -> None:
    box = lab.namespace("box")
    with box.tcp_listener("127.0.0.11") as listener, box.udp_socket("127.0.0.11") as udp:
        port = listener.getsockname()[1]
        assert [one.port for one in box.call(lambda: proc.bound("tcp"))] == [port]
        assert [one.port for one in box.call(lambda: proc.bound("udp"))] == [udp.getsockname()[1]]
        with box.tcp_socket() as client:
            client.settimeout(5)
            client.connect(("127.0.0.11", port))
        with Namespace(None).tcp_socket() as outside:
            outside.settimeout(5)
            assert outside.connect_ex(("127.0.0.11", port)) == errno.ECONNREFUSED


@pytest.mark.root
@needs_root
async def test_the_worker_works_inside_on_its_own_thread(lab: Lab) -> None:
    box, worker = lab.namespace("box"), NamespaceWorker()
    home = here()
    found = await asyncio.gather(
        *(worker.run(box.path, lambda: (here(), threading.get_ident())) for _ in range(9))
    )
    assert len(set(found)) == 1
    assert found[0][0] != home
    assert found[0][1] != threading.get_ident()
    assert [one.interface for one in await worker.run(box.path, netlink.addresses)] == ["lo"]
    with pytest.raises(NamespaceGone):
        await worker.run("/nowhere", here)
    worker.close()


def test_refused_requests_say_what_was_asked() -> None:
    with pytest.raises(KernelError, match="the impossible"):
        netlink.request(19, bytes(16), "the impossible")


PROC_TCP = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0B00007F:A3C5 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0
   1: 0100007F:0050 0100007F:1234 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0
  junk
"""


@pytest.mark.root
@needs_root
def test_listeners_are_the_same_by_netlink_and_in_proc(lab: Lab) -> None:
    box = lab.namespace("box")
    with box.tcp_listener("127.0.0.11"), box.tcp_listener("0.0.0.0"), box.tcp_socket():
        listed = box.call(lambda: Path("/proc/thread-self/net/tcp").read_text())
        found = box.call(lambda: proc.bound("tcp"))
    assert len(found) == 2
    assert {(one.address, one.port, one.inode) for one in found} == {
        (one.address, one.port, one.inode) for one in proc.parse(listed, listening=True)
    }


def test_socket_tables_are_read_as_the_kernel_prints_them() -> None:
    assert proc.parse(PROC_TCP, listening=True) == [proc.BoundSocket("127.0.0.11", 0xA3C5, 4711)]
    assert [one.inode for one in proc.parse(PROC_TCP, listening=False)] == [4711, 4712]
