"""Waiting in tests of discovery: for a condition, with a deadline and never a fixed time."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager

import pytest

DEADLINE = 10.0


async def until(condition: Callable[[], object], what: str) -> None:
    """Give the loop turns until the condition holds."""
    try:
        async with asyncio.timeout(DEADLINE):
            while not condition():
                await asyncio.sleep(0.005)
    except TimeoutError:
        pytest.fail(f"not within {DEADLINE:.0f} s: {what}")


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
