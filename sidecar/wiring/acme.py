"""Certificates from an authority put together: what is kept, who orders, how the nodes share it."""

import asyncio
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

from mesh.acme.certificate_store import AcmeStore
from mesh.acme.client import Authority
from mesh.acme.issuer import Issuer
from mesh.acme.replication import PATH, ReplicationClient, ReplicationServer
from mesh.acme.self_check import SelfCheck
from mesh.catalog.model import Role
from mesh.catalog.snapshot import Change, Snapshot
from mesh.catalog.store import Store
from mesh.errors import Problem
from mesh.http.routing.router import RequestRouter
from mesh.http.tls.certificate_store import TlsCertificates
from mesh.net.tasks import Tasks
from mesh.peers.feed.server import Handler
from mesh.peers.swarm_tls import SwarmCertificates
from sidecar.config import Acme, EntryPointAddress
from sidecar.wiring.acme_worker import proof


class AcmeService:
    """`on_swarm` if there is one, then `start`, once. `changed` is set when there are other certificates."""

    def __init__(
        self, config: Acme, entries: Collection[EntryPointAddress], state_dir: str, tasks: Tasks, store: Store
    ) -> None:
        self._entries = entries
        self._tasks = tasks
        self._store = store
        self.kept = AcmeStore(state_dir, config.directory)
        self.kept.load()
        self.kept.serving = any(entry.tls for entry in entries)
        self.changed = asyncio.Event()
        self.kept.on_change = self.changed.set
        self._authority = Authority(config.directory, config.email, config.ca)
        self._teller = ReplicationServer(self.kept, lambda: store.current.nodes, self._wanted_names)
        self._asker: ReplicationClient | None = None
        self._leads: Callable[[], bool] = lambda: True
        self._issuer: Issuer | None = None
        self._site: RequestRouter | None = None
        self._seen = -1  # version of what is wanted

    @property
    def folder(self) -> Path:
        return self.kept.folder

    @property
    def thumbprint(self) -> str:
        return self.kept.thumbprint

    def handlers(self) -> Mapping[str, Handler]:
        """What other nodes may ask of this one, when it is a manager."""
        return {PATH: self._teller.serve}

    def on_swarm(self, certificates: SwarmCertificates, feed_port: int, leads: Callable[[], bool]) -> None:
        self._leads = leads
        self._asker = ReplicationClient(certificates, self._other_managers, self.kept, feed_port)

    def start(self, site: RequestRouter, certificates: TlsCertificates) -> None:
        self._site = site
        site.proof = self._proof
        self._issuer = issuer = Issuer(
            self._authority,
            self.kept,
            lambda: site.acme_domains.wanted,
            certificates.covers,
            self._leads,
            self._settled,
            SelfCheck(self._nodes, self._port()).prepare,
            owner=site.acme_domains.owner,
        )
        self._store.subscribe(self._look_for_news, "certificate-orders", self._look_at_all)
        if self._asker is not None:
            self._tasks.keep(self._asker.run, "certificates of managers")
        self._tasks.keep(issuer.run, "certificates to order")

    def close(self) -> None:
        self._authority.close()

    def problems(self) -> Iterator[Problem]:
        if self._issuer is not None:
            yield from self._issuer.problems()

    def orders(self) -> dict[tuple[str, ...], int]:
        return {(result,): count for result, count in self._issuer.orders.items()} if self._issuer else {}

    # --- what it is told ---

    def _look_for_news(self, _old: Snapshot, new: Snapshot, _change: Change) -> None:
        here = new.nodes.get(new.this_node)
        if here is not None and here.role is not Role.MANAGER:
            self.kept.drop_account()
        if self._site is not None and self._issuer is not None:
            version = self._site.acme_domains.version
            if version != self._seen:
                self._seen = version
                self._issuer.news()
                self.kept.wake()  # other nodes may be told of more

    def _look_at_all(self, snapshot: Snapshot) -> None:
        self._seen = -1  # whatever was noted before
        self._look_for_news(snapshot, snapshot, Change())

    async def _settled(self) -> None:
        if self._asker is not None:
            await self._asker.settled()

    def _wanted_names(self) -> frozenset[str]:
        """Of certificates that routers want now; none while it is not known what they want."""
        wanted = self._site.acme_domains.wanted if self._site is not None else ()
        return frozenset(name for names in wanted for name in names)

    def _other_managers(self) -> dict[str, str]:
        """Address → node."""
        now = self._store.current
        return {
            node.address: node.id
            for node in now.nodes.values()
            if node.role is Role.MANAGER and node.address and node.id != now.this_node
        }

    # --- proofs ---

    def _proof(self, host: str, token: str) -> str | None:
        return proof(self._site, host, token, self.kept.thumbprint) if self._site is not None else None

    def _nodes(self) -> list[str]:
        """Whose entry points are asked first: all, if they are open on all addresses."""
        if not any(entry.address.is_any for entry in self._plain()):
            return []
        nodes = self._store.current.nodes.values()
        return [node.address for node in nodes if node.address and node.state == "ready"]

    def _port(self) -> int:
        ports = [entry.address.port for entry in self._plain()]
        return 80 if 80 in ports else ports[0]

    def _plain(self) -> list[EntryPointAddress]:
        return [entry for entry in self._entries if not entry.tls]
