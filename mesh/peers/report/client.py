"""What is ending on this node, and its plain containers, told to the sidecars of all managers at once.

Each worker follows one manager only, so each manager has to know. What is sent is always all that holds
now: one report is on its way at a time, what happens meanwhile is in the next, and a manager that was away
needs no history. Reports are repeated now and then though nothing has changed: that keeps the connection
warm, shows when it is dead, and tells the manager that the node still means what it said.
"""

import asyncio
from collections.abc import Callable
from random import Random

import aiohttp

from mesh.errors import DiscoveryError
from mesh.peers.manager_links import Hosts, ManagerLink, ManagerLinks
from mesh.peers.report.codec import NodeReport, encode_report
from mesh.peers.report.server import SIGNS_PATH
from mesh.peers.swarm_tls import MANAGER_NAME, SwarmCertificates

REPEAT_SECONDS = 5.0  # a third of how long a manager keeps what it is not told again
KEPT_OPEN_SECONDS = 3 * REPEAT_SECONDS  # a connection between two reports
SEND_SECONDS = 2.0  # for a report and its answer, connecting included
FIRST_PAUSE, LAST_PAUSE = 0.1, 2.0  # seconds before a manager that failed is tried again
TAKEN = 204
NOT_UNDERSTOOD = frozenset({400, 413})  # by a manager that knows endings only, or takes less


class SignClient:
    """`managers` gives the hosts of all other managers, `report` what is to be said of this node now."""

    def __init__(
        self,
        certificates: SwarmCertificates,
        managers: Callable[[], Hosts],
        report: Callable[[], NodeReport],
        port: int,
        rng: Random | None = None,
    ) -> None:
        chance = rng or Random()
        self._lines = ManagerLinks(
            managers, lambda host: ReportLink(certificates, host, port, report, chance)
        )

    def news(self) -> None:
        """What is to be said has changed."""
        for line in self._lines.all.values():
            line.news.set()

    async def run(self) -> None:
        """Tell until cancelled."""
        await self._lines.run()


class ReportLink(ManagerLink):
    """A manager that is told."""

    about = "signs to"
    answer_seconds = SEND_SECONDS
    kept_seconds = KEPT_OPEN_SECONDS
    pauses = FIRST_PAUSE, LAST_PAUSE

    def __init__(
        self,
        certificates: SwarmCertificates,
        host: str,
        port: int,
        report: Callable[[], NodeReport],
        rng: Random,
    ) -> None:
        super().__init__(certificates, host, port, SIGNS_PATH, rng)
        self._report = report
        self.news = asyncio.Event()

    async def talk(self, session: aiohttp.ClientSession) -> None:
        while True:
            await self._tell(session)
            await self._until_news()

    async def _tell(self, session: aiohttp.ClientSession) -> None:
        self.news.clear()
        report = self._report()
        status = await self._put(session, report)
        understood = status == TAKEN
        if status in NOT_UNDERSTOOD and (least := NodeReport(report.ending)) != report:
            self.failed(f"only what ends on this node is taken there, the answer was {status}")
            status = await self._put(session, least)
        if status != TAKEN:
            raise DiscoveryError(f"a report was answered {status}")
        self.well(faultless=understood)

    async def _put(self, session: aiohttp.ClientSession, report: NodeReport) -> int:
        """Returns the answer's status."""
        async with session.put(
            self.url, data=encode_report(report), server_hostname=MANAGER_NAME, allow_redirects=False
        ) as response:
            return response.status

    async def _until_news(self) -> None:
        try:
            async with asyncio.timeout(REPEAT_SECONDS):
                await self.news.wait()
        except TimeoutError:
            return
