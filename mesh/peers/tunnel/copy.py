"""Bytes both ways between two streams, at the pace of the slower, until one of them ends.

TLS has no half-close, so an end is the end of both; what was read before it is still delivered.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from mesh.net import streams
from mesh.net.tasks import Tasks

PIECE = 64 * 1024  # bytes of one read; as much again may wait to be written


@dataclass(slots=True)
class TunnelSide:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


class TimedReader(Protocol):
    at: float  # seconds, of the clock: when a byte last went through


@dataclass(slots=True)
class Activity:
    """When bytes last went through, either way, and after how many `seconds` without one it is over."""

    seconds: float
    clock: Callable[[], float]
    of: TimedReader

    def touch(self) -> None:
        self.of.at = self.clock()

    @property
    def left(self) -> float:
        return self.of.at + self.seconds - self.clock()

    @property
    def is_over(self) -> bool:
        return self.left <= 0


async def pump(
    tasks: Tasks,
    ours: TunnelSide,
    theirs: TunnelSide,
    was_cut: Callable[[], bool] = lambda: False,
    activity: Activity | None = None,
) -> bool:
    """True when one of them ended in order, False when it broke off, or was silent for too long. Both are
    closed then.

    `was_cut`: is what looks like an end none?
    """
    touch = activity.touch if activity is not None else _nothing
    touch()
    forth = tasks.start(_copy(ours.reader, theirs.writer, touch), "tunnel")
    back = tasks.start(_copy(theirs.reader, ours.writer, touch), "tunnel")
    orderly = False
    try:
        done = await _first_end((forth, back), activity)
        orderly = bool(done) and all(one.result() for one in done) and not was_cut()
    finally:
        forth.cancel()
        back.cancel()
        for side in (ours, theirs):
            if orderly:
                streams.close(side.writer)
            else:
                streams.reset(side.writer)
    return orderly


async def _first_end(
    copies: tuple[asyncio.Task[bool], ...], activity: Activity | None
) -> set[asyncio.Task[bool]]:
    """Those that have ended; none when it was silent for too long."""
    while True:
        left = activity.left if activity is not None else None
        done, _ = await asyncio.wait(copies, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        if done or (activity is not None and activity.is_over):
            return done


async def _copy(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, touch: Callable[[], None]
) -> bool:
    try:
        while data := await reader.read(PIECE):
            touch()
            streams.write(writer, data)
            await writer.drain()
            touch()
    except OSError:
        return False
    return True


def _nothing() -> None:
    """Nobody looks at the time."""
