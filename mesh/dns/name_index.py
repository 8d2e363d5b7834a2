"""Key → owners, for what nearly always has one owner."""

from collections.abc import Collection, Iterable
from typing import TypeAlias

# Plain tuples of strings, since the garbage collector passes over them: kind, id, and of a task also its own
# id, of another node's container its key.
Owner: TypeAlias = tuple[str, str, str]
Keys: TypeAlias = tuple[Collection[str], Collection[str]]  # lower-case names, and addresses


class Index:
    """A single owner stands there itself; a dictionary keeps many of them cheap to add and to remove."""

    def __init__(self) -> None:
        self._owners: dict[str, Owner | dict[Owner, None]] = {}

    def __len__(self) -> int:
        return len(self._owners)

    def keys(self) -> Iterable[str]:
        return self._owners.keys()

    def owners(self, key: str) -> Collection[Owner]:
        """In an order that does not depend on history."""
        found = self._owners.get(key)
        if found is None:
            return ()
        return sorted(found) if isinstance(found, dict) else (found,)

    def move(self, owner: Owner, before: Collection[str], after: Collection[str]) -> None:
        """The owner stood under some keys and stands under others now."""
        for key in before:
            if key not in after:
                self._remove(owner, key)
        for key in after:
            if key not in before:
                self._add(owner, key)

    def _add(self, owner: Owner, key: str) -> None:
        found = self._owners.setdefault(key, owner)
        if isinstance(found, dict):
            found[owner] = None
        elif found is not owner:
            self._owners[key] = {found: None, owner: None}

    def _remove(self, owner: Owner, key: str) -> None:
        found = self._owners[key]
        if not isinstance(found, dict):
            del self._owners[key]
            return
        del found[owner]
        if len(found) == 1:
            self._owners[key] = next(iter(found))


class NetworkIndex:
    """The names and addresses of one network. `swarm`: it is the Swarm's, not this node's own."""

    def __init__(self, *, swarm: bool) -> None:
        self.swarm = swarm
        self.names, self.addresses = Index(), Index()

    def __len__(self) -> int:
        return len(self.names) + len(self.addresses)

    def move(self, owner: Owner, before: Keys, after: Keys) -> None:
        self.names.move(owner, before[0], after[0])
        self.addresses.move(owner, before[1], after[1])
