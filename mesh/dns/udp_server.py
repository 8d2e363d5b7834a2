"""The fast path: sockets in, replies out. `_drain_batch` is guarded by `make bench-dns`.

When the loop says that a UDP socket is readable, one system call takes what has arrived, up to `UDP_BATCH`
datagrams, and one sends the replies (`datagrams`). In between, per datagram: one look-up of its bytes after
the id in the asker's `View`, and the reply copied over them. No task, no callback, no clock and no parsing
for a query that was answered before; everything else goes to `Resolver.handle`. Then the loop's other sockets
have their turn (the loop calls again at once while more is waiting), sooner where most of it was such work.

Whose view it is: a socket inside a container's namespace has that container's scope, and there is nothing to
spoof. An explicit endpoint asks a function for the scope of a source, and drops whom it does not know.

TCP is not hot; it has a file of its own (`tcp`).
"""

import asyncio
import socket
from collections.abc import Callable, Hashable, Iterator
from functools import cache, partial
from typing import NamedTuple, TypeAlias

from mesh.dns import mmsg
from mesh.dns.config import QUERY_MAX, SOURCES_MAX, UDP_BATCH, UDP_BATCH_SLOW, UDP_SLOT
from mesh.dns.connection_limiter import TCP_ASKER_MAX, ConnectionLimits
from mesh.dns.forward.forward import NO_PATHS, ContainerPaths
from mesh.dns.mmsg import SIZE_STEP, Batch, Destination
from mesh.dns.reply_cache import View
from mesh.dns.resolver import Resolver
from mesh.dns.scope import Scope
from mesh.dns.stats import CACHE
from mesh.dns.tcp_server import DnsTcpListener
from mesh.net.readers import watch_again

ScopeSource: TypeAlias = Callable[[str], Scope | None]

_batch_of = cache(Batch)  # one per address family: no two sockets are drained at the same time


_NO_REPLIES: Iterator[bytes] = iter(())


class _UdpAsker(NamedTuple):
    """`scope` None: a stranger, who gets no answer. `find` looks into the `view` of the cache."""

    scope: Scope | None
    view: View
    find: Callable[[bytes, Iterator[bytes]], Iterator[bytes]]


_NO_VIEW = View(room=0)


