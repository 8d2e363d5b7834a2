"""The endpoints of one relayed port, and what it has experienced of them: who is next. TCP and UDP alike."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from mesh.balance.candidates import candidates
from mesh.balance.outlier_detection import OutlierDetection
from mesh.balance.peak_ewma import Latency
from mesh.balance.policies import Draw, Endpoint, Policy, choose
from mesh.balance.rendezvous import Rendezvous
from mesh.balance.slow_start import Young


@dataclass(frozen=True, slots=True)
class EndpointStatus:
    """An endpoint as the port has experienced it."""

    endpoint: Endpoint
    active: int  # connections
    ejected_for: float  # seconds more


class EndpointPool:
    """`now` is the loop's time, in seconds."""

    def __init__(
        self, endpoints: Sequence[Endpoint], near: Collection[Endpoint], draw: Callable[[], float]
    ) -> None:
        self.endpoints = tuple(endpoints)
        self.current = frozenset(endpoints)
        self._near = frozenset(near)
        self._draw = draw
        self._turn = 0
        self._occupied: dict[Endpoint, int] = {}  # connections or sessions; none: not there
        self._latency = Latency()
        self._young = Young()
        self._rendezvous = Rendezvous(self.endpoints)
        self.health = OutlierDetection()

    def update_endpoints(
        self, endpoints: Sequence[Endpoint], near: Collection[Endpoint], slow_start: float, now: float
    ) -> bool:
        """These from now on, the `near` first. True: some that left are still occupied."""
        left, joined = self.current - set(endpoints), set(endpoints) - self.current
        self._near = frozenset(near)
        if left or joined:
            self.endpoints, self.current = tuple(endpoints), frozenset(endpoints)
            self._rendezvous = Rendezvous(self.endpoints)
            for known in (self.health, self._latency, self._young):
                known.keep_only(self.endpoints)
            if slow_start:
                self._young.joined(joined, now)
        return any(endpoint in self._occupied for endpoint in left)

    def pick(
        self,
        source: str,
        tried: Sequence[Endpoint],
        policy: Policy,
        slow_start: float,
        now: float,
        *,
        or_any: bool = False,
    ) -> Endpoint | None:
        """The one for this client's address; None when there is none besides `tried` (`or_any`: at all)."""
        among = candidates(self.endpoints, self._near, tried, self.health, now)
        if or_any:
            among = among or self.endpoints
        if not among:
            return None
        if slow_start and policy is not Policy.SOURCE_HASH:
            among = self._young.taking_part(among, slow_start, now, self._draw)
        self._turn += 1
        draw = Draw(
            self._turn - 1,
            self._draw,
            self._active,
            self._cost,
            lambda endpoints: self._rendezvous.choose(source, endpoints),
        )
        return choose(policy, among, draw)

    def took(self, endpoint: Endpoint, seconds: float, now: float) -> None:
        """How long it needed to be connected to, for p2c."""
        if endpoint in self.current:  # else nobody would forget it
            self._latency.observe(endpoint, seconds, now)

    def failed(self, endpoint: Endpoint, now: float) -> None:
        """It could not be reached, or says that nobody listens there."""
        if endpoint in self.current:
            self.health.failed(endpoint, now)

    def occupy(self, endpoint: Endpoint, by: int) -> None:
        """Connections or sessions that begin (1) or end (-1)."""
        if count := self._occupied.get(endpoint, 0) + by:
            self._occupied[endpoint] = count
        else:
            del self._occupied[endpoint]

    def seen(self, now: float) -> tuple[EndpointStatus, ...]:
        ejected = self.health.ejected_for
        return tuple(EndpointStatus(one, self._active(one), ejected(one, now)) for one in self.endpoints)

    def _active(self, endpoint: Endpoint) -> int:
        return self._occupied.get(endpoint, 0)

    def _cost(self, endpoint: Endpoint) -> float:
        return self._latency.cost(endpoint, self._active(endpoint))
