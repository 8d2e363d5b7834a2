"""Sockets of other namespaces in a restricted process: a small stock of each place, filled by the sidecar.

A stock is asked for anew when half of it is used, so where many connect hardly anybody waits. It grows while
it is used up fast, and is given up when it has not been used for a while: unused sockets keep a namespace
alive that Docker has removed. An empty stock, and one that the sidecar has not spoken of for `FRESH_SECONDS`
(its namespace may be another one by now), makes its taker wait, blocking, since the callers can't do anything
else meanwhile: as long as the sidecar takes to answer (0.1 ms), and no longer than `WAIT_SECONDS`.
"""

import asyncio
import errno
import select
import socket
from collections.abc import Callable
from time import monotonic

from mesh.errors import NamespaceGone, WireError
from sidecar.workers.channel import as_sockets, receive_some
from sidecar.workers.frames import FrameReader, pack_head
from sidecar.workers.socket_messages import ANSWERS, BATCH_MAX, WANTS, Made, NotMade, Stale, Wanted

WAIT_SECONDS = 1.0  # of a taker whose stock is empty; the sidecar's loop is rarely held up for a tenth of it
FRESH_SECONDS = 0.01
FIRST_BATCH = 8  # sockets; twice as many each time that a stock is used up within `FAST_SECONDS`
FAST_SECONDS = 0.5
UNUSED_SECONDS = 10.0  # after which a stock is given up
ANSWER_BYTES_MAX = 64 * 1024

Place = tuple[str, bool]  # its name, and whether its sockets are of UDP


class _Stock:
    __slots__ = ("asked", "filled", "ready", "refusal", "size", "used")

    def __init__(self, now: float) -> None:
        self.ready: list[socket.socket] = []
        self.size = FIRST_BATCH
        self.asked = False  # a batch is on its way
        self.filled = self.used = now
        self.refusal: NotMade | None = None


class SocketStock:
    """`pair`: to the sidecar; its end is the end of this process, which `ended` is told."""

    def __init__(self, pair: socket.socket, ended: Callable[[], None]) -> None:
        self._pair = pair
        pair.setblocking(False)
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._frames = FrameReader(ANSWER_BYTES_MAX)
        self._stocks: dict[Place, _Stock] = {}
        self._loop.add_reader(pair, self._on_readable)
        self._sweeping = self._loop.call_later(UNUSED_SECONDS / 2, self._sweep)

    def connect(self, place: str, *, udp: bool = False) -> Callable[[], socket.socket]:
        """Where sockets of this place come from. They raise NamespaceGone and OSError."""

        def take() -> socket.socket:
            return self.take((place, udp))

        return take

    def take(self, place: Place) -> socket.socket:
        now = monotonic()
        stock = self._stocks.get(place)
        if stock is None:
            stock = self._stocks[place] = _Stock(now)
        stock.used = now
        if not stock.ready or now - stock.filled > FRESH_SECONDS:
            self._wait(place, stock, now + WAIT_SECONDS)
        taken = stock.ready.pop()
        if not stock.asked and len(stock.ready) <= stock.size // 2:
            if now - stock.filled < FAST_SECONDS:
                stock.size = min(2 * stock.size, BATCH_MAX)
            self._ask(place, stock)
        return taken

    def close(self) -> None:
        self._sweeping.cancel()
        self._loop.remove_reader(self._pair)
        self._pair.close()
        for stock in self._stocks.values():
            _close(stock)
        self._stocks.clear()
        for descriptor in self._frames.left():
            socket.close(descriptor)

    # --- asking ---

    def _ask(self, place: Place, stock: _Stock) -> None:
        count = max(1, stock.size - len(stock.ready))
        body = WANTS.encode(Wanted(place[0], place[1], count))
        try:
            self._pair.sendall(pack_head(body) + body)  # some bytes, of which few wait
        except OSError as error:
            raise OSError(errno.ENOBUFS, f"the sidecar takes no request for sockets: {error}") from error
        stock.asked = True
        stock.refusal = None

    def _wait(self, place: Place, stock: _Stock, until: float) -> None:
        """For an answer: sockets, or that there are none."""
        if not stock.asked:
            self._ask(place, stock)
        poll = select.poll()
        poll.register(self._pair, select.POLLIN)
        while stock.asked:
            left = until - monotonic()
            if left <= 0 or not poll.poll(left * 1000):
                if stock.ready:
                    return  # the sidecar is held up; they lead to where they led when it was last heard of
                raise OSError(errno.ENOBUFS, "no socket from the sidecar in time")
            self._read()
        refusal, stock.refusal = stock.refusal, None
        if refusal is not None and refusal.gone:
            _close(stock)
            raise NamespaceGone(refusal.why)
        if not stock.ready:
            number = refusal.errno if refusal is not None else errno.ENOBUFS
            raise OSError(number, refusal.why if refusal is not None else "the sidecar is gone")

    # --- answers ---

    def _on_readable(self) -> None:
        self._read()

    def _read(self) -> None:
        try:
            self._frames.feed(*receive_some(self._pair))
            while (frame := self._frames.next()) is not None:
                self._on_answer(ANSWERS.decode(frame[0]), as_sockets(frame[1]))
        except (BlockingIOError, InterruptedError):
            return
        except (EOFError, OSError, WireError):  # the sidecar is gone, or it is not ours
            self._loop.remove_reader(self._pair)
            for stock in self._stocks.values():
                stock.asked = False
            self._ended()

    def _on_answer(self, answer: object, sockets: tuple[socket.socket, ...]) -> None:
        if isinstance(answer, Stale):
            for place in ((answer.place, False), (answer.place, True)):
                if (stock := self._stocks.get(place)) is not None:
                    _close(stock)
            return
        assert isinstance(answer, Made | NotMade)
        stock = self._stocks.get((answer.place, answer.udp))
        if stock is None:  # given up meanwhile
            for one in sockets:
                one.close()
            return
        stock.asked = False
        if isinstance(answer, NotMade):
            stock.refusal = answer
        stock.filled = monotonic()
        stock.ready[:0] = sockets  # those that wait longest are taken first

    def _sweep(self) -> None:
        before = monotonic() - UNUSED_SECONDS
        for place, stock in tuple(self._stocks.items()):
            if stock.used < before and not stock.asked:
                _close(stock)
                del self._stocks[place]
        self._sweeping = self._loop.call_later(UNUSED_SECONDS / 2, self._sweep)


def _close(stock: _Stock) -> None:
    unused, stock.ready = stock.ready, []
    for one in unused:
        one.close()
