"""Keeps the connections of an aiohttp server few and at work: those that ask for nothing end.

aiohttp limits neither how many connections there are nor, in all of its versions, how long one may take to
send the head of its first request. Here each address has a share of the places. A connection that waits for a
request has so long for it; when there is no place for a newcomer, the one of its address, or of whoever has
the most, that has waited for longest gives way. One whose request is being answered never does.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from mesh.net.limits.fair_shares import FairShares, share_key

SWEEP_SECONDS = 1.0  # between two looks at those that wait

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class GuardLimits:
    """Connections and seconds of one server."""

    connections: int
    per_address: int
    first: float = 10.0  # from the beginning to the end of a request's head
    next: float = 30.0  # from the end of an answer to that


class ConnectionGuard:
    """`attach` it to a server before there are connections. `refused` is told why one was closed."""

    def __init__(
        self,
        limits: GuardLimits,
        refused: Callable[[str], None] = lambda _reason: None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._limits = limits
        self._refused = refused
        self._loop = asyncio.get_running_loop()
        self._clock = clock or self._loop.time
        self._all: FairShares[str, RequestHandler] = FairShares(limits.connections, limits.per_address)
        self._waiting: FairShares[str, RequestHandler] = FairShares(limits.connections, limits.per_address)
        self._places: dict[RequestHandler, tuple[str, asyncio.Transport]] = {}
        self._until: dict[RequestHandler, float] = {}  # of those that wait
        self._sweep: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        """Connections."""
        return len(self._all)

    def attach(self, server: web.Server) -> None:
        made, lost, handle = server.connection_made, server.connection_lost, server.request_handler

        def connection_made(handler: RequestHandler, transport: asyncio.Transport) -> None:
            made(handler, transport)
            self._made(handler, transport)

        def connection_lost(handler: RequestHandler, exc: BaseException | None = None) -> None:
            lost(handler, exc)
            self._lost(handler)

        async def request_handler(request: web.BaseRequest) -> web.StreamResponse:
            self._works(request.protocol)
            try:
                return await handle(request)
            finally:
                self._waits(request.protocol, self._limits.next)

        server.connection_made = connection_made  # type: ignore[method-assign]
        server.connection_lost = connection_lost  # type: ignore[method-assign]
        server.request_handler = request_handler

    # --- connections ---

    def _made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        peer = transport.get_extra_info("peername")
        address = share_key(str(peer[0])) if isinstance(peer, tuple) and peer else ""
        if not self._make_room(address):
            self._refused("too many connections")
            transport.abort()
            return
        self._all.add(address, handler)
        self._places[handler] = (address, transport)
        self._waits(handler, self._limits.first)

    def _make_room(self, address: str) -> bool:
        if address and self._all.has_its_share(address):
            giving_way = self._waiting.oldest_of(address)
        elif self._all.full:
            giving_way = self._waiting.to_give_way(address) or self._waiting.oldest()
        else:
            return True
        if giving_way is None:
            return False
        self._refused("gave way")
        self._end(giving_way)
        return True

    def _works(self, handler: RequestHandler) -> None:
        self._waiting.remove(handler)
        self._until.pop(handler, None)

    def _waits(self, handler: RequestHandler, seconds: float) -> None:
        place = self._places.get(handler)
        if place is None:
            return  # it has ended
        if handler not in self._waiting:
            self._waiting.add(place[0], handler)
        self._until[handler] = self._clock() + seconds
        if self._sweep is None:
            self._sweep = self._loop.call_later(SWEEP_SECONDS, self.end_overdue)

    def _lost(self, handler: RequestHandler) -> None:
        self._places.pop(handler, None)
        self._all.remove(handler)
        self._works(handler)

    def _end(self, handler: RequestHandler) -> None:
        _, transport = self._places[handler]
        self._lost(handler)
        transport.abort()

    def end_overdue(self) -> None:
        """Close those that have had their time."""
        now, self._sweep = self._clock(), None
        for handler in [one for one, until in self._until.items() if now >= until]:
            self._refused("silent")
            self._end(handler)
        if self._until:
            self._sweep = self._loop.call_later(SWEEP_SECONDS, self.end_overdue)
