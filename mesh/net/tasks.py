"""The only place that starts asyncio tasks: every task has a name, an owner and an end.

A task that dies of an exception is a bug or an unreachable world; either way it is reported at once to
`on_failure` and never lost in a garbage collector's warning. One that is to run for as long as its owner does
(`keep`) is supervised: it is started again after a growing pause, named in `mesh status` until it runs well,
and only what a restart of the process mends (`mesh.internal_errors`) ends it.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from mesh.internal_errors import ERRORS, restart_mends
from mesh.net.backoff import Backoff

FIRST_PAUSE, LAST_PAUSE = 0.5, 30.0  # seconds before a task that failed is started again
WELL_SECONDS = 60.0  # a task that has run for so long is well: the next pause is the first again

Work = Callable[[], Coroutine[Any, Any, None]]


class Tasks:
    """Owns a set of tasks. `close()` cancels what still runs and waits for it."""

    def __init__(self, on_failure: Callable[[str, BaseException], None]) -> None:
        self._on_failure = on_failure
        self._running: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._running)

    def start(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """A name is a kind, and, after a space, which one it is."""
        task = asyncio.create_task(work, name=name)  # noqa: TID251 - the one place
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    def keep(self, work: Work, name: str, again: Callable[[], None] = lambda: None) -> asyncio.Task[None]:
        """Run it, and run it again whenever it fails. `again` is called before: what the work had in hand may
        be lost, so all of it is to be looked at."""
        return self.start(_supervised(work, name, again), name)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._on_failure(task.get_name(), error)

    async def close(self) -> None:
        """Cancel everything and wait until it has ended. Safe to call twice."""
        running = tuple(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def place_of(name: str) -> str:
    """Where a failed task is counted: its name without which one it is."""
    return f"task {name.partition(' ')[0]}"


async def _supervised(work: Work, name: str, again: Callable[[], None]) -> None:
    loop, backoff = asyncio.get_running_loop(), Backoff(FIRST_PAUSE, LAST_PAUSE)
    where, subject = place_of(name), f"task {name}"
    well: asyncio.TimerHandle | None = None
    while True:
        began = loop.time()
        try:
            if well is not None:
                again()
            await work()
            return
        except Exception as error:
            if restart_mends(error):
                raise
            if loop.time() - began >= WELL_SECONDS:
                backoff.reset()
            ERRORS.report(where, error, subject, f"it is started again in {backoff.seconds:.1f} s")
        finally:
            if well is not None:
                well.cancel()
        await asyncio.sleep(backoff.next())
        well = loop.call_later(WELL_SECONDS, ERRORS.mended, where, subject)
