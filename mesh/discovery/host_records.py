"""What managers tell each other of whose hosts are: each asks the others what their books say.

Books can differ: two managers may see two claims in another order, or one may not have been there. The one
that has watched the cluster longest is believed, so each takes over the book of whoever has watched longer
than it has itself. It goes over the feed's port and by the feed's rules, among managers alone.
"""

import asyncio
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Protocol

import aiohttp
from aiohttp import web
from pydantic import TypeAdapter

from mesh.catalog.cluster_view import ClusterView
from mesh.catalog.model import Node, Role, Service
from mesh.errors import DiscoveryError
from mesh.peers.documents import valid
from mesh.peers.feed.server import Handler
from mesh.peers.manager_links import ManagerLink, ManagerLinks
from mesh.peers.swarm_tls import MANAGER_NAME, Identity, SwarmCertificates

PATH = "/v1/hosts"
ASK_SECONDS = 2.0  # between two questions to a manager
ANSWER_SECONDS = 10.0
RECORD_MAX = 64 << 20  # bytes; of 100,000 services with a host each about 15 MB
QUESTION_MAX = 4096

Record = Mapping[str, Mapping[str, float | None]]


class Book(Protocol):
    """`mesh.http.hosts.book.HostBook`."""

    version: int
    since: float | None

    def begin(self, known: Mapping[str, Service], held: Mapping[str, Mapping[str, float]] = ...) -> None: ...
    def lose_sight(self) -> None: ...
    def lay_over(
        self, services: Mapping[str, Service], created: Mapping[str, str], now: float
    ) -> Mapping[str, Service]: ...
    def record(self) -> Record: ...
    def adopt(self, record: Record) -> None: ...


@dataclass(frozen=True, slots=True)
class BookQuestion:
    """`watched`: seconds that the asker has watched; `known`: the answer that it took over last."""

    watched: float
    known: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    version: str
    record: dict[str, dict[str, float | None]] = field(default_factory=dict)


_QUESTION, _ANSWER = TypeAdapter(BookQuestion), TypeAdapter(Answer)


class HostRecords:
    """A manager's book, and what others' say. `managers`: the hosts of all other managers."""

    def __init__(
        self,
        book: Book,
        certificates: SwarmCertificates,
        managers: Callable[[], Sequence[str]],
        port: int,
        is_manager: Callable[[str], bool],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.book = book
        self._clock = clock
        self._is_manager = is_manager
        self._run_id = os.urandom(8).hex()
        self._lines = ManagerLinks(
            managers, lambda host: _AskedBook(self, certificates, host, port, Random())
        )

    def handlers(self) -> Mapping[str, Handler]:
        return {PATH: self._serve}

    async def run(self) -> None:
        """Ask the others until cancelled."""
        await self._lines.run()

    def begin(self, view: ClusterView) -> None:
        """This node is a manager from now on."""
        self.book.begin(view.services)

    def lay_over(self, view: ClusterView, created: Mapping[str, str]) -> ClusterView:
        services = self.book.lay_over(view.services, created, self._clock())
        return ClusterView(view.nodes, view.networks, services, view.neighbours)

    @property
    def watched(self) -> float:
        """Seconds; less than 0 when it does not."""
        return -1.0 if self.book.since is None else self._clock() - self.book.since

    # --- asked by others ---

    async def _serve(self, peer: Identity, request: web.Request) -> web.StreamResponse:
        """For managers: by their certificate, and as the catalogue has them."""
        if peer.role != MANAGER_NAME or not self._is_manager(peer.node):
            raise web.HTTPForbidden
        try:
            asked = valid(_QUESTION, await request.content.read(QUESTION_MAX))
        except DiscoveryError as error:
            raise web.HTTPBadRequest(text=str(error)) from error
        version = f"{self._run_id}.{self.book.version}"
        if self.watched <= asked.watched or asked.known == version:
            return web.Response(status=204)
        answer = Answer(version, {owner: dict(held) for owner, held in self.book.record().items()})
        return web.Response(body=_ANSWER.dump_json(answer), content_type="application/json")


class _AskedBook(ManagerLink):
    """A manager that is asked."""

    about = "hosts of"
    answer_seconds = ANSWER_SECONDS
    kept_seconds = 3 * ASK_SECONDS
    pauses = 0.2, 5.0

    def __init__(
        self, records: HostRecords, certificates: SwarmCertificates, host: str, port: int, rng: Random
    ) -> None:
        super().__init__(certificates, host, port, PATH, rng)
        self._records = records
        self._known = ""

    async def talk(self, session: aiohttp.ClientSession) -> None:
        ours = self._certificates.fingerprint()
        while self._certificates.fingerprint() == ours:
            await self._ask(session)
            self.well()
            await asyncio.sleep(ASK_SECONDS)

    async def _ask(self, session: aiohttp.ClientSession) -> None:
        question = _QUESTION.dump_json(BookQuestion(self._records.watched, self._known))
        async with session.post(
            self.url, data=question, server_hostname=MANAGER_NAME, allow_redirects=False
        ) as response:
            if response.status == 204:
                return
            if response.status != 200:
                raise DiscoveryError(f"it answered {response.status}")
            answer = valid(_ANSWER, await _limited(response.content))
        self._known = answer.version
        self._records.book.adopt(answer.record)


async def _limited(stream: aiohttp.StreamReader) -> bytes:
    """All of it. Raises DiscoveryError when it is too long."""
    data = bytearray()
    async for piece in stream.iter_any():
        data += piece
        if len(data) > RECORD_MAX:
            raise DiscoveryError(f"more than {RECORD_MAX} bytes of hosts")
    return bytes(data)


def other_managers(nodes: Mapping[str, Node], this_node: str) -> list[str]:
    """Their addresses."""
    return [
        node.address
        for node in nodes.values()
        if node.role is Role.MANAGER and node.address and node.id != this_node
    ]


def is_manager(nodes: Mapping[str, Node], id_: str) -> bool:
    """Does the catalogue call it one? A certificate of before may still do."""
    node = nodes.get(id_)
    return node is not None and node.role is Role.MANAGER
