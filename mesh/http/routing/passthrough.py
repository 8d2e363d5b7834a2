"""Which TLS connections are passed on to tasks without ending their TLS, and to which.

The tables are kept up as the catalogue changes, as `served_routes` does for requests. A connection is relayed
by `mesh.relay`, with its half-close, splice and resets.
"""

import errno
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from mesh.catalog.model import Service
from mesh.catalog.snapshot import Change, Snapshot
from mesh.errors import Problem
from mesh.http.config.model import HttpService
from mesh.http.config.owner import owner_of
from mesh.http.hosts.claims import tcp_area_of
from mesh.http.hosts.entitlement import HostRefusal
from mesh.http.hosts.ownership import HostOwnership
from mesh.http.labels.passthrough import ANY, PREFIX, TcpDeclared, TcpRouter, TcpService, read_tcp_labels
from mesh.http.runtime import HttpRuntime
from mesh.http.upstream.network_reach import NetworkReach, endpoints_of, network_for, within_reach
from mesh.relay.stats import PortStats
from mesh.relay.tcp_connection import RelayOptions
from mesh.relay.tcp_proxy import TcpProxy


@dataclass(slots=True)
class _RelayedService:
    """A TCP service and the proxy of its connections."""

    service: TcpService
    network: str
    proxy: TcpProxy


@dataclass(slots=True)
class _KnownPassthrough:
    labels: Mapping[str, str]
    declared: TcpDeclared
    unreachable: list[Problem] = field(default_factory=list)


