"""Slots: everybody's share, and how little moves when a task comes or goes."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from mesh.balance.hash_slots import HASH_SLOTS, NOBODY, Choice, SlotDraw, choice, nearest
from mesh.balance.policies import Policy

TASKS = tuple(f"10.0.0.{n}" for n in range(2, 12))
some = st.lists(st.sampled_from(TASKS), min_size=2, unique=True)


def test_in_turn_and_at_random_each_has_one_slot() -> None:
    assert choice(Policy.ROUND_ROBIN, TASKS) == Choice(TASKS, SlotDraw.TURN)
    assert choice(Policy.RANDOM, TASKS) == Choice(TASKS, SlotDraw.RANDOM)
    assert choice(Policy.LEAST_CONN, TASKS) == Choice(
        TASKS, SlotDraw.TURN
    )  # the kernel counts no connections
    assert choice(Policy.SOURCE_HASH, TASKS[:1]) == Choice(TASKS[:1], SlotDraw.HASH)
    assert choice(Policy.RANDOM, ()).slots == NOBODY.slots


def test_by_hash_shares_are_alike() -> None:
    shares = Counter(choice(Policy.SOURCE_HASH, TASKS).slots)
    assert sum(shares.values()) == HASH_SLOTS
    assert min(shares.values()) > HASH_SLOTS / len(TASKS) * 0.7
    assert max(shares.values()) < HASH_SLOTS / len(TASKS) * 1.3


@given(some)
def test_when_a_task_goes_only_its_own_clients_move(tasks: list[str]) -> None:
    before = choice(Policy.SOURCE_HASH, tasks).slots
    after = choice(Policy.SOURCE_HASH, tasks[1:]).slots * (HASH_SLOTS if len(tasks) == 2 else 1)
    assert all(b == a for b, a in zip(before, after, strict=True) if b != tasks[0])


@given(some)
def test_all_nodes_agree_whatever_the_order(tasks: list[str]) -> None:
    assert choice(Policy.SOURCE_HASH, tasks).slots == choice(Policy.SOURCE_HASH, tasks[::-1]).slots


def test_nearest_are_those_here_or_else_all() -> None:
    assert nearest(("a", "b", "c"), {"b", "x"}) == ["b"]
    assert nearest(("a", "b"), ()) == ("a", "b")
