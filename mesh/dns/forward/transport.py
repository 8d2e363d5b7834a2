"""One query on the wire, on a socket of its own, and the reply that matches it.

A socket per query is connected to its server: the kernel picks a random port for it, lets nothing in from
elsewhere (it answers forgers with an ICMP error and counts them as its `NoPorts`), and an unreachable server
is an error at once. What arrives all the same and is no reply to the query is passed over and counted by its
reason; too much of it, and the question is better asked over TCP, where nobody can forge.
"""

import asyncio
import socket
from collections.abc import Callable

from mesh.dns.config import FORGERIES_MAX, TCP_REPLY_MAX
from mesh.dns.forward.reply_parser import ReplyMatch, match
from mesh.dns.forward.route import DnsServer, SocketFactory
from mesh.errors import WireError

Rejected = Callable[[str], None]  # told the reason


class CaseChanged(WireError):
    """The reply spells the name otherwise: forged, or from a server that does not keep the case."""


class Flooded(WireError):
    """Too many messages that are no reply to the query: somebody is guessing."""


async def over_udp(
    message: bytes, server: DnsServer, sockets: SocketFactory, rejected: Rejected, *, exact: bool
) -> bytes:
    """Waits for the reply as long as it is let. `exact`: the name must come back as it was spelled.

    Raises OSError, KernelError, CaseChanged, Flooded.
    """
    loop = asyncio.get_running_loop()
    with sockets(server.family, socket.SOCK_DGRAM) as connected:
        connected.connect(server.target(tcp=False))
        connected.send(message)
        for _ in range(FORGERIES_MAX):
            reply = await loop.sock_recv(connected, TCP_REPLY_MAX)
            found = match(message, reply)
            if found is ReplyMatch.YES or (found is ReplyMatch.CASE and not exact):
                return reply
            rejected(found.value)
            if found is ReplyMatch.CASE:
                raise CaseChanged("the reply spells the name otherwise")
    raise Flooded(f"{FORGERIES_MAX} messages that are no reply to the query")


async def over_tcp(message: bytes, server: DnsServer, sockets: SocketFactory) -> bytes:
    """Raises OSError, KernelError, or WireError when the reply is to something else. The case may change."""
    loop = asyncio.get_running_loop()
    with sockets(server.family, socket.SOCK_STREAM) as connection:
        await loop.sock_connect(connection, server.target(tcp=True))
        await loop.sock_sendall(connection, framed(message))
        length = int.from_bytes(await _exactly(loop, connection, 2))
        reply = await _exactly(loop, connection, length)
    if match(message, reply) not in (ReplyMatch.YES, ReplyMatch.CASE):
        raise WireError("the reply is to another question")
    return reply


def framed(message: bytes) -> bytes:
    """With the length in front (RFC 1035 4.2.2)."""
    return len(message).to_bytes(2) + message


async def _exactly(loop: asyncio.AbstractEventLoop, connection: socket.socket, size: int) -> bytes:
    got = bytearray()
    while len(got) < size:
        part = await loop.sock_recv(connection, size - len(got))
        if not part:
            raise ConnectionResetError("closed in the middle of a reply")
        got += part
    return bytes(got)
