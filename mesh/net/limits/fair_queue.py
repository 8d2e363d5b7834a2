"""Work that waits for its turn, so that nobody's work waits for somebody else's flood. Pure.

Owners (services) take turns, and within an owner its clients do. Each has a share of the places. When all are
taken, whoever has the most gives way first, its oldest job first.
"""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

from mesh.net.limits.fair_shares import FairShares

Job = TypeVar("Job", bound=Hashable)


class FairQueue(Generic[Job]):
    """Places: `places` for all, `per_owner`, and `per_client` of an owner."""

    def __init__(self, places: int, per_owner: int, per_client: int) -> None:
        self._per_client = per_client
        self._owners: FairShares[str, Job] = FairShares(places, per_owner)
        # Owners in the order of their turns, of each its clients likewise, of each its jobs.
        self._turns: OrderedDict[str, OrderedDict[str, OrderedDict[Job, None]]] = OrderedDict()
        self._of: dict[Job, tuple[str, str]] = {}

    def __len__(self) -> int:
        return len(self._of)

    def has_room(self, owner: str, client: str) -> bool:
        """May one more wait, if need be in place of another owner's?"""
        clients = self._turns.get(owner)
        if clients is not None and len(clients.get(client, ())) >= self._per_client:
            return False
        if self._owners.has_its_share(owner):
            return False
        return not self._owners.full or self._owners.to_give_way(owner) is not None

    def put(self, job: Job, owner: str, client: str) -> Job | None:
        """The last in its client's line; call it if there `has_room`. Returns who had to give way for it."""
        displaced = self._owners.to_give_way(owner) if self._owners.full else None
        if displaced is not None:
            self.drop(displaced)
        self._owners.add(owner, job)
        self._of[job] = (owner, client)
        self._turns.setdefault(owner, OrderedDict()).setdefault(client, OrderedDict())[job] = None
        return displaced

    def take(self) -> Job | None:
        """Whose turn it is; None: nothing waits."""
        if not self._turns:
            return None
        owner, clients = next(iter(self._turns.items()))
        client, jobs = next(iter(clients.items()))
        job = next(iter(jobs))
        self.drop(job)
        if client in clients:
            clients.move_to_end(client)
        if owner in self._turns:
            self._turns.move_to_end(owner)
        return job

    def drop(self, job: Job) -> bool:
        """It need not be done any more. False: it does not wait."""
        place = self._of.pop(job, None)
        if place is None:
            return False
        owner, client = place
        self._owners.remove(job)
        clients = self._turns[owner]
        del clients[client][job]
        if not clients[client]:
            del clients[client]
        if not clients:
            del self._turns[owner]
        return True
