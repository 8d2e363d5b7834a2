"""A socket that has had an error is watched on."""

import asyncio
import socket
from collections.abc import Callable

import pytest
import uvloop

from mesh.net.readers import watch_again
from tests.support.waiting import until

LOOPS = [asyncio.SelectorEventLoop, uvloop.new_event_loop]


async def hears_after_a_refusal() -> None:
    loop = asyncio.get_running_loop()
    peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    peer.bind(("127.0.0.1", 0))
    address = peer.getsockname()
    peer.close()
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    sock.connect(address)
    heard: list[bytes | OSError] = []

    def on_readable() -> None:
        try:
            heard.append(sock.recv(100))
        except OSError as error:
            heard.append(error)
            watch_again(loop, sock, on_readable)

    loop.add_reader(sock, on_readable)
    for count in (1, 3):
        sock.send(b"to nobody")
        await until(lambda count=count: len(heard) == count, "the refusal is told")  # type: ignore[misc]
        assert isinstance(heard[-1], ConnectionRefusedError)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
            peer.bind(address)
            peer.sendto(b"hello", sock.getsockname())
            await until(lambda count=count: len(heard) == count + 1, "what comes later is told")  # type: ignore[misc]
        assert heard[-1] == b"hello"
    loop.remove_reader(sock)
    sock.close()


@pytest.mark.parametrize("make_loop", LOOPS)
def test_what_comes_after_an_error_is_heard(make_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    with asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(hears_after_a_refusal())
