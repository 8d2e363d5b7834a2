"""Messages and sockets between two ends, on asyncio's loop and on uvloop."""

import array
import asyncio
import os
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from mesh.errors import WireError
from sidecar.workers.channel import Channel
from sidecar.workers.frames import pack_head
from sidecar.workers.messages import Messages

LARGE = 4_000_000  # more than a pair's buffers hold
DEADLINE = 20.0


@dataclass(frozen=True, slots=True)
class Said:
    text: str
    rows: tuple[tuple[str, int], ...] = ()


SAID = Messages((Said,))


class Ends:
    def __init__(self) -> None:
        left, right = socket.socketpair()
        self.near, self.far = Channel(left, SAID, SAID), Channel(right, SAID, SAID)

    async def heard(self) -> object:
        async with asyncio.timeout(DEADLINE):
            message, _ = await self.far.receive()
        return message

    async def taken_over(self) -> socket.socket:
        async with asyncio.timeout(DEADLINE):
            _, (sock,) = await self.far.receive()
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
    said = [Said("1"), Said("x" * LARGE), Said("", (("a", 2), ("b", 3)))]
    for one in said:
        ends.near.send(one)
    assert ends.near.behind > 0
    assert [await ends.heard() for _ in said] == said
    await asyncio.wait_for(ends.near.taken(), DEADLINE)
    assert ends.near.behind == 0


async def test_a_socket_comes_with_its_message_although_the_sender_has_closed_it(ends: Ends) -> None:
    ends.near.send(Said("x" * LARGE))  # so that what follows has to wait
    addresses = []
    for _ in range(3):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            addresses.append(listener.getsockname())
            ends.near.send(Said("a port"), (listener,))
    await ends.heard()
    for address in addresses:
        with await ends.taken_over() as listener:
            assert listener.getsockname() == address
            with socket.create_connection(address, DEADLINE):
                listener.accept()[0].close()


async def test_the_end_of_the_other_one_is_told(ends: Ends) -> None:
    ends.near.send(Said("last"))
    ends.near.close()
    assert await ends.heard() == Said("last")
    with pytest.raises(EOFError):
        await ends.heard()
    ends.far.send(Said("to nobody"))  # found out by whoever receives, not here
    await asyncio.wait_for(ends.far.taken(), DEADLINE)


async def test_half_a_message_is_no_message(ends: Ends) -> None:
    ends.near.send(Said("x" * LARGE))
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
        made.near.send(Said("x"), (listener,))
        made.near.send(Said("x" * LARGE), (listener,))
        made.near.send(Said("x"), (listener,))
        await made.heard()
    made.near.close()
    made.far.close()
    assert descriptors() == before


async def refused(pair: socket.socket, *, descriptors_max: int = 1) -> str:
    """What the receiver says of what waits in the pair. No descriptor is left of it."""
    channel = Channel(pair, SAID, SAID, body_max=1000, descriptors_max=descriptors_max)
    try:
        async with asyncio.timeout(DEADLINE):
            with pytest.raises(WireError) as told:
                await channel.receive()
        return str(told.value)
    finally:
        channel.close()


def put(pair: socket.socket, data: bytes, *descriptors: int) -> None:
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))
    pair.sendmsg([data], [rights] if descriptors else [])


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="no /proc here")
@pytest.mark.parametrize(
    ("body", "said", "came", "why"),
    [
        (b"x" * 1001, 0, 0, "1001 bytes"),
        (b"Unknown\n{}", 0, 0, "no message is called"),
        (b"Said\n{", 0, 0, "Said"),
        (b'Said\n{"text": 1}', 0, 0, "Said: text"),
        (b'Said\n{"text": "x", "rows": [["a", 1e3]]}', 0, 0, "rows.0.1"),
        (b'Said\n{"text": "x"}', 1, 0, "1 descriptors announced, 0 came"),
        (b'Said\n{"text": "x"}', 0, 1, "1 descriptors came, 0 were announced"),
        (b'Said\n{"text": "x"}', 1, 2, "more than 1 descriptors"),
        (b"Unknown\n{}", 1, 1, "no message is called"),
        (b"cos\nsystem\n(S'true'\ntR.", 0, 0, "no message is called"),
    ],
)
async def test_what_is_no_message_is_refused_and_leaves_nothing(
    body: bytes, said: int, came: int, why: str
) -> None:
    before = descriptors()
    left, right = socket.socketpair()
    with left, socket.socket() as sent:
        put(left, pack_head(body, said) + body, *(came * [sent.fileno()]))
        assert why in await refused(right)
    assert descriptors() == before


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="no /proc here")
async def test_a_descriptor_that_is_no_socket_is_refused() -> None:
    before = descriptors()
    left, right = socket.socketpair()
    with left, open("/dev/null", "rb") as file:
        body = b'Said\n{"text": "x"}'
        put(left, pack_head(body, 1) + body, file.fileno())
        assert "no socket" in await refused(right)
    assert descriptors() == before
