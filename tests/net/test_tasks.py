"""Tasks that are kept: started again with growing pauses, and named while they fail."""

import asyncio
from collections.abc import Iterator

import pytest

from mesh.internal_errors import ERRORS
from mesh.net import tasks as tasks_module
from mesh.net.tasks import Tasks, place_of
from tests.support.waiting import until


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    ERRORS.clear()
    monkeypatch.setattr(tasks_module, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(tasks_module, "LAST_PAUSE", 0.004)
    yield
    ERRORS.clear()


async def test_a_task_that_fails_is_started_again_and_named_until_it_is_well(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tasks_module, "WELL_SECONDS", 0.05)
    failures: list[str] = []
    runs, looked_again = [], []

    async def work() -> None:
        runs.append(len(looked_again))
        if len(runs) < 4:
            raise ValueError(f"run {len(runs)}")
        await asyncio.Event().wait()

    tasks = Tasks(lambda name, _error: failures.append(name))
    tasks.keep(work, "reconciler of x", lambda: looked_again.append(1))
    await until(lambda: len(runs) == 4)
    assert runs == [0, 1, 2, 3]  # all is looked at again before each further run
    assert ERRORS.counts == {"task reconciler": 3}
    assert any("task reconciler of x" in one and "run 3" in one for one in ERRORS.problems())
    await until(lambda: not any("reconciler of x" in one for one in ERRORS.problems()))
    assert failures == []
    await tasks.close()


async def test_looking_again_may_fail_too() -> None:
    runs = []

    async def work() -> None:
        runs.append(1)
        raise ValueError

    def again() -> None:
        runs.append(2)
        raise KeyError

    tasks = Tasks(lambda _name, _error: None)
    tasks.keep(work, "reconciler", again)
    await until(lambda: runs.count(2) > 2)
    await tasks.close()


@pytest.mark.parametrize("error", [MemoryError(), ExceptionGroup("several", [ValueError(), MemoryError()])])
async def test_what_only_a_restart_mends_ends_the_task(error: Exception) -> None:
    failures: list[BaseException] = []

    async def work() -> None:
        raise error

    tasks = Tasks(lambda _name, failure: failures.append(failure))
    task = tasks.keep(work, "reconciler")
    await until(task.done)
    await until(lambda: bool(failures))
    assert failures == [error]


async def test_a_task_that_is_cancelled_or_done_is_not_started_again() -> None:
    runs = []

    async def work() -> None:
        runs.append(1)

    tasks = Tasks(lambda _name, _error: None)
    await tasks.keep(work, "once")
    waiting = tasks.keep(asyncio.Event().wait, "waits")  # type: ignore[arg-type]
    await tasks.close()
    assert waiting.cancelled()
    assert runs == [1]


def test_places_do_not_grow_with_what_they_are_about() -> None:
    assert place_of("probe abc.1") == place_of("probe abc.2") == "task probe"
