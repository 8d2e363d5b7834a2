"""Writing to asyncio's streams where the other end may be gone: it is an OSError, on whichever loop.

asyncio drops what is written to a connection that was reset. uvloop raises RuntimeError ("the handler is
closed"), and between the reset and the reader's hearing of it there is time for many writes.
"""

import asyncio
import socket
import struct
from contextlib import suppress

RESET_ON_CLOSE = struct.pack("ii", 1, 0)


def write(writer: asyncio.StreamWriter, data: bytes) -> None:
    """ConnectionResetError when the connection is over."""
    if writer.transport.is_closing():
        raise ConnectionResetError("the connection is closed")
    try:
        writer.write(data)
    except RuntimeError as error:
        raise ConnectionResetError(str(error)) from error


def close(writer: asyncio.StreamWriter) -> None:
    """In order, if it is still open."""
    with suppress(RuntimeError, OSError):
        writer.close()


def reset(writer: asyncio.StreamWriter) -> None:
    """Now, and so that the other side can't take it for an end in order."""
    sock = writer.get_extra_info("socket")
    with suppress(RuntimeError, OSError):  # it is over already
        if sock is not None and sock.fileno() >= 0:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    with suppress(RuntimeError):
        writer.transport.abort()
