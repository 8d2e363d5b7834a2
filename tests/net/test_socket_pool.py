"""Sockets made in batches are those of the namespace that is meant, also when it is another one now, and
hold none for long."""

import os
import resource
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from mesh.errors import NamespaceGone
from mesh.net import socket_pool as sockets_
from mesh.net.netns import Namespace, nonblocking_udp_socket
from mesh.net.socket_pool import BATCH, FIRST_BATCH, Sockets
from tests.net.lab import Lab, laboratory, needs_root
from tests.support.waiting import until

pytestmark = [pytest.mark.root, needs_root]


@pytest.fixture
def lab() -> Iterator[Lab]:
    with laboratory() as made:
        yield made


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def reaches(one: socket.socket, listener: socket.socket) -> bool:
    """Only a socket of the listener's own namespace gets to its loopback."""
    with one:
        one.setblocking(True)
        return one.connect_ex(listener.getsockname()) == 0


async def test_all_of_them_belong_to_the_namespace_and_the_unused_are_closed(lab: Lab) -> None:
    place = lab.namespace("a")
    before = descriptors()
    sockets = Sockets(lambda: place.path)
    with place.tcp_listener("127.0.0.1") as listener:
        for _ in range(4 * BATCH):
            assert reaches(sockets.take(), listener)
    assert descriptors() > before
    sockets.close()
    assert descriptors() == before


async def test_another_namespace_at_the_path_is_noticed_at_once(lab: Lab, tmp_path: Path) -> None:
    old, new, path = lab.namespace("a"), lab.namespace("b"), tmp_path / "ingress"
    sockets = Sockets(lambda: str(path))
    path.symlink_to(str(old.path))
    sockets.take().close()
    path.unlink()
    path.symlink_to(str(new.path))
    with new.tcp_listener("127.0.0.1") as listener:
        assert reaches(sockets.take(), listener)
    path.unlink()
    with pytest.raises(NamespaceGone):
        sockets.take()
    path.symlink_to(str(old.path))
    with old.tcp_listener("127.0.0.1") as listener:
        assert reaches(sockets.take(), listener)
    sockets.close()


@pytest.fixture
def few_descriptors() -> Iterator[None]:
    """Only 8 are left."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 16, hard))
    taken = list[int]()
    try:
        with suppress(OSError):
            while True:
                taken.append(os.open("/dev/null", os.O_RDONLY))
        for _ in range(8):
            os.close(taken.pop())
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for one in taken:
            os.close(one)


async def test_few_descriptors_make_a_small_batch(lab: Lab, request: pytest.FixtureRequest) -> None:
    place = lab.namespace("a")
    sockets = Sockets(lambda: place.path)
    with place.tcp_listener("127.0.0.1") as listener:
        request.getfixturevalue("few_descriptors")
        first = sockets.take()
        left = list[int]()
        with suppress(OSError):
            while True:
                left.append(os.open("/dev/null", os.O_RDONLY))
        for one in left:
            os.close(one)
        assert 0 < len(left) < 8
        assert reaches(first, listener)
    sockets.close()


async def test_without_a_path_they_are_our_own() -> None:
    with Namespace(None).tcp_listener("127.0.0.1") as listener:
        assert reaches(Sockets(lambda: None).take(), listener)


async def test_datagrams_leave_from_the_namespace_too(lab: Lab) -> None:
    place = lab.namespace("a")
    sockets = Sockets(lambda: place.path, nonblocking_udp_socket)
    with place.udp_socket("127.0.0.1") as there, sockets.take() as one:
        there.settimeout(5)
        one.connect(there.getsockname())
        one.send(b"from inside")
        assert there.recv(100) == b"from inside"
    sockets.close()


async def test_those_that_nobody_takes_are_closed_and_their_namespace_ends(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets_, "IDLE_SECONDS", 0.2)
    place, before = lab.namespace("a"), descriptors()
    sockets = Sockets(lambda: place.path)
    for _ in range(2 * BATCH):
        sockets.take().close()
    assert descriptors() > before
    await until(lambda: descriptors() == before)
    sockets.take().close()
    assert descriptors() == before + FIRST_BATCH - 1
    sockets.close()


async def test_those_that_are_taken_now_and_then_stay(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next look at them finds that one was taken since."""
    monkeypatch.setattr(sockets_, "IDLE_SECONDS", 3600.0)
    place = lab.namespace("a")
    sockets = Sockets(lambda: place.path)
    for _ in range(FIRST_BATCH + 1):
        sockets.take().close()
    held = descriptors()
    sockets._perhaps_idle()
    assert descriptors() == held
    sockets._perhaps_idle()
    assert descriptors() < held
    sockets.close()
