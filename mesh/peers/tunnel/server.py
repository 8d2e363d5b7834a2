"""Connecting other nodes' sidecars to tasks of this node.

Let in is who shows a certificate of this cluster for a node that the catalogue knows. What it gets is a
connection to a task that runs here, on a network that the task is on, and on a port that layer 7 serves, as
this node's own catalogue says (`serves`). Nothing else can be asked for.

Whoever has not yet said what it wants is a stranger: strangers have few places, each address some of them,
and little time. Who has said it is a peer, and each peer has a share of the tunnels
(`mesh.peers.tunnel.shares`).
"""

import asyncio
import logging
import socket
import ssl
import time
from collections import Counter
from collections.abc import Callable, Iterator

from mesh.catalog.model import Service
from mesh.catalog.snapshot import Snapshot
from mesh.errors import DiscoveryError, KernelError, NamespaceGone, Problem, WireError
from mesh.net import streams
from mesh.net.acceptor import Accepting, Peer
from mesh.net.bound_listener import listen
from mesh.net.tasks import Tasks
from mesh.peers.refusals import Refusals
from mesh.peers.swarm_tls import Identity, SwarmCertificates, identity_of
from mesh.peers.tunnel.copy import PIECE, Activity, TunnelSide, pump
from mesh.peers.tunnel.protocol import ASK_MAX, OPEN, TunnelRequest, read_wanted, refuse
from mesh.peers.tunnel.shares import PEER_TUNNELS_MAX, TUNNELS_MAX, Shares, Tunnel
from mesh.peers.tunnel.task_lookup import service_at

ROTATION_SECONDS = 2.0  # between two looks at the certificate files, and at who is a node still
HANDSHAKE_SECONDS = 5.0
ASK_SECONDS = 5.0  # from the handshake to what is wanted
CONNECT_SECONDS = 2.0  # to the task
IDLE_SECONDS = 3660.0  # without a byte; HTTP ends what is idle before: upgraded connections after an hour
STRANGERS_MAX = 512  # that have not said yet what they want; each takes a descriptor and a TLS state
STRANGERS_OF_ADDRESS_MAX = 64  # a node opens as many at once in a burst of requests

logger = logging.getLogger(__name__)

# snapshot, service, network (id), port → is that port of its tasks there one that layer 7 serves?
Serves = Callable[[Snapshot, Service, str, int], bool]


def nothing(_snapshot: Snapshot, _service: Service, _network: str, _port: int) -> bool:
    """Where nobody says what is served."""
    return False


