"""Processes beside this one: started, told everything, started again when they end.

A worker is a process of its own, with one channel to it. It begins with all that is true by then and is told
what changes from there on. One that ends, does not keep up (`BEHIND_MAX`), is not heard of (`SILENT_SECONDS`)
or says what it may not is replaced, and counted by the reason. So whoever has workers tells them twice:
`everything` to a new one, `tell` to those that are there.

A *restricted* worker reads what strangers send, so it counts as one that strangers may have taken over: it is
started without privileges, and what it says is bounded in size, in kind and in number.
"""

import asyncio
import logging
import os
import signal
import socket
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import monotonic

from mesh.errors import WireError
from mesh.internal_errors import ERRORS
from mesh.net.tasks import Tasks
from sidecar.workers.channel import BODY_MAX, Channel
from sidecar.workers.frames import DESCRIPTORS_MAX
from sidecar.workers.messages import Faults, Messages
from sidecar.workers.privileges import Restriction

BEHIND_MAX = 64 * 1024 * 1024  # bytes of orders that a worker may leave unread; a large catalogue is 10 MB
STARTING_BEHIND_MAX = 64 * 1024  # the same of a new one: what waits to be sent holds descriptors, one a port
STARTING_AT_ONCE = 64  # orders for a new one that are sent without waiting for it
SILENT_SECONDS = 30.0  # each tells something every second; on a machine that is busy it may start slowly
RETRY_SECONDS = 1.0  # before a worker that ended is replaced
STOP_SECONDS = 2.0  # for a worker to end by itself

RESTRICTED_BODY_MAX = 8 * 1024 * 1024  # bytes of a message: a report of 20,000 endpoints has 3 MB
RESTRICTED_DESCRIPTORS_MAX = 1  # that it may send with a message: its end of a tunnel
RESTRICTED_MESSAGES_MAX = 5_000  # in a second: each new connection through a tunnel takes two
ANSWERS_MAX = 131_072  # beside them, to what it was told: all ports there are, over both versions of IP
RESTRICTED_BYTES_MAX = 32 * 1024 * 1024  # in a second

# An order, and the sockets that go with it.
Order = tuple[object, Sequence[socket.socket]]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Kind:
    """What all workers of a kind have in common. `told`: what they are told, `tells`: what they may tell."""

    name: str
    module: str
    told: Messages
    tells: Messages
    restriction: Restriction | None = None


