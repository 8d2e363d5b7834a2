"""A process beside the sidecar, as seen from inside: it does as it is told until it is told no more.

When the sidecar is gone, however it went, the channel to it ends, and the worker with it. Signals for it to
end are not heeded: a terminal's and a service manager's go to all processes at once, and the sidecar
decides when its workers have done their part.
"""

import asyncio
import logging
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import Any, Protocol, runtime_checkable

import uvloop

from mesh.catalog.store import Store
from mesh.internal_errors import ERRORS, Quarantined, restart_mends
from mesh.net.isolation import count_loop_faults
from mesh.net.tasks import Tasks, place_of
from mesh.telemetry import logs
from sidecar.workers.channel import Channel
from sidecar.workers.messages import PLACES_MAX, PROBLEMS_MAX, QUARANTINED_MAX, TEXT_MAX, Faults, Messages

FAULTS_SECONDS = 1.0  # between two looks at what has failed of ours
BUG = 70  # exit status (sysexits.h: internal software error)

logger = logging.getLogger(__name__)


class BeginWorker(Protocol):
    """The first message, whatever else it says."""

    @property
    def log_level(self) -> str: ...
    @property
    def log_format(self) -> str: ...


class Worker(Protocol):
    """`failed`: it cannot go on."""

    failed: asyncio.Event

    async def start(self) -> None: ...
    def handle(self, message: object, sockets: tuple[socket.socket, ...]) -> None: ...
    async def stop(self) -> None: ...


@runtime_checkable
class WithCatalogue(Protocol):
    """A worker that has a copy of the catalogue, and subscribers to it."""

    store: Store


# Makes the worker from the first message and its sockets; on the channel it tells the sidecar
# what it has to tell.
Make = Callable[[Any, tuple[socket.socket, ...], Channel], Worker]


def main(make: Make, told: Messages, tells: Messages) -> int:
    """`python -m MODULE FD`: the pair's end that the sidecar has left open for us."""
    return run(int(sys.argv[1]), make, told, tells)


def run(descriptor: int, make: Make, told: Messages, tells: Messages) -> int:
    """`told`: the messages of the sidecar, `tells`: ours. Returns the exit status."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    pair = socket.socket(fileno=descriptor)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(serve(pair, make, told, tells))


async def serve(pair: socket.socket, make: Make, told: Messages, tells: Messages) -> int:
    """Until the other end closes. Returns the exit status."""
    count_loop_faults(asyncio.get_running_loop())
    channel = Channel(pair, tells, told)
    try:
        begin, sockets = await channel.receive()
    except EOFError:
        return 0
    _set_up_log(begin)
    worker = make(begin, sockets, channel)
    # Also of what a boundary has caught: at its limit of memory a process would refuse every client.
    ERRORS.on_restart_needed = worker.failed.set
    life = Tasks(on_task_failed(worker.failed))
    try:
        await worker.start()
        handling = life.start(_handle_all(worker, channel), "messages")
        failed = life.start(worker.failed.wait(), "failure")
        life.keep(partial(_tell_faults, channel, worker), "faults")
        await asyncio.wait((handling, failed), return_when=asyncio.FIRST_COMPLETED)
    finally:
        await life.close()
        await worker.stop()
        channel.close()
        ERRORS.on_restart_needed = lambda: None
    return BUG if worker.failed.is_set() else 0


def _set_up_log(begin: Any) -> None:
    said: BeginWorker = begin
    logs.setup(said.log_level, said.log_format)


def on_task_failed(failed: asyncio.Event) -> Callable[[str, BaseException], None]:
    """For `Tasks`. `failed` is set by what only a new process mends; the sidecar then starts one."""

    def report(name: str, error: BaseException) -> None:
        ERRORS.report(place_of(name), error)
        if restart_mends(error):
            logger.critical("%s failed of what only a restart mends; the worker ends", name)
            failed.set()

    return report


def later(seconds: float, step: Callable[[], None]) -> None:
    """For `Store`."""
    asyncio.get_running_loop().call_later(seconds, step)


async def _tell_faults(channel: Channel, worker: Worker) -> None:
    """Whenever there is something else to say of them."""
    said = Faults({}, ())
    while True:
        await asyncio.sleep(FAULTS_SECONDS)
        counts = {where[:TEXT_MAX]: count for where, count in islice(ERRORS.counts.items(), PLACES_MAX)}
        problems = tuple(one[:TEXT_MAX] for one in islice(ERRORS.problems(), PROBLEMS_MAX))
        if (now := Faults(counts, problems, _quarantined(worker))) != said:
            said = now
            channel.send(now)
            await channel.taken()


def _quarantined(worker: Worker) -> tuple[Quarantined, ...]:
    if not isinstance(worker, WithCatalogue):
        return ()
    held = ((one.name, *key) for one in worker.store.subscriptions for key in one.quarantined)
    return tuple(
        (name[:TEXT_MAX], kind[:TEXT_MAX], id_[:TEXT_MAX])
        for name, kind, id_ in islice(held, QUARANTINED_MAX)
    )


async def _handle_all(worker: Worker, channel: Channel) -> None:
    with suppress(EOFError):
        while True:
            message, sockets = await channel.receive()
            try:
                worker.handle(message, sockets)
            except Exception as error:
                if restart_mends(error):
                    raise
                ERRORS.report("message to a worker", error)
