"""DNS over TCP (RFC 7766): length prefix, any number of queries on a connection, replies in any order.

Callbacks on raw sockets, nothing per connection but two small buffers: a listener must stay well with as many
peers as there are places, each of them slow, silent or hostile (`crowd` says who goes).

- Only a whole query counts as life: who sends byte by byte is idle all the while.
- Reading stops while too many queries wait for upstreams, or replies for the peer; so the peer's own kernel
  tells it to wait, and what we hold of it is bounded.
- After so many queries the other sockets have their turn.
- A peer that has ended its side gets all its replies; then the connection ends.
- A fault of ours ends the connection at which it came up; one of the listener's own makes it pause.
"""

import asyncio
import errno
import socket
import struct
from collections.abc import Callable
from functools import partial
from typing import TypeAlias

from mesh.dns.config import QUERY_MAX, TCP_PIPELINE_MAX
from mesh.dns.connection_limiter import ConnectionLimiter, ConnectionLimits, Wait
from mesh.dns.forward.forward import ContainerPaths, Later
from mesh.dns.resolver import Resolver
from mesh.dns.scope import Scope
from mesh.dns.wire import HEADER
from mesh.internal_errors import ERRORS
from mesh.net.isolation import run

ScopeOf: TypeAlias = Callable[[str], Scope | None]

TCP_BACKLOG = 1024  # connections that the kernel accepts for us: a SYN beyond is lost, and a second with it
ACCEPTS_AT_ONCE = 16  # then the sockets of those that are here have their turn
ACCEPT_PAUSE = 0.1  # seconds of accepting nobody, when that fails and nothing can be done about it
QUERIES_AT_ONCE = 32  # of one connection: a few milliseconds, if none of them is in the cache
READ_SIZE = 4096  # bytes read at once: some hundred queries
UNSENT_PAUSE = 65_536  # bytes of replies that wait for their peer; then no more queries are answered
UNSENT_MAX = 262_144  # bytes, with replies of upstreams that come all the same; then the connection is reset
SEND_BUFFER = 65_536  # bytes of replies in the kernel, which doubles it and else lets it grow to megabytes
NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_PREFIX = 2  # bytes of a message's length
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close with a reset, and forget what was not sent


