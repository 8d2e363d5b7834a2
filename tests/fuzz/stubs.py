"""What stands in for the world in a fuzz target: a loop whose time passes on request, connections without a
network, upstreams that answer when and what they are told."""

import asyncio
import errno
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from mesh.dns.forward.dispatcher import Forwarder
from mesh.dns.forward.query_builder import Received, UpstreamQuery
from mesh.dns.forward.route import UpstreamRoute

TURNS_MAX = 100_000  # of the loop for one input; more is a loop that never rests


class Timer:
    def __init__(self, when: float, call: Callable[[], object]) -> None:
        self.when, self.call = when, call
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class StubLoop:
    """As much of an event loop as the resolver and its TCP side use. Nothing happens by itself."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.timers: list[Timer] = []
        self.readers: dict[Pipe | Door, Callable[[], object]] = {}
        self.writers: dict[Pipe | Door, Callable[[], object]] = {}

    @contextmanager
    def running(self) -> Iterator[None]:
        """In here it is the running loop."""
        asyncio._set_running_loop(self)  # type: ignore[arg-type]
        try:
            yield
        finally:
            asyncio._set_running_loop(None)

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, call: Callable[..., object], *args: Any) -> Timer:
        self.timers.append(timer := Timer(when, lambda: call(*args)))
        return timer

    def call_later(self, delay: float, call: Callable[..., object], *args: Any) -> Timer:
        return self.call_at(self.now + delay, call, *args)

    def call_soon(self, call: Callable[..., object], *args: Any) -> Timer:
        return self.call_at(self.now, call, *args)

    def add_reader(self, one: "Pipe | Door", call: Callable[..., object], *args: object) -> None:
        self.readers[one] = partial(call, *args)

    def remove_reader(self, one: "Pipe | Door") -> None:
        self.readers.pop(one, None)

    def add_writer(self, one: "Pipe | Door", call: Callable[..., object], *args: object) -> None:
        self.writers[one] = partial(call, *args)

    def remove_writer(self, one: "Pipe | Door") -> None:
        self.writers.pop(one, None)

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.settle()

    def settle(self) -> None:
        """Run whatever is ready until nothing is."""
        for _ in range(TURNS_MAX):
            if not self._turn():
                return
        raise AssertionError("the loop never rests")

    def _turn(self) -> bool:
        self.timers = [timer for timer in self.timers if not timer.cancelled]
        due = [timer for timer in self.timers if timer.when <= self.now]
        self.timers = [timer for timer in self.timers if timer.when > self.now]
        ready = [timer.call for timer in due]
        ready += [call for one, call in self.readers.items() if one.readable]
        ready += [call for one, call in self.writers.items() if one.writable]
        for timer in due:
            if not timer.cancelled:
                timer.call()
        for table, is_ready in ((self.readers, "readable"), (self.writers, "writable")):
            for one in tuple(table):
                if getattr(one, is_ready) and one in table:
                    table[one]()
        return bool(ready)


class Pipe:
    """Our end of a connection. The peer's: `inbox` is what it has sent, `room` what it is ready to read."""

    def __init__(self) -> None:
        self.inbox, self.outbox = bytearray(), bytearray()
        self.room = 0
        self.accepted = self.ended = self.reset = self.closed = False

    def fileno(self) -> int:
        return -1 if self.closed else 0

    @property
    def readable(self) -> bool:
        return bool(self.inbox) or self.ended or self.reset

    @property
    def writable(self) -> bool:
        return self.room > 0 or self.reset

    def recv(self, size: int) -> bytes:
        assert not self.closed
        if self.inbox:
            got = bytes(self.inbox[:size])
            del self.inbox[:size]
            return got
        if self.reset:
            raise ConnectionResetError
        if self.ended:
            return b""
        raise BlockingIOError

    def send(self, data: bytes | bytearray) -> int:
        assert not self.closed
        if self.reset:
            raise BrokenPipeError
        if not self.room:
            raise BlockingIOError
        taken = bytes(data[: self.room])
        self.outbox += taken
        self.room -= len(taken)
        return len(taken)

    def getsockopt(self, *_: int) -> int:
        return errno.ECONNRESET if self.reset else 0

    def setsockopt(self, *_: object) -> None:
        assert not self.closed

    def setblocking(self, flag: bool) -> None:
        assert not flag

    def close(self) -> None:
        self.closed = True


class Door:
    """A listening socket: who knocks, or why nobody can be let in."""

    def __init__(self) -> None:
        self.knocking: list[tuple[Pipe, str]] = []
        self.error: int = 0
        self.open = True
        self.writable = False

    @property
    def readable(self) -> bool:
        return bool(self.knocking)

    def accept(self) -> tuple[Pipe, tuple[str, int]]:
        if self.error:
            raise OSError(self.error, "as the target says")
        if not self.knocking:
            raise BlockingIOError
        pipe, source = self.knocking.pop(0)
        pipe.accepted = True
        return pipe, (source, 1)

    def listen(self, _: int) -> None:
        assert self.open

    def setsockopt(self, *_: object) -> None:
        assert self.open

    def fileno(self) -> int:
        return 1 if self.open else -1

    def close(self) -> None:
        self.open = False


class StubForwarder(Forwarder):
    """Real limits, shares and coalescing; instead of a race among servers `answer` is asked: a reply, None
    for failure, or HOLD to have it wait for `release`."""

    answer: Callable[[UpstreamQuery], "Received | Hold | None"]
    held: dict[Hashable, UpstreamQuery]

    def _race(self, key: Hashable, query: UpstreamQuery, route: UpstreamRoute, tcp: bool) -> "StubRace":  # type: ignore[override]
        return StubRace(self, key, query)

    def release(self) -> None:
        """Answer what is held."""
        held, self.held = self.held, {}
        for key, query in held.items():
            answer = self.answer(query)
            self._finish(key, None if isinstance(answer, Hold) else answer)


class Hold:
    """Not yet."""


HOLD = Hold()


class StubRace:
    def __init__(self, forwarder: StubForwarder, key: Hashable, query: UpstreamQuery) -> None:
        self._forwarder, self._key, self._query = forwarder, key, query

    def start(self) -> None:
        answer = self._forwarder.answer(self._query)
        if isinstance(answer, Hold):
            self._forwarder.held[self._key] = self._query
        else:
            self._forwarder._finish(self._key, answer)
