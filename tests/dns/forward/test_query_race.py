"""Tries one after the other and side by side: a state machine, with tries that end when they are told to."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from mesh.dns.forward.query_builder import Received
from mesh.dns.forward.query_race import Race, RaceOutcome, Try
from mesh.dns.forward.reply_parser import parse_reply
from mesh.dns.forward.route import DnsServer
from mesh.dns.forward.server_health import Turn

A, B, C = (DnsServer(f"10.0.0.{n}") for n in (1, 2, 3))
REPLY = Received(bytes(12), parse_reply(bytes(12)))
FAILED, ANSWERED = RaceOutcome(), RaceOutcome(REPLY)
NO_TIME, LONG = 0.0, 60.0  # seconds


class Course:
    """A race whose tries are told their outcome by the test."""

    def __init__(self, *turns: Turn, deadline: float = LONG, room: int = 99) -> None:
        self.tries: list[tuple[DnsServer, asyncio.Future[RaceOutcome], Try]] = []
        self.overtaken: list[DnsServer] = []
        self.finished: asyncio.Future[Received | None] = asyncio.get_running_loop().create_future()
        self._room, self._changed = room, asyncio.Event()
        self.race = Race(
            turns,
            deadline,
            self._begin,
            lambda server, _: self.overtaken.append(server),
            self.finished.set_result,
        )

    def _begin(self, server: DnsServer) -> Try | None:
        if len(self.tries) >= self._room:
            return None
        outcome: asyncio.Future[RaceOutcome] = asyncio.get_running_loop().create_future()

        async def wait() -> RaceOutcome:
            return await outcome

        self.tries.append((server, outcome, asyncio.create_task(wait())))
        self._changed.set()
        return self.tries[-1][2]

    async def until(self, *servers: DnsServer) -> None:
        """Until these have been asked, in this order."""
        async with asyncio.timeout(5):
            while len(self.tries) < len(servers):
                self._changed.clear()
                await self._changed.wait()
        assert [server for server, _, _ in self.tries] == list(servers)

    def tell(self, number: int, outcome: RaceOutcome | Exception) -> None:
        future = self.tries[number][1]
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)

    async def settled(self) -> None:
        """Until what was told has been heard."""
        for _ in range(5):
            await asyncio.sleep(0)


@pytest.fixture
async def course() -> AsyncIterator[type[Course]]:
    yield Course
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()


async def test_the_first_answer_wins_and_ends_the_others() -> None:
    course = Course(Turn(A, NO_TIME), Turn(B, LONG))
    course.race.start()
    await course.until(A, B)
    course.tell(1, ANSWERED)
    assert await course.finished is REPLY
    await course.settled()
    assert course.overtaken == [A]
    assert course.tries[0][2].cancelled()


async def test_a_slow_answer_is_taken_while_others_are_asked() -> None:
    course = Course(Turn(A, NO_TIME), Turn(A, NO_TIME), Turn(B, LONG))
    course.race.start()
    await course.until(A, A, B)
    course.tell(0, ANSWERED)
    assert await course.finished is REPLY
    assert course.overtaken == [B]


async def test_failure_begins_the_next_turn_at_once() -> None:
    course = Course(Turn(A, LONG), Turn(B, LONG))
    course.race.start()
    await course.until(A)
    course.tell(0, FAILED)
    await course.until(A, B)
    course.tell(1, ANSWERED)
    assert await course.finished is REPLY
    assert course.overtaken == []


async def test_a_failure_beside_a_newer_try_elsewhere_begins_nothing() -> None:
    course = Course(Turn(A, NO_TIME), Turn(B, LONG), Turn(C, LONG))
    course.race.start()
    await course.until(A, B)
    course.tell(0, FAILED)
    await course.settled()
    await course.until(A, B)
    course.tell(1, FAILED)
    await course.until(A, B, C)


async def test_when_a_servers_first_try_has_failed_its_second_is_not_waited_for() -> None:
    course = Course(Turn(A, NO_TIME), Turn(A, LONG), Turn(B, LONG))
    course.race.start()
    await course.until(A, A)
    course.tell(0, FAILED)
    await course.until(A, A, B)
    course.tell(1, ANSWERED)  # and yet it is taken
    assert await course.finished is REPLY


async def test_whoever_has_failed_is_not_asked_again() -> None:
    course = Course(Turn(A, LONG), Turn(A, LONG), Turn(B, LONG), Turn(A, LONG))
    course.race.start()
    course.tell(0, FAILED)
    await course.until(A, B)
    course.tell(1, FAILED)
    assert await course.finished is None
    assert len(course.tries) == 2


async def test_a_bug_in_a_try_is_a_failed_try() -> None:
    course = Course(Turn(A, LONG), Turn(B, LONG))
    course.race.start()
    course.tell(0, ZeroDivisionError())
    await course.until(A, B)


async def test_with_patience_lost_with_the_last_it_is_over() -> None:
    course = Course(Turn(A, NO_TIME), Turn(B, NO_TIME))
    course.race.start()
    assert await course.finished is None
    await course.settled()
    assert [server for server, _, _ in course.tries] == [A, B]
    assert all(task.cancelled() for _, _, task in course.tries)
    assert course.overtaken == []


async def test_at_the_deadline_everything_ends() -> None:
    course = Course(Turn(A, NO_TIME), Turn(B, LONG), deadline=0.01)
    course.race.start()
    assert await course.finished is None


async def test_when_its_tries_are_cancelled_nothing_new_begins() -> None:
    course = Course(Turn(A, LONG), Turn(B, LONG))
    course.race.start()
    course.tries[0][2].cancel()
    assert await course.finished is None
    assert len(course.tries) == 1


@pytest.mark.parametrize("turns", [(), (Turn(A, LONG), Turn(B, NO_TIME))])
async def test_with_nobody_to_ask_it_ends_at_once(turns: tuple[Turn, ...]) -> None:
    course = Course(*turns, room=0)
    course.race.start()
    assert course.finished.result() is None


async def test_turns_without_room_are_passed_over() -> None:
    course = Course(Turn(A, LONG), Turn(B, LONG), room=1)
    course.race.start()
    course.tell(0, FAILED)
    assert await course.finished is None
    assert len(course.tries) == 1
