"""Readers of sockets that live on after an error, on uvloop.

libuv stops watching a socket at its first error (EPOLLERR: an ICMP message for a connected UDP socket,
ENOBUFS on a netlink socket). The callback is called once more, and then never again. For a connection that
makes no difference, since an error ends it. A socket that goes on has to be watched anew, or it is deaf.
`add_reader` alone does not do it: uvloop has closed its handle, which only `remove_reader` forgets. Seen with
uvloop 0.23.
"""

import asyncio
import socket
from collections.abc import Callable
from typing import Any


def watch_again(
    loop: asyncio.AbstractEventLoop,
    sock: socket.socket | int,
    on_readable: Callable[..., object],
    *arguments: Any,
) -> None:
    """Call `on_readable` again when the socket is readable, whatever error it has had."""
    loop.remove_reader(sock)
    loop.add_reader(sock, on_readable, *arguments)
