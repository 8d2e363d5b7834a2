"""The loop that is woken, works, and tries again what failed."""

import asyncio
from collections.abc import Iterator

import pytest

from mesh.internal_errors import ERRORS
from mesh.net import tasks as tasks_module
from mesh.net.backoff import Backoff
from mesh.net.reconciler import Reconciler
from mesh.net.tasks import Tasks
from tests.support.waiting import until

FAR = 3600.0  # seconds: what is that far away does not happen in a test


@pytest.fixture(autouse=True)
def _quick_restarts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    ERRORS.clear()
    monkeypatch.setattr(tasks_module, "FIRST_PAUSE", 0.001)
    yield
    ERRORS.clear()


class Part:
    """What is reconciled. Each round returns the next of `results`, and True when none is left."""

    def __init__(self, *results: bool | Exception) -> None:
        self.results = list(results)
        self.rounds = 0
        self.marked: list[str] = []
        self.seen: list[list[str]] = []  # what was marked when each round began
        self.gate = asyncio.Event()
        self.gate.set()
        self.failures: list[BaseException] = []
        self.tasks = Tasks(lambda _name, error: self.failures.append(error))

    async def work(self) -> bool:
        self.rounds += 1
        marked, self.marked = self.marked, []
        self.seen.append(marked)
        await self.gate.wait()
        result = self.results.pop(0) if self.results else True
        if isinstance(result, Exception):
            raise result
        return result


def quick() -> Backoff:
    return Backoff(0.001, 0.004)


async def at_work() -> tuple[Part, Reconciler]:
    """In its first round, which ends when the gate opens."""
    part = Part()
    part.gate.clear()
    reconciler = Reconciler(part.tasks, "part", part.work)
    reconciler.wake()
    reconciler.start()
    await until(lambda: part.rounds == 1)
    return part, reconciler


async def test_without_a_wake_there_is_nothing_to_do() -> None:
    part = Part()
    reconciler = Reconciler(part.tasks, "part", part.work)
    reconciler.start()
    await reconciler.settled()
    for _ in range(10):
        await asyncio.sleep(0)
    assert part.rounds == 0
    await reconciler.close()


async def test_each_wake_causes_a_round() -> None:
    part = Part()
    reconciler = Reconciler(part.tasks, "part", part.work)
    reconciler.wake()
    reconciler.start()
    await reconciler.settled()
    for expected in (2, 3):
        reconciler.wake()
        await reconciler.settled()
        assert part.rounds == expected
    await reconciler.close()


async def test_changes_that_arrive_during_a_round_cause_exactly_one_more() -> None:
    part, reconciler = await at_work()
    for change in ("a", "b", "c"):
        part.marked.append(change)
        reconciler.wake()
    part.gate.set()
    await reconciler.settled()
    assert part.seen == [[], ["a", "b", "c"]]
    await reconciler.close()


async def test_it_is_not_settled_before_a_round_that_began_after_the_last_wake() -> None:
    part, reconciler = await at_work()
    reconciler.wake()
    settled = part.tasks.start(reconciler.settled(), "settled")
    part.gate.set()
    await until(lambda: part.rounds == 2)
    await settled
    assert part.rounds == 2
    await reconciler.close()


async def test_what_was_woken_before_the_start_is_worked_off_at_the_start() -> None:
    part = Part()
    reconciler = Reconciler(part.tasks, "part", part.work)
    part.marked.append("early")
    reconciler.wake()
    reconciler.start()
    await reconciler.settled()
    assert part.seen == [["early"]]
    await reconciler.close()


async def test_a_round_that_failed_is_tried_again_until_it_succeeds() -> None:
    part = Part(False, False, False)
    reconciler = Reconciler(part.tasks, "part", part.work, backoff=quick())
    reconciler.wake()
    reconciler.start()
    await until(lambda: part.rounds == 4)
    await reconciler.close()
    assert part.results == []


