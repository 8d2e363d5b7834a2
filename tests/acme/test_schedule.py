"""When a certificate is due, and when what failed is tried again."""

from mesh.acme.schedule import (
    CERTIFICATES_MAX,
    FIRST_PAUSE,
    LAST_PAUSE,
    LATELY,
    ORDERS_KEPT,
    ORDERS_MAX,
    Life,
    Schedule,
    orderable,
    why_not,
)

A, B = ("a.example",), ("b.example", "c.example")
DAY = 86400.0


def test_missing_ones_are_due_at_once_and_before_those_that_end() -> None:
    have = {A: Life(0.0, 90 * DAY)}
    assert Schedule().due([A, B], have, 0.0) == [B]
    assert Schedule().due([A, B], have, 80 * DAY) == [B, A]
    assert Schedule().next([A, B], have) == 0.0


def test_a_third_of_the_life_before_the_end() -> None:
    for days in (90, 45, 6):
        have, renewal = {A: Life(1000.0, 1000.0 + days * DAY)}, 1000.0 + days * DAY * 2 / 3
        assert Schedule().due([A], have, renewal - 1) == []
        assert Schedule().due([A], have, renewal) == [A]
        assert Schedule().next([A], have) == renewal


def test_failures_take_ever_longer() -> None:
    schedule, now, pauses = Schedule(), 0.0, []
    for _ in range(10):
        schedule.failed(A, "refused", now)
        at = schedule.next([A], {})
        assert at is not None
        assert schedule.due([A], {}, at - 0.1) == []
        assert schedule.due([A], {}, at) == [A]
        pauses.append(at - now)
        now = at
    assert pauses[:3] == [FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE]
    assert pauses[-1] == LAST_PAUSE
    assert sum(1 for one in range(5) if sum(pauses[:one]) < 3600) < 5, "as many as are allowed in an hour"
    schedule.done(A)
    assert schedule.next([A], {}) == 0.0
    assert schedule.failures() == {}


def test_a_renewal_that_failed_waits_as_well() -> None:
    schedule, have = Schedule(), {A: Life(0.0, 90 * DAY)}
    schedule.failed(A, "refused", 61 * DAY)
    assert schedule.due([A], have, 61 * DAY) == []
    assert schedule.due([A], have, 61 * DAY + FIRST_PAUSE) == [A]


def test_what_nobody_wants_any_more_is_forgotten() -> None:
    schedule = Schedule()
    schedule.failed(A, "refused", 0.0)
    assert schedule.due([B], {}, 1.0) == [B]
    assert schedule.due([A], {}, 1.0) == [A]


def test_what_cannot_be_ordered() -> None:
    assert "no host" in why_not(())
    assert "wildcard" in why_not(("*.a.example", "a.example"))
    assert "more than 100" in why_not(tuple(f"{one}.example" for one in range(101)))
    assert why_not(B) == ""
    assert Schedule().due([(), ("*.a.example",)], {}, 0.0) == []
    many = [(f"{one}.example",) for one in range(CERTIFICATES_MAX + 5)]
    assert len(Schedule().due(many, {}, 0.0)) == CERTIFICATES_MAX


OF_EVIL = [(f"a{one:04}.evil.example",) for one in range(1200)]
OF_GOOD = [("zoo.example",), ("zoo2.example",)]


def owner(names: tuple[str, ...]) -> str:
    return "evil" if "evil" in names[0] else "good"


def test_a_thousand_names_of_one_stack_delay_anothers_first_by_one_order() -> None:
    schedule = Schedule(owner)
    have: dict[tuple[str, ...], Life] = {}
    wanted, ordered = list(OF_EVIL), []
    for turn in range(20):
        if turn == 10:
            wanted += OF_GOOD
        now = turn * 10.0
        names = schedule.due(wanted, have, now)[0]
        schedule.ordered(names, now)
        have[names] = Life(now, now + 90 * DAY)
        ordered.append(names)
    assert ordered[10:12] == OF_GOOD
    assert all(names in OF_EVIL for names in ordered[12:])


def test_those_that_fail_take_their_turn_as_well() -> None:
    schedule, now = Schedule(owner), 0.0
    for _ in range(5):
        names = schedule.due(OF_EVIL, {}, now)[0]
        schedule.ordered(names, now)
        schedule.failed(names, "refused", now)
    assert schedule.due([*OF_EVIL, *OF_GOOD], {}, now)[:2] == OF_GOOD


def test_one_stack_does_not_use_up_what_the_authority_allows() -> None:
    schedule = Schedule(owner)
    have: dict[tuple[str, ...], Life] = {}
    now = 0.0
    while due := schedule.due(OF_EVIL, have, now):
        schedule.ordered(due[0], now)
        have[due[0]] = Life(now, now + 90 * DAY)
    assert len(have) == ORDERS_MAX - ORDERS_KEPT
    missing = next(names for names in OF_EVIL if names not in have)
    assert schedule.waits_for_its_turn(missing, OF_EVIL)
    assert schedule.due([*OF_EVIL, *OF_GOOD], have, now) == OF_GOOD
    assert schedule.next(OF_EVIL, have) == LATELY
    assert schedule.due(OF_EVIL, have, LATELY)[0] == missing


def test_each_stack_has_its_part_of_those_that_are_looked_after() -> None:
    found = orderable([*OF_EVIL, *OF_GOOD], owner)
    assert len(found) == CERTIFICATES_MAX
    assert set(OF_GOOD) <= set(found)