class DnsEndpoint:
    """One UDP and, if given, one listening TCP socket: bound, non-blocking, ours from now on.

    `scope` is the scope of every asker, or a function from a source address to the asker's scope, None for
    nobody that we answer (an open resolver is a weapon).
    """

    def __init__(
        self,
        resolver: Resolver,
        udp: socket.socket,
        tcp: socket.socket | None,
        scope: Scope | ScopeSource,
        paths: ContainerPaths = NO_PATHS,
    ) -> None:
        self._resolver, self._udp = resolver, udp
        limits = ConnectionLimits(per_asker=TCP_ASKER_MAX) if callable(scope) else ConnectionLimits()
        self._tcp = None if tcp is None else DnsTcpListener(resolver, tcp, self._scope_of, paths, limits)
        self._scope = scope
        self.paths = paths
        self._askers: dict[Hashable, _UdpAsker] = {}  # by source address
        self._fd = udp.fileno()
        self._batch = _batch_of(udp.family) if mmsg.available() else None
        self._drain = self._drain_singly if self._batch is None else self._drain_batch
        self._turn = UDP_BATCH  # datagrams that are taken at the next wake-up
        self._scopes_version = resolver.scopes_version
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    async def start(self) -> None:
        """Serve from now on. Call once; after `close` it does nothing."""
        if self._closed:
            return
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._fd, self._drain)
        if self._tcp is not None:
            self._tcp.start()

    @property
    def scope(self) -> Scope | ScopeSource:
        return self._scope

    @scope.setter
    def scope(self, scope: Scope | ScopeSource) -> None:
        """Another view from the next query on: the container was connected to a network or cut off one."""
        self._scope = scope
        self._askers.clear()

    def close(self) -> None:
        """Stop at once: what is under way gets no reply. Safe to call twice."""
        if self._closed:
            return
        self._closed = True
        if self._loop is not None:
            self._loop.remove_reader(self._fd)
        self._udp.close()
        if self._tcp is not None:
            self._tcp.close()

    # --- who asks -------------------------------------------------------------------------------------------

    def _scope_of(self, source: str) -> Scope | None:
        return self._scope(source) if callable(self._scope) else self._scope

    def _asker(self, key: Hashable, source: str) -> _UdpAsker:
        """Whoever has this address and its view over UDP, remembered until scopes change."""
        scope = self._scope_of(source)
        view = _NO_VIEW if scope is None else self._resolver.view(scope, tcp=False)
        if len(self._askers) >= SOURCES_MAX:
            self._askers.clear()
        asker = self._askers[key] = _UdpAsker(scope, view, view.get)
        return asker

    def _forget_if_changed(self) -> None:
        if self._scopes_version != self._resolver.scopes_version:
            self._scopes_version = self._resolver.scopes_version
            self._askers.clear()

    def _askers_of(self, batch: Batch, count: int) -> list[_UdpAsker]:
        """Who sent each datagram of the batch."""
        self._forget_if_changed()
        known, sources = self._askers, batch.sources(count)
        try:
            return [known[source] for source in sources]
        except KeyError:
            # One at a time: remembering one may make room by forgetting those before it.
            return [
                known.get(source) or self._asker(source, batch.source(index))
                for index, source in enumerate(sources)
            ]

    def _watch_again(self) -> None:
        if self._loop is not None and not self._closed:
            watch_again(self._loop, self._fd, self._drain)

    # --- UDP, a batch at a time -----------------------------------------------------------------------------

    def _drain_batch(self) -> None:
        batch = self._batch
        assert batch is not None
        try:
            count = batch.receive(self._fd, self._turn)
        except OSError:  # an ICMP error about an earlier reply of ours: its asker is gone
            self._watch_again()
            return
        resolver = self._resolver
        started = resolver.clock()
        if started >= resolver.cache.next_tick:
            resolver.cache.tick(started)
        data, sizes = batch.data, batch.sizes
        first, elsewhere = 0, 0.0
        slow: list[int] = []
        askers = self._askers_of(batch, count)
        for index, at, length, (scope, view, find) in zip(
            range(count), batch.starts, batch.lengths, askers, strict=False
        ):
            tail = next(find(data[at + 2 : at + length].tobytes(), _NO_REPLIES), None)
            if tail is not None:
                end = 2 + len(tail)
                data[at + 2 : at + end] = tail
                sizes[index * SIZE_STEP] = end
                continue
            began = resolver.clock()
            if size := self._answer_into(batch, index, scope, view):
                sizes[index * SIZE_STEP] = size
            else:
                self._send_batch(batch, first, index)
                first = index + 1
            slow.append(index)
            elsewhere += resolver.clock() - began
        self._send_batch(batch, first, count)
        self._turn = UDP_BATCH if len(slow) < UDP_BATCH_SLOW else UDP_BATCH_SLOW
        if hits := count - len(slow):
            each = (resolver.clock() - started - elsewhere) / hits
            resolver.stats.durations[CACHE].observe(each, hits)
            if resolver.log is not None:
                self._log_hits(batch, askers, [i for i in range(count) if i not in slow], each)

    def _log_hits(self, batch: Batch, askers: list[_UdpAsker], hits: list[int], seconds: float) -> None:
        """The replies still stand in their slots."""
        log = self._resolver.log
        assert log is not None
        for position in log.due(len(hits)):
            index = hits[position]
            at, scope = batch.starts[index], askers[index].scope
            if scope is not None:
                reply = batch.data[at : at + batch.sizes[index * SIZE_STEP]].tobytes()
                log.write(scope, reply, CACHE, seconds, tcp=False)

    def _answer_into(self, batch: Batch, index: int, scope: Scope | None, view: View) -> int:
        """Have the resolver answer; the reply's length where it stands in the datagram's slot now, else 0."""
        resolver = self._resolver
        if scope is None:
            resolver.stats.drop("stranger")
            return 0
        at = batch.starts[index]
        query = batch.data[at : at + batch.lengths[index]].tobytes()
        respond = partial(self._send, batch.destination(index))
        reply = resolver.reply(query, scope, view, respond, self.paths)
        if not isinstance(reply, bytes):
            return 0
        if len(reply) > UDP_SLOT:
            respond(reply)
            return 0
        batch.data[at : at + len(reply)] = reply
        return len(reply)

    def _send_batch(self, batch: Batch, first: int, end: int) -> None:
        while first < end and not self._closed:
            try:
                first += batch.send(self._fd, first, end)
            except BlockingIOError as error:  # UDP may be lost; the asker asks again. Nothing is queued.
                self._not_sent(error, end - first)
                return
            except OSError as error:  # about this one, or an ICMP error about an earlier one
                self._not_sent(error)
                first += 1

    def _send(self, destination: Destination, reply: bytes) -> None:
        if self._closed:
            return
        address, control = destination
        try:
            self._udp.sendmsg([reply], control, 0, address)
        except OSError as error:
            self._not_sent(error)

    def _not_sent(self, error: OSError, times: int = 1) -> None:
        reason = "send buffer full" if isinstance(error, BlockingIOError) else "not sent"
        self._resolver.stats.drop(reason, times)

    # --- UDP where the system has no such calls (laptops: `mesh demo`) --------------------------------------

    def _drain_singly(self) -> None:
        self._forget_if_changed()
        for number in range(UDP_BATCH):
            try:
                data, address = self._udp.recvfrom(QUERY_MAX)
            except (BlockingIOError, InterruptedError):
                if not number:  # a reply of ours has taken the error that woke us
                    self._watch_again()
                return
            except OSError:  # as above
                self._watch_again()
                continue
            source = address[0]
            scope, view, _ = self._askers.get(source) or self._asker(source, source)
            if scope is None:
                self._resolver.stats.drop("stranger")
                continue
            respond = partial(self._send, (address, []))
            reply = self._resolver.reply(data, scope, view, respond, self.paths)
            if isinstance(reply, bytes):
                respond(reply)
