"""Places that owners share: none has what others need."""

from mesh.net.limits.semaphore import Semaphore, SharedRoom


def taken(room: SharedRoom, owner: str) -> int:
    share, count = room.share(owner), 0
    while share.take():
        count += 1
    return count


def test_a_room_has_so_many_places() -> None:
    room = Semaphore(1)
    assert room.take()
    assert not room.take()
    room.give_back()
    assert room.take()


def test_one_owner_gets_half_and_others_find_a_place() -> None:
    room = SharedRoom(Semaphore(64))
    assert taken(room, "a") == 32
    assert taken(room, "b") == 16
    assert taken(room, "c") == 8
    assert room.take("d")
    for _ in range(32):
        room.give_back("a")
    assert len(room) == 3
    assert taken(room, "a") > 8


def test_one_place_is_somebodys() -> None:
    room = SharedRoom(Semaphore(1))
    assert room.take("a")
    assert not room.take("b")
    room.give_back("a")
    assert room.take("b")
