"""The listening sockets of the entry points. An address that cannot be bound is tried again; the others are
served meanwhile."""

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
class EntryPointStatus:
    """One address of an entry point, for `mesh status`."""

    name: str
    address: str
    fault: str = ""


class EntryPoints:
    """`addresses`: (entry point, address, port); an entry point may have several. `tls`: the context of an
    entry point, if it has TLS. `on_open`: takes each listening socket, to serve it in another process; None:
    it is served here."""

    def __init__(
        self,
        tasks: Tasks,
        runtime: HttpRuntime,
        router: RequestRouter,
        addresses: Sequence[tuple[str, str, int]],
        trusted: Callable[[str], bool],
        tls: Callable[[str], ssl.SSLContext | None] = lambda _name: None,
        passthrough: TlsPassthrough | None = None,
        on_open: Callable[[str, socket.socket], None] | None = None,
    ) -> None:
        self._runtime = runtime
        self._router = router
        self._bound = {place: self._bound_listener(*place) for place in addresses}
        self._trusted = trusted
        self._tls = tls
        self._passthrough = passthrough
        self._on_open = on_open
        self._http_listeners: dict[tuple[str, str, int], HttpListener] = {}
        self._adopted: list[HttpListener] = []
        self._listeners: dict[tuple[str, str, int], socket.socket] = {}  # those that another process serves
        self._reconciler = Reconciler(tasks, "entry-points", self._work, backoff=bind_backoff())

    def start(self) -> None:
        """Binds what can be bound now, and goes on trying the rest."""
        if not self._bind():
            self._reconciler.start(failed=True)

    def adopt(self, name: str, listener: socket.socket) -> None:
        """Serves an entry point on a socket that another process has opened."""
        self._adopted.append(self._serve(name, listener))

    @property
    def refusals(self) -> Counter[str]:
        """Connections and bytes that did not become a request, by reason."""
        return sum((listener.refusals for listener in self._all_listeners()), Counter[str]())

    def status(self) -> list[EntryPointStatus]:
        found = []
        for place, bound in self._bound.items():
            name, host, port = place
            if place in self._http_listeners:
                host, port = self._http_listeners[place].address
            elif place in self._listeners:
                host, port = self._listeners[place].getsockname()[:2]
            shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            found.append(EntryPointStatus(name, shown, bound.fault))
        return found

    @property
    def ports(self) -> set[int]:
        """The ports of all entry points, bound or not."""
        return {port for _, _, port in self._bound}

    async def close(self, drain_seconds: float = 0.0) -> None:
        await self._reconciler.close()
        for listener in self._listeners.values():
            listener.close()
        self._listeners.clear()
        await asyncio.gather(*(listener.close(drain_seconds) for listener in self._all_listeners()))

    @staticmethod
    def _bound_listener(name: str, host: str, port: int) -> BoundListener[socket.socket]:
        return BoundListener(
            lambda: listen(host, port), lambda fault: logger.error("entry point %s: %s", name, fault)
        )

    async def _work(self) -> bool:
        return self._bind()

    def _bind(self) -> bool:
        """Binds the addresses that are not bound. True: all are."""
        for place, bound in self._bound.items():
            listener = bound.try_bind()
            if listener is None:
                continue
            name = place[0]
            if self._on_open is None:
                self._http_listeners[place] = self._serve(name, listener)
            else:
                self._listeners[place] = listener
                self._on_open(name, listener)
        return all(bound.is_open for bound in self._bound.values())

    def _serve(self, name: str, listener: socket.socket) -> HttpListener:
        passthrough = None
        if self._passthrough is not None:
            passthrough = _EntryPassthrough(self._passthrough, self._router, name)
        return HttpListener(
            self._runtime, listener, self._router.serving(name), self._trusted, self._tls(name), passthrough
        )

    def _all_listeners(self) -> list[HttpListener]:
        return [*self._http_listeners.values(), *self._adopted]


@dataclass(frozen=True, slots=True)
class _EntryPassthrough:
    """Which TLS connections of an entry point are passed on: those for a name with a TCP router; those for
    other names if there is a TCP router for all, and no HTTP router for that host."""

    passthrough: TlsPassthrough
    router: RequestRouter
    entry: str

    def has_routes(self) -> bool:
        return self.passthrough.serves(self.entry)

    def proxy_for(self, name: str) -> TcpProxy | None:
        found = self.passthrough.lookup(self.entry, name)
        if found is None and not self.router.serves(self.entry, name):
            found = self.passthrough.catch_all(self.entry, name)
        return found