class TlsPassthrough:
    """`start`, subscribe `update`. `lookup(entry, name)` says who relays a connection, if anybody does.
    `entries`: the entry points with TLS."""

    def __init__(
        self,
        runtime: HttpRuntime,
        networks: NetworkReach,
        entries: Sequence[str],
        ownership: HostOwnership | None = None,
    ) -> None:
        """`ownership`: whose hosts are. The `RequestRouter` keeps it, and hears of changes first."""
        self._ownership = ownership
        self._version = -1  # of it, that the tables are made of
        self._runtime = runtime
        self._networks = networks
        self._entries = tuple(entries)
        self._snapshot = Snapshot()
        self._known: dict[str, _KnownPassthrough] = {}
        self._relayed: dict[str, _RelayedService] = {}
        self._draining: set[TcpProxy] = set()
        self._tables: dict[str, dict[str, TcpRouter]] = {}
        self._services: dict[str, TcpService] = {}
        self._conflicts: list[Problem] = []

    def start(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._refresh(snapshot.services)

    def update(self, old: Snapshot, new: Snapshot, change: Change) -> None:
        """Store subscriber."""
        self._snapshot = new
        touched = set(change.services)
        if self._known and (change.networks or change.containers):
            touched |= (
                self._known.keys()
            )  # a network may have come to this node; those with TCP routers are few
        self._refresh(touched)

    def restart(self, snapshot: Snapshot) -> None:
        """Forget what was read of labels, and read all labels again. Connections stay."""
        self._snapshot, self._known = snapshot, {}
        self._refresh(snapshot.services)
        if not self._known:
            self._join()  # nobody declares anything any more

    def serves(self, entry: str) -> bool:
        """Is there a TCP router at this entry point? If not, the first bytes of connections need not be
        read."""
        return bool(self._tables.get(entry))

    def lookup(self, entry: str, name: str) -> TcpProxy | None:
        """The proxy for this server name: by the name itself, or by a wildcard of its domain."""
        table = self._tables.get(entry, {})
        router = table.get(name)
        if router is None:
            wildcard = f"*.{name.partition('.')[2]}"
            router = table.get(wildcard)
            if router is not None and self._belongs_to_another(name, router, wildcard):
                return None
        return self._proxy_of(router)

    def catch_all(self, entry: str, name: str = "") -> TcpProxy | None:
        """The proxy for all names that no other router has."""
        router = self._tables.get(entry, {}).get(ANY)
        if router is not None and self._ownership is not None:
            assigned = self._ownership.assigned(name)
            if assigned is not None and assigned != router.scope:
                return None
        return self._proxy_of(router)

    def _belongs_to_another(self, name: str, router: TcpRouter, wildcard: str) -> bool:
        """Does another stack name this host itself, or has it had it longer by an expression of HTTP?"""
        if self._ownership is None:
            return False
        since = self._ownership.right(router.scope, tcp_area_of(wildcard)).since
        return self._ownership.is_anothers(name, router.scope) or self._ownership.fits_anothers(
            name, router.scope, since
        )

    def _proxy_of(self, router: TcpRouter | None) -> TcpProxy | None:
        relayed = self._relayed.get(router.target) if router is not None else None
        return relayed.proxy if relayed is not None else None

    # --- the catalogue ---

    def _refresh(self, ids: Mapping[str, object] | set[str]) -> None:
        declared = False
        for id_ in ids:
            service, known = self._snapshot.services.get(id_), self._known.get(id_)
            if service is None or not any(key.lower().startswith(PREFIX) for key in service.labels):
                declared = self._known.pop(id_, None) is not None or declared
            elif known is None or known.labels != service.labels:
                self._known[id_] = _KnownPassthrough(service.labels, read_tcp_labels(service))
                declared = True
        version = self._ownership.tls_version if self._ownership is not None else -1
        if declared or (self._known and version != self._version):
            self._version = version
            self._join()
        for id_ in ids:
            if id_ in self._known and (service := self._snapshot.services.get(id_)) is not None:
                self._set_endpoints(service, self._known[id_])

    def _join(self) -> None:
        """Build the tables. Of what two services of a stack declare, the first one's counts."""
        routers: dict[tuple[str, str], TcpRouter] = {}
        services: dict[str, TcpService] = {}
        scopes: dict[str, set[str]] = {}  # name of a service → whose there are
        self._conflicts = []
        for id_ in sorted(self._known):
            declared, owner = self._known[id_].declared, self._snapshot.services[id_]
            scope = owner_of(owner)
            for name, service in declared.services.items():
                scopes.setdefault(name, set()).add(scope)
                if services.setdefault(_key(name, scope), service) != service:
                    self._conflict(owner.name, f"services.{name}", services[_key(name, scope)].owner)
            for name, router in declared.routers.items():
                if routers.setdefault((scope, name), router) != router:
                    self._conflict(owner.name, f"routers.{name}", routers[scope, name].owner)
        self._tables = {entry: {} for entry in self._entries}
        for (scope, _), router in routers.items():
            meant = self._scope_of_service(router.service, scope, scopes.get(router.service, set()))
            self._add_router(replace(router, scope=scope, target=_key(router.service, meant)), services)
        for key in self._relayed.keys() - services.keys():
            self._drop(key)
        self._services = services

    def _scope_of_service(self, name: str, scope: str, scopes: set[str]) -> str:
        """Whose service is meant: its own stack's, else that of the stack that has had the name longest."""
        if scope in scopes or not scopes:
            return scope
        ownership = self._ownership
        return min(
            scopes, key=lambda one: (ownership.since_of(("tcp", name), one) if ownership else 0.0, one)
        )

    def _add_router(self, router: TcpRouter, services: Mapping[str, TcpService]) -> None:
        owner, tables = self._snapshot.services[router.owner].name, self._tables
        if router.target not in services:
            self._problem(owner, f"routers.{router.name}.service", f"there is no service {router.service!r}")
        names = [name for name in router.names if self._is_entitled(owner, router, name)]
        for entry in router.entrypoints or self._entries:
            if entry not in tables:
                why = f"there is no entry point {entry!r} with TLS (but {', '.join(tables) or 'none'})"
                self._problem(owner, f"routers.{router.name}.entrypoints", why)
                continue
            for name in names:
                if tables[entry].setdefault(name, router) != router:
                    why = f"HostSNI(`{name}`) is router {tables[entry][name].name!r}'s already"
                    self._problem(owner, f"routers.{router.name}.rule", why)

    def _is_entitled(self, owner: str, router: TcpRouter, name: str) -> bool:
        if self._ownership is None:
            return True
        refused_by = self._ownership.right(router.scope, tcp_area_of(name)).refused_by
        if refused_by is not None:
            refusal = HostRefusal(f"HostSNI(`{name}`)", refused_by)
            self._problem(owner, f"routers.{router.name}.rule", str(refusal))
        return refused_by is None

    def _set_endpoints(self, service: Service, known: _KnownPassthrough) -> None:
        known.unreachable = []
        for name, tcp in known.declared.services.items():
            key = _key(name, owner_of(service))
            if self._services.get(key) != tcp:
                continue  # another service's of the same name counts
            as_http = HttpService(name, service.id, tcp.port, network=tcp.network)
            network, why = network_for(as_http, service, self._snapshot, self._networks)
            if network is None:
                where = f"{PREFIX}services.{name}"
                known.unreachable.append(Problem(service.name, where, f"cannot be reached: {why}"))
            wanted = network.id if network else ""
            relayed = self._relayed.get(key)
            if relayed is None or relayed.service != tcp or relayed.network != wanted:
                self._drop(key)
                connect = self._networks.connect(wanted) if network else _no_network
                options = RelayOptions(proxy_protocol=tcp.proxy_protocol)
                made = TcpProxy(self._runtime.poller, self._runtime.deadlines, (), options, connect)
                relayed = self._relayed[key] = _RelayedService(tcp, wanted, made)
            found = endpoints_of(as_http, service, network, False) if network else ()
            endpoints, refused = within_reach(found, self._networks)
            if refused:
                known.unreachable.append(Problem(service.name, f"{PREFIX}services.{name}", refused))
            relayed.proxy.update_endpoints(endpoints)

    def _drop(self, name: str) -> None:
        """Its connections go on until they end; no more come."""
        relayed = self._relayed.pop(name, None)
        if relayed is not None:
            relayed.proxy.update_endpoints(())
            self._draining = {one for one in self._draining if one.active} | {relayed.proxy}

    # --- what is shown to people ---

    def problems(self) -> Iterator[Problem]:
        for known in self._known.values():
            yield from known.declared.problems
            yield from known.unreachable
        yield from self._conflicts

    def routers(self) -> Iterator[tuple[TcpRouter, tuple[str, ...], TcpProxy | None]]:
        """Each with its entry points, and where it leads."""
        found = {(one.name, one.scope): one for table in self._tables.values() for one in table.values()}
        for key in sorted(found):
            at = tuple(entry for entry, table in self._tables.items() if found[key] in table.values())
            yield found[key], at, self._proxy_of(found[key])

    def stats(self) -> Iterator[tuple[str, PortStats]]:
        """By the Swarm service's id."""
        for relayed in self._relayed.values():
            yield relayed.service.owner, relayed.proxy.stats

    async def close(self, drain_seconds: float) -> None:
        for proxy in (*(one.proxy for one in self._relayed.values()), *self._draining):
            await proxy.drain(drain_seconds)

    def _conflict(self, owner: str, where: str, first: str) -> None:
        other = self._snapshot.services[first].name
        self._problem(owner, where, f"is declared differently by {other}, which counts")

    def _problem(self, owner: str, where: str, why: str) -> None:
        self._conflicts.append(Problem(owner, f"{PREFIX}{where}", why))


def _key(name: str, scope: str) -> str:
    return f"{name}@{scope}"


def _no_network() -> socket.socket:
    raise OSError(errno.ENETUNREACH, "no network of the service is on this node")
