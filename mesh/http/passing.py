"""TLS connections that are passed on as they are: whose a name is at an entry point, and its tasks.

Kept as the catalogue changes, as `site` does for requests. A connection is relayed (`mesh.relay`), so it has
its half-closes, its splice and its resets.
"""

import errno
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from mesh.catalog.model import Service
from mesh.catalog.snapshot import Change, Snapshot
from mesh.errors import Problem
from mesh.http.core import Core
from mesh.http.model import HttpService
from mesh.http.reach import Reach, endpoints_of, network_for
from mesh.http.tcp_labels import ANY, PREFIX, TcpDeclared, TcpRouter, TcpService, read_tcp_labels
from mesh.relay.connection import Options
from mesh.relay.counts import PortStats
from mesh.relay.relaying import Relaying


@dataclass(slots=True)
class _Aimed:
    """A TCP service and what is relayed to it."""

    service: TcpService
    network: str
    relaying: Relaying


@dataclass(slots=True)
class _Known:
    labels: Mapping[str, str]
    declared: TcpDeclared
    unreachable: list[Problem] = field(default_factory=list)


class Passing:
    """`start`, subscribe `update`. `lookup(entry, name)` says who relays a connection, if anybody does.
    `entries`: the entry points with TLS."""

    def __init__(self, core: Core, reach: Reach, entries: Sequence[str]) -> None:
        self._core = core
        self._reach = reach
        self._entries = tuple(entries)
        self._snapshot = Snapshot()
        self._known: dict[str, _Known] = {}
        self._aimed: dict[str, _Aimed] = {}
        self._leaving: set[Relaying] = set()
        self._tables: dict[str, dict[str, TcpRouter]] = {}
        self._services: dict[str, TcpService] = {}
        self._conflicts: list[Problem] = []

    def start(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._look(snapshot.services)

    def update(self, old: Snapshot, new: Snapshot, change: Change) -> None:
        """Store subscriber."""
        self._snapshot = new
        touched = set(change.services)
        if self._known and (change.networks or change.containers):
            touched |= (
                self._known.keys()
            )  # a network may have come to this node; those with TCP routers are few
        self._look(touched)

    def restart(self, snapshot: Snapshot) -> None:
        """Forget what was read of labels, and read all of them anew. Connections stay."""
        self._snapshot, self._known = snapshot, {}
        self._look(snapshot.services)
        if not self._known:
            self._join()  # nobody declares anything any more

    def serves(self, entry: str) -> bool:
        """Are there any at this entry point? If not, nobody's first bytes need be looked at."""
        return bool(self._tables.get(entry))

    def lookup(self, entry: str, name: str) -> Relaying | None:
        """By the name itself, *.its-domain, or any."""
        table = self._tables.get(entry, {})
        router = table.get(name) or table.get(f"*.{name.partition('.')[2]}")
        return self._relaying(router)

    def catch_all(self, entry: str) -> Relaying | None:
        """For names that nobody else has."""
        return self._relaying(self._tables.get(entry, {}).get(ANY))

    def _relaying(self, router: TcpRouter | None) -> Relaying | None:
        aimed = self._aimed.get(router.service) if router is not None else None
        return aimed.relaying if aimed is not None else None

    # --- the catalogue ---

    def _look(self, ids: Mapping[str, object] | set[str]) -> None:
        declared = False
        for id_ in ids:
            service, known = self._snapshot.services.get(id_), self._known.get(id_)
            if service is None or not any(key.lower().startswith(PREFIX) for key in service.labels):
                declared = self._known.pop(id_, None) is not None or declared
            elif known is None or known.labels != service.labels:
                self._known[id_] = _Known(service.labels, read_tcp_labels(service))
                declared = True
        if declared:
            self._join()
        for id_ in ids:
            if id_ in self._known and (service := self._snapshot.services.get(id_)) is not None:
                self._aim(service, self._known[id_])

    def _join(self) -> None:
        """All that is declared, by name. What two services declare differently is the first one's."""
        routers: dict[str, TcpRouter] = {}
        services: dict[str, TcpService] = {}
        self._conflicts = []
        tables: dict[str, dict[str, TcpRouter]] = {entry: {} for entry in self._entries}
        for id_ in sorted(self._known):
            declared, owner = self._known[id_].declared, self._snapshot.services[id_].name
            for name, service in declared.services.items():
                if services.setdefault(name, service) != service:
                    self._conflict(owner, f"services.{name}", services[name].owner)
            for name, router in declared.routers.items():
                if routers.setdefault(name, router) != router:
                    self._conflict(owner, f"routers.{name}", routers[name].owner)
        for router in routers.values():
            owner = self._snapshot.services[router.owner].name
            if router.service not in services:
                self._problem(
                    owner, f"routers.{router.name}.service", f"there is no service {router.service!r}"
                )
            for entry in router.entrypoints or self._entries:
                if entry not in tables:
                    why = f"there is no entry point {entry!r} with TLS (but {', '.join(tables) or 'none'})"
                    self._problem(owner, f"routers.{router.name}.entrypoints", why)
                    continue
                for name in router.names:
                    if tables[entry].setdefault(name, router) != router:
                        why = f"HostSNI(`{name}`) is router {tables[entry][name].name!r}'s already"
                        self._problem(owner, f"routers.{router.name}.rule", why)
        self._tables = tables
        for name in self._aimed.keys() - services.keys():
            self._drop(name)
        self._services = services

    def _aim(self, service: Service, known: _Known) -> None:
        known.unreachable = []
        for name, tcp in known.declared.services.items():
            if self._services.get(name) != tcp:
                continue  # another service's of the same name counts
            as_http = HttpService(name, service.id, tcp.port, network=tcp.network)
            network, why = network_for(as_http, service, self._snapshot, self._reach)
            if network is None:
                where = f"{PREFIX}services.{name}"
                known.unreachable.append(Problem(service.name, where, f"cannot be reached: {why}"))
            wanted = network.id if network else ""
            aimed = self._aimed.get(name)
            if aimed is None or aimed.service != tcp or aimed.network != wanted:
                self._drop(name)
                connect = self._reach.connect(wanted) if network else _nowhere
                options = Options(proxy_protocol=tcp.proxy_protocol)
                made = Relaying(self._core.poller, self._core.deadlines, (), options, connect)
                aimed = self._aimed[name] = _Aimed(tcp, wanted, made)
            aimed.relaying.retarget(endpoints_of(as_http, service, network, False) if network else ())

    def _drop(self, name: str) -> None:
        """Its connections go on until they end; no more come."""
        aimed = self._aimed.pop(name, None)
        if aimed is not None:
            aimed.relaying.retarget(())
            self._leaving = {one for one in self._leaving if one.active} | {aimed.relaying}

    # --- telling ---

    def problems(self) -> Iterator[Problem]:
        for known in self._known.values():
            yield from known.declared.problems
            yield from known.unreachable
        yield from self._conflicts

    def routers(self) -> Iterator[tuple[TcpRouter, tuple[str, ...], Relaying | None]]:
        """Each with its entry points, and where it leads."""
        found = {router.name: router for table in self._tables.values() for router in table.values()}
        for name in sorted(found):
            at = tuple(entry for entry, table in self._tables.items() if found[name] in table.values())
            yield found[name], at, self._relaying(found[name])

    def stats(self) -> Iterator[tuple[str, PortStats]]:
        """By the Swarm service's id."""
        for aimed in self._aimed.values():
            yield aimed.service.owner, aimed.relaying.stats

    async def close(self, drain_seconds: float) -> None:
        for relaying in (*(one.relaying for one in self._aimed.values()), *self._leaving):
            await relaying.drain(drain_seconds)

    def _conflict(self, owner: str, where: str, first: str) -> None:
        other = self._snapshot.services[first].name
        self._problem(owner, where, f"is declared differently by {other}, which counts")

    def _problem(self, owner: str, where: str, why: str) -> None:
        self._conflicts.append(Problem(owner, f"{PREFIX}{where}", why))


def _nowhere() -> socket.socket:
    raise OSError(errno.ENETUNREACH, "no network of the service is on this node")
