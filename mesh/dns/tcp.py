"""DNS over TCP (RFC 7766): length prefix, any number of queries on a connection, replies in any order."""

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TypeAlias

from mesh.dns.config import QUERY_MAX, TCP_CONNECTIONS_MAX, TCP_IDLE, TCP_PIPELINE_MAX
from mesh.dns.forwarding import Later, Paths
from mesh.dns.resolver import Resolver
from mesh.dns.scope import Scope

ScopeOf: TypeAlias = Callable[[str], Scope | None]


class Listener:
    """A listening socket (bound, non-blocking, ours from now on) and its connections.

    `scope_of` is asked for every query: the scope of a source may change while its connection lives.
    """

    def __init__(self, resolver: Resolver, listener: socket.socket, scope_of: ScopeOf, paths: Paths) -> None:
        self._resolver, self._listener = resolver, listener
        self._scope_of, self._paths = scope_of, paths
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.StreamWriter] = set()
        self._starting = self._closed = False

    async def start(self) -> None:
        """Serve from now on. Call once, before `close`."""
        self._starting = True
        self._server = await asyncio.start_server(self._connected, sock=self._listener, limit=QUERY_MAX)
        if self._closed:  # meanwhile
            self._server.close()

    def close(self) -> None:
        """Stop at once: what is under way gets no reply."""
        self._closed = True
        if self._server is not None:
            self._server.close()
        elif not self._starting:  # else `start` is at it, and closes it
            self._listener.close()
        for writer in tuple(self._connections):
            writer.transport.abort()

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("peername")
        source = peer[0] if peer else ""
        scope = self._scope_of(source)
        if scope is None or self._closed or len(self._connections) >= TCP_CONNECTIONS_MAX:
            self._resolver.stats.drop("stranger" if scope is None else "too many connections")
            writer.transport.abort()
            return
        self._connections.add(writer)
        connection = _Connection(self._resolver, reader, writer, partial(self._scope_of, source), self._paths)
        self._resolver.tasks.start(self._serve(connection, writer), "dns-tcp")

    async def _serve(self, connection: "_Connection", writer: asyncio.StreamWriter) -> None:
        try:
            await connection.serve()
        finally:
            self._connections.discard(writer)
            writer.transport.abort()  # nothing is left to send, and a peer that will not read cannot hold us


class _Connection:
    """One TCP connection: reads queries as long as not too many of its own wait for an upstream."""

    def __init__(
        self,
        resolver: Resolver,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        scope: Callable[[], Scope | None],
        paths: Paths,
    ) -> None:
        self._resolver, self._reader, self._writer = resolver, reader, writer
        self._scope, self._paths = scope, paths
        self._pending = 0
        self._fewer = asyncio.Event()

    async def serve(self) -> None:
        """Until the peer ends, is silent for `TCP_IDLE`, breaks the framing or does not take its replies."""
        with suppress(TimeoutError, ConnectionError, asyncio.IncompleteReadError):
            while await self._serve_one():
                pass
        with suppress(TimeoutError, ConnectionError):
            await self._until_pending(0)
            async with asyncio.timeout(TCP_IDLE):
                await self._flushed()

    async def _serve_one(self) -> bool:
        async with asyncio.timeout(TCP_IDLE):
            length = int.from_bytes(await self._reader.readexactly(2))
            if length > QUERY_MAX:
                self._resolver.stats.drop("overlong")
                return False
            data = await self._reader.readexactly(length)
        scope = self._scope()
        if scope is None:
            return False
        self._answer(data, scope)
        async with asyncio.timeout(TCP_IDLE):
            await self._writer.drain()
        await self._until_pending(TCP_PIPELINE_MAX - 1)
        return True

    def _answer(self, data: bytes, scope: Scope) -> None:
        resolver = self._resolver
        view = resolver.view(scope, tcp=True)
        reply = resolver.reply(data, scope, view, self._later, self._paths, tcp=True)
        if reply is Later.PENDING:
            self._pending += 1
        elif reply is not None:
            self._write(reply)

    def _later(self, reply: bytes) -> None:
        self._pending -= 1
        self._fewer.set()
        self._write(reply)

    def _write(self, reply: bytes) -> None:
        if not self._writer.is_closing():
            self._writer.write(len(reply).to_bytes(2) + reply)

    async def _until_pending(self, limit: int) -> None:
        """Upstreams answer or fail within their own timeouts, so this ends."""
        while self._pending > limit:
            self._fewer.clear()
            await self._fewer.wait()

    async def _flushed(self) -> None:
        """Wait until the kernel has every reply, unless the connection is gone."""
        if self._writer.is_closing():
            return
        self._writer.transport.set_write_buffer_limits(high=0)
        await self._writer.drain()
