"""Who goes first, without a socket or a clock."""

from hypothesis import given
from hypothesis import strategies as st

from mesh.dns.connection_limiter import ConnectionLimiter, ConnectionLimits, Wait

LIMITS = ConnectionLimits(connections=4, per_asker=3, idle=10.0, idle_crowded=2.0)


def crowd(*askers: str) -> ConnectionLimiter[str]:
    """Connections `a0`, `b1`, … of askers `a`, `b`, …, each a second after the other."""
    made: ConnectionLimiter[str] = ConnectionLimiter(LIMITS)
    for n, asker in enumerate(askers):
        made.add(f"{asker}{n}", asker, float(n))
    return made


def test_the_longest_idle_is_spared_first() -> None:
    of_four = crowd("a", "a", "b", "c")
    assert of_four.full("d")
    assert of_four.to_spare("d") == "a0"
    of_four.waits("a0", Wait.QUERY, 5.0, progress=True)
    assert of_four.to_spare("d") == "a1"


def test_without_progress_idleness_goes_on() -> None:
    of_two = crowd("a", "b")
    of_two.waits("a0", Wait.QUERY, 5.0, progress=False)
    assert of_two.to_spare() == "a0"


def test_who_does_not_take_replies_comes_after_the_idle_and_who_waits_for_an_upstream_stays() -> None:
    of_three = crowd("a", "b", "c")
    of_three.waits("a0", Wait.UPSTREAM, 3.0, progress=True)
    of_three.waits("b1", Wait.TAKING, 3.0, progress=True)
    assert of_three.to_spare() == "c2"
    of_three.remove("c2")
    assert of_three.to_spare() == "b1"
    of_three.remove("b1")
    assert of_three.to_spare() is None


def test_whoever_has_its_share_replaces_its_own() -> None:
    of_four = crowd("b", "a", "a", "a")
    assert of_four.to_spare("a") == "a1"
    assert of_four.to_spare("c") == "b0"
    for own in ("a1", "a2", "a3"):
        of_four.waits(own, Wait.UPSTREAM, 5.0, progress=True)
    assert of_four.to_spare("a") is None
    assert of_four.to_spare("c") == "b0"


def test_patience_ends_sooner_in_a_crowd_and_comes_back_when_some_have_gone() -> None:
    of_four = crowd("a", "a", "b", "c")
    assert of_four.crowded
    assert of_four.next_due() == 2.0
    assert of_four.overdue(1.9) is None
    assert of_four.overdue(2.0) == ("a0", Wait.QUERY)
    of_four.remove("a0")
    assert of_four.overdue(9.0) is None
    assert of_four.next_due() == 11.0


def test_upstreams_are_given_all_the_time_they_need() -> None:
    of_one = crowd("a")
    of_one.waits("a0", Wait.UPSTREAM, 0.0, progress=True)
    assert of_one.next_due() is None
    assert of_one.overdue(1e9) is None


KINDS = st.sampled_from(["add", "remove", *Wait])
STEPS = st.lists(st.tuples(KINDS, st.integers(0, 5), st.sampled_from("abc"), st.booleans()))


@given(STEPS)
def test_the_limits_hold_and_nothing_is_left_behind(steps: list[tuple[str | Wait, int, str, bool]]) -> None:
    seen: ConnectionLimiter[int] = ConnectionLimiter(LIMITS)
    here: dict[int, str] = {}
    for now, (step, which, asker, progress) in enumerate(steps):
        chosen = sorted(here)[which % len(here)] if here else None
        if step == "add":
            if seen.full(asker):
                chosen = seen.to_spare(asker)
                if chosen is None:
                    continue
                seen.remove(chosen)
                del here[chosen]
            seen.add(now, asker, float(now))
            here[now] = asker
        elif chosen is not None and isinstance(step, Wait):
            seen.waits(chosen, step, float(now), progress=progress)
        elif chosen is not None:
            seen.remove(chosen)
            del here[chosen]
        assert set(seen) == set(here)
        assert len(seen) <= LIMITS.connections
        assert all(list(here.values()).count(one) <= LIMITS.per_asker for one in here.values())
        assert seen.askers == len(set(here.values()))
        due = seen.next_due()
        assert (due is None) == (seen.to_spare() is None)
        if due is not None:
            assert seen.overdue(due) is not None
