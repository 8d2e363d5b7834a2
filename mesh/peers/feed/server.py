"""The feed, on managers: the cluster's view to the sidecars of workers, first whole, then change by change.

Registering a client and taking the view it gets first is one step on the event loop, so no change is missed
or told twice. A client that cannot keep up is cut off; it reconnects and begins with a whole view, which is
less than what it had waiting.

A client is let in when its certificate is of this cluster and its node is one the manager knows: a node that
was removed keeps a valid certificate for months. The same holds for who reports what ends on its node, over
the same port (`sign_server`). So does a manager that was demoted: who is one, the manager's view says too.
"""

import asyncio
import logging
import struct
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial

from aiohttp import web

from mesh.catalog.cluster_view import ClusterView
from mesh.catalog.model import Role
from mesh.catalog.snapshot import Change
from mesh.errors import DiscoveryError, Problem
from mesh.net.limits.connection_guard import ConnectionGuard, GuardLimits
from mesh.net.tls_listener import HandshakeLimits, TlsListener
from mesh.peers.feed.codec import HEARTBEAT, encode_change, encode_view
from mesh.peers.refusals import Refusals
from mesh.peers.report.codec import REPORT_MAX, NodeReport
from mesh.peers.report.server import SIGNS_PATH, SignServer
from mesh.peers.swarm_tls import MANAGER_NAME, WORKER_NAME, Identity, SwarmCertificates, identity_of

PATH = "/v1/feed"
TOLD = (
    "told"  # a parameter of the request, for each thing beyond the first release that the client understands
)
NEIGHBOURS, HOLDS = "neighbours", "holds"
LENGTH = struct.Struct("!I")  # before every message
HEARTBEAT_SECONDS = 2.0  # the client gives up after three of them
ROTATION_SECONDS = 2.0  # between two looks at the certificate files, three small ones
HANDSHAKE_SECONDS = 5.0  # a connection that proves nothing is not kept
# A node has a connection for the feed, one for its reports and some for certificates.
LIMITS = GuardLimits(connections=4096, per_address=64, first=10.0, next=75.0)
HANDSHAKES = HandshakeLimits(places=256, per_address=32)
CLIENTS_MAX = 1024  # more nodes than Swarm is run with; each costs a connection and a queue
CLIENTS_OF_NODE_MAX = 8  # a node needs one; its oldest gives way to another
WAITING_MAX = 256  # messages that a client may be behind; clients share them
PIECE = 64 * 1024  # bytes written at once: TLS transports take any amount before they push back
WRITE_SECONDS = 10.0  # for one piece to leave
STOP_SECONDS = 1.0
READY = "ready"  # a node's state

Handler = Callable[[Identity, web.Request], Awaitable[web.StreamResponse]]

logger = logging.getLogger(__name__)


