"""Answers the requests of entry points: each is routed to an HTTP service, or answered here."""

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from time import monotonic, time

from mesh.balance.health_state import Result
from mesh.balance.policies import Endpoint
from mesh.errors import Problem
from mesh.http.codec.h1_head import RequestHead
from mesh.http.codec.path_check import DEFAULT, EncodedCharacters
from mesh.http.config.matchers import Request
from mesh.http.config.model import HttpRoute
from mesh.http.exchange import Exchange
from mesh.http.faults import HttpFault, RequestRefused
from mesh.http.hosts.ownership import HostOwnership
from mesh.http.interfaces import Downstream
from mesh.http.local_reply import LocalReply, error_answer
from mesh.http.middleware.runner import MiddlewareRunner
from mesh.http.request_plan import RequestContext, RequestPlan
from mesh.http.routing.request_view import RequestView
from mesh.http.routing.route_problems import route_problems
from mesh.http.routing.route_table import RouteTable
from mesh.http.routing.served_routes import EntryPoint, ServedRoutes
from mesh.http.runtime import HttpRuntime
from mesh.http.upstream.external_client import ExternalClient
from mesh.http.upstream.mirror import Mirroring
from mesh.http.upstream.network_reach import NetworkReach
from mesh.http.upstream.routed_service import RoutedTarget
from mesh.http.upstream.service import UpstreamService
from mesh.http.upstream.service_registry import no_socket
from mesh.internal_errors import ERRORS
from mesh.net.isolation import report_fault, run

__all__ = ["EntryPoint", "RequestRouter"]

CHALLENGE_PATH = "/.well-known/acme-challenge/"  # RFC 8555, section 8.3
CHALLENGE_FIELDS = ((b"Content-Type", b"application/octet-stream"), (b"Cache-Control", b"no-store"))


