"""A number of things that may be under way at once."""


class Room:
    def __init__(self, most: int) -> None:
        self._left = most

    def take(self) -> bool:
        """False: there is no room for another one."""
        if not self._left:
            return False
        self._left -= 1
        return True

    def give_back(self) -> None:
        self._left += 1