class DnsTcpListener:
    """A listening socket (bound, non-blocking, ours from now on) and its connections.

    `scope_of` is asked for every query: the scope of a source may change while its connection lives.
    """

    def __init__(
        self,
        resolver: Resolver,
        listener: socket.socket,
        scope_of: ScopeOf,
        paths: ContainerPaths,
        limits: ConnectionLimits | None = None,
    ) -> None:
        self.resolver, self._listener = resolver, listener
        self.scope_of, self.paths = scope_of, paths
        self._crowd: ConnectionLimiter[_DnsTcpConnection] = ConnectionLimiter(limits or ConnectionLimits())
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sweep_timer: asyncio.TimerHandle | None = None
        self._pause: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        """Connections."""
        return len(self._crowd)

    def start(self) -> None:
        """Serve from now on. Call once, before `close`, in the loop's thread."""
        self._loop = asyncio.get_running_loop()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)  # connections inherit it
        self._listener.listen(TCP_BACKLOG)
        self._loop.add_reader(self._listener, run, self._acceptable)

    def on_fault(self) -> None:
        """One of its own callbacks has raised: those who are here stay, and it goes on after a pause."""
        if self._loop is None or self._listener.fileno() < 0:
            return
        self._loop.remove_reader(self._listener)
        self._pause_accepting()

    def close(self) -> None:
        """Stop at once: what is under way gets no reply. Safe to call twice."""
        for timer in (self._sweep_timer, self._pause):
            if timer is not None:
                timer.cancel()
        if self._loop is not None and self._listener.fileno() >= 0:
            self._loop.remove_reader(self._listener)
        self._listener.close()
        for connection in self._crowd:
            run(connection.close)

    # --- newcomers ------------------------------------------------------------------------------------------

    def _acceptable(self) -> None:
        for accepted in range(ACCEPTS_AT_ONCE):
            try:
                client, peer = self._listener.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionError:  # it had gone before we came
                continue
            except OSError as error:
                if not accepted:  # else perhaps nobody else waits: the last descriptor went to the one before
                    self._not_accepted(error)
                return
            try:
                self._begin(client, _plain(peer[0]))
            except Exception as error:  # noqa: BLE001 - the boundary of one newcomer: the others are accepted
                ERRORS.report("accepting a DNS connection", error)
                client.close()

    def _not_accepted(self, error: OSError) -> None:
        """Who can be spared makes room for the newcomer, who is still in the kernel's queue.

        If nobody can, accepting pauses: the listener stays readable, and nothing else would be done.
        """
        self.resolver.stats.drop("not accepted")
        assert self._loop is not None
        if error.errno in NO_ROOM and (spared := self._crowd.to_spare()) is not None:
            self._dismiss(spared)
            return
        self._loop.remove_reader(self._listener)
        self._pause_accepting()

    def _pause_accepting(self) -> None:
        assert self._loop is not None
        if self._pause is not None:
            self._pause.cancel()
        self._pause = self._loop.call_later(ACCEPT_PAUSE, run, self._resume)

    def _resume(self) -> None:
        assert self._loop is not None
        self._pause = None
        self._loop.add_reader(self._listener, run, self._acceptable)
        self._watch(at_once=True)  # a fault of ours may have come instead of a sweep

    def _begin(self, client: socket.socket, source: str) -> None:
        assert self._loop is not None
        if self.scope_of(source) is None:
            self._refuse(client, "stranger")
            return
        if self._crowd.full(source):
            spared = self._crowd.to_spare(source)
            if spared is None:
                self._refuse(client, "too many connections")
                return
            self._dismiss(spared)
        client.setblocking(False)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = _DnsTcpConnection(self, client, source, self._loop)
        try:
            self._crowd.add(connection, source, self._loop.time())
            self._watch(at_once=self._crowd.crowded)
            connection.start()
        except BaseException:
            connection.on_fault()
            raise

    def _refuse(self, client: socket.socket, reason: str) -> None:
        self.resolver.stats.drop(reason)
        _reset_on_close(client)
        client.close()

    def _dismiss(self, connection: "_DnsTcpConnection") -> None:
        self.resolver.stats.drop("gave way")
        run(connection.close)

    # --- those that are here --------------------------------------------------------------------------------

    def waits(self, connection: "_DnsTcpConnection", wait: Wait, progress: bool) -> None:
        """What the connection waits for from now on."""
        assert self._loop is not None
        self._crowd.waits(connection, wait, self._loop.time(), progress=progress)
        self._watch()

    def gone(self, connection: "_DnsTcpConnection") -> None:
        """The connection is closed."""
        self._crowd.remove(connection)

    def _watch(self, *, at_once: bool = False) -> None:
        """Look again when the first of them may be overdue; `at_once`, since now patience is shorter."""
        assert self._loop is not None
        if at_once and self._sweep_timer is not None:
            self._sweep_timer.cancel()
            self._sweep_timer = None
        if self._sweep_timer is None and (due := self._crowd.next_due()) is not None:
            self._sweep_timer = self._loop.call_at(due, run, self._sweep)

    def _sweep(self) -> None:
        assert self._loop is not None
        self._sweep_timer = None
        now = self._loop.time()
        while (overdue := self._crowd.overdue(now)) is not None:
            run(overdue[0].give_up, overdue[1])
        self._watch()