class FeedServer:
    """One per manager; `run` it as often as the node is one. `fault` says why it does not serve.

    `take_report` gets a node's id and what its sidecar says of it. `more`: what else nodes may ask here by
    POST, path → who answers.
    """

    def __init__(
        self,
        certificates: SwarmCertificates,
        address: tuple[str, int],
        view: Callable[[], ClusterView],
        take_report: Callable[[str, NodeReport], None],
        more: Mapping[str, Handler] | None = None,
    ) -> None:
        self._certificates = certificates
        self._address = address
        self._view = view
        self._signs = SignServer(take_report, self._refuse)
        self._more = dict(more or {})
        self._clients: dict[_ConnectedFollower, None] = {}  # in the order of their arrival
        self._whole: dict[frozenset[str], bytes] = {}  # the view encoded, by what is told, until it changes
        self._runner: web.AppRunner | None = None
        self._listener: TlsListener | None = None
        self._fingerprint = ""
        self._cluster = ""
        self._refusals = Refusals()
        self.fault = ""

    @property
    def refused(self) -> Counter[str]:
        """Reason → handshakes, requests and clients refused."""
        return self._refusals.counts

    def problems(self) -> Iterator[Problem]:
        """Who was refused in the last minutes."""
        nodes = self._view().nodes
        for one in self._refusals.recent(time.monotonic()):
            who = nodes[one.peer].name if one.peer in nodes else one.peer
            yield Problem(f"node {who}", "feed", f"refused ({one.count} times): {one.reason}")

    @property
    def serving(self) -> bool:
        return self._listener is not None

    @property
    def clients(self) -> int:
        return len(self._clients)

    @property
    def bound(self) -> tuple[str, int] | None:
        """Where it listens."""
        return self._listener.bound if self._listener is not None else None

    def publish(self, change: Change) -> None:
        """Tell every client. Call after the view has changed; what concerns this node only is left out."""
        if not (change.nodes or change.networks or change.services or change.neighbours):
            return
        self._whole = {}
        kinds = {client.told for client in self._clients}
        messages = {
            told: encode_change(change, neighbours=NEIGHBOURS in told, holds=HOLDS in told) for told in kinds
        }
        for client in tuple(self._clients):
            self._tell(client, messages[client.told], change)

    async def run(self) -> None:
        """Serve until cancelled; follow the rotation of the certificates; retry what fails."""
        self._whole = {}
        try:
            while True:
                await self._follow_files()
                await asyncio.sleep(ROTATION_SECONDS)
        finally:
            await self._stop()

    # --- listening ---

    async def _follow_files(self) -> None:
        try:
            fingerprint = self._certificates.fingerprint()
            if fingerprint != self._fingerprint:
                await self._listen()
                self._fingerprint, self.fault = fingerprint, ""
        except (DiscoveryError, OSError) as error:
            text = f"feed on {self._address[0]}:{self._address[1]}: {error}"
            if text != self.fault:
                logger.error("%s", text)
            self.fault = text

    async def _listen(self) -> None:
        """With the certificates as they are now; connections made before go on."""
        own = self._certificates.identity()
        if own.role != MANAGER_NAME:  # promoted a moment ago: Swarm is about to renew it
            raise DiscoveryError("the node's certificate is not a manager's yet")
        context = self._certificates.server_context(self._refuse)
        runner = await self._prepared()
        if self._listener is None:
            assert runner.server is not None  # it has been set up
            self._listener = TlsListener(
                self._address, runner.server, context, HANDSHAKES, self._refuse, HANDSHAKE_SECONDS
            )
        self._listener.context = context
        self._cluster = own.cluster

    async def _prepared(self) -> web.AppRunner:
        if self._runner is None:
            app = web.Application(client_max_size=REPORT_MAX)
            app.router.add_get(PATH, self._serve)
            app.router.add_put(SIGNS_PATH, self._take_signs)
            for path, handler in self._more.items():
                app.router.add_post(path, partial(self._serve_more, handler))
            self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=STOP_SECONDS)
            await self._runner.setup()
            assert self._runner.server is not None
            ConnectionGuard(LIMITS, self._refuse).attach(self._runner.server)
        return self._runner

    async def _stop(self) -> None:
        listener, self._listener, self._fingerprint = self._listener, None, ""
        if listener is not None:
            await listener.close()
        for client in tuple(self._clients):
            self._cut(client)
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    def _refuse(self, reason: str, node: str = "") -> None:
        if self._refusals.add(reason, time.monotonic(), node):
            count, who = self._refusals.counts[reason], f" (last node {node})" if node else ""
            logger.warning("feed: a client was refused, the %d. time: %s%s", count, reason, who)

    # --- one client ---

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        peer, transport = self._admitted(request)
        node = peer.node
        own = [one for one in self._clients if one.node == node]
        if len(own) >= CLIENTS_OF_NODE_MAX:  # of some it may not know yet that they are dead
            self._refuse("too many clients of one node", node)
            self._cut(own[0])
        if len(self._clients) >= CLIENTS_MAX:
            self._refuse("too many clients")
            raise web.HTTPServiceUnavailable
        told = frozenset(request.query.getall(TOLD, ())) & {NEIGHBOURS, HOLDS}
        client = _ConnectedFollower(node, transport, told, self._whole_view(told))
        self._clients[client] = None
        response = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
        try:
            await response.prepare(request)
            while (message := await client.next()) is not None:
                await _write(response, LENGTH.pack(len(message)) + message)
        except TimeoutError:
            self._refuse("too slow")
        except OSError:
            logger.debug("feed: node %s went away", node)
        finally:
            self._cut(client)
        return response

    async def _take_signs(self, request: web.Request) -> web.StreamResponse:
        peer, _ = self._admitted(request)
        return await self._signs.serve(peer.node, request)

    async def _serve_more(self, handler: Handler, request: web.Request) -> web.StreamResponse:
        """Who is not ready has no use for what is asked for here."""
        peer, _ = self._admitted(request)
        if self._view().nodes[peer.node].state != READY:
            self._refuse("a node that is not ready", peer.node)
            raise web.HTTPForbidden
        return await handler(peer, request)

    def _admitted(self, request: web.Request) -> tuple[Identity, asyncio.Transport]:
        """The client's node, and its connection. Its role is a manager's only if Swarm still calls it one.
        Raises the refusal."""
        transport = request.transport
        if transport is None:
            raise web.HTTPBadRequest
        peer = identity_of(transport.get_extra_info("peercert"))
        if peer.cluster != self._cluster:
            self._refuse("another cluster", peer.node)
            raise web.HTTPForbidden
        node = self._view().nodes.get(peer.node)
        if node is None:
            self._refuse("not a node of this Swarm", peer.node)
            raise web.HTTPForbidden
        if peer.role == MANAGER_NAME and node.role is not Role.MANAGER:
            peer = replace(peer, role=WORKER_NAME)
        return peer, transport

    def _whole_view(self, told: frozenset[str]) -> bytes:
        if told not in self._whole:
            self._whole[told] = encode_view(self._view(), neighbours=NEIGHBOURS in told, holds=HOLDS in told)
        return self._whole[told]

    def _tell(self, client: "_ConnectedFollower", message: bytes, change: Change) -> None:
        if client.node in change.nodes and change.nodes[client.node] is None:
            self._refuse("not a node of this Swarm", client.node)
            self._cut(client)
        elif not client.put(message):
            self._refuse("too slow", client.node)
            self._cut(client)

    def _cut(self, client: "_ConnectedFollower") -> None:
        self._clients.pop(client, None)
        client.cut()


