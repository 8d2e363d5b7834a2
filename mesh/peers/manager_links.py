"""A line to the sidecar of each manager, as long as it is one: made, kept, made anew when it fails.

Each has a connection and a task of its own, so that one that is slow or dead delays nobody.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from random import Random
from types import MappingProxyType
from typing import ClassVar, Generic, TypeVar

import aiohttp

from mesh.errors import DiscoveryError
from mesh.peers.connection_faults import why
from mesh.peers.swarm_tls import SwarmCertificates

MANAGERS_SECONDS = 1.0  # between two looks at who the managers are

Hosts = Sequence[str] | Mapping[str, str]  # of managers; where known, with the id of the node that is there

logger = logging.getLogger(__name__)


class ManagerLink:
    """To one manager. Derive, and `talk`; call `well` when something has gone through."""

    about: ClassVar[str]  # what is talked of, for the log
    answer_seconds: ClassVar[float]  # for a request and its answer, connecting included
    kept_seconds: ClassVar[float]  # that the connection is kept between two requests
    pauses: ClassVar[tuple[float, float]]  # seconds, first and last, before one that failed is tried again

    node = ""  # id of the manager; "": whichever is at this address

    def __init__(self, certificates: SwarmCertificates, host: str, port: int, path: str, rng: Random) -> None:
        self._certificates = certificates
        self._host = host
        self.url = f"https://{f'[{host}]' if ':' in host else host}:{port}{path}"
        self._rng = rng
        self._pause = self.pauses[0]
        self._fault = ""

    async def talk(self, session: aiohttp.ClientSession) -> None:
        """Until it fails: raises what aiohttp does, OSError, TimeoutError or DiscoveryError."""
        raise NotImplementedError

    def tried(self) -> None:
        """It has failed once more."""

    async def run(self) -> None:
        while True:
            try:
                await self._connected()
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                self.failed(why(error))
            except DiscoveryError as error:
                self.failed(str(error))
            self.tried()
            await asyncio.sleep(self._pause * self._rng.uniform(0.5, 1.0))
            self._pause = min(self.pauses[1], self._pause * 2)

    async def _connected(self) -> None:
        """Certificates are those of now: Swarm rotates them."""
        cluster = self._certificates.identity().cluster
        connector = aiohttp.TCPConnector(
            ssl=self._certificates.client_context(self.node, cluster),
            limit=1,
            keepalive_timeout=self.kept_seconds,
        )
        timeout = aiohttp.ClientTimeout(total=self.answer_seconds)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            await self.talk(session)

    def well(self, *, faultless: bool = True) -> None:
        self._pause = self.pauses[0]
        if faultless:
            self._fault = ""

    def failed(self, what: str) -> None:
        if what != self._fault:  # once, not every few seconds
            logger.warning("%s manager %s: %s", self.about, self._host, what)
        self._fault = what


def node_at(hosts: Hosts, host: str) -> str:
    """The id of the manager there, "" where it is not known."""
    return hosts.get(host, "") if isinstance(hosts, Mapping) else ""


L = TypeVar("L", bound=ManagerLink)


class ManagerLinks(Generic[L]):
    """`managers` gives the hosts of all other managers, `make` the line to one."""

    def __init__(self, managers: Callable[[], Hosts], make: Callable[[str], L]) -> None:
        self._managers = managers
        self._make = make
        self._running: dict[str, tuple[L, asyncio.Task[None]]] = {}
        self.begun = asyncio.Event()  # there is a line to all who were managers at the start

    @property
    def all(self) -> Mapping[str, L]:
        """By host."""
        return MappingProxyType({host: line for host, (line, _) in self._running.items()})

    async def run(self) -> None:
        """Until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    self._follow(group)
                    self.begun.set()
                    await asyncio.sleep(MANAGERS_SECONDS)
        finally:
            self._running = {}

    def _follow(self, group: asyncio.TaskGroup) -> None:
        """A task for each manager, and none for those that are none any more."""
        now = {host: node_at(hosts, host) for hosts in (self._managers(),) for host in hosts}
        same = {host for host, (line, _) in self._running.items() if now.get(host) == line.node}
        for host in self._running.keys() - same:
            self._running.pop(host)[1].cancel()
        for host in now.keys() - same:
            line = self._make(host)
            line.node = now[host]
            task = group.create_task(line.run(), name=f"{line.about} {host}")
            self._running[host] = line, task
