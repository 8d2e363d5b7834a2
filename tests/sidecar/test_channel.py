"""Messages and sockets between two ends, on asyncio's loop and on uvloop."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator

import pytest

from sidecar.channel import Channel, packed

LARGE = 4_000_000  # more than a pair's buffers hold
DEADLINE = 20.0


class Ends:
    def __init__(self) -> None:
        left, right = socket.socketpair()
        self.near, self.far = Channel(left), Channel(right)

    async def heard(self) -> object:
        async with asyncio.timeout(DEADLINE):
            message, _ = await self.far.receive()
        return message

    async def taken_over(self) -> socket.socket:
        async with asyncio.timeout(DEADLINE):
            _, sock = await self.far.receive()
        assert sock is not None
        return sock


@pytest.fixture
async def ends() -> AsyncIterator[Ends]:
    made = Ends()
    yield made
    made.near.close()
    made.far.close()


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def test_messages_arrive_whole_and_in_order(ends: Ends) -> None:
    said = [1, "x" * LARGE, {"a": (2, 3)}, b"", None]
    for one in said:
        ends.near.send(packed(one))
    assert ends.near.behind > 0
    assert [await ends.heard() for _ in said] == said
    await asyncio.wait_for(ends.near.taken(), DEADLINE)
    assert ends.near.behind == 0


async def test_a_socket_comes_with_its_message_although_the_sender_has_closed_it(ends: Ends) -> None:
    ends.near.send(packed("x" * LARGE))  # so that what follows has to wait
    addresses = []
    for _ in range(3):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            addresses.append(listener.getsockname())
            ends.near.send(packed("a port"), listener)
    await ends.heard()
    for address in addresses:
        with await ends.taken_over() as listener:
            assert listener.getsockname() == address
            with socket.create_connection(address, DEADLINE):
                listener.accept()[0].close()


async def test_the_end_of_the_other_one_is_told(ends: Ends) -> None:
    ends.near.send(packed("last"))
    ends.near.close()
    assert await ends.heard() == "last"
    with pytest.raises(EOFError):
        await ends.heard()
    ends.far.send(packed("to nobody"))  # found out by whoever receives, not here
    await asyncio.wait_for(ends.far.taken(), DEADLINE)


async def test_half_a_message_is_no_message(ends: Ends) -> None:
    ends.near.send(packed("x" * LARGE))
    ends.near.close()  # the rest never comes
    with pytest.raises(EOFError):
        await ends.heard()


async def test_an_abort_ends_both_ends_at_once(ends: Ends) -> None:
    near, far = asyncio.gather(ends.near.receive()), asyncio.gather(ends.far.receive())
    await asyncio.sleep(0)
    ends.near.abort()
    for waiting in (near, far):
        with pytest.raises(EOFError):
            await asyncio.wait_for(waiting, DEADLINE)


async def test_who_waits_at_an_end_that_is_closed_is_told(ends: Ends) -> None:
    waiting = asyncio.gather(ends.far.receive())
    await asyncio.sleep(0)
    ends.far.close()
    with pytest.raises(EOFError):
        await asyncio.wait_for(waiting, DEADLINE)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="no /proc here")
async def test_no_descriptor_is_left_of_what_was_never_received() -> None:
    before = descriptors()
    made = Ends()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        made.near.send(packed("x"), listener)
        made.near.send(packed("x" * LARGE), listener)
        made.near.send(packed("x"), listener)
        await made.heard()
    made.near.close()
    made.far.close()
    assert descriptors() == before
