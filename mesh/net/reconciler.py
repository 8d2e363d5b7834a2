"""The loop of every part that keeps something as the catalogue says: an event wakes it, it works, it retries.

A part notes what has changed and calls `wake`. One task runs the rounds, one at a time:

    wake ──▶ round ──▶ succeeded: wait for the next `wake`, or until `interval` is over
               ▲   └──▶ failed: wait for the next `wake`, or until the pause of `backoff` is over
               └─────────────────────────────────┘

Changes that arrive during a round cause exactly one more round after it, however many they are.
"""

import asyncio
from collections.abc import Awaitable, Callable

from mesh.net.backoff import Backoff
from mesh.net.tasks import Tasks

FIRST_PAUSE, LAST_PAUSE = 0.5, 30.0  # seconds between two rounds that fail, unless the part says otherwise

# One round. True: everything is as it should be. False: something failed, so another round is due later.
Round = Callable[[], Awaitable[bool]]


class Reconciler:
    """Runs `work` after each `wake`, and again after a growing pause while it returns False.

    An exception in `work` is a fault of the program. It is reported to `mesh.internal_errors` under the
    task's name, and the task starts again after a pause (`Tasks.keep`). `on_restart` is called before that:
    what the round had in hand may be lost, so the part marks everything as changed.

    `interval`: seconds without a `wake` after which `on_interval` is called. It returns whether a round is
    needed. None: rounds come from `wake` only.
    `rest`: seconds after each round in which no other begins.
    """

    def __init__(
        self,
        tasks: Tasks,
        name: str,
        work: Round,
        *,
        backoff: Backoff | None = None,
        interval: float | None = None,
        on_interval: Callable[[], bool] = lambda: True,
        on_restart: Callable[[], None] = lambda: None,
        rest: float = 0.0,
    ) -> None:
        self.backoff = backoff or Backoff(FIRST_PAUSE, LAST_PAUSE)
        self._tasks = tasks
        self._name = name
        self._work = work
        self._interval = interval
        self._on_interval = on_interval
        self._on_restart = on_restart
        self._rest = rest
        self._failed = False  # the last round
        self._woken = asyncio.Event()
        self._settled = asyncio.Event()
        self._settled.set()
        self._task: asyncio.Task[None] | None = None

    def start(self, *, failed: bool = False) -> None:
        """Begin to wait for the first `wake`, which may have come before. `failed`: the caller has done a
        round itself, which failed, so the next one is due after the first pause."""
        self._failed = failed
        self._task = self._tasks.keep(self._run, self._name, self._restart)

    def wake(self) -> None:
        """Something has changed: a round is due now. No I/O."""
        self._settled.clear()
        self._woken.set()

    async def settled(self) -> None:
        """Wait until a round has ended that began after the last `wake`. It may have failed."""
        await self._settled.wait()

    async def close(self) -> None:
        """Cancel the round that is running, wait until it has ended, and begin no other."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _restart(self) -> None:
        self._on_restart()
        self.wake()

    async def _run(self) -> None:
        while True:
            await self._wait_for_reason()
            self._woken.clear()
            self._failed = not await self._work()
            if not self._failed:
                self.backoff.reset()
            if not self._woken.is_set():
                self._settled.set()
            if self._rest:
                await asyncio.sleep(self._rest)

    async def _wait_for_reason(self) -> None:
        """Return when the next round is due."""
        while True:
            try:
                async with asyncio.timeout(self.backoff.seconds if self._failed else self._interval):
                    await self._woken.wait()
                return
            except TimeoutError:
                if self._failed:
                    self.backoff.next()
                    return
                if self._on_interval():
                    return
