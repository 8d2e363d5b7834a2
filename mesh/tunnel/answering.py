"""Connecting other nodes' sidecars to tasks of this node.

Let in is who shows a certificate of this cluster for a node that the catalogue knows; what it gets is a
connection to a task that runs here, on a network that the task is on. Nothing else can be asked for.
"""

import asyncio
import logging
import socket
from collections import Counter
from collections.abc import Callable

from mesh.catalog.snapshot import Snapshot
from mesh.discovery.feed_tls import Certificates, identity_of
from mesh.errors import DiscoveryError, KernelError, NamespaceGone, WireError
from mesh.net.tasks import Tasks
from mesh.tunnel.places import task_at
from mesh.tunnel.pump import PIECE, Side, pump
from mesh.tunnel.words import OPEN, Wanted, read_wanted, refuse

ROTATION_SECONDS = 2.0  # between two looks at the certificate files
HANDSHAKE_SECONDS = 5.0
ASK_SECONDS = 5.0  # from the handshake to what is wanted
CONNECT_SECONDS = 2.0  # to the task
TUNNELS_MAX = 1024  # at once

logger = logging.getLogger(__name__)


class TunnelServer:
    """`run` it. `connect(network)` makes sockets there. `fault` says why it does not serve."""

    def __init__(
        self,
        tasks: Tasks,
        certificates: Certificates,
        address: tuple[str, int],
        snapshot: Callable[[], Snapshot],
        connect: Callable[[str], Callable[[], socket.socket]],
    ) -> None:
        self._tasks = tasks
        self._certificates = certificates
        self._address = address
        self._snapshot = snapshot
        self._connect = connect
        self._listener: asyncio.Server | None = None
        self._fingerprint = ""
        self._cluster = ""
        self.active = 0
        self.opened = 0
        self.refused: Counter[str] = Counter()  # by reason
        self.fault = ""

    @property
    def bound(self) -> tuple[str, int] | None:
        """Where it listens."""
        return self._listener.sockets[0].getsockname()[:2] if self._listener is not None else None

    async def run(self) -> None:
        """Serve until cancelled; follow the rotation of the certificates; retry what fails."""
        try:
            while True:
                await self.look()
                await asyncio.sleep(ROTATION_SECONDS)
        finally:
            if self._listener is not None:
                self._listener.close()

    async def look(self) -> None:
        """Listen with the certificates as they are now; tunnels that are open go on."""
        try:
            fingerprint = self._certificates.fingerprint()
            if fingerprint == self._fingerprint:
                return
            cluster = self._certificates.identity().cluster
            context = self._certificates.server_context(self._refuse)
            if self._listener is not None:
                self._listener.close()
                self._listener = None
            self._listener = await asyncio.start_server(
                self._accepted, *self._address, ssl=context, ssl_handshake_timeout=HANDSHAKE_SECONDS,
                limit=PIECE,
            )  # fmt: skip
            self._fingerprint, self._cluster, self.fault = fingerprint, cluster, ""
        except (DiscoveryError, OSError) as error:
            text = f"tunnels on {self._address[0]}:{self._address[1]}: {error}"
            if text != self.fault:
                logger.error("%s", text)
            self.fault = text

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.active >= TUNNELS_MAX:
            self._refuse("too many")
            writer.transport.abort()
        else:
            self.active += 1
            self._tasks.start(self._serve(Side(reader, writer)), "tunnel")

    async def _serve(self, asker: Side) -> None:
        try:
            try:
                async with asyncio.timeout(ASK_SECONDS):
                    wanted = await self._asked(asker)
                sock = await self._connected(wanted)
            except (OSError, WireError, EOFError, asyncio.LimitOverrunError) as error:
                await self._say_no(asker, error)
                return
            task = Side(*await asyncio.open_connection(sock=sock, limit=PIECE))
            self.opened += 1
            asker.writer.write(OPEN)
            await pump(self._tasks, asker, task)
        finally:
            self.active -= 1
            asker.writer.transport.abort()

    async def _asked(self, asker: Side) -> Wanted:
        peer = identity_of(asker.writer.get_extra_info("peercert"))
        if peer.cluster != self._cluster:
            raise WireError("another cluster")
        if peer.node not in self._snapshot().nodes:
            raise WireError("not a node of this Swarm")
        wanted = read_wanted(await asker.reader.readuntil(b"\n"))
        if not self._is_here(wanted):
            raise WireError("no such task on this node")
        return wanted

    def _is_here(self, wanted: Wanted) -> bool:
        snapshot = self._snapshot()
        task = task_at(snapshot, wanted.network, wanted.address)
        return task is not None and task.node == snapshot.this_node

    async def _connected(self, wanted: Wanted) -> socket.socket:
        try:
            sock = self._connect(wanted.network)()
        except (NamespaceGone, KernelError) as error:
            raise OSError(str(error)) from error
        sock.setblocking(False)
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await asyncio.get_running_loop().sock_connect(sock, (wanted.address, wanted.port))
        except OSError:  # and TimeoutError
            sock.close()
            raise
        return sock

    async def _say_no(self, asker: Side, error: Exception) -> None:
        reason = str(error) or type(error).__name__
        self._refuse(reason if isinstance(error, WireError) else type(error).__name__)
        writer = asker.writer
        try:
            writer.write(refuse(reason))
            writer.close()
            async with asyncio.timeout(ASK_SECONDS):
                await writer.wait_closed()
        except OSError:
            return  # it does not want to know

    def _refuse(self, reason: str) -> None:
        self.refused[reason] += 1
        count = self.refused[reason]
        if count == 10 ** (len(str(count)) - 1):  # 1, 10, 100, …: a knocker must not fill the log
            logger.warning("tunnels: a connection was refused, the %d. time: %s", count, reason)
