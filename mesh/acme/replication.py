"""Every node has what any manager has: it asks each manager's sidecar, which answers when it has news.

It goes over the feed's port and by the feed's rules: mutual TLS with the Swarm's own certificates, so that
only nodes of this Swarm are told, and only managers believed. The account's key is told to managers alone:
the certificate and the catalogue both have to say that the node is one. Others get the keys of certificates
that routers want now, if they are ready and say that they serve them.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Set
from random import Random

import aiohttp
from aiohttp import web

from mesh.acme.certificate_store import AcmeStore
from mesh.acme.messages import (
    TOLD_MAX,
    CertificateUpdate,
    Inventory,
    decode_have,
    decode_told,
    encode_have,
    encode_told,
)
from mesh.catalog.model import Node, Role
from mesh.errors import DiscoveryError
from mesh.peers.feed.server import READY
from mesh.peers.manager_links import Hosts, ManagerLink, ManagerLinks
from mesh.peers.swarm_tls import MANAGER_NAME, Identity, SwarmCertificates

PATH = "/v1/certificates"
AT_ONCE = "at_once"  # a parameter of the request: the answer is not to wait for news
READ_SECONDS = 2.0  # for what the asker has to arrive
WAIT_SECONDS = 20.0  # that an answer waits for news
ANSWER_SECONDS = WAIT_SECONDS + 10.0
ASKERS_MAX = 2048  # who wait at once
ASKERS_OF_NODE_MAX = 4  # of one node, which needs one, and another while its certificate is renewed
FIRST_PAUSE, LAST_PAUSE = 0.2, 5.0  # seconds before a manager that failed is asked again
SETTLE_SECONDS = 10.0  # that a node waits for the first answers before it goes on alone

logger = logging.getLogger(__name__)


class ReplicationServer:
    """A manager's side. `serve` is the feed server's handler.

    `nodes` by id, as the catalogue has them now; None: what the feed's server has made sure of stands.
    `wanted`: names that routers want certificates for now; None: all.
    """

    def __init__(
        self,
        kept: AcmeStore,
        nodes: Callable[[], Mapping[str, Node]] | None = None,
        wanted: Callable[[], Set[str]] | None = None,
    ) -> None:
        self._kept = kept
        self._nodes = nodes
        self._wanted = wanted
        self._waiting: Counter[str] = Counter()  # by node

    async def serve(self, peer: Identity, request: web.Request) -> web.StreamResponse:
        """`peer`: proven to be a node of this Swarm. Raises the refusal."""
        have = await _have(request)
        ends = time.monotonic() + (0.0 if AT_ONCE in request.query else WAIT_SECONDS)
        while (told := self._news_for(peer, have)) is None:
            if not await self._news(peer.node, ends - time.monotonic()):
                return web.Response(status=204)
        return web.Response(body=encode_told(told), content_type="application/json")

    def _news_for(self, peer: Identity, have: Inventory) -> CertificateUpdate | None:
        """As the catalogue is now: while it waited the node may have been demoted, or removed."""
        is_manager = peer.role == MANAGER_NAME
        if self._nodes is not None:
            node = self._nodes().get(peer.node)
            if node is None or node.state != READY:
                raise web.HTTPForbidden
            is_manager = is_manager and node.role is Role.MANAGER
        wanted = self._wanted() if self._wanted is not None else None
        if not have.serving:
            wanted = frozenset()
        return self._kept.newer(have, to_manager=is_manager, wanted=wanted)

    async def _news(self, node: str, seconds: float) -> bool:
        """Has there been any within that time?"""
        if seconds <= 0:
            return False
        if self._waiting.total() >= ASKERS_MAX:
            raise web.HTTPServiceUnavailable
        if self._waiting[node] >= ASKERS_OF_NODE_MAX:
            raise web.HTTPTooManyRequests
        changed = self._kept.changed()
        self._waiting[node] += 1
        try:
            async with asyncio.timeout(seconds):
                await changed.wait()
        except TimeoutError:
            return False
        else:
            return True
        finally:
            self._waiting[node] -= 1
            if not self._waiting[node]:
                del self._waiting[node]
            self._kept.forget(changed)


class ReplicationClient:
    """`managers`: the hosts of all other managers, as they are known now."""

    def __init__(
        self,
        certificates: SwarmCertificates,
        managers: Callable[[], Hosts],
        kept: AcmeStore,
        port: int,
        rng: Random | None = None,
    ) -> None:
        chance = rng or Random()
        self._lines = ManagerLinks(
            managers, lambda host: _AskedManager(certificates, host, port, kept, chance)
        )

    async def run(self) -> None:
        """Ask until cancelled."""
        await self._lines.run()

    async def settled(self) -> None:
        """Until each manager has been asked once, with or without success; not for long."""
        try:
            async with asyncio.timeout(SETTLE_SECONDS):
                await self._lines.begun.wait()
                await asyncio.gather(*(line.asked.wait() for line in self._lines.all.values()))
        except TimeoutError:
            logger.warning("not every manager says which certificates it has")


class _AskedManager(ManagerLink):
    """A manager that is asked."""

    about = "certificates of"
    answer_seconds = ANSWER_SECONDS
    kept_seconds = WAIT_SECONDS
    pauses = FIRST_PAUSE, LAST_PAUSE

    def __init__(
        self, certificates: SwarmCertificates, host: str, port: int, kept: AcmeStore, rng: Random
    ) -> None:
        super().__init__(certificates, host, port, PATH, rng)
        self._kept = kept
        self.asked = asyncio.Event()

    def tried(self) -> None:
        self.asked.set()

    async def talk(self, session: aiohttp.ClientSession) -> None:
        parameters = {AT_ONCE: ""}  # what it has when we begin
        # A node that is promoted gets another certificate, and only with that is it told of the account.
        ours = self._certificates.fingerprint()
        while self._certificates.fingerprint() == ours:
            await self._ask(session, parameters)
            self.well()
            self.asked.set()
            parameters = {}

    async def _ask(self, session: aiohttp.ClientSession, parameters: dict[str, str]) -> None:
        have = encode_have(self._kept.have_told())
        async with session.post(
            self.url, params=parameters, data=have, server_hostname=MANAGER_NAME, allow_redirects=False
        ) as response:
            if response.status == 204:
                return
            if response.status != 200:
                raise DiscoveryError(f"it answered {response.status}")
            told = decode_told(await _limited(response.content))
        before = self._kept.have_told()
        await self._kept.take(told)
        if self._kept.have_told() == before:  # else it would tell us the same at once, and again
            raise DiscoveryError("it tells what cannot be used")


async def _have(request: web.Request) -> Inventory:
    try:
        async with asyncio.timeout(READ_SECONDS):
            return decode_have(await request.read())
    except TimeoutError as error:
        raise web.HTTPRequestTimeout from error
    except DiscoveryError as error:
        raise web.HTTPBadRequest(text=str(error)) from error


async def _limited(stream: aiohttp.StreamReader) -> bytes:
    """All of it. Raises DiscoveryError when it is too long."""
    data = bytearray()
    async for piece in stream.iter_any():
        data += piece
        if len(data) > TOLD_MAX:
            raise DiscoveryError(f"more than {TOLD_MAX} bytes of certificates")
    return bytes(data)
