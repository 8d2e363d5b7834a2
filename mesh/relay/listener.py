"""A published port carried in user space: accept, choose a task, connect (and try another), relay.

Callbacks on raw sockets all the way, as in `splice`: a coroutine per connection would cost more than that.
What a client may see: its bytes relayed; a reset at once when no task can be reached; never a silent wait.
"""

import asyncio
import errno
import os
import random
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from mesh.balance.health import Health
from mesh.balance.policies import Draw, Endpoint, Policy, choose
from mesh.errors import KernelError, NamespaceGone
from mesh.net import proc
from mesh.net.netns import Namespace
from mesh.relay.proxy_protocol import header
from mesh.relay.splice import Idle, Relay, reset_on_close

ACCEPTS_AT_ONCE = 64  # then relayed bytes get their turn
PAUSE_SECONDS = 0.2  # of accepting when descriptors have run out; some connection will have ended by then
CONNECT_ATTEMPTS = 3  # endpoints tried for one client
MAX_CONNECTIONS = 20_000  # per port: each holds 2 descriptors, a bulk one 6; more are reset and counted
DRAIN_POLL_SECONDS = 0.05
OUT_OF_DESCRIPTORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

# Makes the non-blocking socket that goes out to a task: in the ingress namespace, or a plain one.
ConnectSocket = Callable[[], socket.socket]


def plain_socket() -> socket.socket:
    """An outgoing socket of our own namespace (tests, `demo`)."""
    return Namespace(None).tcp_socket()


@dataclass(slots=True)
class PortStats:
    """Counters of one port, for metrics; they only grow, but for `active`."""

    connections: int = 0
    active: int = 0
    received: int = 0  # client → task
    sent: int = 0  # task → client
    errors: Counter[str] = field(default_factory=Counter)  # by reason, see REASONS
    retries: int = 0


@dataclass(frozen=True, slots=True)
class Seen:
    """An endpoint as the port has experienced it."""

    endpoint: Endpoint
    active: int  # connections
    ejected_for: float  # seconds more


REASONS = (
    "no_endpoint",
    "refused",
    "timeout",
    "unreachable",
    "reset",
    "idle",
    "fd_limit",
    "full",
    "drained",
    "other",
)


@dataclass(frozen=True, slots=True)
class Options:
    """How a port treats its connections. Times in seconds."""

    policy: Policy = Policy.ROUND_ROBIN
    connect_timeout: float = 2.0
    idle_timeout: float = 3600.0
    drain: float = 30.0
    proxy_protocol: str = ""