async def test_the_pause_grows_with_each_failure_and_a_success_makes_it_the_first_again() -> None:
    part = Part(False, False, False)
    backoff = quick()
    pauses: list[float] = []

    async def work() -> bool:
        pauses.append(backoff.seconds)
        return await part.work()

    reconciler = Reconciler(part.tasks, "part", work, backoff=backoff)
    reconciler.wake()
    reconciler.start()
    await until(lambda: part.rounds == 4)
    await reconciler.close()
    assert pauses == [0.001, 0.002, 0.004, 0.004]
    assert backoff.seconds == 0.001


async def test_a_failed_round_counts_as_settled() -> None:
    part = Part(False)
    reconciler = Reconciler(part.tasks, "part", part.work, backoff=Backoff(FAR, FAR))
    reconciler.wake()
    reconciler.start()
    await reconciler.settled()
    assert part.rounds == 1
    await reconciler.close()


async def test_a_change_is_not_kept_waiting_by_the_pause_after_a_failure() -> None:
    part = Part(False)
    reconciler = Reconciler(part.tasks, "part", part.work, backoff=Backoff(FAR, FAR))
    reconciler.wake()
    reconciler.start()
    await reconciler.settled()
    reconciler.wake()
    await reconciler.settled()
    assert part.rounds == 2
    await reconciler.close()


async def test_an_exception_is_reported_under_the_tasks_name_and_everything_is_looked_at_again() -> None:
    part = Part(ValueError("bug"))
    reconciler = Reconciler(
        part.tasks, "part of it", part.work, on_restart=lambda: part.marked.append("everything")
    )
    reconciler.wake()
    reconciler.start()
    await reconciler.settled()
    assert part.seen == [[], ["everything"]]
    assert ERRORS.counts == {"task part": 1}
    assert any("task part of it" in one and "bug" in one for one in ERRORS.problems())
    assert part.failures == []
    await reconciler.close()


async def test_what_only_a_new_process_mends_ends_the_loop_and_is_handed_to_its_owner() -> None:
    part = Part(MemoryError())
    reconciler = Reconciler(part.tasks, "part", part.work)
    reconciler.wake()
    reconciler.start()
    await until(lambda: bool(part.failures))
    assert part.rounds == 1


async def test_without_a_wake_a_round_is_due_after_each_interval() -> None:
    part = Part()
    reconciler = Reconciler(part.tasks, "part", part.work, interval=0.001)
    reconciler.start()
    await until(lambda: part.rounds >= 3)
    await reconciler.close()


async def test_an_interval_that_finds_no_reason_causes_no_round() -> None:
    part = Part()
    looks: list[int] = []

    def on_interval() -> bool:
        looks.append(part.rounds)
        return len(looks) == 4

    reconciler = Reconciler(part.tasks, "part", part.work, interval=0.001, on_interval=on_interval)
    reconciler.wake()
    reconciler.start()
    await until(lambda: part.rounds == 2)
    await reconciler.close()
    assert looks[:4] == [1, 1, 1, 1]


async def test_no_round_begins_during_the_rest_after_one() -> None:
    part = Part()
    reconciler = Reconciler(part.tasks, "part", part.work, rest=FAR)
    reconciler.wake()
    reconciler.start()
    await reconciler.settled()
    reconciler.wake()
    for _ in range(10):
        await asyncio.sleep(0)
    assert part.rounds == 1
    await reconciler.close()


async def test_close_cancels_the_round_that_runs_and_waits_for_it() -> None:
    part = Part()
    ended: list[str] = []

    async def work() -> bool:
        part.rounds += 1
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cleaned up")
        return True

    reconciler = Reconciler(part.tasks, "part", work)
    reconciler.wake()
    reconciler.start()
    await until(lambda: part.rounds == 1)
    await reconciler.close()
    assert ended == ["cleaned up"]
    reconciler.wake()
    for _ in range(10):
        await asyncio.sleep(0)
    assert part.rounds == 1
    assert part.failures == []


async def test_close_before_the_start_is_allowed() -> None:
    part = Part()
    await Reconciler(part.tasks, "part", part.work).close()
    assert part.rounds == 0


async def test_a_first_round_of_the_callers_that_failed_is_tried_again_after_the_pause() -> None:
    part = Part()
    reconciler = Reconciler(part.tasks, "part", part.work, backoff=quick())
    reconciler.start(failed=True)
    await until(lambda: part.rounds == 1)
    await reconciler.close()
