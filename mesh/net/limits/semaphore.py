"""A number of things that may be under way at once."""

from collections import Counter
from typing import Protocol


class Places(Protocol):
    def take(self) -> bool:
        """False: there is no room for another one."""
        ...

    def give_back(self) -> None: ...


class Semaphore:
    def __init__(self, most: int) -> None:
        self._left = most

    @property
    def left(self) -> int:
        """Free places."""
        return self._left

    def take(self) -> bool:
        """False: there is no room for another one."""
        if not self._left:
            return False
        self._left -= 1
        return True

    def give_back(self) -> None:
        self._left += 1

    def share(self, _owner: str) -> "Semaphore":
        """All of it is everybody's."""
        return self


class SharedRoom:
    """Owners share a room: each may have as many as are still free. One alone gets half of them, and as long
    as there are few greedy ones a newcomer finds a place (a dynamic threshold, as switches share buffers)."""

    def __init__(self, room: Semaphore) -> None:
        self._room = room
        self._taken: Counter[str] = Counter()

    def share(self, owner: str) -> "SemaphoreShare":
        return SemaphoreShare(self, owner)

    def take(self, owner: str) -> bool:
        """False: there is no room for another one of this owner."""
        if self._taken[owner] >= self._room.left or not self._room.take():
            return False
        self._taken[owner] += 1
        return True

    def give_back(self, owner: str) -> None:
        self._room.give_back()
        self._taken[owner] -= 1
        if not self._taken[owner]:
            del self._taken[owner]

    def __len__(self) -> int:
        """Owners that have any."""
        return len(self._taken)


class SemaphoreShare:
    """One owner's part of a `SharedRoom`."""

    __slots__ = ("_owner", "_room")

    def __init__(self, room: SharedRoom, owner: str) -> None:
        self._room, self._owner = room, owner

    def take(self) -> bool:
        """False: there is no room for another one."""
        return self._room.take(self._owner)

    def give_back(self) -> None:
        self._room.give_back(self._owner)
