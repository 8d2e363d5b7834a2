"""Asking another node's sidecar for a task, as a socket that is connected like any other.

`Dialled` is one end of a pair of sockets. Whoever connects it waits until the other end leads to the task.
"""

import asyncio
import errno
import logging
import socket
import ssl
import time
from collections import Counter
from collections.abc import Callable

from mesh.catalog.model import Node
from mesh.errors import DiscoveryError, WireError
from mesh.net import streams
from mesh.net.isolation import run
from mesh.net.tasks import Tasks
from mesh.peers.swarm_tls import SwarmCertificates
from mesh.peers.tunnel.copy import PIECE, TunnelSide, pump
from mesh.peers.tunnel.protocol import TunnelRequest, ask, read_answer

OPEN_SECONDS = 5.0  # to the answer; whoever connects has a limit of its own
TUNNELS_MAX = 1024  # at once
ROTATION_SECONDS = 2.0  # between two looks at the certificate files

logger = logging.getLogger(__name__)


class DialledTunnel(socket.socket):
    """`connect_ex` begins; `when_open` says whom to tell, once."""

    def __init__(self, end: socket.socket, begin: Callable[["DialledTunnel", str, int], None]) -> None:
        super().__init__(end.family, end.type, end.proto, end.detach())
        self.setblocking(False)
        self._begin = begin
        self._told: Callable[[int], None] | None = None
        self.broken = False  # its end is not that of what the task had to say
        self.cut = False  # nor is its close that of what the task was to be told

    def connect_ex(self, address: tuple[str, int]) -> int:  # type: ignore[override]
        self._begin(self, *address)
        return errno.EINPROGRESS

    def setsockopt(self, level: int, option: int, value: object, *more: object) -> None:
        """What is asked of a TCP connection: of these only a reset can be passed on."""
        if (level, option) == (socket.SOL_SOCKET, socket.SO_LINGER):
            self.cut = True

    def when_open(self, told: Callable[[int], None]) -> None:
        """`told` gets 0, or the errno of what went wrong."""
        self._told = told

    def opened(self, code: int) -> None:
        told, self._told = self._told, None
        if told is not None:
            run(told, code)

    def close(self) -> None:
        self._told = None
        super().close()


class Tunnels:
    """`node_of(network, address)`: the node of that task. Metrics read the counters."""

    def __init__(
        self,
        tasks: Tasks,
        certificates: SwarmCertificates,
        port: int,
        node_of: Callable[[str, str], Node | None],
    ) -> None:
        self._tasks = tasks
        self._certificates = certificates
        self._port = port
        self._node_of = node_of
        self._context: ssl.SSLContext | None = None
        self._fingerprint = ""
        self._looked = -ROTATION_SECONDS
        self.active = 0
        self.opened = 0
        self.failed: Counter[str] = Counter()  # by reason

    def to(self, network: str) -> socket.socket:
        """To be connected to a task on that network (id). OSError when there are too many."""
        if self.active >= TUNNELS_MAX:
            self.failed["too many"] += 1
            raise OSError(errno.EMFILE, "too many tunnels")
        ours, theirs = socket.socketpair()

        def begin(dialled: DialledTunnel, address: str, port: int) -> None:
            self._tasks.start(self._dial(dialled, theirs, TunnelRequest(network, address, port)), "tunnel")

        return DialledTunnel(ours, begin)

    async def _dial(self, dialled: DialledTunnel, end: socket.socket, wanted: TunnelRequest) -> None:
        dialled.broken = not await self.lead(end, wanted, dialled.opened, lambda: dialled.cut)

    async def lead(
        self,
        end: socket.socket,
        wanted: TunnelRequest,
        opened: Callable[[int], None],
        was_cut: Callable[[], bool],
    ) -> bool:
        """From `end`, which is closed in the end, to the task. `opened` is told 0, or the errno of what went
        wrong; True is returned when it was never open, or ended in order."""
        end.setblocking(False)
        if self.active >= TUNNELS_MAX:
            self.failed["too many"] += 1
            opened(errno.EMFILE)
            end.close()
            return True
        self.active += 1
        try:
            try:
                async with asyncio.timeout(OPEN_SECONDS):
                    theirs = await self._asked(wanted)
            except (OSError, WireError, DiscoveryError, asyncio.IncompleteReadError) as error:
                self._fail(wanted, error)
                opened(errno.EHOSTUNREACH)
                return True
            try:
                ours = TunnelSide(*await asyncio.open_unix_connection(sock=end, limit=PIECE))
            except OSError as error:
                streams.reset(theirs.writer)
                self._fail(wanted, error)
                opened(errno.EHOSTUNREACH)
                return True
            self.opened += 1
            opened(0)
            return await pump(self._tasks, ours, theirs, was_cut)
        finally:
            self.active -= 1
            end.close()

    async def _asked(self, wanted: TunnelRequest) -> TunnelSide:
        node = self._node_of(wanted.network, wanted.address)
        if node is None or not node.address:
            raise OSError(errno.EHOSTUNREACH, "no node is known to have it")
        # Its certificate says which node it is, so this is that node, or nobody.
        reader, writer = await asyncio.open_connection(
            node.address, self._port, ssl=self._tls(), server_hostname=node.id, limit=PIECE
        )
        try:
            streams.write(writer, ask(wanted))
            if refused := read_answer(await reader.readuntil(b"\n")):
                raise WireError(f"{node.name}: {refused}")
        except (asyncio.LimitOverrunError, asyncio.CancelledError, OSError, WireError, EOFError) as error:
            writer.transport.abort()
            if isinstance(error, asyncio.LimitOverrunError):
                raise WireError("an answer without an end") from error
            raise
        return TunnelSide(reader, writer)

    def _tls(self) -> ssl.SSLContext:
        """With the certificates as they are now. Raises DiscoveryError."""
        now = time.monotonic()
        if self._context is None or now - self._looked > ROTATION_SECONDS:
            self._looked = now
            fingerprint = self._certificates.fingerprint()
            if fingerprint != self._fingerprint:
                self._context = self._certificates.client_context()
                self._fingerprint = fingerprint
        assert self._context is not None
        return self._context

    def _fail(self, wanted: TunnelRequest, error: Exception) -> None:
        reason = type(error).__name__
        self.failed[reason] += 1
        count = self.failed[reason]
        if count == 10 ** (len(str(count)) - 1):  # 1, 10, 100, …
            logger.warning(
                "no tunnel to %s:%d, the %d. of this kind: %s",
                wanted.address, wanted.port, count, error or reason,
            )  # fmt: skip
