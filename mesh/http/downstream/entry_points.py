"""The entry points' listening sockets. One that is taken is tried again; the others go on without it."""

import asyncio
import logging
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mesh.http.downstream.listener import HttpListener
from mesh.http.routing.passthrough import TlsPassthrough
from mesh.http.routing.router import RequestRouter
from mesh.http.runtime import HttpRuntime
from mesh.net.bound_listener import BoundListener, bind_backoff, listen
from mesh.net.reconciler import Reconciler
from mesh.net.tasks import Tasks
from mesh.relay.tcp_proxy import TcpProxy

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Listening:
    """One of an entry point's addresses, for `mesh status`."""

    name: str
    address: str
    fault: str = ""


class EntryPoints:
    """`places`: entry point, address, port; an entry point may have several. `tls`: of those that have it.
    `opened`: takes each listening socket, to serve it elsewhere; None: it is served here."""

    def __init__(
        self,
        tasks: Tasks,
        core: HttpRuntime,
        site: RequestRouter,
        places: Sequence[tuple[str, str, int]],
        trusted: Callable[[str], bool],
        tls: Callable[[str], ssl.SSLContext | None] = lambda _name: None,
        passing: TlsPassthrough | None = None,
        opened: Callable[[str, socket.socket], None] | None = None,
    ) -> None:
        self._core = core
        self._site = site
        self._places = {place: self._bound_listener(*place) for place in places}
        self._trusted = trusted
        self._tls = tls
        self._passing = passing
        self._opened = opened
        self._fronts: dict[tuple[str, str, int], HttpListener] = {}
        self._adopted: list[HttpListener] = []
        self._listeners: dict[tuple[str, str, int], socket.socket] = {}  # of those that are served elsewhere
        self._reconciler = Reconciler(tasks, "entry-points", self._work, backoff=bind_backoff())

    def start(self) -> None:
        """Listen where it can be done now, and go on trying where not."""
        if not self._try():
            self._reconciler.start(failed=True)

    def adopt(self, name: str, listener: socket.socket) -> None:
        """Serve an entry point on a socket that somebody else has opened."""
        self._adopted.append(self._front(name, listener))

    @property
    def refusals(self) -> Counter[str]:
        """What never became a request, by reason."""
        return sum((front.refusals for front in self._all()), Counter[str]())

    def listening(self) -> list[Listening]:
        found = []
        for place, bound in self._places.items():
            name, host, port = place
            if place in self._fronts:
                host, port = self._fronts[place].address
            elif place in self._listeners:
                host, port = self._listeners[place].getsockname()[:2]
            shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            found.append(Listening(name, shown, bound.fault))
        return found

    @property
    def ports(self) -> set[int]:
        """All that are asked for."""
        return {port for _, _, port in self._places}

    async def close(self, drain_seconds: float = 0.0) -> None:
        await self._reconciler.close()
        for listener in self._listeners.values():
            listener.close()
        self._listeners.clear()
        await asyncio.gather(*(front.close(drain_seconds) for front in self._all()))

    @staticmethod
    def _bound_listener(name: str, host: str, port: int) -> BoundListener[socket.socket]:
        return BoundListener(
            lambda: listen(host, port), lambda fault: logger.error("entry point %s: %s", name, fault)
        )

    async def _work(self) -> bool:
        return self._try()

    def _try(self) -> bool:
        """Open what is not open. True: all of it is."""
        for place, bound in self._places.items():
            listener = bound.try_bind()
            if listener is None:
                continue
            name = place[0]
            if self._opened is None:
                self._fronts[place] = self._front(name, listener)
            else:
                self._listeners[place] = listener
                self._opened(name, listener)
        return all(bound.is_open for bound in self._places.values())

    def _front(self, name: str, listener: socket.socket) -> HttpListener:
        passed = _PassedEntry(self._passing, self._site, name) if self._passing is not None else None
        return HttpListener(
            self._core, listener, self._site.serving(name), self._trusted, self._tls(name), passed
        )

    def _all(self) -> list[HttpListener]:
        return [*self._fronts.values(), *self._adopted]


@dataclass(frozen=True, slots=True)
class _PassedEntry:
    """What of an entry point's TLS is passed on: a name with a TCP router of its own; any other if there is
    one for all, and no router of HTTP for that host."""

    passing: TlsPassthrough
    site: RequestRouter
    entry: str

    def any(self) -> bool:
        return self.passing.serves(self.entry)

    def whose(self, name: str) -> TcpProxy | None:
        found = self.passing.lookup(self.entry, name)
        if found is None and not self.site.serves(self.entry, name):
            found = self.passing.catch_all(self.entry, name)
        return found
