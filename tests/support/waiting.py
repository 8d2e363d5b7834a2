"""Waiting in tests: for a condition, with a deadline and never a fixed time."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager

import pytest

DEADLINE = 60.0  # seconds; a machine may be slow, a wait may not be endless


async def until(condition: Callable[[], object], what: str = "", seconds: float = DEADLINE) -> None:
    """Give the loop turns until the condition holds. `what` is said when it does not come to that."""
    try:
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(0.005)
    except TimeoutError:
        pytest.fail(f"not within {seconds:.0f} s: {what or inspect.getsource(condition).strip()}")


@asynccontextmanager
async def running(*work: Coroutine[None, None, None]) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Do the work meanwhile. What it dies of is raised at the end."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
    for error in ended:
        if isinstance(error, Exception):
            raise error
