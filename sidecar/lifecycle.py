"""The life of the process: start, say so, wait for a signal, stop within a limit.

SIGTERM and SIGINT mean a clean end: rules, routes and sockets of ours are taken away. A second signal while
stopping ends at once; what is left then runs out by itself or is removed by `mesh cleanup`.
"""

import asyncio
import gc
import logging
import resource
import signal

import uvloop

from mesh.errors import ConfigError, MeshError
from mesh.net.isolation import count_loop_faults
from mesh.telemetry import logs
from sidecar.app import Sidecar
from sidecar.config import Config

STOP_SECONDS = 25.0  # below the stack's stop_grace_period (30 s), after which Docker kills

FILES_MAX = 1_048_576  # file descriptors; the kernel's own default for the hard limit under Docker

logger = logging.getLogger(__name__)


def run(config: Config) -> int:
    """Run until a signal. The exit code: 0 clean, 1 could not start, failed, or did not stop in time.

    Raises ConfigError when the first catalogue is wrong.
    """
    logs.setup(config.log.level, config.log.format)
    _allow_files()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(serve(config))


def _allow_files() -> None:
    """As many file descriptors as the process may have: the usual soft limit of 1024 is for programs that
    select(2). Workers inherit it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES_MAX if hard == resource.RLIM_INFINITY else min(hard, FILES_MAX)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def serve(config: Config) -> int:
    loop = asyncio.get_running_loop()
    count_loop_faults(loop)
    asked = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked.set)
    sidecar = Sidecar(config)
    try:
        bound = await sidecar.start()
        settle()
        logs.event(logger, logging.INFO, "started", **bound.shown())
        await _first(asked, sidecar.failed)
        failed = sidecar.failed.is_set()
    except ConfigError:
        raise
    except MeshError as error:
        logs.event(logger, logging.ERROR, "cannot start", error=str(error))
        return 1
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
        stopped = await _stop(sidecar)
    return 0 if stopped and not failed else 1


def settle() -> None:
    """Leave what there is now, modules and the catalogue, out of garbage collections: it stays. To look
    through it at each full one cost 13 µs of each query that is not in the reply cache (a thousand services).
    What of it is replaced later is freed all the same, when nobody has it any more."""
    gc.collect(1)
    gc.freeze()


async def _first(*events: asyncio.Event) -> None:
    """Until one of them is set."""
    async with asyncio.TaskGroup() as group:
        waiting = [group.create_task(event.wait()) for event in events]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            task.cancel()


async def _stop(sidecar: Sidecar) -> bool:
    try:
        await asyncio.wait_for(sidecar.stop(), STOP_SECONDS)
    except TimeoutError:
        logs.event(logger, logging.ERROR, "did not stop in time", seconds=STOP_SECONDS)
        return False
    logs.event(logger, logging.INFO, "stopped")
    return True
