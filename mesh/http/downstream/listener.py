"""One listening socket that speaks HTTP: accepts clients, limits them, and drains at the end."""

import asyncio
import heapq
import socket
import ssl
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Protocol

from mesh.http import limits
from mesh.http.codec.h1_head import RequestHead
from mesh.http.codec.proxy_headers import ClientInfo
from mesh.http.downstream.h1_connection import H1Client
from mesh.http.downstream.h2_connection import H2Client
from mesh.http.downstream.interfaces import HttpClient
from mesh.http.exchange import Exchange
from mesh.http.faults import HttpFault
from mesh.http.interfaces import Downstream
from mesh.http.runtime import HttpRuntime
from mesh.http.tls.handshake_base import TlsAccept
from mesh.http.tls.handshake_places import HandshakePlaces
from mesh.http.tls.server_handshake import ServerHandshake
from mesh.http.tls.sni_peek import SniPeek
from mesh.net.acceptor import Accepting
from mesh.net.bound_listener import ListenerOwner
from mesh.net.isolation import report_fault, run
from mesh.net.limits.per_client_limit import Addresses
from mesh.net.poller import Poller
from mesh.net.timers import Deadlines
from mesh.relay.splice import reset_on_close
from mesh.relay.tcp_proxy import TcpProxy


class RequestHandler(Protocol):
    """Answers the requests of a listener."""

    def exchange(self, client: Downstream, head: RequestHead) -> Exchange:
        """The exchange for a request. The client's connection starts it."""
        ...


class PassthroughLookup(Protocol):
    """TLS connections that are passed on as they are, chosen by their server name."""

    def has_routes(self) -> bool:
        """There are such connections: server names have to be read."""
        ...

    def proxy_for(self, name: str) -> TcpProxy | None:
        """Passes on the connections for this name; None: TLS ends here."""
        ...