class Port:
    """One listening socket and its connections."""

    def __init__(
        self,
        listener: socket.socket,
        endpoints: Sequence[Endpoint],
        options: Options | None = None,
        connect: ConnectSocket = plain_socket,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._listener = listener
        self._endpoints = tuple(endpoints)
        self.options = options or Options()
        self._connect = connect
        self._draw = draw
        self._stats = PortStats()
        self._health = Health()
        self._turn = 0
        self._open: set[_Connection] = set()
        self._per_endpoint: Counter[Endpoint] = Counter()
        self._closing = False
        self._pause: asyncio.TimerHandle | None = None
        self._loop.add_reader(listener, self._acceptable)

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens (the port the kernel chose, for port 0)."""
        host, port = self._listener.getsockname()[:2]
        return str(host), int(port)

    @property
    def stats(self) -> PortStats:
        """Counters as of now, bytes of open connections included."""
        total, counted = self._stats, self._open
        return PortStats(
            total.connections,
            len(counted),
            total.received + sum(one.received for one in counted),
            total.sent + sum(one.sent for one in counted),
            total.errors.copy(),
            total.retries,
        )

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        return self._endpoints

    def seen(self) -> tuple[Seen, ...]:
        now = self._loop.time()
        return tuple(
            Seen(one, self._per_endpoint[one], self._health.ejected_for(one, now)) for one in self._endpoints
        )

    def retarget(self, endpoints: Sequence[Endpoint], options: Options | None = None) -> None:
        """New connections go to these. Those to endpoints that left may go on for the drain time."""
        left = set(self._endpoints) - set(endpoints)
        self._endpoints = tuple(endpoints)
        self.options = options or self.options
        self._health.keep_only(self._endpoints)
        if any(self._per_endpoint[endpoint] for endpoint in left):
            self._loop.call_later(self.options.drain, self._abort_left)

    async def close(self, drain_seconds: float = 0.0) -> None:
        """Stop accepting, let connections end by themselves for so long, then reset them."""
        if not self._closing:
            self._closing = True
            self._stop_accepting()
            self._listener.close()
        end = self._loop.time() + drain_seconds
        while self._open and self._loop.time() < end:  # noqa: ASYNC110 - bounded by the deadline
            await asyncio.sleep(DRAIN_POLL_SECONDS)
        for connection in tuple(self._open):
            connection.abort("drained")

    def _stop_accepting(self) -> None:
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        else:
            self._loop.remove_reader(self._listener)

    def _abort_left(self) -> None:
        current = set(self._endpoints)
        for connection in tuple(self._open):
            if connection.endpoint not in current:
                connection.abort("drained")

    # --- accepting ---

    def _acceptable(self) -> None:
        for _ in range(ACCEPTS_AT_ONCE):
            try:
                client, peer = self._listener.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionAbortedError:
                continue
            except OSError as error:
                self._refuse_accept(error)
                return
            self._begin(client, peer)

    def _refuse_accept(self, error: OSError) -> None:
        """Out of descriptors the listener stays readable: watching on would spin."""
        self._stats.errors["fd_limit" if error.errno in OUT_OF_DESCRIPTORS else "other"] += 1
        self._loop.remove_reader(self._listener)
        self._pause = self._loop.call_later(PAUSE_SECONDS, self._resume)

    def _resume(self) -> None:
        self._pause = None
        self._loop.add_reader(self._listener, self._acceptable)

    def _begin(self, client: socket.socket, peer: tuple[str, int]) -> None:
        self._stats.connections += 1
        client.setblocking(False)
        if len(self._open) >= MAX_CONNECTIONS:
            self.refuse(client, "full")
            return
        connection = _Connection(self, client, peer)
        self._open.add(connection)
        connection.dial()

    # --- what connections ask of their port ---

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        return self._loop

    def pick(self, source: str, tried: Sequence[Endpoint]) -> Endpoint | None:
        """The endpoint to try next; None when there is none left."""
        usable = self._health.usable(self._endpoints, self._loop.time())
        fresh = [endpoint for endpoint in usable if endpoint not in tried] if tried else usable
        if tried and not fresh:
            fresh = [endpoint for endpoint in self._endpoints if endpoint not in tried]
        if not fresh:
            return None
        self._turn += 1
        return choose(
            self.options.policy,
            fresh,
            Draw(self._turn - 1, self._draw, self._per_endpoint.__getitem__, source),
        )

    def out_socket(self) -> socket.socket:
        return self._connect()

    def connected(self, endpoint: Endpoint) -> None:
        self._health.succeeded(endpoint)

    def failed(self, endpoint: Endpoint, reason: str) -> None:
        self._health.failed(endpoint, self._loop.time())
        self._stats.errors[reason] += 1

    def retried(self) -> None:
        self._stats.retries += 1

    def occupy(self, endpoint: Endpoint, by: int) -> None:
        self._per_endpoint[endpoint] += by
        if not self._per_endpoint[endpoint]:
            del self._per_endpoint[endpoint]

    def over(self, connection: "_Connection", reason: str) -> None:
        self._open.discard(connection)
        self._stats.received += connection.received
        self._stats.sent += connection.sent
        if reason:
            self._stats.errors[reason] += 1

    def refuse(self, client: socket.socket, reason: str) -> None:
        self._stats.errors[reason] += 1
        reset_on_close(client)
        client.close()


class _Connection:
    """One client: dialling an endpoint, then relaying, then over."""

    __slots__ = ("_client", "_peer", "_port", "_relay", "_task", "_timer", "_tried", "endpoint")

    def __init__(self, port: Port, client: socket.socket, peer: tuple[str, int]) -> None:
        self._port = port
        self._client = client
        self._peer = peer
        self._task: socket.socket | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._relay: Relay | None = None
        self._tried: list[Endpoint] = []
        self.endpoint: Endpoint | None = None

    @property
    def received(self) -> int:
        return self._relay.received if self._relay else 0

    @property
    def sent(self) -> int:
        return self._relay.sent if self._relay else 0

    def dial(self) -> None:
        """Try the next endpoint, or give the client up."""
        endpoint = (
            self._port.pick(self._peer[0], self._tried) if len(self._tried) < CONNECT_ATTEMPTS else None
        )
        if endpoint is None:
            self._give_up("" if self._tried else "no_endpoint")
            return
        if self._tried:
            self._port.retried()
        self._tried.append(endpoint)
        self._occupy(endpoint)
        try:
            self._task = self._port.out_socket()
            code = self._task.connect_ex((endpoint.address, endpoint.port))
        except KernelError as error:
            self._lost(errno.ENETUNREACH if isinstance(error, NamespaceGone) else errno.EIO)
            return
        except OSError as error:
            self._lost(error.errno or errno.EIO)
            return
        if code == 0:
            self._established()
        elif code == errno.EINPROGRESS:
            self._port.loop.add_writer(self._task, self._connected)
            self._timer = self._port.loop.call_later(self._port.options.connect_timeout, self._timed_out)
        else:
            self._lost(code)

    def abort(self, reason: str) -> None:
        """End it now with a reset, in whatever state it is."""
        if self._relay is not None:
            self._relay.abort(_Aborted(reason))
        else:
            self._forget_dial()
            self._give_up(reason)

    def _connected(self) -> None:
        assert self._task is not None
        code = self._task.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._lost(code)
        else:
            self._stop_waiting()
            self._established()

    def _timed_out(self) -> None:
        self._lost(errno.ETIMEDOUT)

    def _established(self) -> None:
        assert self._task is not None
        assert self.endpoint is not None
        self._port.connected(self.endpoint)
        try:
            for side in (self._client, self._task):
                side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            version = self._port.options.proxy_protocol
            first = header(version, self._peer[:2], self._client.getsockname()[:2]) if version else b""
        except OSError as error:  # the client is gone already
            self._forget_dial()
            self._give_up(reason_of(error))
            return
        self._relay = Relay(
            self._port.loop, self._client, self._task, self._port.options.idle_timeout, self._over, first
        )
        self._relay.start()

    def _lost(self, code: int) -> None:
        """This endpoint did not answer: note it, try another."""
        assert self.endpoint is not None
        failed = self.endpoint
        self._forget_dial()
        self._port.failed(failed, reason_of(OSError(code, os.strerror(code))))
        self.dial()

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            if self._task is not None:
                self._port.loop.remove_writer(self._task)

    def _forget_dial(self) -> None:
        self._stop_waiting()
        if self._task is not None:
            self._task.close()
            self._task = None
        self._occupy(None)

    def _occupy(self, endpoint: Endpoint | None) -> None:
        if self.endpoint is not None:
            self._port.occupy(self.endpoint, -1)
        self.endpoint = endpoint
        if endpoint is not None:
            self._port.occupy(endpoint, +1)

    def _give_up(self, reason: str) -> None:
        reset_on_close(self._client)
        self._client.close()
        self._port.over(self, reason)

    def _over(self, error: OSError | None) -> None:
        self._occupy(None)
        self._port.over(self, reason_of(error) if error is not None else "")


class _Aborted(OSError):
    """Not the network's doing but ours; `reason` as counted."""

    def __init__(self, reason: str) -> None:
        super().__init__(errno.ECONNABORTED, reason)
        self.reason = reason


_REASON_OF = {
    errno.ECONNREFUSED: "refused",
    errno.ETIMEDOUT: "timeout",
    errno.EHOSTUNREACH: "unreachable",
    errno.ENETUNREACH: "unreachable",
    errno.ECONNRESET: "reset",
    errno.EPIPE: "reset",
    errno.ENOTCONN: "reset",
} | dict.fromkeys(OUT_OF_DESCRIPTORS, "fd_limit")


def reason_of(error: OSError) -> str:
    """The error as one of REASONS."""
    if isinstance(error, _Aborted):
        return error.reason
    if isinstance(error, Idle):
        return "idle"
    return _REASON_OF.get(error.errno or 0, "other")


def listen(address: str, port: int, namespace: Namespace | None = None) -> socket.socket:
    """The listening socket. KernelError names the port, and who holds it where that can be seen."""
    try:
        return (namespace or Namespace(None)).tcp_listener(address, port)
    except OSError as error:
        raise PortTaken(port, _explain(address, port, error)) from error


class PortTaken(KernelError):
    """A published port cannot be listened on."""

    def __init__(self, port: int, message: str) -> None:
        super().__init__(message)
        self.port = port


def _explain(address: str, port: int, error: OSError) -> str:
    holder = proc.listener_owner(port) if error.errno == errno.EADDRINUSE else None
    by = f", held by {holder}" if holder else ""
    return f"cannot listen on {address}:{port}: {error.strerror}{by}"