class TunnelServer:
    """`run` it. `connect(network)` makes sockets there. `serves`: is that a port of layer 7? `fault` says why
    it does not listen."""

    def __init__(
        self,
        tasks: Tasks,
        certificates: SwarmCertificates,
        address: tuple[str, int],
        snapshot: Callable[[], Snapshot],
        connect: Callable[[str], Callable[[], socket.socket]],
        serves: Serves = nothing,
    ) -> None:
        self._tasks = tasks
        self._certificates = certificates
        self._address = address
        self._snapshot = snapshot
        self._connect = connect
        self._serves = serves
        self._listener: _Listener | None = None
        self._context: ssl.SSLContext | None = None
        self._fingerprint = ""
        self._cluster = ""
        self._strangers: dict[asyncio.Task[None], str] = {}  # in the order of their arrival → address
        self._shares = Shares()
        self._refusals = Refusals()
        self.opened = 0
        self.fault = ""

    @property
    def active(self) -> int:
        """Tunnels that are open, or about to be."""
        return len(self._shares)

    @property
    def strangers(self) -> int:
        """Connections that have not said yet what they want."""
        return len(self._strangers)

    @property
    def refused(self) -> Counter[str]:
        """By reason."""
        return self._refusals.counts

    @property
    def bound(self) -> tuple[str, int] | None:
        """Where it listens."""
        return self._listener.bound if self._listener is not None else None

    def problems(self) -> Iterator[Problem]:
        """Who was refused in the last minutes."""
        nodes = self._snapshot().nodes
        for one in self._refusals.recent(time.monotonic()):
            known = nodes.get(one.peer)
            who = f"node {known.name}" if known is not None else one.peer
            yield Problem(who, "tunnels", f"refused ({one.count} times): {one.reason}")

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
        """Listen, with the certificates as they are now; tunnels that are open go on, but for those of nodes
        that are none any more."""
        self._cut_removed()
        try:
            fingerprint = self._certificates.fingerprint()
            if fingerprint != self._fingerprint:
                self._cluster = self._certificates.identity().cluster
                self._context = self._certificates.server_context(self._refuse)
                self._fingerprint = fingerprint
            if self._listener is None:
                self._listener = _Listener(self._address, self._accepted, self._refuse)
            self.fault = ""
        except (DiscoveryError, KernelError, OSError) as error:
            text = f"tunnels on {self._address[0]}:{self._address[1]}: {error}"
            if text != self.fault:
                logger.error("%s", text)
            self.fault = text

    def _cut_removed(self) -> None:
        for node in self._shares.peers.difference(self._snapshot().nodes):
            for tunnel in self._shares.of(node):
                self._refuse("not a node of this Swarm", node)
                tunnel.end()

    # --- strangers ---

    def _accepted(self, sock: socket.socket, peer: Peer) -> None:
        address = peer[0]
        of_address = [task for task, one in self._strangers.items() if one == address]
        if len(of_address) >= STRANGERS_OF_ADDRESS_MAX:
            self._give_way(of_address[0], "too many silent connections of one address")
        elif len(self._strangers) >= STRANGERS_MAX:
            self._give_way(next(iter(self._strangers)), "too many silent connections")
        sock.setblocking(False)
        task = self._tasks.start(self._serve(sock, address), "tunnel")
        self._strangers[task] = address
        task.add_done_callback(lambda _: self._strangers.pop(task, None))

    def _give_way(self, oldest: asyncio.Task[None], reason: str) -> None:
        self._refuse(reason, self._strangers.pop(oldest))
        oldest.cancel()

    async def _serve(self, sock: socket.socket, address: str) -> None:
        asker = await self._greeted(sock, address)
        if asker is None:
            return
        try:
            try:
                tunnel, wanted = await self._admitted(asker)
            except (OSError, WireError, EOFError) as error:
                await self._say_no(asker, error)
                return
            try:
                await self._carry(asker, wanted, tunnel)
            finally:
                self._shares.remove(tunnel)
        finally:
            asker.writer.transport.abort()

    async def _greeted(self, sock: socket.socket, address: str) -> TunnelSide | None:
        """After the TLS handshake; None when there is none. Its faults are counted by the context."""
        reader = asyncio.StreamReader(limit=PIECE)
        protocol = asyncio.StreamReaderProtocol(reader)
        loop = asyncio.get_running_loop()
        try:
            transport, _ = await loop.connect_accepted_socket(
                lambda: protocol, sock, ssl=self._context, ssl_handshake_timeout=HANDSHAKE_SECONDS
            )
        except ssl.SSLError:
            return None
        except OSError:  # it ended, or its time was over
            self._refuse("no handshake", address)
            return None
        return TunnelSide(reader, asyncio.StreamWriter(transport, protocol, reader, loop))

    async def _admitted(self, asker: TunnelSide) -> tuple[Tunnel, TunnelRequest]:
        """A place for it among the tunnels, and what it wants. Raises WireError: why not."""
        peer = identity_of(asker.writer.get_extra_info("peercert"))
        self._check_peer(peer)
        async with asyncio.timeout(ASK_SECONDS):
            wanted = read_wanted(await _line(asker.reader))
        self._check_peer(peer)  # it may have been removed meanwhile
        if (why := self._why_not(wanted)) or (
            why := self._shares.refusal(peer.node, TUNNELS_MAX, PEER_TUNNELS_MAX)
        ):
            raise _TunnelRefused(why, peer.node)
        if (other := self._shares.giving_way(peer.node, TUNNELS_MAX)) is not None:
            self._refuse("gave way to another node", other.peer)
            self._shares.remove(other)
            other.end()
        task = asyncio.current_task()
        assert task is not None  # it is ours
        self._strangers.pop(task, None)
        tunnel = Tunnel(peer.node, time.monotonic(), task.cancel)
        self._shares.add(tunnel)
        return tunnel, wanted

    def _check_peer(self, peer: Identity) -> None:
        if peer.cluster != self._cluster:
            raise _TunnelRefused("another cluster", peer.node)
        if peer.node not in self._snapshot().nodes:
            raise _TunnelRefused("not a node of this Swarm", peer.node)

    def _why_not(self, wanted: TunnelRequest) -> str:
        snapshot = self._snapshot()
        found = service_at(snapshot, wanted.network, wanted.address)
        if found is None or found[1].node != snapshot.this_node:
            return "no such task on this node"
        served = self._serves(snapshot, found[0], wanted.network, wanted.port)
        return "" if served else "not a port that HTTP is routed to"

    # --- peers ---

    async def _carry(self, asker: TunnelSide, wanted: TunnelRequest, tunnel: Tunnel) -> None:
        try:
            task = await self._connected(wanted)
        except OSError as error:
            await self._say_no(asker, error, tunnel.peer)
            return
        self.opened += 1
        try:
            streams.write(asker.writer, OPEN)
        except OSError:  # whoever asked is gone
            task.writer.transport.abort()
            return
        idle = Activity(IDLE_SECONDS, time.monotonic, tunnel)
        await pump(self._tasks, asker, task, activity=idle)
        if idle.is_over:
            self._refuse("idle for too long", tunnel.peer)

    async def _connected(self, wanted: TunnelRequest) -> TunnelSide:
        """Raises OSError, also when the task is gone again."""
        try:
            sock = self._connect(wanted.network)()
        except (NamespaceGone, KernelError) as error:
            raise OSError(str(error)) from error
        sock.setblocking(False)
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await asyncio.get_running_loop().sock_connect(sock, (wanted.address, wanted.port))
            return TunnelSide(*await asyncio.open_connection(sock=sock, limit=PIECE))
        except BaseException:  # TimeoutError and being cancelled among them
            sock.close()
            raise

    async def _say_no(self, asker: TunnelSide, error: Exception, peer: str = "") -> None:
        reason = str(error) or type(error).__name__
        peer = error.peer if isinstance(error, _TunnelRefused) else peer
        self._refuse(reason if isinstance(error, WireError) else type(error).__name__, peer)
        writer = asker.writer
        if writer.transport.is_closing():
            return
        try:
            streams.write(writer, refuse(reason))
            writer.close()
            async with asyncio.timeout(ASK_SECONDS):
                await writer.wait_closed()
        except OSError:
            return  # it does not want to know

    def _refuse(self, reason: str, peer: str = "") -> None:
        if self._refusals.add(reason, time.monotonic(), peer):
            count = self._refusals.counts[reason]
            who = f" (last {peer})" if peer else ""
            logger.warning("tunnels: a connection was refused, the %d. time: %s%s", count, reason, who)


class _TunnelRefused(WireError):
    """`peer`: the node that its certificate names."""

    def __init__(self, reason: str, peer: str) -> None:
        super().__init__(reason)
        self.peer = peer


class _Listener:
    def __init__(
        self,
        address: tuple[str, int],
        take: Callable[[socket.socket, Peer], None],
        failed: Callable[[str], None],
    ) -> None:
        self._socket = listen(*address)
        self._accepting = Accepting(self._socket, take, failed)
        self._closed = False

    @property
    def bound(self) -> tuple[str, int]:
        host, port = self._socket.getsockname()[:2]
        return str(host), int(port)

    def close(self) -> None:
        """Safe to call twice."""
        if not self._closed:
            self._closed = True
            self._accepting.stop(take_waiting=False)


async def _line(reader: asyncio.StreamReader) -> bytes:
    """The asker's line, and nothing after it: it waits for the answer."""
    line = b""
    while not line.endswith(b"\n"):
        piece = await reader.read(ASK_MAX + 1 - len(line))
        if not piece:
            raise WireError("it ended before it asked")
        line += piece
        if len(line) > ASK_MAX or b"\n" in line[:-1]:
            raise WireError("a line that asks for no task")
    return line