class HttpListener(ListenerOwner):
    """`trusted`: an address is that of a trusted proxy. `tls`: the context, if clients speak TLS."""

    def __init__(
        self,
        runtime: HttpRuntime,
        listener: socket.socket,
        handler: RequestHandler,
        trusted: Callable[[str], bool] = lambda _: False,
        tls: ssl.SSLContext | None = None,
        passthrough: PassthroughLookup | None = None,
    ) -> None:
        self._runtime = runtime
        self._listener = listener
        self._handler = handler
        self._trusted = trusted
        self._tls = tls
        self._clients: set[HttpClient] = set()
        self._passthrough = passthrough
        self._handshakes: HandshakePlaces[TlsAccept[Any]] = HandshakePlaces()
        self._addresses = Addresses(runtime.per_address)
        self._empty = asyncio.Event()  # set when the last client is gone after `close`
        self._port = int(listener.getsockname()[1])
        self.connections = 0
        self.refusals: Counter[str] = Counter()  # of what did not become a request, by reason
        self.closing = False
        self._accepting = Accepting(listener, self._on_accepted, self._on_not_accepted)

    @property
    def active(self) -> int:
        """The number of open connections."""
        return len(self._clients) + len(self._handshakes)

    async def close(self, drain_seconds: float = 0.0) -> None:
        """Accepts no more connections, waits so long for the requests under way, and aborts the rest."""
        if not self.closing:
            self.closing = True
            self._accepting.stop(take_waiting=drain_seconds > 0)
            for client in tuple(self._clients):
                client.finish()
        if self.active and drain_seconds > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(drain_seconds):
                    await self._empty.wait()
        for client in tuple(self._clients):
            client.abort()
        for handshake in tuple(self._handshakes):
            handshake.abort()

    # --- accepting ---

    def _on_not_accepted(self, reason: str) -> None:
        self.refusals[reason] += 1
        if reason == "fd_limit":  # idle clients must not hold the descriptors that others need
            self._abort_idle(max(limits.FEW_CONNECTIONS, len(self._clients) // 4))

    def _on_accepted(self, sock: socket.socket, peer: tuple[str, int]) -> None:
        sock.setblocking(False)
        self.connections += 1
        address = peer[0].removeprefix("::ffff:") if "." in peer[0] else peer[0]
        scheme = "https" if self._tls else "http"
        edge = ClientInfo(address, scheme, self._port, self._trusted, budget=self._runtime.bytes)
        if self._is_full() and not self._abort_idle(-1):
            self._refuse(sock, HttpFault.FULL.reason)
        elif not edge.trusted and not self._addresses.enter(address):
            self._refuse(sock, "per_address")
        elif self._tls is not None and not self._admit_handshake(edge):
            self._release_address(edge)
            self._refuse(sock, "handshakes_per_address")
        else:
            try:
                self._start(sock, edge)
            except Exception:  # `Accepting` closes the socket
                self._release_address(edge)
                raise

    def _refuse(self, sock: socket.socket, reason: str) -> None:
        self.refusals[reason] += 1
        reset_on_close(sock)
        sock.close()

    def _is_full(self) -> bool:
        """Handshakes are counted only near the limit: there are few of them."""
        return len(self._clients) > limits.CONNECTIONS_MAX // 2 and self.active >= limits.CONNECTIONS_MAX

    def _abort_idle(self, few: int) -> bool:
        """Closes some connections that wait for a request, first those of addresses with the most
        connections. False: there are none. Those that have sent a request before stay if their address has at
        most `few` connections."""
        idle = []
        for number, one in enumerate(self._clients):
            order = one.eviction_order
            if order is None:
                continue
            count = self._addresses.count(one.edge.client)
            if count > few or not order[0]:
                idle.append((-count, order, number, one))
        for *_, client in heapq.nsmallest(limits.SPARED_AT_ONCE, idle):
            self.refusals["gave_way"] += 1
            client.abort()
        return bool(idle)

    def _admit_handshake(self, edge: ClientInfo) -> bool:
        admitted, evicted = self._handshakes.admit(edge.client, shared=edge.trusted)
        if evicted is not None:
            self.refusals["gave_way"] += 1
            evicted.abort()
        return admitted

    def _start(self, sock: socket.socket, edge: ClientInfo) -> None:
        if self._tls is None:
            self._serve(sock, edge)
        elif self._passthrough is not None and self._passthrough.has_routes():
            self._peek(sock, edge, self._tls, self._passthrough)
        else:
            self._secure(sock, edge, self._tls)

    def _peek(
        self, sock: socket.socket, edge: ClientInfo, context: ssl.SSLContext, passthrough: PassthroughLookup
    ) -> None:
        """Reads the server name, then passes the connection on or starts the handshake."""

        def on_done(one: SniPeek, sock: socket.socket, name: str) -> None:
            self._handshakes.remove(one)
            proxy = passthrough.proxy_for(name)
            if proxy is None:
                self._secure(sock, edge, context, active=True)
                return
            self._check_empty()  # from now on the connection is the proxy's
            try:
                peer = sock.getpeername()
            except OSError:  # it has gone already
                sock.close()
                self._release_address(edge)
                return
            proxy.begin(sock, (edge.client, peer[1]), partial(self._release_address, edge))

        on_failed = partial(self._on_handshake_failed, edge)
        peek = SniPeek(self.poller, self.deadlines, sock, on_done, on_failed)
        self._handshakes.add(edge.client, peek)
        peek.on_first_bytes = partial(self._handshakes.mark_active, edge.client, peek)
        run(peek.start)

    def _secure(
        self, sock: socket.socket, edge: ClientInfo, context: ssl.SSLContext, active: bool = False
    ) -> None:
        def on_done(one: ServerHandshake, secured: ssl.SSLSocket) -> None:
            self._handshakes.remove(one)
            self._serve(secured, edge)

        failed = partial(self._on_handshake_failed, edge)
        try:
            handshake = ServerHandshake(self.poller, self.deadlines, sock, context, on_done, failed)
        except OSError:  # it has gone already
            sock.close()
            self.refusals["tls"] += 1
            self._on_connection_end(edge)
            return
        self._handshakes.add(edge.client, handshake, active=active)
        handshake.on_first_bytes = partial(self._handshakes.mark_active, edge.client, handshake)
        run(handshake.start)

    def _serve(self, sock: socket.socket, edge: ClientInfo) -> None:
        h2 = isinstance(sock, ssl.SSLSocket) and sock.selected_alpn_protocol() == "h2"
        client = H2Client(self, sock, edge) if h2 else H1Client(self, sock, edge)
        self._clients.add(client)
        try:  # as `run` does, without its price for each connection
            client.start()
        except Exception as error:  # noqa: BLE001 - the boundary of a connection
            report_fault(client.start, error)

    def _on_handshake_failed(self, edge: ClientInfo, one: TlsAccept[Any]) -> None:
        self._handshakes.remove(one)
        self.refusals["tls"] += 1
        self._on_connection_end(edge)

    def _on_connection_end(self, edge: ClientInfo) -> None:
        self._release_address(edge)
        self._check_empty()

    def _release_address(self, edge: ClientInfo) -> None:
        if not edge.trusted:
            self._addresses.leave(edge.client)

    # --- for the connections (`ConnectionOwner`) ---

    @property
    def poller(self) -> Poller:
        return self._runtime.poller

    @property
    def deadlines(self) -> Deadlines:
        return self._runtime.deadlines

    def request_id(self) -> bytes:
        return self._runtime.request_id()

    def exchange(self, client: Downstream, head: RequestHead) -> Exchange:
        return self._handler.exchange(client, head)

    def on_refused(self, fault: HttpFault, message: str) -> None:
        self.refusals[fault.reason] += 1

    def on_http2(self, client: HttpClient, sock: socket.socket, data: bytes) -> None:
        self._clients.discard(client)
        instead = H2Client(self, sock, client.edge)
        self._clients.add(instead)
        run(instead.start, data)

    def on_close(self, client: HttpClient) -> None:
        self._clients.discard(client)
        self._on_connection_end(client.edge)

    def _check_empty(self) -> None:
        if self.closing and not self.active:
            self._empty.set()
