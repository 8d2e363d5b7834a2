"""A published UDP port carried in user space: a session per client, each with a connected socket to its task.

A datagram goes through one buffer, at once or not at all: nothing is queued, as UDP promises nothing. So all
ports share the buffer. A session is led elsewhere with its client's next datagram when its task has left, or
answers that nobody listens; so no client is bound to a task that is gone for as long as it keeps sending.

A fault of ours at a datagram or a timer ends its session; the client's next datagram begins another one.
"""

import asyncio
import errno
import random
import socket
from collections.abc import Callable, Collection, Sequence
from functools import cache
from typing import Any, TypeAlias

from mesh.balance.endpoint_pool import EndpointPool, EndpointStatus
from mesh.balance.policies import Endpoint, Policy
from mesh.errors import KernelError, NamespaceGone
from mesh.internal_errors import ERRORS
from mesh.net.bound_listener import ListenerOwner, PortTaken
from mesh.net.limits.descriptors import for_client
from mesh.net.netns import Namespace, nonblocking_udp_socket
from mesh.net.readers import watch_again
from mesh.relay.stats import PortStats, reason_of
from mesh.relay.tcp_connection import RelayOptions
from mesh.relay.tcp_proxy import ConnectSocket

MAX_SESSIONS = 8_192  # per port, a descriptor each; beyond, a session that was never answered makes room
DATAGRAM_MAX = 65_535  # none is larger, so each is taken whole
DATAGRAMS_AT_ONCE = 64  # of clients per wake-up, then others get their turn
REPLIES_AT_ONCE = 16  # of one task to one client per wake-up
SEND_ATTEMPTS = 3  # endpoints tried for one datagram
UNANSWERED_SECONDS = 30.0  # as conntrack keeps such a flow; a spoofed address never answers back
QUIET_SECONDS = 1.0  # of silence that end a session while the port drains: its exchange is over

IP_PKTINFO = 8  # linux/in.h; Python names it from 3.12 on
IPV6_RECVPKTINFO, IPV6_PKTINFO = 49, 50  # linux/in6.h, which macOS numbers otherwise
_PKTINFO, _PKTINFO6 = (socket.IPPROTO_IP, IP_PKTINFO), (socket.IPPROTO_IPV6, IPV6_PKTINFO)
_PKTINFO_ROOM = socket.CMSG_SPACE(20) if hasattr(socket, "CMSG_SPACE") else 64
_ANY = bytes(4)
# An endpoint is asked for nothing more when a socket says one of these of it.
_NOT_THERE = (errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH)

Client: TypeAlias = tuple[Any, ...]  # address and port; over IPv6 flow and scope as well
Control: TypeAlias = list[tuple[int, int, bytes]]


def plain_udp_socket() -> socket.socket:
    """An outgoing socket of our own namespace (tests, `demo`)."""
    return nonblocking_udp_socket()


@cache
def _datagram_buffer() -> memoryview:
    """One for all ports of the process: it is empty again before anybody else has a turn."""
    return memoryview(bytearray(DATAGRAM_MAX))


class _Session:
    """One client and the task that it talks to for now."""

    __slots__ = ("answered", "avoid", "client", "control", "endpoint", "had_error", "heard", "task", "timer")

    def __init__(self, client: Client) -> None:
        self.client = client
        self.control: Control = []  # makes a reply leave from the address that the client sent to
        self.task: socket.socket | None = None
        self.endpoint: Endpoint | None = None
        self.avoid: Endpoint | None = None  # said last that nobody listens there
        self.answered = False
        self.had_error = False  # its socket has, since it is watched: see `mesh.net.readers`
        self.heard = 0.0  # when one of the two last sent something
        self.timer: asyncio.TimerHandle | None = None


