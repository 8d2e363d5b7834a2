"""Listening sockets, also on addresses that somebody else holds for a while."""

import errno
import socket
from collections.abc import Iterator

import pytest

from mesh.errors import KernelError
from mesh.net.bound_listener import (
    NOT_TRIED,
    BoundListener,
    ListenerOwner,
    PortTaken,
    bind_backoff,
    bind_fault,
    listen,
)
from mesh.net.reconciler import Reconciler
from mesh.net.tasks import Tasks
from tests.support.waiting import until


@pytest.fixture
def holder() -> Iterator[socket.socket]:
    """Somebody else's socket on a port of this node."""
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


def wanting(port: int) -> tuple[BoundListener[socket.socket], list[str]]:
    """What is wanted on the port, and the faults that its owner has got."""
    faults: list[str] = []
    return BoundListener(lambda: listen("127.0.0.1", port), faults.append), faults


def test_a_listening_socket_accepts_at_once_and_gives_nodelay_to_each_connection() -> None:
    with listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        accepted.close()


def test_a_taken_port_is_named_with_its_holder(holder: socket.socket) -> None:
    port = holder.getsockname()[1]
    with pytest.raises(PortTaken, match=rf"127\.0\.0\.1:{port}: Address already in use, held by ") as raised:
        listen("127.0.0.1", port)
    assert raised.value.port == port


def test_a_fault_names_an_ipv6_address_in_brackets_and_a_path_without_a_port() -> None:
    refused = OSError(errno.EACCES, "Permission denied")
    assert bind_fault("::1", 80, refused) == "cannot listen on [::1]:80: Permission denied"
    assert bind_fault("/run/a:b", 0, refused) == "cannot listen on /run/a:b: Permission denied"


def test_before_the_first_try_it_says_that_it_was_not_tried() -> None:
    wanted, faults = wanting(0)
    assert (wanted.fault, wanted.is_open, faults) == (NOT_TRIED, False, [])


def test_what_is_open_is_not_opened_again() -> None:
    wanted, _ = wanting(0)
    opened = wanted.try_bind()
    assert opened is not None
    assert wanted.is_open
    assert wanted.try_bind() is None
    opened.close()


def test_a_fault_that_lasts_is_told_once(holder: socket.socket) -> None:
    wanted, faults = wanting(holder.getsockname()[1])
    for _ in range(3):
        assert wanted.try_bind() is None
    assert faults == [wanted.fault]
    assert "already in use" in wanted.fault


def test_a_new_fault_is_told_too(holder: socket.socket) -> None:
    wanted, faults = wanting(holder.getsockname()[1])
    wanted.try_bind()
    wanted.report("something else")
    assert faults[1:] == ["something else"]


def test_it_is_opened_as_soon_as_the_other_lets_go(holder: socket.socket) -> None:
    wanted, _ = wanting(holder.getsockname()[1])
    assert wanted.try_bind() is None
    address = holder.getsockname()
    holder.close()
    opened = wanted.try_bind()
    assert opened is not None
    assert opened.getsockname() == address
    assert wanted.fault == ""
    opened.close()


def test_after_a_report_that_it_is_not_open_any_more_it_is_opened_again() -> None:
    wanted, _ = wanting(0)
    first = wanted.try_bind()
    assert first is not None
    first.close()
    wanted.report("closed")
    second = wanted.try_bind()
    assert second is not None
    second.close()


def test_a_fault_that_is_no_kernel_error_is_the_callers() -> None:
    def bind() -> socket.socket:
        raise ValueError("bug")

    with pytest.raises(ValueError, match="bug"):
        BoundListener(bind, lambda _: None).try_bind()


async def test_a_reconciler_with_the_pauses_of_bind_tries_until_it_is_open() -> None:
    taken = [KernelError("taken"), KernelError("taken")]
    faults: list[str] = []

    def bind() -> str:
        if taken:
            raise taken.pop()
        return "opened"

    wanted = BoundListener(bind, faults.append)

    async def work() -> bool:
        wanted.try_bind()
        return wanted.is_open

    tasks = Tasks(lambda _name, _error: None)
    reconciler = Reconciler(tasks, "listener", work, backoff=bind_backoff())
    reconciler.start(failed=not await work())
    await until(lambda: wanted.is_open)
    assert faults == ["taken"]
    await reconciler.close()
    await tasks.close()


def test_an_owner_says_which_port_the_kernel_chose() -> None:
    class Owner(ListenerOwner):
        def __init__(self, listener: socket.socket) -> None:
            self._listener = listener

    with listen("127.0.0.1", 0) as listener:
        owner = Owner(listener)
        assert owner.listener is listener
        assert owner.address == ("127.0.0.1", listener.getsockname()[1])
        assert owner.address[1] != 0