class Workers:
    """`count` of them, numbered. `start` once, `close` at the end.

    `everything`: what a new one has to know, `on_message`: what one has told (WireError: it is ended),
    `ended`: one is gone.
    """

    def __init__(
        self,
        kind: Kind,
        count: int,
        tasks: Tasks,
        *,
        everything: Callable[[int], Iterable[Order]],
        on_message: Callable[[int, object, tuple[socket.socket, ...]], None],
        ended: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._kind, self._tasks = kind, tasks
        self.count = count
        self._everything, self._on_message, self._ended = everything, on_message, ended
        self._channels: dict[int, Channel] = {}
        self._starting: dict[int, deque[tuple[bytes, Sequence[socket.socket]]]] = {}  # what they are told yet
        self._rates: dict[int, _Rate] = {}
        self._running: list[asyncio.Task[None]] = []
        self._behind: set[int] = set()
        self._faulty: set[int] = set()
        self._up: set[int] = set()
        self._all_up = asyncio.Event()
        self.ends: Counter[str] = Counter()  # how workers ended, by reason: see `_listen`

    @property
    def name(self) -> str:
        return self._kind.name

    @property
    def running(self) -> frozenset[int]:
        """The numbers of those that are told what changes."""
        return frozenset((*self._channels, *self._starting))

    @property
    def started(self) -> bool:
        return bool(self._running)

    def start(self) -> None:
        """Safe to call again."""
        if not self._running:
            self._running = [
                self._tasks.keep(partial(self._keep, number), f"{self._kind.name}-worker {number}")
                for number in range(self.count)
            ]

    async def up(self, seconds: float) -> bool:
        """Wait until each has said something, so long at most."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._all_up.wait()
        return self._all_up.is_set()

    def tell(self, message: object, sockets: Sequence[socket.socket] = ()) -> None:
        """To all of them."""
        if not self.running:
            return
        body = self._kind.told.encode(message)
        for waiting in self._starting.values():
            waiting.append((body, sockets))
        for number in tuple(self._channels):
            self._send(number, body, sockets)

    def tell_one(self, number: int, message: object, sockets: Sequence[socket.socket] = ()) -> None:
        """To one, if it is there."""
        if number in self._starting:
            self._starting[number].append((self._kind.told.encode(message), sockets))
        elif number in self._channels:
            self._send(number, self._kind.told.encode(message), sockets)

    def end(self, number: int, error: WireError) -> None:
        """It has done what it may not."""
        if number in self._channels:
            self._log_refused(number, error)
            self._faulty.add(number)
            self._channels[number].abort()

    async def close(self) -> None:
        """End all of them."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def _send(self, number: int, body: bytes, sockets: Sequence[socket.socket]) -> None:
        channel = self._channels[number]
        channel.send_encoded(body, sockets)
        self._rates[number].may_answer()
        if channel.behind > BEHIND_MAX:
            logger.error("%s worker %d does not keep up; it is replaced", self._kind.name, number)
            self._behind.add(number)
            channel.abort()

    async def _keep(self, number: int) -> None:
        while True:
            try:
                status = await self._run(number)
                logger.error(
                    "%s worker %d ended with status %s; another one is started",
                    self._kind.name, number, status,
                )  # fmt: skip
            except OSError as error:  # no process, no descriptors for it
                logger.error("%s worker %d cannot be started: %s", self._kind.name, number, error)
            await asyncio.sleep(RETRY_SECONDS)

    async def _run(self, number: int) -> int | None:
        ours, theirs = socket.socketpair()
        with theirs:
            process = await self._spawn(theirs.fileno())
        channel, reason = self._channel(ours), ""
        self._behind.discard(number)
        self._faulty.discard(number)
        try:
            self._rates[number] = _Rate(self._kind.restriction is not None)
            await self._tell_everything(number, channel)
            self._channels[number] = channel
            reason = await self._listen(number, channel)
            self.ends[reason] += 1
        except TimeoutError:
            logger.error("%s took nothing for %.0f s", self._who(number), SILENT_SECONDS)
        finally:
            self._starting.pop(number, None)
            self._channels.pop(number, None)
            channel.close()
            await _end(process, at_once=reason == "malformed")
            self._ended(number)
            ERRORS.forget(self._who(number))
        return process.returncode

    async def _tell_everything(self, number: int, channel: Channel) -> None:
        """No faster than it takes it: each socket that waits to be sent is one more descriptor. What changes
        meanwhile comes after. TimeoutError: it takes nothing."""
        waiting = deque[tuple[bytes, Sequence[socket.socket]]]()
        for message, sockets in self._everything(number):
            if waiting or channel.behind > STARTING_BEHIND_MAX:
                waiting.append((self._kind.told.encode(message), sockets))
            else:
                channel.send(message, sockets)
        self._starting[number] = waiting
        while waiting:
            async with asyncio.timeout(SILENT_SECONDS):
                await channel.taken()
            for _ in range(min(len(waiting), STARTING_AT_ONCE)):
                body, sockets = waiting.popleft()
                if all(sock.fileno() >= 0 for sock in sockets):  # else the port is closed again already
                    channel.send_encoded(body, sockets)
        del self._starting[number]

    def _who(self, number: int) -> str:
        return f"{self._kind.name} worker {number}"

    async def _spawn(self, descriptor: int) -> asyncio.subprocess.Process:
        kind = self._kind
        if kind.restriction is None:
            return await asyncio.create_subprocess_exec(
                sys.executable, "-m", kind.module, str(descriptor), pass_fds=(descriptor,)
            )
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "sidecar.processes.edge", kind.module, str(descriptor)),
            *kind.restriction.as_words(),
            pass_fds=(descriptor,),
            stdin=asyncio.subprocess.DEVNULL,
            cwd="/",
            env=_plain_environment(),
        )

    def _channel(self, ours: socket.socket) -> Channel:
        restricted = self._kind.restriction is not None
        return Channel(
            ours,
            self._kind.told,
            self._kind.tells,
            body_max=RESTRICTED_BODY_MAX if restricted else BODY_MAX,
            descriptors_max=RESTRICTED_DESCRIPTORS_MAX if restricted else DESCRIPTORS_MAX,
        )

    async def _listen(self, number: int, channel: Channel) -> str:
        """Until it ends. Returns the reason as `ends` counts it."""
        name, rate = self._kind.name, self._rates[number]
        try:
            while True:
                async with asyncio.timeout(SILENT_SECONDS):
                    message, sockets = await channel.receive()
                rate.count(channel.last_size)
                self._up.add(number)
                if len(self._up) == self.count:
                    self._all_up.set()
                if isinstance(message, Faults):
                    counts = Counter(message.counts)
                    ERRORS.hear(self._who(number), counts, message.problems, message.quarantined)
                else:
                    self._on_message(number, message, sockets)
        except EOFError:
            if number in self._faulty:
                return "malformed"
            return "behind" if number in self._behind else "exited"
        except TimeoutError:
            logger.error("%s worker %d was not heard of for %.0f s", name, number, SILENT_SECONDS)
            return "silent"
        except WireError as error:
            self._log_refused(number, error)
            return "malformed"

    def _log_refused(self, number: int, error: WireError) -> None:
        logger.error("%s worker %d did what it may not, and is ended: %s", self._kind.name, number, error)


