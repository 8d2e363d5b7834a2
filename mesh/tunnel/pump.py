"""Bytes both ways between two streams, at the pace of the slower, until one of them ends.

TLS has no half-close, so an end is the end of both; what was read before it is still delivered.
"""

import asyncio
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass

from mesh.net.tasks import Tasks

RESET_ON_CLOSE = struct.pack("ii", 1, 0)
PIECE = 64 * 1024  # bytes of one read; as much again may wait to be written


@dataclass(slots=True)
class Side:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


async def pump(tasks: Tasks, ours: Side, theirs: Side, was_cut: Callable[[], bool] = lambda: False) -> bool:
    """True when one of them ended in order, False when it broke off. Both are closed then.

    `was_cut`: is what looks like an end none?
    """
    forth = tasks.start(_copy(ours.reader, theirs.writer), "tunnel")
    back = tasks.start(_copy(theirs.reader, ours.writer), "tunnel")
    try:
        done, _ = await asyncio.wait((forth, back), return_when=asyncio.FIRST_COMPLETED)
        orderly = all(one.result() for one in done) and not was_cut()
    except asyncio.CancelledError:
        orderly = False
        raise
    finally:
        forth.cancel()
        back.cancel()
        for side in (ours, theirs):
            if orderly:
                side.writer.close()
            else:
                cut(side.writer)
    return orderly


def cut(writer: asyncio.StreamWriter) -> None:
    """Now, and so that the other side cannot take it for an end in order."""
    sock = writer.get_extra_info("socket")
    if sock is not None and sock.fileno() >= 0:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    writer.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    try:
        while data := await reader.read(PIECE):
            writer.write(data)
            await writer.drain()
    except OSError:
        return False
    return True
