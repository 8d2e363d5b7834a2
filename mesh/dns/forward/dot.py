"""DNS over TLS (RFC 7858): one connection per server, kept and used by many queries at a time.

Replies come in any order and are told apart by id and question. A connection is opened when somebody asks,
ends after some seconds without a question (servers close idle ones too), and is given up as a whole when
anything about it is wrong: whoever waits then is told so, and the next question opens another. The
certificate must be for the server's name and come from an authority that this machine trusts; there is no
falling back to plain text. Only our own namespace has such servers.
"""

import asyncio
import socket
import ssl
from secrets import randbelow
from time import monotonic

from mesh.dns.config import SECURE_IDLE, SECURE_SILENCE, UPSTREAM_OUTSTANDING_MAX
from mesh.dns.forward.reply_parser import ReplyMatch, match
from mesh.dns.forward.route import DnsServer, host_socket
from mesh.dns.forward.transport import framed
from mesh.errors import WireError
from mesh.net import streams
from mesh.net.tasks import Tasks

_IDS = 65_536


class SecureConnections:
    """Connections by server. `context`: whom to trust, for tests; by default what the system trusts."""

    def __init__(self, tasks: Tasks, context: ssl.SSLContext | None = None) -> None:
        self._tasks, self._context = tasks, context
        self._open: dict[DnsServer, _DotConnection] = {}

    async def ask(self, server: DnsServer, message: bytes) -> bytes:
        """The reply, with an id of its own. Raises OSError (SSLError is one) or WireError; never gives up."""
        kept = self._open.get(server)
        if kept is not None and kept.silent:
            kept.give_up()
        if kept is not None and not kept.over:
            try:
                return await kept.ask(message)
            except ConnectionError:  # it was about to end: that is no failure of the server (RFC 7766 6.2.4)
                pass
        return await self._begin(server).ask(message)

    def _begin(self, server: DnsServer) -> "_DotConnection":
        found = self._open.get(server)
        if found is not None and not found.over:  # somebody else was quicker
            return found
        if self._context is None:
            self._context = ssl.create_default_context()
        made = self._open[server] = _DotConnection(server, self._context)
        self._tasks.start(made.run(), "dns-over-tls")
        return made


class _DotConnection:
    """One connection from its opening to its end, whatever it is."""

    def __init__(self, server: DnsServer, context: ssl.SSLContext) -> None:
        self._server, self._context = server, context
        self._waiting: dict[int, tuple[bytes, asyncio.Future[bytes]]] = {}
        self._ready: asyncio.Future[asyncio.StreamWriter] = asyncio.get_running_loop().create_future()
        self._silent_since: float | None = None  # when a query was sent that nothing has come after
        self.over = False

    @property
    def silent(self) -> bool:
        """Has nothing come for so long that perhaps the way there is gone?"""
        return self._silent_since is not None and monotonic() - self._silent_since > SECURE_SILENCE

    def give_up(self) -> None:
        """Whoever waits is told so."""
        self.over = True
        if self._ready.done() and self._ready.exception() is None:
            self._ready.result().transport.abort()

    async def ask(self, message: bytes) -> bytes:
        if len(self._waiting) >= UPSTREAM_OUTSTANDING_MAX:
            raise ConnectionError("too many queries are under way")
        id_ = self._free_id()
        query = id_.to_bytes(2) + message[2:]
        reply: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting[id_] = (query, reply)
        try:
            writer = await asyncio.shield(self._ready)
            if self._silent_since is None:
                self._silent_since = monotonic()
            streams.write(writer, framed(query))
            return await reply
        finally:
            self._waiting.pop(id_, None)

    def _free_id(self) -> int:
        id_ = randbelow(_IDS)
        while id_ in self._waiting:
            id_ = (id_ + 1) % _IDS
        return id_

    async def run(self) -> None:
        """Open, read replies until the end, tell everybody who still waits."""
        writer: asyncio.StreamWriter | None = None
        why: Exception = ConnectionResetError("the server closed the connection")
        try:
            reader, writer = await self._connect()
            self._ready.set_result(writer)
            while True:
                async with asyncio.timeout(SECURE_IDLE):
                    reply = await reader.readexactly(int.from_bytes(await reader.readexactly(2)))
                self._arrived(reply)
        except (OSError, WireError) as error:
            why = error
        except asyncio.IncompleteReadError:
            pass
        finally:
            self.over = True
            if writer is not None:
                writer.transport.abort()
            self._tell(why)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        loop = asyncio.get_running_loop()
        connection = host_socket(self._server.family, socket.SOCK_STREAM)
        try:
            async with asyncio.timeout(SECURE_IDLE):
                await loop.sock_connect(connection, self._server.target(tcp=True))
                return await asyncio.open_connection(
                    sock=connection, ssl=self._context, server_hostname=self._server.tls_name
                )
        except BaseException:
            connection.close()
            raise

    def _arrived(self, reply: bytes) -> None:
        self._silent_since = None
        query, waiting = self._waiting.get(int.from_bytes(reply[:2]), (b"", None))
        if waiting is None or waiting.done():
            return  # whoever asked has given up meanwhile
        if match(query, reply) not in (ReplyMatch.YES, ReplyMatch.CASE):
            raise WireError("the reply is to another question")
        waiting.set_result(reply)

    def _tell(self, why: Exception) -> None:
        if not self._ready.done():  # then everybody waits for that
            self._ready.set_exception(why)
            self._ready.exception()  # seen, should there be nobody left
            return
        for _, reply in self._waiting.values():
            if not reply.done():
                reply.set_exception(why)
