"""What is ending on this node, and its plain containers, told to the sidecars of all managers at once.

Each worker follows one manager only, so each manager has to know. Every one has a connection and a task of
its own here, so that a slow or dead one delays nobody. What is sent is always all that holds now: one
report is on its way at a time, what happens meanwhile is in the next, and a manager that was away needs no
history. Reports are repeated now and then though nothing has changed: that keeps the connection warm, shows
when it is dead, and tells the manager that the node still means what it said.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from random import Random

import aiohttp

from mesh.discovery.feed_client import why
from mesh.discovery.feed_tls import MANAGER_NAME, Certificates
from mesh.discovery.report import Report, encode_report
from mesh.discovery.sign_server import SIGNS_PATH
from mesh.errors import DiscoveryError

REPEAT_SECONDS = 5.0  # a third of how long a manager keeps what it is not told again
KEPT_OPEN_SECONDS = 3 * REPEAT_SECONDS  # a connection between two reports
SEND_SECONDS = 2.0  # for a report and its answer, connecting included
FIRST_PAUSE, LAST_PAUSE = 0.1, 2.0  # seconds before a manager that failed is tried again
MANAGERS_SECONDS = 1.0  # between two looks at who the managers are
TAKEN = 204
NOT_UNDERSTOOD = frozenset({400, 413})  # by a manager that knows endings only, or takes less

logger = logging.getLogger(__name__)


class SignClient:
    """`managers` gives the hosts of all other managers, `report` what is to be said of this node now."""

    def __init__(
        self,
        certificates: Certificates,
        managers: Callable[[], Sequence[str]],
        report: Callable[[], Report],
        port: int,
        rng: Random | None = None,
    ) -> None:
        self._certificates = certificates
        self._managers = managers
        self._report = report
        self._port = port
        self._rng = rng or Random()
        self._told: dict[str, tuple[_Manager, asyncio.Task[None]]] = {}

    def news(self) -> None:
        """What is to be said has changed."""
        for manager, _ in self._told.values():
            manager.news.set()

    async def run(self) -> None:
        """Tell until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    self._follow(group)
                    await asyncio.sleep(MANAGERS_SECONDS)
        finally:
            self._told = {}

    def _follow(self, group: asyncio.TaskGroup) -> None:
        """A task for each manager, and none for those that are none any more."""
        now = set(self._managers())
        for host in self._told.keys() - now:
            self._told.pop(host)[1].cancel()
        for host in now - self._told.keys():
            manager = _Manager(self._certificates, host, self._port, self._report, self._rng)
            self._told[host] = manager, group.create_task(manager.run(), name=f"signs to {host}")


class _Manager:
    """One of them, and the connection to it."""

    def __init__(
        self, certificates: Certificates, host: str, port: int, report: Callable[[], Report], rng: Random
    ) -> None:
        self._certificates = certificates
        self._host = host
        self._url = f"https://{f'[{host}]' if ':' in host else host}:{port}{SIGNS_PATH}"
        self._report = report
        self._rng = rng
        self._pause = FIRST_PAUSE
        self._fault = ""
        self.news = asyncio.Event()

    async def run(self) -> None:
        while True:
            try:
                await self._keep_told()
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                self._failed(why(error))
            except DiscoveryError as error:
                self._failed(str(error))
            await asyncio.sleep(self._pause * self._rng.uniform(0.5, 1.0))
            self._pause = min(LAST_PAUSE, self._pause * 2)

    def _failed(self, what: str) -> None:
        if what != self._fault:  # once, not every few seconds
            logger.warning("signs to manager %s: %s", self._host, what)
        self._fault = what

    async def _keep_told(self) -> None:
        """Until it fails. Certificates are those of now: Swarm rotates them."""
        connector = aiohttp.TCPConnector(
            ssl=self._certificates.client_context(), limit=1, keepalive_timeout=KEPT_OPEN_SECONDS
        )
        timeout = aiohttp.ClientTimeout(total=SEND_SECONDS)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            while True:
                await self._tell(session)
                self._pause = FIRST_PAUSE
                await self._until_news()

    async def _tell(self, session: aiohttp.ClientSession) -> None:
        self.news.clear()
        report = self._report()
        status = await self._put(session, report)
        if status in NOT_UNDERSTOOD and (least := Report(report.ending)) != report:
            self._failed(f"only what ends on this node is taken there, the answer was {status}")
            status = await self._put(session, least)
        elif status == TAKEN:
            self._fault = ""
        if status != TAKEN:
            raise DiscoveryError(f"a report was answered {status}")

    async def _put(self, session: aiohttp.ClientSession, report: Report) -> int:
        """Returns the answer's status."""
        async with session.put(
            self._url, data=encode_report(report), server_hostname=MANAGER_NAME, allow_redirects=False
        ) as response:
            return response.status

    async def _until_news(self) -> None:
        try:
            async with asyncio.timeout(REPEAT_SECONDS):
                await self.news.wait()
        except TimeoutError:
            return
