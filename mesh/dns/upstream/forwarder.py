"""The resolvers of the world outside: each question is asked once at a time, of one server after the other.

Strategy: a `Forwarder` keeps what is under way by key; whoever asks the same meanwhile is told of the same
reply. Every try has a socket of its own, connected to its server, with a random id: the kernel picks a random
port and lets nothing in from elsewhere, and a refusal comes back as an error at once. A reply that does not
match id and question is passed over and waiting goes on. SERVFAIL, REFUSED, silence and nonsense lead to the
next server, anything else is the answer (as Docker since 24.0). Over the transport of the client: a truncated
reply is passed on, and the client comes back over TCP.
"""

import asyncio
import socket
from collections.abc import Callable, Hashable, Sequence
from secrets import token_bytes
from typing import TypeAlias

from mesh.dns.config import (
    FORWARD_TRIES,
    FORWARD_TRY_TIMEOUT,
    FORWARD_WAITERS_MAX,
    FORWARDS_MAX,
    SERVER_REST,
    TCP_REPLY_MAX,
)
from mesh.dns.stats import OTHER, RCODES, DnsStats
from mesh.dns.upstream.servers import Route, Server, SocketFactory
from mesh.dns.wire import Rcode, answers_to, parse_reply
from mesh.errors import KernelError, WireError
from mesh.net.tasks import Tasks

Done: TypeAlias = Callable[[bytes | None], None]

TIMEOUT, ERROR = "TIMEOUT", "ERROR"  # where metrics show an rcode
UNREACHED = frozenset({TIMEOUT, ERROR})
NEXT_SERVER = frozenset({Rcode.SERVFAIL, Rcode.REFUSED})


class Forwarder:
    """Asks upstreams. Not thread-safe: belongs to the event loop's thread."""

    def __init__(self, tasks: Tasks, stats: DnsStats, try_timeout: float = FORWARD_TRY_TIMEOUT) -> None:
        self._tasks, self._stats = tasks, stats
        self._try_timeout = try_timeout
        self._waiting: dict[Hashable, list[Done]] = {}
        self._waiters = 0
        self._failed_at: dict[Server, float] = {}

    def ask(self, key: Hashable, query: bytes, route: Route, tcp: bool, done: Done) -> bool:
        """Forward the query unless the same `key` is under way; `done` gets the whole reply (with another
        id), or None when every server failed. False: too much is under way, and `done` will not be called."""
        waiting = self._waiting.get(key)
        if self._waiters >= FORWARD_WAITERS_MAX or (waiting is None and len(self._waiting) >= FORWARDS_MAX):
            return False
        self._waiters += 1
        if waiting is not None:
            waiting.append(done)
            return True
        self._waiting[key] = [done]
        self._tasks.start(self._answer(key, query, route, tcp), "dns-forward")
        return True

    async def _answer(self, key: Hashable, query: bytes, route: Route, tcp: bool) -> None:
        reply: bytes | None = None
        try:
            reply = await self._resolve(query, route, tcp)
        finally:  # whatever happens, nobody is left waiting and nothing is left behind
            waiting = self._waiting.pop(key)
            self._waiters -= len(waiting)
            for done in waiting:
                done(reply)

    async def _resolve(self, query: bytes, route: Route, tcp: bool) -> bytes | None:
        settled: set[Server] = set()  # only silence is worth a second try
        for server in self._tries(route.servers):
            if server in settled:
                continue
            reply, result = await self._try(query, server, route.sockets, tcp)
            self._stats.upstream(server.name, result)
            if reply is not None:
                self._failed_at.pop(server, None)
                return reply
            if result in UNREACHED:
                self._failed_at[server] = asyncio.get_running_loop().time()
            if result != TIMEOUT:
                settled.add(server)
        return None

    def _tries(self, servers: Sequence[Server]) -> list[Server]:
        """Whom to ask, in order: those that failed a moment ago last, and as often as tries are left."""
        if not servers:
            return []
        now = asyncio.get_running_loop().time()
        ended = [s for s, at in self._failed_at.items() if now - at > SERVER_REST]
        for server in ended:
            del self._failed_at[server]
        ordered = sorted(servers, key=lambda server: server in self._failed_at)
        return (ordered * FORWARD_TRIES)[: max(FORWARD_TRIES, len(ordered))]

    async def _try(
        self, query: bytes, server: Server, sockets: SocketFactory, tcp: bool
    ) -> tuple[bytes | None, str]:
        """(the answer or None, what came of it, for the statistics)."""
        message = token_bytes(2) + query[2:]
        try:
            async with asyncio.timeout(self._try_timeout):
                reply = await _exchange(message, server, sockets, tcp)
            rcode = parse_reply(reply).rcode
        except TimeoutError:
            return None, TIMEOUT
        except (OSError, KernelError, WireError):
            return None, ERROR
        return None if rcode in NEXT_SERVER else reply, RCODES.get(rcode, OTHER)


async def _exchange(query: bytes, server: Server, sockets: SocketFactory, tcp: bool) -> bytes:
    """One query on a socket of its own. OSError when the server cannot be reached."""
    loop = asyncio.get_running_loop()
    kind = socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM
    with sockets(server.family, kind) as connection:
        await loop.sock_connect(connection, server.target(tcp))
        if tcp:
            return await _over_tcp(loop, connection, query)
        await loop.sock_sendall(connection, query)
        while True:
            reply = await loop.sock_recv(connection, TCP_REPLY_MAX)
            if answers_to(query, reply):
                return reply


async def _over_tcp(loop: asyncio.AbstractEventLoop, connection: socket.socket, query: bytes) -> bytes:
    await loop.sock_sendall(connection, len(query).to_bytes(2) + query)
    length = int.from_bytes(await _exactly(loop, connection, 2))
    reply = await _exactly(loop, connection, length)
    if not answers_to(query, reply):
        raise WireError("the reply is to another question")
    return reply


async def _exactly(loop: asyncio.AbstractEventLoop, connection: socket.socket, size: int) -> bytes:
    got = bytearray()
    while len(got) < size:
        part = await loop.sock_recv(connection, size - len(got))
        if not part:
            raise ConnectionResetError("closed in the middle of a reply")
        got += part
    return bytes(got)