class RequestRouter(ServedRoutes):
    """`start` it and subscribe `update` to the store; `serving(entry)` answers a listener's requests."""

    def __init__(
        self,
        runtime: HttpRuntime,
        networks: NetworkReach,
        entries: tuple[EntryPoint, ...],
        *,
        exposed_by_default: bool = True,
        as_published: Callable[[], bool] = lambda: False,
        draw: Callable[[], float] = random.random,
        on_close: Callable[[Exchange, HttpRoute | None], None] = lambda _exchange, _route: None,
        external: ExternalClient | None = None,
        checks: bool = True,
        ownership: HostOwnership | None = None,
        clock: Callable[[], float] = time,
    ) -> None:
        """`draw`: a random number from 0 to 1. `on_close`: called with each exchange that is over.
        `external`: asks authorization services outside the Swarm. `clock`: seconds since 1970."""
        super().__init__(
            runtime,
            networks,
            entries,
            exposed_by_default=exposed_by_default,
            as_published=as_published,
            checks=checks,
            ownership=ownership,
            clock=clock,
        )
        self._draw = draw
        self._on_close = on_close
        self._external = external
        self._runner = MiddlewareRunner(runtime, self._targets, self._lookup, external)
        self._mirroring = Mirroring(runtime, self._targets, draw)
        self._nobody = UpstreamService(runtime, "", no_socket)
        # Host, token → the answer to a certificate authority's challenge; None: there is none.
        self.proof: Callable[[str, str], str | None] = lambda _host, _token: None

    def serving(self, entry: str) -> "_EntryPointHandler":
        """The handler of the requests to this entry point, for its `HttpListener`."""
        return _EntryPointHandler(self, self._entries[entry], self._tables[entry])

    def exchange(
        self, table: RouteTable, client: Downstream, head: RequestHead, allowed: EncodedCharacters = DEFAULT
    ) -> Exchange:
        """Never raises: an internal error is answered with 500."""
        try:
            return self._exchange(table, client, head, allowed)
        except Exception as error:  # noqa: BLE001 - the boundary of a request
            ERRORS.report("routing a request", error)
            return self._refuse(client, head, HttpFault.INTERNAL)

    def _exchange(
        self, table: RouteTable, client: Downstream, head: RequestHead, allowed: EncodedCharacters
    ) -> Exchange:
        try:
            request = RequestView(head, client.edge, allowed)
        except RequestRefused as refused:
            return self._refuse(client, head, refused.fault)
        if request.path.startswith(CHALLENGE_PATH) and (proof := self._proof_reply(request)) is not None:
            return self._answer(client, head, RequestPlan("", "", answer=proof))
        route = table.find(request)
        if request.readings and any(
            table.find(request.read_as(one)) is not route for one in request.readings
        ):
            return self._refuse(client, head, HttpFault.BAD_PATH)
        if route is None or route.closed:
            return self._refuse(client, head, HttpFault.NO_ROUTE)
        target = self._choose_target(route)
        if target is None:
            return self._refuse(client, head, HttpFault.NO_ENDPOINT)
        plan = RequestPlan(request.sent_path, request.query)

        def on_close(exchange: Exchange) -> None:
            for on_end in plan.on_end:
                run(on_end)
            try:  # here and below as `run` does, without its price for each request
                target.on_close(exchange)
            except Exception as error:  # noqa: BLE001 - the boundary of a callback
                report_fault(target.on_close, error)
            if target.http.mirror:
                mirror = self._resolver.mirror_of(target.http.key)
                run(self._mirroring.look_at, exchange, target, mirror)
            try:
                self._on_close(exchange, route)
            except Exception as error:  # noqa: BLE001 - the boundary of a callback
                report_fault(self._on_close, error)

        exchange = Exchange(client, head, target, on_close, plan)
        exchange.source = request.client
        if (limit := target.limit(exchange)) is not None:
            plan.on_end.append(limit.end)
        handlers = self._prepared[route.owner, route.name].handlers
        if handlers:  # most routes have no middlewares
            self._runner.run(route.owner, handlers, _context(request, client, head), plan, exchange)
        return exchange

    def _choose_target(self, route: HttpRoute) -> RoutedTarget | None:
        """The route's HTTP service, or a canary of it."""
        key = route.target
        if canaries := self._resolver.canaries_of(key):
            drawn = self._draw() * 100
            for canary in canaries:
                drawn -= canary.weight
                if drawn < 0 and (target := self._targets.get(canary.key)) is not None:
                    return target
        return self._targets.get(key)

    def _proof_reply(self, request: Request) -> LocalReply | None:
        """Comes before all routers: one that redirects everything must not prevent its own certificate."""
        text = self.proof(request.host, request.path.removeprefix(CHALLENGE_PATH))
        return LocalReply(200, CHALLENGE_FIELDS, text.encode("ascii")) if text is not None else None

    def _refuse(self, client: Downstream, head: RequestHead, fault: HttpFault) -> Exchange:
        answer = error_answer(fault, client.request_id)
        return self._answer(client, head, RequestPlan("", "", answer=answer, fault=fault))

    def _answer(self, client: Downstream, head: RequestHead, plan: RequestPlan) -> Exchange:
        """An exchange without an endpoint; the plan has the answer."""

        def on_close(exchange: Exchange) -> None:
            self._nobody.on_close(exchange)
            self._on_close(exchange, None)

        return Exchange(client, head, self._nobody, on_close, plan)

    # --- what is shown to people ---

    @property
    def entries(self) -> tuple[str, ...]:
        return tuple(self._entries)

    def problems(self) -> Iterator[Problem]:
        """Everything that is wrong with labels, routes and endpoints."""
        return route_problems(self, self._external)

    def targets(self) -> Iterator[RoutedTarget]:
        """All HTTP services that are reached from here."""
        return iter(self._targets)

    def targets_of(self, id_: str) -> Iterator[RoutedTarget]:
        """A Swarm service's HTTP services, also those that no router leads to."""
        return (one for one in self._targets if one.http.owner == id_)

    def unwell(self, name: str) -> Mapping[Endpoint, Result | None]:
        """Endpoints of an HTTP service (key or name) that do not pass their check; None: not checked yet."""
        return self._targets.unwell(self._key_of(name))

    def routes(self) -> Iterator[tuple[HttpRoute, tuple[str, ...], RoutedTarget | None]]:
        """Each with its entry points, and where it leads. One that is closed, or whose hosts others have, is
        served at none."""
        for prepared in sorted(self._prepared.values(), key=lambda one: (one.route.name, one.route.owner)):
            route = prepared.served or prepared.route
            is_open = prepared.served is not None and not route.closed
            entries = tuple(self.entry_points_of(route) if is_open else ())
            yield route, entries, self._targets.get(route.target)

    def encoded_characters(self, entry: str) -> EncodedCharacters:
        """Those that this entry point lets through."""
        return self._entries[entry].encoded_characters

    def would_take(self, entry: str, request: Request) -> HttpRoute | None:
        """The route that a request to this entry point would take now."""
        route = self._tables[entry].find(request)
        return None if route is None or route.closed else route

    def network_of(self, name: str) -> str:
        """The name of the network on which an HTTP service's tasks are reached; "": they are not."""
        network = self._snapshot.networks.get(self._targets.network(self._key_of(name)))
        return network.name if network else ""

    def serves(self, entry: str, host: str) -> bool:
        """Is there a router for this host in particular?"""
        return bool(host) and self._tables[entry].serves(host)

    def is_elsewhere(self, name: str) -> bool:
        """Are its tasks reached through other nodes' sidecars?"""
        network = self._snapshot.networks.get(self._targets.network(self._key_of(name)))
        return network is not None and not self._networks.here(network, self._snapshot)

    def _key_of(self, name: str) -> str:
        """The key of an HTTP service by its key, or by its name: of the first that has it."""
        if "@" in name or name in self._targets:
            return name
        return next((one.http.key for one in self._targets if one.http.name == name), name)

    def close(self) -> None:
        self._mirroring.close()
        self._targets.close()
        self._lookup.close()


@dataclass(frozen=True, slots=True)
class _EntryPointHandler:
    """The `RequestHandler` of one entry point."""

    router: RequestRouter
    entry: EntryPoint
    table: RouteTable

    def exchange(self, client: Downstream, head: RequestHead) -> Exchange:
        return self.router.exchange(self.table, client, head, self.entry.encoded_characters)


def _context(request: RequestView, client: Downstream, head: RequestHead) -> RequestContext:
    return RequestContext(
        request,
        request.scheme,
        (head.about.authority or b"").decode("latin-1"),
        client.request_id,
        head.fields.get(b"authorization"),
        monotonic(),
        request.forwarded_for,
    )
