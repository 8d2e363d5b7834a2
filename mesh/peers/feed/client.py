"""The feed, on workers: the cluster's view from the sidecar of any manager that can be reached.

Managers are tried in turn, the next one at once when one is lost and then with growing pauses, so that the
loss of one manager costs a round trip and the loss of all of them costs them nothing. Silence beyond three
heartbeats is a loss too: a node without power sends no farewell.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from random import Random

import aiohttp

from mesh.catalog.cluster_view import ClusterView
from mesh.catalog.snapshot import Change
from mesh.errors import DiscoveryError
from mesh.peers.connection_faults import why
from mesh.peers.feed.codec import decode
from mesh.peers.feed.server import HEARTBEAT_SECONDS, HOLDS, LENGTH, NEIGHBOURS, PATH, TOLD
from mesh.peers.swarm_tls import MANAGER_NAME, SwarmCertificates, identity_of

CONNECT_SECONDS = 3.0
SILENCE_SECONDS = 3 * HEARTBEAT_SECONDS
FIRST_PAUSE, LAST_PAUSE = 0.2, 5.0  # seconds between two rounds over all managers
MESSAGE_MAX = 256 << 20  # bytes; a view of 100,000 services with their tasks is about 100 MB

logger = logging.getLogger(__name__)


class FeedClient:
    """Follows one manager at a time. `managers` gives their hosts, as the engine knows them now, where known
    with the id of the node that is there: then nobody else is followed, whatever its certificate says.

    `following` is the manager whose view is in force, `fault` why there is none, `reconnects` how often a
    view began.
    """

    def __init__(
        self,
        certificates: SwarmCertificates,
        managers: Callable[[], Sequence[str] | Mapping[str, str]],
        on_view: Callable[[ClusterView], None],
        on_change: Callable[[Change], None],
        port: int,
        rng: Random | None = None,
    ) -> None:
        self._certificates = certificates
        self._managers = managers
        self._on_view = on_view
        self._on_change = on_change
        self._port = port
        self._rng = rng or Random()
        self.following = ""
        self.fault = ""
        self.reconnects = 0

    async def run(self) -> None:
        """Follow whoever answers, until cancelled."""
        pause = FIRST_PAUSE
        while True:
            for manager in self._order():
                if await self._follow(manager):
                    pause = FIRST_PAUSE
            await asyncio.sleep(pause * self._rng.uniform(0.5, 1.0))
            pause = min(LAST_PAUSE, pause * 2)

    def _order(self) -> list[str]:
        """Shuffled, so that the workers of a large Swarm spread over its managers."""
        managers = list(dict.fromkeys(self._managers()))
        self._rng.shuffle(managers)
        return managers

    async def _follow(self, manager: str) -> bool:
        """Follow until it ends; True if anything was learned."""
        before = self.reconnects
        try:
            await self._stream(manager)
        except (aiohttp.ClientError, OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            self._lost(manager, why(error))
        except DiscoveryError as error:
            self._lost(manager, str(error))
        finally:
            self.following = ""
        return self.reconnects != before

    def _lost(self, manager: str, what: str) -> None:
        text = f"manager {manager}: {what}"
        if text != self.fault:
            logger.warning("feed: %s", text)
        self.fault = text

    async def _stream(self, manager: str) -> None:
        timeout = aiohttp.ClientTimeout(total=None, connect=CONNECT_SECONDS, sock_read=SILENCE_SECONDS)
        host = f"[{manager}]" if ":" in manager else manager
        managers = self._managers()
        node = managers.get(manager, "") if isinstance(managers, Mapping) else ""
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(
                f"https://{host}:{self._port}{PATH}",
                params=[(TOLD, NEIGHBOURS), (TOLD, HOLDS)],
                ssl=self._certificates.client_context(node),
                server_hostname=MANAGER_NAME,
                allow_redirects=False,
            ) as response,
        ):
            if response.status != 200:
                raise DiscoveryError(f"the feed answered {response.status}")
            self._admit(response)
            await self._read(manager, response.content)

    def _admit(self, response: aiohttp.ClientResponse) -> None:
        """TLS has proved a manager of this CA; clusters can share one."""
        transport = response.connection.transport if response.connection is not None else None
        peer = identity_of(transport.get_extra_info("peercert") if transport is not None else None)
        if peer.cluster != self._certificates.identity().cluster:
            raise DiscoveryError("its certificate is of another cluster")

    async def _read(self, manager: str, stream: aiohttp.StreamReader) -> None:
        while True:
            (length,) = LENGTH.unpack(await stream.readexactly(LENGTH.size))
            if length > MESSAGE_MAX:
                raise DiscoveryError(f"a message of {length} bytes is too long")
            message = decode(await stream.readexactly(length))
            if manager not in self._managers():
                raise DiscoveryError("it is no manager any more")
            self._take(manager, message)

    def _take(self, manager: str, message: ClusterView | Change | None) -> None:
        if isinstance(message, ClusterView):
            self.following, self.fault = manager, ""
            self.reconnects += 1
            logger.info("feed: following manager %s", manager)
            self._on_view(message)
        elif message is not None:
            if not self.following:
                raise DiscoveryError("the feed began with a change")
            self._on_change(message)