class UdpPort(ListenerOwner):
    """One listening socket and its sessions."""

    def __init__(
        self,
        listener: socket.socket,
        endpoints: Sequence[Endpoint],
        options: RelayOptions,
        connect: ConnectSocket = plain_udp_socket,
        draw: Callable[[], float] = random.random,
        near: Collection[Endpoint] = (),
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._listener = listener
        self._upstreams = EndpointPool(endpoints, near, draw)
        self.options = options
        self._connect = connect
        self._stats = PortStats()
        self._sessions: dict[Client, _Session] = {}
        self._unanswered: dict[Client, _Session] = {}  # oldest first
        self._buffer = _datagram_buffer()
        self._closing = False
        self._empty = asyncio.Event()
        self._loop.add_reader(listener, self._arrived)

    @property
    def stats(self) -> PortStats:
        """Counters as of now; a session counts as a connection."""
        total = self._stats
        return PortStats(
            total.connections,
            len(self._sessions),
            total.received,
            total.sent,
            total.errors.copy(),
            total.retries,
        )

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        return self._upstreams.endpoints

    def seen(self) -> tuple[EndpointStatus, ...]:
        return self._upstreams.seen(self._loop.time())

    def update_endpoints(
        self,
        endpoints: Sequence[Endpoint],
        options: RelayOptions | None = None,
        near: Collection[Endpoint] = (),
    ) -> None:
        """Clients of endpoints that left go to others with their next datagram. Until then, and no longer
        than the drain time, answers of those that left still reach them."""
        self.options = options or self.options
        if self._upstreams.update_endpoints(endpoints, near, self.options.slow_start, self._loop.time()):
            self._loop.call_later(self.options.drain, self._end_left)

    async def close(self, drain_seconds: float = 0.0) -> None:
        """No new clients; those that are here may go on for so long, unless they fall silent before."""
        if not self._listener_open():
            return
        self._closing = True
        for session in tuple(self._sessions.values()) if drain_seconds > 0 else ():
            self._guarded(self._wait_less, session)
        if self._sessions and drain_seconds > 0:
            try:
                async with asyncio.timeout(drain_seconds):
                    await self._empty.wait()
            except TimeoutError:
                self._stats.errors["drained"] += len(self._sessions)
        if not self._listener_open():
            return  # closed by another call meanwhile
        self._loop.remove_reader(self._listener)
        self._listener.close()
        for session in tuple(self._sessions.values()):
            self._guarded(self._end, session)

    def _listener_open(self) -> bool:
        return self._listener.fileno() >= 0

    def _end_left(self) -> None:
        for session in tuple(self._sessions.values()):
            if session.endpoint is not None and session.endpoint not in self._upstreams.current:
                self._guarded(self._end, session)

    # --- from clients ---

    def _arrived(self) -> None:
        for _ in range(DATAGRAMS_AT_ONCE):
            try:
                size, control, _, client = self._listener.recvmsg_into([self._buffer], _PKTINFO_ROOM)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self._stats.errors[reason_of(error)] += 1
                watch_again(self._loop, self._listener, self._arrived)
                return
            try:
                self._on_datagram(client, control, self._buffer[:size])
            except Exception as error:  # noqa: BLE001 - the boundary of a datagram: the next one is another's
                self._on_session_fault(self._sessions.get(client), error)

    def _on_datagram(self, client: Client, control: Control, data: memoryview) -> None:
        session = self._sessions.get(client) or self._begin(client)
        if session is not None:
            session.control = _back_from(control)
            self._forward(session, data)

    def _begin(self, client: Client) -> _Session | None:
        if self._closing:
            return None
        if len(self._sessions) >= MAX_SESSIONS:
            self._stats.errors["full"] += 1
            if not self._unanswered:
                return None
            self._guarded(self._end, next(iter(self._unanswered.values())))
        session = _Session(client)
        self._empty.clear()
        self._sessions[client] = self._unanswered[client] = session
        self._stats.connections += 1
        session.heard = self._loop.time()
        self._wait(session, session.heard)
        return session

    def _forward(self, session: _Session, data: memoryview) -> None:
        """To the session's task, or to another one when that one is not there (any more)."""
        session.heard = self._loop.time()
        for attempt in range(SEND_ATTEMPTS):
            self._stats.retries += attempt > 0
            if not self._has_task(session):
                return
            assert session.task is not None
            try:
                self._stats.received += session.task.send(data)
                return
            except (BlockingIOError, InterruptedError):
                self._stats.errors["dropped"] += 1
                return
            except OSError as error:
                if not self._failed(session, error):
                    return

    def _has_task(self, session: _Session) -> bool:
        """It has a socket to an endpoint that is one, now."""
        if session.task is not None and session.endpoint in self._upstreams.current:
            return True
        self._leave(session)
        endpoint = self._pick(session)
        if endpoint is None:
            self._stats.errors["no_endpoint"] += 1
            return False
        made = None
        try:
            made = for_client(self._connect())
            made.connect((endpoint.address, endpoint.port))
        except (KernelError, OSError) as error:
            if made is not None:
                made.close()
            gone = OSError(errno.ENETUNREACH, "") if isinstance(error, NamespaceGone) else error
            self._stats.errors[reason_of(gone) if isinstance(gone, OSError) else "other"] += 1
            return False
        session.task, session.endpoint, session.had_error = made, endpoint, False
        self._upstreams.occupy(endpoint, 1)
        self._loop.add_reader(made, self._guarded, self._answered, session)
        return True

    def _pick(self, session: _Session) -> Endpoint | None:
        options, now = self.options, self._loop.time()
        tried = (session.avoid,) if session.avoid is not None else ()
        # Nothing is known of how long a datagram takes to a task: p2c has only the sessions to go by.
        policy = Policy.LEAST_CONN if options.policy is Policy.P2C else options.policy
        # The only one refused: it may be back.
        return self._upstreams.pick(session.client[0], tried, policy, options.slow_start, now, or_any=True)

    # --- from tasks ---

    def _answered(self, session: _Session) -> None:
        for _ in range(REPLIES_AT_ONCE):
            if session.task is None:
                return
            try:
                size = session.task.recv_into(self._buffer)
            except (BlockingIOError, InterruptedError):
                break
            except OSError as error:
                self._failed(session, error)
                break
            self._heard_of_task(session)
            self._reply(session, self._buffer[:size])
        if session.had_error and session.task is not None:
            session.had_error = False
            watch_again(self._loop, session.task, self._guarded, self._answered, session)

    def _heard_of_task(self, session: _Session) -> None:
        session.heard = self._loop.time()
        session.avoid = None
        if session.endpoint is not None:
            self._upstreams.health.succeeded(session.endpoint)
        if not session.answered:
            session.answered = True
            del self._unanswered[session.client]

    def _reply(self, session: _Session, data: memoryview) -> None:
        try:
            self._stats.sent += self._listener.sendmsg([data], session.control, 0, session.client)
        except (BlockingIOError, InterruptedError):
            self._stats.errors["dropped"] += 1
        except OSError as error:
            self._stats.errors[reason_of(error)] += 1

    def _failed(self, session: _Session, error: OSError) -> bool:
        """What the task's socket said. True: its endpoint is not there, another may be."""
        self._stats.errors[reason_of(error)] += 1
        session.had_error = True  # a send, too, takes the error that the loop is about to see
        if error.errno not in _NOT_THERE or session.endpoint is None:
            return False
        self._upstreams.failed(session.endpoint, self._loop.time())
        session.avoid = session.endpoint
        self._leave(session)
        return True

    # --- the end of a session ---

    def _guarded(self, call: Callable[[_Session], None], session: _Session) -> None:
        """A callback of one session."""
        try:
            call(session)
        except Exception as error:  # noqa: BLE001 - the boundary of a session
            self._on_session_fault(session, error)

    def _on_session_fault(self, session: _Session | None, error: Exception) -> None:
        ERRORS.report("UDP session", error)
        if session is None:
            return
        try:
            self._end(session)
        except Exception as again:  # noqa: BLE001 - the boundary of a session
            ERRORS.report("end of a UDP session", again)
            self._end(session)

    def _limit(self, session: _Session) -> float:
        idle = self.options.idle_timeout
        if self._closing:
            return min(idle, QUIET_SECONDS)
        return idle if session.answered else min(idle, UNANSWERED_SECONDS)

    def _wait(self, session: _Session, now: float) -> None:
        if session.timer is not None:
            session.timer.cancel()
        session.timer = self._loop.call_at(
            max(now, session.heard + self._limit(session)), self._guarded, self._perhaps_idle, session
        )

    def _wait_less(self, session: _Session) -> None:
        """The port drains: its limit is another from now on."""
        self._wait(session, self._loop.time())

    def _perhaps_idle(self, session: _Session) -> None:
        """One timer a session, which looks when it is due: a datagram costs none."""
        now = self._loop.time()
        if now - session.heard >= self._limit(session):
            self._end(session)
        else:
            self._wait(session, now)

    def _leave(self, session: _Session) -> None:
        if session.task is not None:
            self._loop.remove_reader(session.task)
            session.task.close()
            session.task = None
        if session.endpoint is not None:
            self._upstreams.occupy(session.endpoint, -1)
            session.endpoint = None

    def _end(self, session: _Session) -> None:
        self._leave(session)
        if session.timer is not None:
            session.timer.cancel()
        self._sessions.pop(session.client, None)
        self._unanswered.pop(session.client, None)
        if not self._sessions:
            self._empty.set()


def _back_from(control: Control) -> Control:
    """The control message of a reply, from that of a datagram: our address that it was sent to."""
    for level, kind, data in control:
        # The route decides the interface of a reply; its source is the local address.
        if (level, kind) == _PKTINFO and len(data) >= 12:
            # in_pktinfo: interface, the local address, the address in the header.
            return [(level, kind, _ANY + data[4:8] + _ANY)]
        if (level, kind) == _PKTINFO6 and len(data) >= 20:
            # in6_pktinfo: the address, interface; which a link-local address means nothing without.
            return [(level, kind, data if _is_link_local(data) else data[:16] + _ANY)]
    return []


def _is_link_local(address: bytes) -> bool:
    return address[0] == 0xFE and address[1] & 0xC0 == 0x80


def listen_udp(address: str, port: int) -> socket.socket:
    """The listening socket. KernelError names the port."""
    try:
        made = Namespace(None).udp_socket(address, port)
    except OSError as error:
        where = f"[{address}]" if ":" in address else address
        raise PortTaken(port, f"cannot listen on {where}:{port}/udp: {error.strerror}") from error
    if made.family == socket.AF_INET6:
        made.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVPKTINFO, 1)
    else:
        made.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
    return made