class _DnsTcpConnection:
    """One peer: queries in, replies out. `_pending` of its queries wait for an upstream."""

    __slots__ = (
        "_again",
        "_answering",
        "_closed",
        "_ended",
        "_listener",
        "_loop",
        "_pending",
        "_reading",
        "_received",
        "_socket",
        "_source",
        "_unsent",
        "_writing",
    )

    def __init__(
        self, listener: DnsTcpListener, client: socket.socket, source: str, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._listener, self._socket, self._source, self._loop = listener, client, source, loop
        self._received, self._unsent = bytearray(), bytearray()
        self._pending = 0
        self._ended = False  # the peer will ask no more
        self._closed = False
        self._answering = False
        self._reading, self._writing = True, False
        self._again: asyncio.Handle | None = None

    def start(self) -> None:
        """Read from now on."""
        self._loop.add_reader(self._socket, run, self._readable)

    # --- in -------------------------------------------------------------------------------------------------

    def _readable(self) -> None:
        try:
            data = self._socket.recv(READ_SIZE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:  # reset by the peer
            self.close()
            return
        # A reset may stand behind the data. Nobody is there to be answered then, and uvloop, unlike asyncio,
        # says so only once.
        if self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.close()
            return
        self._received += data
        self._ended = not data
        self._work()

    def _work(self) -> None:
        """Answer what has arrived, send what can be sent, then wait for whatever is next."""
        self._again = None
        answered = self._answer_some()
        if self._closed:
            return
        taken = self._send()
        if not self._closed:
            self._settle(progress=answered or taken)

    def _answer_some(self) -> bool:
        self._answering = True
        answered = False
        for _ in range(QUERIES_AT_ONCE):
            if self._held_up or (query := self._next_query()) is None:
                break
            answered = True
            self._answer(query)
        self._answering = False
        return answered

    @property
    def _held_up(self) -> bool:
        return self._pending >= TCP_PIPELINE_MAX or len(self._unsent) > UNSENT_PAUSE

    def _next_query(self) -> bytes | None:
        """The next whole query. What is none by its length ends the peer's side: we cannot be in step."""
        if len(self._received) < _PREFIX:
            return None
        length = int.from_bytes(self._received[:_PREFIX])
        if not HEADER.size <= length <= QUERY_MAX:
            self._listener.resolver.stats.drop("overlong" if length > QUERY_MAX else "not a query")
            self._received.clear()
            self._ended = True
            return None
        end = _PREFIX + length
        if len(self._received) < end:
            return None
        query = bytes(self._received[_PREFIX:end])
        del self._received[:end]
        return query

    def _answer(self, query: bytes) -> None:
        listener = self._listener
        resolver, scope = listener.resolver, listener.scope_of(self._source)
        if scope is None:  # no longer one that we answer
            resolver.stats.drop("stranger")
            self._received.clear()
            self._ended = True
            return
        view = resolver.view(scope, tcp=True)
        self._pending += 1
        respond = partial(run, self._later)  # an upstream may reply to others with it: what fails is our own
        reply = resolver.reply(query, scope, view, respond, listener.paths, tcp=True)
        if reply is Later.PENDING:
            return
        self._pending -= 1
        if reply is not None:
            self._queue(reply)

    def _later(self, reply: bytes) -> None:
        self._pending -= 1
        if self._closed:
            return
        self._queue(reply)
        if not self._answering:
            self._work()

    # --- out ------------------------------------------------------------------------------------------------

    def _queue(self, reply: bytes) -> None:
        self._unsent += len(reply).to_bytes(_PREFIX) + reply

    def _send(self) -> bool:
        """Send what the kernel takes. Did it take any?"""
        if not self._unsent:
            return False
        try:
            taken = self._socket.send(self._unsent)
        except (BlockingIOError, InterruptedError):
            taken = 0
        except OSError:  # reset by the peer
            self.close()
            return False
        del self._unsent[:taken]
        if len(self._unsent) > UNSENT_MAX:
            self.give_up(Wait.TAKING)
        return taken > 0

    # --- what next ------------------------------------------------------------------------------------------

    def _settle(self, progress: bool) -> None:
        more = not self._held_up and self._has_query()
        if more and self._again is None:
            self._again = self._loop.call_soon(run, self._work)
        if self._ended and not (more or self._held_up or self._pending or self._unsent):
            if self._received:
                self._listener.resolver.stats.drop("incomplete")
            self.close()
            return
        self._listen(reading=not (self._ended or more or self._held_up), writing=bool(self._unsent))
        wait = Wait.TAKING if self._unsent else Wait.UPSTREAM if self._pending else Wait.QUERY
        self._listener.waits(self, wait, progress)

    def _has_query(self) -> bool:
        """Is there something in the buffer to be looked at, be it only a length that is none?"""
        if len(self._received) < _PREFIX:
            return False
        length = int.from_bytes(self._received[:_PREFIX])
        return length > QUERY_MAX or len(self._received) >= _PREFIX + length

    def _listen(self, *, reading: bool, writing: bool) -> None:
        if reading != self._reading:
            self._reading = reading
            if reading:
                self._loop.add_reader(self._socket, run, self._readable)
            else:
                self._loop.remove_reader(self._socket)
        if writing != self._writing:
            self._writing = writing
            if writing:
                self._loop.add_writer(self._socket, run, self._work)
            else:
                self._loop.remove_writer(self._socket)

    def give_up(self, wait: Wait) -> None:
        """The peer has not asked, or not taken its replies, for too long."""
        drop = self._listener.resolver.stats.drop
        if wait is Wait.TAKING:
            drop("not taken")
            _reset_on_close(self._socket)
        elif self._received:
            drop("incomplete")
        self.close()

    def close(self) -> None:
        """At once; what was not sent is lost. Safe to call twice."""
        if not self._closed:
            self._give_back()

    def on_fault(self) -> None:
        """A fault of ours at this connection, in whatever state that has left it."""
        self._give_back()

    def _give_back(self) -> None:
        """Its descriptor, its timer and its place. Safe to repeat where it has stopped half way."""
        self._closed = True
        if self._again is not None:
            self._again.cancel()
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
        self._socket.close()
        self._listener.gone(self)


def _plain(address: str) -> str:
    """IPv4 as such also where it comes in by an IPv6 socket."""
    mapped = address.removeprefix("::ffff:")
    return mapped if "." in mapped else address


def _reset_on_close(connection: socket.socket) -> None:
    try:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    except OSError:
        return  # it is dead already
