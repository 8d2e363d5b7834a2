"""One descriptor for many sockets: who is told of what, once, and never of another's."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator

import pytest

from mesh.net.poller import EVENTS_AT_ONCE, READABLE, WRITABLE, Poller

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
async def poller() -> AsyncIterator[Poller]:
    made = Poller(asyncio.get_running_loop())
    yield made
    made.stop()


@pytest.fixture
def pair() -> Iterator[Pair]:
    one, other = socket.socketpair()
    one.setblocking(False)
    with one, other:
        yield one, other


class Told:
    """A handler that notes what it is told."""

    def __init__(self) -> None:
        self.masks = list[int]()
        self._more = asyncio.Event()

    def __call__(self, mask: int) -> None:
        self.masks.append(mask)
        self._more.set()

    async def next(self) -> int:
        async with asyncio.timeout(10):
            while not self.masks:
                self._more.clear()
                await self._more.wait()
        return self.masks.pop(0)


async def rounds(count: int = 3) -> None:
    """As many turns of the loop: whatever is ready has been told then."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_what_is_there_already_is_told(poller: Poller, pair: Pair) -> None:
    pair[1].send(b"x")
    told = Told()
    poller.watch(pair[0], told)
    assert await told.next() & (READABLE | WRITABLE) == READABLE | WRITABLE


async def test_what_is_left_unread_is_not_told_again_and_what_follows_is(poller: Poller, pair: Pair) -> None:
    told = Told()
    poller.watch(pair[0], told)
    await told.next()
    pair[1].send(b"x")
    assert await told.next() & READABLE
    await rounds()
    assert not told.masks
    pair[1].send(b"y")
    assert await told.next() & READABLE


async def test_another_handler_takes_over(poller: Poller, pair: Pair) -> None:
    first, second = Told(), Told()
    poller.watch(pair[0], first)
    await first.next()
    poller.watch(pair[0], second)
    pair[1].send(b"x")
    assert await second.next() & READABLE
    assert not first.masks


async def test_a_closed_socket_is_told_of_nothing_also_in_the_round_that_closes_it(poller: Poller) -> None:
    """Two are ready together, and the handler of whichever comes first closes the other."""
    pairs = [socket.socketpair() for _ in range(2)]
    mine = [pair[0] for pair in pairs]
    told = list[int]()
    over = asyncio.Event()

    def closing(number: int, mask: int) -> None:
        told.append(number)
        poller.close(mine[1 - number])
        assert mine[1 - number].fileno() >= 0, "its number could be another's before the round is over"
        over.set()

    for number, sock in enumerate(mine):
        poller.watch(sock, lambda mask, number=number: closing(number, mask))  # type: ignore[misc]
    async with asyncio.timeout(10):
        await over.wait()
    await rounds()
    assert len(told) == 1
    assert mine[1 - told[0]].fileno() == -1
    for pair in pairs:
        for sock in pair:
            sock.close()


async def test_a_handlers_fault_costs_the_others_nothing(poller: Poller) -> None:
    faults = list[dict[str, object]]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
    pairs = [socket.socketpair() for _ in range(20)]
    told = set[int]()
    over = asyncio.Event()

    def handler(number: int) -> None:
        told.add(number)
        if len(told) == len(pairs):
            over.set()
        if number % 3 == 0:
            raise RuntimeError(number)

    for number, pair in enumerate(pairs):
        poller.watch(pair[0], lambda _, number=number: handler(number))  # type: ignore[misc]
    async with asyncio.timeout(10):
        await over.wait()
    await rounds()
    assert len(faults) == len(range(0, len(pairs), 3))
    for pair in pairs:
        for sock in pair:
            sock.close()


async def test_more_than_one_round_holds_are_all_told(poller: Poller) -> None:
    pairs = [socket.socketpair() for _ in range(EVENTS_AT_ONCE + 10)]
    told = set[int]()
    over = asyncio.Event()

    def handler(number: int) -> None:
        told.add(number)
        if len(told) == len(pairs):
            over.set()

    for number, pair in enumerate(pairs):
        poller.watch(pair[0], lambda _, number=number: handler(number))  # type: ignore[misc]
    async with asyncio.timeout(10):
        await over.wait()
    for pair in pairs:
        for sock in pair:
            sock.close()


async def test_again_comes_in_a_later_round(poller: Poller, pair: Pair) -> None:
    calls = list[str]()
    over = asyncio.Event()

    def go_on() -> None:
        calls.append("again")
        if calls.count("again") < 3:
            poller.again(go_on)
        else:
            over.set()

    def handler(_: int) -> None:
        poller.again(go_on)
        calls.append("told")

    poller.watch(pair[0], handler)
    async with asyncio.timeout(10):
        await over.wait()
    assert calls == ["told", "again", "again", "again"]


async def test_stopped_it_tells_nothing_and_may_be_stopped_twice(poller: Poller, pair: Pair) -> None:
    told = Told()
    poller.watch(pair[0], told)
    poller.again(lambda: told(0))
    poller.stop()
    poller.stop()
    await rounds()
    assert not told.masks
