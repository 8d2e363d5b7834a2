"""The feed, on managers: the cluster's view to the sidecars of workers, first whole, then change by change.

Registering a client and taking the view it gets first is one step on the event loop, so no change is missed
or told twice. A client that cannot keep up is cut off; it reconnects and begins with a whole view, which is
less than what it had waiting.
"""

import asyncio
import logging
import struct
from collections import Counter
from collections.abc import Callable

from aiohttp import web

from mesh.catalog.snapshot import Change
from mesh.discovery.feed_codec import HEARTBEAT, encode_change, encode_view
from mesh.discovery.feed_tls import Certificates
from mesh.discovery.swarm import ClusterView
from mesh.errors import DiscoveryError

PATH = "/v1/feed"
LENGTH = struct.Struct("!I")  # before every message
HEARTBEAT_SECONDS = 2.0  # the client gives up after three of them
ROTATION_SECONDS = 5.0  # between two looks at the certificate files
CLIENTS_MAX = 1024  # more nodes than Swarm is run with; each costs a connection and a queue
WAITING_MAX = 256  # messages that a client may be behind
STOP_SECONDS = 1.0

logger = logging.getLogger(__name__)


class FeedServer:
    """One per manager. `start` raises OSError (port taken) or DiscoveryError (certificates)."""

    def __init__(
        self, certificates: Certificates, address: tuple[str, int], view: Callable[[], ClusterView]
    ) -> None:
        self._certificates = certificates
        self._address = address
        self._view = view
        self._clients: set[asyncio.Queue[bytes | None]] = set()
        self._runner: web.AppRunner | None = None
        self._site: web.TCPSite | None = None
        self._fingerprint = ""
        self.refused: Counter[str] = Counter()  # reason → handshakes and requests refused
        self.fault = ""

    @property
    def serving(self) -> bool:
        return self._site is not None

    @property
    def clients(self) -> int:
        return len(self._clients)

    @property
    def bound(self) -> tuple[str, int] | None:
        """Where it listens."""
        return self._runner.addresses[0][:2] if self._runner is not None and self._site is not None else None

    def publish(self, change: Change) -> None:
        """Tell every client. What concerns this node only is left out."""
        if not self._clients or not (change.nodes or change.networks or change.services):
            return
        message = encode_change(change)
        for queue in tuple(self._clients):
            self._put(queue, message)

    async def run(self) -> None:
        """Serve until cancelled; follow the rotation of the certificates; retry what fails."""
        try:
            while True:
                await self._follow_files()
                await asyncio.sleep(ROTATION_SECONDS)
        finally:
            await self._stop()

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
        """A new listener with the certificates as they are now; connections made before go on."""
        context = self._certificates.server_context(self._refuse)
        if self._runner is None:
            app = web.Application()
            app.router.add_get(PATH, self._serve)
            self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=STOP_SECONDS)
            await self._runner.setup()
        if self._site is not None:
            await self._site.stop()
        self._site = None
        site = web.TCPSite(self._runner, *self._address, ssl_context=context)
        await site.start()
        self._site = site

    async def _stop(self) -> None:
        for queue in tuple(self._clients):
            self._cut(queue)
        runner, self._runner, self._site, self._fingerprint = self._runner, None, None, ""
        if runner is not None:
            await runner.cleanup()

    def _refuse(self, reason: str) -> None:
        self.refused[reason] += 1
        logger.warning("feed: a client was refused: %s", reason)

    # --- one client ---

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        if len(self._clients) >= CLIENTS_MAX:
            self._refuse("too many clients")
            return web.Response(status=503)
        queue: asyncio.Queue[bytes | None] = asyncio.Queue(WAITING_MAX)
        queue.put_nowait(encode_view(self._view()))
        self._clients.add(queue)
        response = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
        try:
            await response.prepare(request)
            while (message := await _next(queue)) is not None:
                await response.write(LENGTH.pack(len(message)) + message)
        except (ConnectionError, OSError):
            logger.debug("feed: a client went away")
        finally:
            self._clients.discard(queue)
            if request.transport is not None:
                request.transport.abort()
        return response

    def _put(self, queue: asyncio.Queue[bytes | None], message: bytes) -> None:
        try:
            queue.put_nowait(message)
        except asyncio.QueueFull:
            self._refuse("too slow")
            self._cut(queue)

    def _cut(self, queue: asyncio.Queue[bytes | None]) -> None:
        """The end, ahead of everything that still waits."""
        self._clients.discard(queue)
        while not queue.empty():
            queue.get_nowait()
        queue.put_nowait(None)


async def _next(queue: asyncio.Queue[bytes | None]) -> bytes | None:
    """The next message; a heartbeat when there has been none for a while; None at the end."""
    try:
        async with asyncio.timeout(HEARTBEAT_SECONDS):
            return await queue.get()
    except TimeoutError:
        return HEARTBEAT
