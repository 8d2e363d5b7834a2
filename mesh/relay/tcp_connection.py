"""One relayed connection from its accept to its end: whose it is, which task takes it, then bytes.

header    from a trusted proxy in front: its PROXY header is awaited, and says who the client is
dialling  an endpoint is asked; when it does not answer, another one
relaying  `splice` has both sockets
over      told to the port, once
"""

import errno
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from mesh.balance.policies import Endpoint, Policy
from mesh.errors import KernelError, NamespaceGone, WireError
from mesh.net.poller import READABLE, UNUSUAL, WRITABLE, Poller
from mesh.net.timers import Deadlines
from mesh.relay.proxy_protocol import HEADER_MAX, Network, header, parse, trusts
from mesh.relay.splice import SpliceRelay, reset_on_close
from mesh.relay.stats import Aborted, reason_of

CONNECT_ATTEMPTS = 3  # endpoints tried for one client
HEADER_SECONDS = 5.0  # for a PROXY header to arrive: proxies send it first, a lost packet may come twice


@dataclass(frozen=True, slots=True)
class RelayOptions:
    """How a port treats its connections. Times in seconds."""

    policy: Policy = Policy.ROUND_ROBIN
    connect_timeout: float = 2.0
    idle_timeout: float = 3600.0
    drain: float = 30.0

    proxy_protocol: str = ""  # of the header toward the task
    trusted: tuple[Network, ...] = ()  # whose connections begin with a header
    slow_start: float = 0.0


class Owner(Protocol):
    """The port, as its connections need it."""

    options: RelayOptions

    @property
    def poller(self) -> Poller: ...
    @property
    def deadlines(self) -> Deadlines: ...
    def pick(self, source: str, tried: Sequence[Endpoint]) -> Endpoint | None: ...
    def out_socket(self) -> socket.socket: ...
    @property
    def clock(self) -> Callable[[], float]: ...
    def connected(self, endpoint: Endpoint, took: float) -> None: ...
    def failed(self, endpoint: Endpoint, reason: str) -> None: ...
    def retried(self) -> None: ...
    def occupy(self, endpoint: Endpoint, by: int) -> None: ...
    def on_close(self, connection: "RelayConnection", reason: str) -> None: ...