class _Rate:
    """How much a restricted worker says. One second at a time."""

    __slots__ = ("_answers", "_bytes", "_limited", "_messages", "_since")

    def __init__(self, limited: bool) -> None:
        self._limited = limited
        self._since, self._messages, self._bytes = 0.0, 0, 0
        self._answers = 0

    def may_answer(self) -> None:
        """It was told something: thousands of ports that end at once end with as many words."""
        self._answers = min(self._answers + 1, ANSWERS_MAX)

    def count(self, size: int) -> None:
        """Raises WireError when it is too much."""
        now = monotonic()
        if now - self._since >= 1.0:
            self._since, self._messages, self._bytes = now, 0, 0
        self._messages += 1
        self._bytes += size
        if self._limited and self._bytes > RESTRICTED_BYTES_MAX:
            raise WireError(f"more than {RESTRICTED_BYTES_MAX} bytes in a second")
        if self._limited and self._messages > RESTRICTED_MESSAGES_MAX:
            if self._answers:
                self._answers -= 1
                return
            raise WireError(f"more than {RESTRICTED_MESSAGES_MAX} messages in a second")


def _plain_environment() -> dict[str, str]:
    """For a restricted process: where the program is, and nothing of the sidecar's settings or secrets."""
    root = str(Path(__file__).resolve().parents[2])
    kept = {name: os.environ[name] for name in ("LANG", "LC_ALL", "TZ") if name in os.environ}
    return kept | {"PATH": "/usr/local/bin:/usr/bin:/bin", "PYTHONPATH": root, "PYTHONDONTWRITEBYTECODE": "1"}


async def _end(process: asyncio.subprocess.Process, *, at_once: bool) -> None:
    """It ends when it sees that the pair has; one that does not is killed. So is one that said what it may
    not, at once."""
    try:
        async with asyncio.timeout(0 if at_once else STOP_SECONDS):
            await process.wait()
    except TimeoutError:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGKILL)
        await process.wait()
