"""Passwords that are compared with slow hashes: in a thread of their own, one at a time, in fair turns.

Guessing passwords at one service costs that service's logins time, and nobody else's: services take turns,
and within a service its clients do.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from mesh.http import limits
from mesh.internal_errors import ERRORS
from mesh.net.limits.fair_queue import FairQueue
from mesh.net.limits.fair_shares import share_key


class Comparison:
    """One that waits, or is under way. One of `then` and `refused` is called, on the loop, unless it is
    dropped before."""

    __slots__ = ("refused", "then", "work")

    def __init__(
        self, work: Callable[[], None], then: Callable[[], None], refused: Callable[[], None]
    ) -> None:
        self.work, self.then, self.refused = work, then, refused


class PasswordQueue:
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._thread = ThreadPoolExecutor(1, "mesh-http")
        self._waiting: FairQueue[Comparison] = FairQueue(
            limits.PASSWORDS_MAX, limits.PASSWORDS_PER_SERVICE, limits.PASSWORDS_PER_CLIENT
        )
        self._busy = False

    def __len__(self) -> int:
        """That wait."""
        return len(self._waiting)

    def compare(self, comparison: Comparison, service: str, client: str) -> bool:
        """`client`: its address. False: too many of the client's, or the service's, wait already."""
        key = share_key(client)
        if not self._waiting.has_room(service, key):
            return False
        displaced = self._waiting.put(comparison, service, key)
        if displaced is not None:
            self._loop.call_soon(displaced.refused)
        self._go_on()
        return True

    def drop(self, comparison: Comparison) -> None:
        """Nobody wants to know any more."""
        self._waiting.drop(comparison)

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _go_on(self) -> None:
        if self._busy or (comparison := self._waiting.take()) is None:
            return
        self._busy = True

        def done(work: asyncio.Future[None]) -> None:
            self._busy = False
            if work.cancelled():
                return  # the end of the process
            self._go_on()
            error = work.exception()
            if error is None:
                comparison.then()
            else:
                ERRORS.report("comparing a password", error)
                comparison.refused()

        self._loop.run_in_executor(self._thread, comparison.work).add_done_callback(done)