class RelayConnection:
    """One client, from its accept to its end."""

    __slots__ = (
        "_arrived",
        "_client",
        "_dialled",
        "_end",
        "_is_over",
        "_local",
        "_peer",
        "_port",
        "_relay",
        "_source",
        "_task",
        "_told_client",
        "_tried",
        "address",
        "endpoint",
    )

    def __init__(self, port: Owner, client: socket.socket, peer: tuple[str, int], address: str = "") -> None:
        """`address`: whose share of the port's places it takes; "": nobody's."""
        self.address = address
        self._port = port
        self._client = client
        self._peer = peer
        self._source: tuple[str, int] = peer[:2]  # the client: the peer, or whom its header names
        self._local: tuple[str, int] | None = None  # where it came to, if a header says so
        self._arrived: bytes | None = None  # of a header that is awaited
        self._task: socket.socket | None = None
        self._end = 0.0  # of the time limit that runs; 0: none does
        self._relay: SpliceRelay | None = None
        self._told_client = 0  # of the client's socket, that the relay will not be told again
        self._tried: list[Endpoint] = []
        self._dialled = 0.0
        self._is_over = False  # the port has been told
        self.endpoint: Endpoint | None = None

    @property
    def received(self) -> int:
        return self._relay.received if self._relay else 0

    @property
    def sent(self) -> int:
        return self._relay.sent if self._relay else 0

    def begin(self) -> None:
        """Go on to the task; but a trusted proxy has to say first who its client is."""
        if not trusts(self._port.options.trusted, self._peer[0]):
            self.dial()
            return
        self._arrived = b""
        self._end = self._port.deadlines.add(self, HEADER_SECONDS)
        try:
            self._port.poller.watch(self._client, self._read_header)
        except OSError as error:
            self.abort(reason_of(error))

    def _read_header(self, _: int) -> None:
        """Takes exactly the header: what follows stays in the socket, for the relay."""
        if self._arrived is None:
            return  # it has been read, and a task is being dialled
        try:
            while True:
                seen = self._client.recv(HEADER_MAX, socket.MSG_PEEK)
                if not seen:
                    raise WireError("end of stream instead of a PROXY header")
                found = parse(self._arrived + seen)
                missing = len(seen) if found is None else found.length - len(self._arrived)
                self._arrived += self._client.recv(missing)
                if found is not None:
                    break
        except (BlockingIOError, InterruptedError):
            return
        except WireError:
            self._bad_header()
            return
        except OSError as error:
            self._forget_header()
            self._give_up(reason_of(error))
            return
        self._forget_header()
        if found.client is not None:
            self._source, self._local = found.client, found.local
        self.dial()

    def _bad_header(self) -> None:
        self._forget_header()
        self._give_up("proxy_header")

    def _forget_header(self) -> None:
        if self._arrived is not None:
            self._arrived = None
            self._stop_waiting()
            self._told_client = READABLE | UNUSUAL  # whatever came meanwhile

    def dial(self) -> None:
        """Try the next endpoint, or give the client up."""
        endpoint = (
            self._port.pick(self._source[0], self._tried) if len(self._tried) < CONNECT_ATTEMPTS else None
        )
        if endpoint is None:
            self._give_up("" if self._tried else "no_endpoint")
            return
        if self._tried:
            self._port.retried()
        self._tried.append(endpoint)
        self._dialled = self._port.clock()
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
            self._established(0)
        elif code == errno.EINPROGRESS:
            self._end = self._port.deadlines.add(self, self._port.options.connect_timeout)
            try:
                self._port.poller.watch(self._task, self._connected)
            except OSError as error:
                self._lost(error.errno or errno.EIO)
        else:
            self._lost(code)

    def on_due(self) -> None:
        """The time for the header, or for the connect, is over."""
        self._end = 0.0
        if self._arrived is not None:
            self._bad_header()
        else:
            self._lost(errno.ETIMEDOUT)

    def abort(self, reason: str) -> None:
        """End it now with a reset, in whatever state it is."""
        if self._relay is not None:
            self._relay.abort(Aborted(reason))
        else:
            self._forget_header()
            self._forget_dial()
            self._give_up(reason)

    def on_fault(self) -> None:
        """Something of ours has failed in it."""
        if self._relay is not None:
            self._relay.abort(Aborted("internal"))
        else:
            self._forget_header()
        self._forget_dial()
        self._give_up("internal")

    def _connected(self, mask: int) -> None:
        assert self._task is not None
        code = self._task.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) if mask & UNUSUAL else 0
        if code:
            self._lost(code)
        elif mask & WRITABLE:
            self._stop_waiting()
            self._established(mask)

    def _established(self, told: int) -> None:
        assert self._task is not None
        assert self.endpoint is not None
        self._port.connected(self.endpoint, self._port.clock() - self._dialled)
        try:
            self._task.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            version = self._port.options.proxy_protocol
            first = header(version, self._source, self._came_to()) if version else b""
        except OSError as error:  # the client is gone already
            self._forget_dial()
            self._give_up(reason_of(error))
            return
        self._relay = SpliceRelay(
            self._port.poller,
            self._port.deadlines,
            self._client,
            self._task,
            self._port.options.idle_timeout,
            self._over,
            first,
        )
        self._relay.start(self._told_client, told)

    def _came_to(self) -> tuple[str, int]:
        host, port = self._local or self._client.getsockname()[:2]
        return host, port

    def _lost(self, code: int) -> None:
        """This endpoint did not answer: note it, try another."""
        assert self.endpoint is not None
        failed = self.endpoint
        self._forget_dial()
        self._port.failed(failed, reason_of(OSError(code, os.strerror(code))))
        self.dial()

    def _stop_waiting(self) -> None:
        if self._end:
            self._port.deadlines.drop(self, self._end)
            self._end = 0.0

    def _forget_dial(self) -> None:
        self._stop_waiting()
        if self._task is not None:
            self._port.poller.close(self._task)
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
        self._port.poller.close(self._client)
        if not self._is_over:
            self._is_over = True
            self._port.on_close(self, reason)

    def _over(self, error: OSError | None) -> None:
        self._is_over = True
        self._occupy(None)
        self._port.on_close(self, reason_of(error) if error is not None else "")
