"""A listening socket with TLS for an asyncio server, on which silent handshakes take no places from others.

asyncio's own server bounds how long a handshake may take, but not how many there are. Here each address has a
share of those under way; its own oldest gives way when it has that, and when all places are taken the oldest
of whoever has the most.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from mesh.net.limits.descriptors import for_client
from mesh.net.limits.fair_shares import FairShares, share_key
from mesh.net.netns import LISTEN_BACKLOG
from mesh.net.tasks import Tasks

ACCEPTS_AT_ONCE = 64  # then those who are accepted get their turn
PAUSE_SECONDS = 0.2  # when descriptors have run out


@dataclass(frozen=True, slots=True)
class HandshakeLimits:
    places: int  # handshakes under way at once
    per_address: int  # of these of one address (IPv6: its /64)


class TlsListener:
    """It accepts at once; `close` it. `context` may be replaced: it holds for connections to come. `refused`
    is told why one was closed. OSError when the address cannot be had."""

    def __init__(
        self,
        address: tuple[str, int],
        factory: Callable[[], asyncio.BaseProtocol],
        context: ssl.SSLContext,
        limits: HandshakeLimits,
        refused: Callable[[str], None],
        handshake_seconds: float,
    ) -> None:
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._socket = socket.create_server(address, family=family, backlog=LISTEN_BACKLOG)
        self._socket.setblocking(False)
        self._factory = factory
        self.context = context
        self._refused = refused
        self._seconds = handshake_seconds
        self._handshakes: FairShares[str, asyncio.Task[None]] = FairShares(limits.places, limits.per_address)
        self._tasks = Tasks(lambda _name, error: refused(type(error).__name__))
        self._loop = asyncio.get_running_loop()
        self._pause: asyncio.TimerHandle | None = None
        self._loop.add_reader(self._socket, self._acceptable)

    @property
    def bound(self) -> tuple[str, int]:
        host, port = self._socket.getsockname()[:2]
        return str(host), int(port)

    @property
    def handshakes(self) -> int:
        """Under way."""
        return len(self._handshakes)

    async def close(self) -> None:
        """Connections go on, handshakes don't."""
        if self._pause is not None:
            self._pause.cancel()
        else:
            self._loop.remove_reader(self._socket)
        self._socket.close()
        await self._tasks.close()

    def _acceptable(self) -> None:
        for _ in range(ACCEPTS_AT_ONCE):
            try:
                sock, peer = self._socket.accept()
                for_client(sock)
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionAbortedError:
                continue
            except OSError:  # out of descriptors: to watch on would spin
                self._refused("no descriptors")
                self._loop.remove_reader(self._socket)
                self._pause = self._loop.call_later(PAUSE_SECONDS, self._resume)
                return
            self._take(sock, share_key(str(peer[0])))

    def _resume(self) -> None:
        self._pause = None
        self._loop.add_reader(self._socket, self._acceptable)

    def _take(self, sock: socket.socket, address: str) -> None:
        handshakes = self._handshakes
        giving_way = None
        if handshakes.has_its_share(address):
            giving_way = handshakes.oldest_of(address)
        elif handshakes.full:
            giving_way = handshakes.to_give_way(address) or handshakes.oldest()
        if giving_way is not None:
            self._refused("silent")
            handshakes.remove(giving_way)
            giving_way.cancel()
        sock.setblocking(False)
        task = self._tasks.start(self._secured(sock), "handshake")
        handshakes.add(address, task)
        task.add_done_callback(handshakes.remove)

    async def _secured(self, sock: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(
                self._factory, sock, ssl=self.context, ssl_handshake_timeout=self._seconds
            )
        except ssl.SSLError:
            return  # the context has counted it
        except OSError:
            self._refused("no handshake")
        except asyncio.CancelledError:
            with suppress(OSError):
                sock.close()
            raise