class _ConnectedFollower:
    """A connection, and what waits for it. `told`: what of the later additions it is to be told."""

    def __init__(self, node: str, transport: asyncio.Transport, told: frozenset[str], first: bytes) -> None:
        self.node = node
        self.told = told
        self._transport = transport
        self._waiting: asyncio.Queue[bytes | None] = asyncio.Queue(WAITING_MAX)
        self._waiting.put_nowait(first)

    def put(self, message: bytes) -> bool:
        """False when it is too far behind."""
        try:
            self._waiting.put_nowait(message)
        except asyncio.QueueFull:
            return False
        return True

    async def next(self) -> bytes | None:
        """The next message; a heartbeat when there has been none for a while; None at the end."""
        try:
            async with asyncio.timeout(HEARTBEAT_SECONDS):
                return await self._waiting.get()
        except TimeoutError:
            return HEARTBEAT

    def cut(self) -> None:
        """The end, ahead of everything that still waits; also of a write that nobody reads."""
        while not self._waiting.empty():
            self._waiting.get_nowait()
        self._waiting.put_nowait(None)
        self._transport.abort()


async def _write(response: web.StreamResponse, data: bytes) -> None:
    """TimeoutError when nobody takes it."""
    whole = memoryview(data)
    for start in range(0, len(data), PIECE):
        async with asyncio.timeout(WRITE_SECONDS):
            await response.write(whole[start : start + PIECE])
