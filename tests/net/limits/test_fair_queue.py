"""Turns of owners and their clients."""

from mesh.net.limits.fair_queue import FairQueue


def queue(*jobs: str, places: int = 8, per_owner: int = 6, per_client: int = 4) -> FairQueue[str]:
    """A job is named by owner, client and a number."""
    made: FairQueue[str] = FairQueue(places, per_owner, per_client)
    for job in jobs:
        assert made.has_room(job[0], job[1])
        made.put(job, job[0], job[1])
    return made


def turns(made: FairQueue[str]) -> list[str]:
    found = []
    while (job := made.take()) is not None:
        found.append(job)
    return found


def test_owners_take_turns_and_within_each_its_clients() -> None:
    made = queue("ax1", "ax2", "ax3", "by1", "ay1", "ay2", "bz1")
    assert turns(made) == ["ax1", "by1", "ay1", "bz1", "ax2", "ay2", "ax3"]
    assert len(made) == 0


def test_a_client_and_an_owner_have_their_shares() -> None:
    made = queue("ax1", "ax2", "ax3", "ax4", "ay1")
    assert not made.has_room("a", "x")
    assert made.has_room("a", "y")
    made.put("ay2", "a", "y")
    assert not made.has_room("a", "z")
    assert made.has_room("b", "x")


def test_whoever_has_the_most_gives_way() -> None:
    made = queue("ax1", "ax2", "ax3", "ay1", "by1", "by2", "by3", "by4")
    assert made.has_room("c", "x")
    assert made.put("cx1", "c", "x") in ("ax1", "by1")
    assert len(made) == 8
    assert "cx1" in turns(made)


def test_what_is_dropped_takes_no_place() -> None:
    made = queue("ax1", "ax2", "by1")
    assert made.drop("ax1")
    assert not made.drop("ax1")
    assert turns(made) == ["ax2", "by1"]
    assert made.has_room("a", "x")
