"""A request of our own to somebody outside the Swarm: a name of the node's resolver, an address, https.

Rare and slow beside what goes to tasks, so aiohttp does it: it has the names, the certificates and the
connections. The answer is read as strictly as a task's, and comes as an `Subrequest`'s does.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Any

import aiohttp
from yarl import URL

from mesh.http import limits
from mesh.http.codec.h1_head import Fields, ResponseHead, read_response
from mesh.http.config.internal_targets import InternalTargets, TargetRefused
from mesh.http.faults import RequestRefused
from mesh.net.limits.semaphore import Semaphore, SharedRoom
from mesh.net.own_addresses import leads_here
from mesh.net.tasks import Tasks

# What aiohttp would say of itself in the client's name.
_NOT_ADDED = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")


class ExternalClient:
    """`trust`: whose certificates count; `internal`: what is not connected to. `close` it."""

    def __init__(
        self,
        tasks: Tasks,
        trust: Callable[[], ssl.SSLContext] = ssl.create_default_context,
        internal: InternalTargets | None = None,
    ) -> None:
        self._tasks = tasks
        self.internal = internal or InternalTargets(is_own=leads_here)
        self._trust = trust
        self._room = SharedRoom(Semaphore(limits.OUTSIDE_MAX))
        self._session: aiohttp.ClientSession | None = None

    def ask(
        self, url: str, method: str, lines: bytes, told: Callable[["ExternalRequest"], None], owner: str = ""
    ) -> "ExternalRequest":
        """`lines`: all field lines. Told later, once; or at once when too many of the owner's (a service, for
        whose router it is) wait already."""
        room = self._room.share(owner)
        if not room.take():
            question = ExternalRequest(told, lambda: None)
            question.ended(None, b"")
        else:
            question = ExternalRequest(told, room.give_back)
            question.task = self._tasks.start(self._asked(question, url, method, lines), f"asking {url}")
        return question

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def _asked(self, question: "ExternalRequest", url: str, method: str, lines: bytes) -> None:
        try:
            head, body = await self._answer(url, method, lines)
        except (aiohttp.ClientError, OSError, TimeoutError, RequestRefused, ValueError) as error:
            head, body = None, b""  # there is none: that is what is told
            self._remember(url, error)
        else:
            self._remember(url)
        question.ended(head, body)

    async def _answer(self, url: str, method: str, lines: bytes) -> tuple[ResponseHead | None, bytes]:
        fields = [(name.decode(), value.decode("utf-8", "replace")) for name, value in Fields(lines).items()]
        async with self._opened().request(
            method, URL(url, encoded=True), headers=fields, allow_redirects=False
        ) as response:
            body = await _at_most(response.content, limits.ASIDE_BODY_MAX)
            said = [line for line in response.raw_headers if line[0].lower() != b"transfer-encoding"]
            block = b"".join(b"%b: %b\r\n" % line for line in said)
            head = read_response(b"HTTP/1.1 %d \r\n%b\r\n" % (response.status, block))
        return (None, b"") if body is None else (head, body)

    def _remember(self, url: str, error: Exception | None = None) -> None:
        """Whether it was we who made no connection, which the owner of the label has to know."""
        cause: BaseException | None = error
        if isinstance(error, aiohttp.ClientConnectorError):
            cause = error.os_error
        refused = str(cause) if isinstance(cause, TargetRefused) else ""
        self.internal.remember((URL(url).host or "").lower(), refused)

    def _socket(self, address: tuple[Any, ...]) -> socket.socket:
        """For one attempt at one address. Raises TargetRefused."""
        family, kind, protocol, _, place = address
        self.internal.check(str(place[0]))
        return socket.socket(family, kind, protocol)

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    ssl=self._trust(), limit=limits.OUTSIDE_MAX, socket_factory=self._socket
                ),
                timeout=aiohttp.ClientTimeout(total=limits.ASIDE_SECONDS),
                cookie_jar=aiohttp.DummyCookieJar(),
                skip_auto_headers=_NOT_ADDED,
                auto_decompress=False,
            )
        return self._session


class ExternalRequest:
    """As an `Subrequest`: `head` of an answer that is whole, or None."""

    def __init__(self, told: Callable[["ExternalRequest"], None], over: Callable[[], None]) -> None:
        self.head: ResponseHead | None = None
        self.body = b""
        self.done = False
        self.task: asyncio.Task[None] | None = None
        self._told = told
        self._over = over

    def drop(self) -> None:
        """Nobody wants to know any more."""
        if not self.done and self.task is not None:
            self.done = True
            self._over()
            self.task.cancel()

    def ended(self, head: ResponseHead | None, body: bytes) -> None:
        if not self.done:
            self.done = True
            self._over()
            self.head, self.body = head, body
            self._told(self)


async def _at_most(stream: aiohttp.StreamReader, most: int) -> bytes | None:
    """None: there is more."""
    pieces, size = [], 0
    async for piece in stream.iter_any():
        size += len(piece)
        if size > most:
            return None
        pieces.append(piece)
    return b"".join(pieces)
