"""One listening socket that speaks HTTP: accepts clients, gives each request to whom it is for, drains."""

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
    """Who answers this listener's requests."""

    def exchange(self, client: Downstream, head: RequestHead) -> Exchange: ...


class PassedConnection(Protocol):
    """TLS connections that are not ours to end."""

    def any(self) -> bool:
        """Is there a name for which there are such?"""
        ...

    def whose(self, name: str) -> TcpProxy | None:
        """Who relays those for this name."""
        ...


class HttpListener(ListenerOwner):
    """`trusted` says of an address whether it may speak for others."""

    def __init__(
        self,
        core: HttpRuntime,
        listener: socket.socket,
        serving: RequestHandler,
        trusted: Callable[[str], bool] = lambda _: False,
        tls: ssl.SSLContext | None = None,
        passed: PassedConnection | None = None,
    ) -> None:
        self._core = core
        self._listener = listener
        self._serving = serving
        self._trusted = trusted
        self._tls = tls
        self._clients: set[HttpClient] = set()
        self._passed = passed
        self._handshakes: HandshakePlaces[TlsAccept[Any]] = HandshakePlaces()
        self._addresses = Addresses(core.per_address)
        self._empty = asyncio.Event()  # set when the last client of a closing front is gone
        self._port = int(listener.getsockname()[1])
        self.connections = 0
        self.refusals: Counter[str] = Counter()  # of what never became a request, by reason
        self.closing = False
        self._accepting = Accepting(listener, self._take, self._not_accepted)

    @property
    def active(self) -> int:
        """Open connections."""
        return len(self._clients) + len(self._handshakes)

    async def close(self, drain_seconds: float = 0.0) -> None:
        """Accept no more; requests under way get so long; then what is left is cut."""
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

    def _not_accepted(self, reason: str) -> None:
        self.refusals[reason] += 1
        if reason == "fd_limit":  # whoever has them, silent clients must not be those
            self._make_room(max(limits.FEW_CONNECTIONS, len(self._clients) // 4))

    def _take(self, sock: socket.socket, peer: tuple[str, int]) -> None:
        sock.setblocking(False)
        self.connections += 1
        address = peer[0].removeprefix("::ffff:") if "." in peer[0] else peer[0]
        scheme = "https" if self._tls else "http"
        edge = ClientInfo(address, scheme, self._port, self._trusted, budget=self._core.bytes)
        if self._is_full() and not self._make_room(-1):
            self._refuse(sock, HttpFault.FULL.reason)
        elif not edge.trusted and not self._addresses.enter(address):
            self._refuse(sock, "per_address")
        elif self._tls is not None and not self._make_room_for_handshake(edge):
            self._leave(edge)
            self._refuse(sock, "handshakes_per_address")
        else:
            try:
                self._begin(sock, edge)
            except Exception:  # `Accepting` closes it
                self._leave(edge)
                raise

    def _refuse(self, sock: socket.socket, reason: str) -> None:
        self.refusals[reason] += 1
        reset_on_close(sock)
        sock.close()

    def _is_full(self) -> bool:
        """Handshakes are few beside the limit: they are counted only where they can matter."""
        return len(self._clients) > limits.CONNECTIONS_MAX // 2 and self.active >= limits.CONNECTIONS_MAX

    def _make_room(self, beyond: int) -> bool:
        """Close some that wait for a request, of whoever has the most first; False: nobody does. Those that
        have asked before stay if their address has no more than `beyond`."""
        spare = []
        for number, one in enumerate(self._clients):
            order = one.spare_order
            if order is None:
                continue
            count = self._addresses.count(one.edge.client)
            if count > beyond or not order[0]:
                spare.append((-count, order, number, one))
        for *_, client in heapq.nsmallest(limits.SPARED_AT_ONCE, spare):
            self.refusals["gave_way"] += 1
            client.abort()
        return bool(spare)

    def _make_room_for_handshake(self, edge: ClientInfo) -> bool:
        may, giving_way = self._handshakes.room_for(edge.client, shared=edge.trusted)
        if giving_way is not None:
            self.refusals["gave_way"] += 1
            giving_way.abort()
        return may

    def _begin(self, sock: socket.socket, edge: ClientInfo) -> None:
        if self._tls is None:
            self._serve(sock, edge)
        elif self._passed is not None and self._passed.any():
            self._peek(sock, edge, self._tls, self._passed)
        else:
            self._secure(sock, edge, self._tls)

    def _peek(
        self, sock: socket.socket, edge: ClientInfo, context: ssl.SSLContext, passed: PassedConnection
    ) -> None:
        """For whom is it? The name stands in its first message."""

        def done(one: SniPeek, sock: socket.socket, name: str) -> None:
            self._handshakes.remove(one)
            relaying = passed.whose(name)
            if relaying is None:
                self._secure(sock, edge, context, heard=True)
                return
            self._note_empty()  # the relaying drains it, not we
            try:
                peer = sock.getpeername()
            except OSError:  # it has gone already
                sock.close()
                self._leave(edge)
                return
            relaying.begin(sock, (edge.client, peer[1]), partial(self._leave, edge))

        peeking = SniPeek(self.poller, self.deadlines, sock, done, partial(self._not_secured, edge))
        self._handshakes.add(edge.client, peeking)
        peeking.heard = partial(self._handshakes.heard, edge.client, peeking)
        run(peeking.start)

    def _secure(
        self, sock: socket.socket, edge: ClientInfo, context: ssl.SSLContext, heard: bool = False
    ) -> None:
        def done(one: ServerHandshake, secured: ssl.SSLSocket) -> None:
            self._handshakes.remove(one)
            self._serve(secured, edge)

        failed = partial(self._not_secured, edge)
        try:
            handshake = ServerHandshake(self.poller, self.deadlines, sock, context, done, failed)
        except OSError:  # it has gone already
            sock.close()
            self.refusals["tls"] += 1
            self._left(edge)
            return
        self._handshakes.add(edge.client, handshake, heard=heard)
        handshake.heard = partial(self._handshakes.heard, edge.client, handshake)
        run(handshake.start)

    def _serve(self, sock: socket.socket, edge: ClientInfo) -> None:
        h2 = isinstance(sock, ssl.SSLSocket) and sock.selected_alpn_protocol() == "h2"
        client = H2Client(self, sock, edge) if h2 else H1Client(self, sock, edge)
        self._clients.add(client)
        try:  # as `run` does, without its price for each connection
            client.start()
        except Exception as error:  # noqa: BLE001 - the boundary of a connection
            report_fault(client.start, error)

    def _not_secured(self, edge: ClientInfo, one: TlsAccept[Any]) -> None:
        self._handshakes.remove(one)
        self.refusals["tls"] += 1
        self._left(edge)

    def _left(self, edge: ClientInfo) -> None:
        self._leave(edge)
        self._note_empty()

    def _leave(self, edge: ClientInfo) -> None:
        if not edge.trusted:
            self._addresses.leave(edge.client)

    # --- what clients ask of their host ---

    @property
    def poller(self) -> Poller:
        return self._core.poller

    @property
    def deadlines(self) -> Deadlines:
        return self._core.deadlines

    def request_id(self) -> bytes:
        return self._core.request_id()

    def exchange(self, client: Downstream, head: RequestHead) -> Exchange:
        return self._serving.exchange(client, head)

    def refused(self, fault: HttpFault, message: str) -> None:
        self.refusals[fault.reason] += 1

    def speaks_h2(self, client: HttpClient, sock: socket.socket, data: bytes) -> None:
        self._clients.discard(client)
        instead = H2Client(self, sock, client.edge)
        self._clients.add(instead)
        run(instead.start, data)

    def on_close(self, client: HttpClient) -> None:
        self._clients.discard(client)
        self._left(client.edge)

    def _note_empty(self) -> None:
        if self.closing and not self.active:
            self._empty.set()
